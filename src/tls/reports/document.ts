/** A TLS report as JSON (RFC 8460, section 4.4), from what was counted. */
import type { FailureTally, PolicyTally } from "../../../events/projections/tls_reports.ts";

export interface ReportFacts {
  /** Whose report it is: the recipient domain. */
  readonly domain: string;
  /** UTC, YYYY-MM-DD. */
  readonly day: string;
  /** Our host name. */
  readonly submitter: string;
  readonly policies: readonly PolicyTally[];
}

/** The same for every attempt to send the same report. */
export const reportIdentity = ({ day, domain, submitter }: Omit<ReportFacts, "policies">): string =>
  `${day}.${domain}@${submitter}`;

export function reportDocument(facts: ReportFacts) {
  const { day, submitter, policies } = facts;
  return {
    "organization-name": submitter,
    "date-range": {
      "start-datetime": `${day}T00:00:00Z`,
      "end-datetime": `${day}T23:59:59Z`,
    },
    "contact-info": `postmaster@${submitter}`,
    "report-id": reportIdentity(facts),
    policies: policies.map(({ type, domain, lines, mx, ok, failed, failures }) => ({
      policy: {
        "policy-type": type,
        ...(lines.length > 0 ? { "policy-string": lines } : {}),
        "policy-domain": domain,
        ...(mx && mx.length > 0 ? { "mx-host": mx } : {}),
      },
      summary: {
        "total-successful-session-count": ok,
        "total-failure-session-count": failed,
      },
      ...(failures.length > 0 ? { "failure-details": failures.map(failureDetails) } : {}),
    })),
  };
}

function failureDetails({ type, host, address, local, info, count }: FailureTally) {
  return {
    "result-type": type,
    ...(local === undefined ? {} : { "sending-mta-ip": local }),
    ...(host === undefined ? {} : { "receiving-mx-hostname": host }),
    ...(address === undefined ? {} : { "receiving-ip": address }),
    "failed-session-count": count,
    ...(info === undefined ? {} : { "failure-reason-code": info }),
  };
}

/** `submitter!domain!begin!end.json.gz` (RFC 8460, section 5.1); times in seconds. */
export function reportFileName({ submitter, domain, day }: Omit<ReportFacts, "policies">): string {
  const begin = Date.parse(`${day}T00:00:00Z`) / 1_000;
  return `${submitter}!${domain}!${begin}!${begin + 86_399}.json.gz`;
}

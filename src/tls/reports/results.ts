/**
 * What a session, or a host that was not dialled, is for the TLS report to its domain: a success
 * or a failure under each of the policies that it was made under (RFC 8460, section 4). Pure.
 *
 * Counted are attempts at TLS sessions: not messages over a kept session, not plain text that was
 * fallen back to, not connections that ended before TLS could be spoken of.
 */
import type { EventData } from "../../../events/catalogue.ts";
import { policyLines } from "../mta_sts_policy.ts";
import type { MtaStsFinding } from "../requirements.ts";

export type TlsReportEntry = NonNullable<EventData<"HostTried">["tlsReport"]>;
type Result = TlsReportEntry["results"][number];

/** A policy that a session is made under. */
export interface ReportedPolicy extends Omit<Result, "failure"> {
  /** It is looked at, and nothing depends on what comes of it. */
  readonly testing?: true;
  /** It failed before there was a session. */
  readonly failure?: Result["failure"];
}

export interface Reporting {
  /** Domain of the recipient, as A-labels in lower case. */
  readonly domain: string;
  readonly policies: readonly ReportedPolicy[];
}

/** The policies that hold for a host, from what was found out about it. */
export function reportedPolicies(
  domain: string,
  mtaSts: MtaStsFinding | undefined,
  gathered: EventData<"TLSAGathered">,
): Reporting {
  const policies: ReportedPolicy[] = [];
  const { tlsa, base = gathered.host, records, daneRequired, verdict } = gathered;
  if (tlsa === "records") {
    const lines = records.map(({ usage, selector, matching, data }) =>
      `${usage} ${selector} ${matching} ${data}`
    );
    const unusable = daneRequired ? {} : { failure: "tlsa-invalid" as const };
    policies.push({ type: "tlsa", domain: base, lines, ...unusable });
  }
  if (tlsa === "failed") {
    policies.push({ type: "tlsa", domain: base, lines: [], failure: "dnssec-invalid" });
  }
  // Where DANE is what a session is judged by, an enforced policy is not found out about.
  if (mtaSts?.status === "policy" && mtaSts.mode !== "none") {
    const sts = { type: "sts", domain: mtaSts.domain, lines: policyLines(mtaSts) } as const;
    const mx = [...mtaSts.mx];
    if (mtaSts.mode === "testing") policies.push({ ...sts, mx, testing: true });
    else if (verdict === "skip") policies.push({ ...sts, mx, failure: "validation-failure" });
    else if (!daneRequired && tlsa !== "failed") policies.push({ ...sts, mx });
  }
  if (policies.length === 0) policies.push({ type: "no-policy-found", domain, lines: [] });
  return { domain, policies };
}

/** For a host that is not dialled; undefined where no policy of its is the reason. */
export function undialedResults({ domain, policies }: Reporting): TlsReportEntry | undefined {
  const results = policies.flatMap((policy) => policy.failure ? [resultOf(policy)] : []);
  return results.length > 0 ? { domain, results } : undefined;
}

type Session = Pick<
  EventData<"HostTried">,
  "tlsMode" | "tls" | "tlsFailure" | "testing" | "extensions" | "reused"
>;

/** @param offered what was asked of the session: no STARTTLS is asked for in mode `none` */
export function sessionResults(
  { domain, policies }: Reporting,
  offered: Session["tlsMode"],
  { tls, tlsFailure, testing, extensions, reused }: Session,
): TlsReportEntry | undefined {
  if (offered === "none" || reused) return undefined;
  const greeted = extensions !== undefined && !extensions.includes("STARTTLS");
  const none = !tls && greeted ? "starttls-not-supported" as const : undefined;
  const failure = typeOf(tlsFailure) ?? none;
  if (!tls && failure === undefined) return undefined;
  const results = policies.map((policy) => {
    const observed = policy.testing && tls
      ? testing?.ok === false ? testing.type ?? "validation-failure" : undefined
      : failure;
    const found = observed ?? policy.failure;
    return resultOf({ ...policy, failure: found });
  });
  return { domain, results };
}

const typeOf = (tlsFailure: string | undefined): Result["failure"] =>
  tlsFailure as Result["failure"];

function resultOf(
  { type, domain, lines, mx, failure }:
    & Omit<ReportedPolicy, "failure">
    & { readonly failure?: Result["failure"] | undefined },
): Result {
  return {
    type,
    domain,
    lines: [...lines],
    ...(mx ? { mx: [...mx] } : {}),
    ...(failure === undefined ? {} : { failure }),
  };
}

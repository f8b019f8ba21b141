/**
 * The projection of TLS reports (RFC 8460): a row per recipient domain and UTC day with what the
 * report about it will say. A row goes when the report was sent, or has nowhere to go: events of
 * messages of that day, which have made the row, must not outlive the event that says so.
 */
import type { EventData, StoredEvent } from "../catalogue.ts";
import { dayStream } from "../day_streams.ts";
import type { Projection } from "../projection.ts";

export type TlsReportRow = {
  /** Day, blank, domain: rows sort by day. */
  readonly id: string;
  readonly day: string;
  readonly domain: string;
  /** `started`: it is being handed over by HTTPS, or was when the process ended. */
  readonly state: "open" | "started";
  /** PolicyTally[] as JSON. */
  readonly policies: string;
  /** Where it will stand what became of the report. */
  readonly stream: string;
};

const KIND = "tls-report";

/** The stream of a report: that of the day which it is about. */
export const reportStream = (domain: string, day: string): string =>
  dayStream(KIND, domain, Date.parse(day));

type Result = NonNullable<EventData<"HostTried">["tlsReport"]>["results"][number];

export interface PolicyTally extends Omit<Result, "failure"> {
  ok: number;
  failed: number;
  failures: FailureTally[];
}

/** Failures that are equal but for their number. */
export interface FailureTally {
  readonly type: NonNullable<Result["failure"]>;
  readonly host?: string;
  readonly address?: string;
  readonly local?: string;
  readonly info?: string;
  count: number;
}

/** Beyond these a report counts without details. */
export const MAX_POLICIES = 32;
export const MAX_FAILURES = 100;
const MAX_INFO = 300;

export const reportId = (day: string, domain: string): string => `${day} ${domain}`;

export const tlsReportsProjection: Projection<TlsReportRow> = {
  name: "tls_reports",
  version: 2,
  columns: {
    id: "TEXT",
    day: "TEXT",
    domain: "TEXT",
    state: "TEXT",
    policies: "TEXT",
    stream: "TEXT",
  },
  indexes: { tls_reports_stream: "(stream)" },
  key,
  apply,
  days: { kind: KIND, from: "stream", answersMessages: true },
};

const dayOf = (event: StoredEvent): string => event.time.slice(0, 10);

function key(event: StoredEvent): string | undefined {
  switch (event.type) {
    case "HostTried":
    case "TLSAGathered":
      return event.data.tlsReport && reportId(dayOf(event), event.data.tlsReport.domain);
    case "DestinationsResolved":
      return policyFailure(event.data) && reportId(dayOf(event), event.data.nextHop);
    case "TLSReportStarted":
    case "TLSReportSent":
      return reportId(event.data.day, event.data.domain);
    default:
      return undefined;
  }
}

/** A policy that could not be fetched, and what was wrong with it. */
function policyFailure({ mtaSts }: EventData<"DestinationsResolved">) {
  if (mtaSts?.status !== "policy" && mtaSts?.status !== "error") return undefined;
  const { domain, failure, why } = mtaSts;
  return failure && { result: { type: "sts" as const, domain, lines: [], failure }, why };
}

function apply(row: TlsReportRow | undefined, event: StoredEvent): TlsReportRow | undefined {
  switch (event.type) {
    case "TLSReportSent":
      return undefined;
    case "TLSReportStarted":
      return row && { ...row, state: "started" };
    case "DestinationsResolved": {
      const failed = policyFailure(event.data);
      if (!failed) return row;
      const about = failed.why === undefined ? {} : { info: failed.why };
      return counted(row, event, event.data.nextHop, [failed.result], about);
    }
    case "TLSAGathered": {
      const { tlsReport, host, why } = event.data;
      if (!tlsReport) return row;
      const info = why.at(-1);
      const about = { host, ...(info === undefined ? {} : { info }) };
      return counted(row, event, tlsReport.domain, tlsReport.results, about);
    }
    case "HostTried": {
      const { tlsReport, host, address, local, error } = event.data;
      if (!tlsReport) return row;
      const about = {
        host,
        ...(address === undefined ? {} : { address }),
        ...(local === undefined ? {} : { local }),
        ...(error === undefined ? {} : { info: error }),
      };
      return counted(row, event, tlsReport.domain, tlsReport.results, about);
    }
    default:
      return row;
  }
}

function counted(
  row: TlsReportRow | undefined,
  event: StoredEvent,
  domain: string,
  results: readonly Result[],
  about: Omit<FailureTally, "type" | "count">,
): TlsReportRow {
  const day = dayOf(event);
  const policies = row ? JSON.parse(row.policies) as PolicyTally[] : [];
  for (const result of results) count(policies, result, about);
  const state = row?.state ?? "open";
  const id = reportId(day, domain);
  const stream = reportStream(domain, day);
  return { id, day, domain, state, policies: JSON.stringify(policies), stream };
}

function count(
  policies: PolicyTally[],
  { failure, ...policy }: Result,
  about: Omit<FailureTally, "type" | "count">,
): void {
  let tally = policies.find((one) => samePolicy(one, policy));
  if (!tally) {
    if (policies.length >= MAX_POLICIES) return;
    policies.push(tally = { ...policy, ok: 0, failed: 0, failures: [] });
  }
  if (failure === undefined) {
    tally.ok++;
    return;
  }
  tally.failed++;
  const info = about.info?.slice(0, MAX_INFO);
  const one = { type: failure, ...about, ...(info === undefined ? {} : { info }) };
  const known = tally.failures.find((other) =>
    other.type === one.type && other.host === one.host && other.address === one.address &&
    other.local === one.local && other.info === one.info
  );
  if (known) known.count++;
  else if (tally.failures.length < MAX_FAILURES) tally.failures.push({ ...one, count: 1 });
}

const samePolicy = (a: Omit<Result, "failure">, b: Omit<Result, "failure">): boolean =>
  a.type === b.type && a.domain === b.domain && a.lines.join("\n") === b.lines.join("\n");

/**
 * The MTA-STS projection: the last policy that was fetched of each domain, so that a restart
 * forgets none (RFC 8461, section 3.3: a policy stays in force for its max_age).
 */
import type { StoredEvent } from "../catalogue.ts";
import { dayStream } from "../day_streams.ts";
import type { Projection } from "../projection.ts";

const KIND = "mta-sts";

export type MtaStsRow = {
  readonly domain: string;
  readonly id: string;
  readonly mode: "enforce" | "testing" | "none";
  /** Patterns, a blank between them. */
  readonly mx: string;
  /** Seconds. */
  readonly max_age: number;
  /** Epoch milliseconds. */
  readonly fetched: number;
  /** Where the event stands. */
  readonly stream: string;
};

/** The stream on which a policy is stored that is fetched now. */
export const policyStream = (domain: string, now: number, row?: MtaStsRow): string =>
  dayStream(KIND, domain, now, row?.stream);

export const mtaStsProjection: Projection<MtaStsRow> = {
  name: "mta_sts",
  version: 2,
  columns: {
    domain: "TEXT",
    id: "TEXT",
    mode: "TEXT",
    mx: "TEXT",
    max_age: "INTEGER",
    fetched: "INTEGER",
    stream: "TEXT",
  },
  indexes: { mta_sts_stream: "(stream)" },
  key: (event) => event.type === "MtaStsPolicyStored" ? event.data.domain : undefined,
  apply,
  days: { kind: KIND, from: "stream", until: ({ fetched, max_age }) => fetched + max_age * 1000 },
};

function apply(row: MtaStsRow | undefined, event: StoredEvent): MtaStsRow | undefined {
  if (event.type !== "MtaStsPolicyStored") return row;
  const { domain, id, mode, mx, maxAge } = event.data;
  const fetched = Date.parse(event.time);
  return { domain, id, mode, mx: mx.join(" "), max_age: maxAge, fetched, stream: event.stream };
}

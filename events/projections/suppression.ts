/**
 * The suppression projection: one row per address that new mail is refused to, of one account or
 * of everybody. A row whose time is over counts no more, and stays until it is replaced or lifted, or
 * until its stream is archived.
 */
import type { StoredEvent } from "../catalogue.ts";
import { dayStream } from "../day_streams.ts";
import type { Projection } from "../projection.ts";

export type SuppressionRow = {
  readonly id: string;
  readonly address: string;
  /** Null: of everybody. */
  readonly account: string | null;
  readonly cause: "bounce" | "complaint" | "manual";
  readonly who: string;
  readonly why: string;
  /** For a bounce: the stream of the message that failed. */
  readonly message: string | null;
  /** Times are epoch milliseconds. */
  readonly since: number;
  readonly expires: number | null;
  /** Where the event stands that put it there. */
  readonly stream: string;
};

const KIND = "suppression";

/** The stream of what happens now to an address; the row is the one that it changes. */
export const suppressionStream = (address: string, now: number, row?: SuppressionRow): string =>
  dayStream(KIND, address, now, row?.stream);

/** The key of a row. Neither addresses nor names of accounts have an LF. */
export const suppressionId = (address: string, account: string | null): string =>
  `${address}\n${account ?? ""}`;

export const suppressionProjection: Projection<SuppressionRow> = {
  name: "suppression",
  version: 2,
  columns: {
    id: "TEXT",
    address: "TEXT",
    account: "TEXT",
    cause: "TEXT",
    who: "TEXT",
    why: "TEXT",
    message: "TEXT",
    since: "INTEGER",
    expires: "INTEGER",
    stream: "TEXT",
  },
  counted: "cause",
  indexes: { suppression_stream: "(stream)" },
  key: (event) =>
    event.type === "AddressSuppressed" || event.type === "SuppressionLifted"
      ? suppressionId(event.data.address, event.data.account ?? null)
      : undefined,
  apply,
  days: {
    kind: KIND,
    from: "stream",
    until: ({ expires }) => expires ?? Infinity,
    answersMessages: true,
  },
};

function apply(row: SuppressionRow | undefined, event: StoredEvent): SuppressionRow | undefined {
  if (event.type === "SuppressionLifted") return undefined;
  if (event.type !== "AddressSuppressed") return row;
  const { address, account = null, cause, who, why, message = null, expires } = event.data;
  return {
    id: suppressionId(address, account),
    address,
    account,
    cause,
    who,
    why,
    message,
    since: Date.parse(event.time),
    expires: expires === undefined ? null : Date.parse(expires),
    stream: event.stream,
  };
}

/** Queries over the rows. */
export interface SuppressionView {
  /** Up to `limit` rows in the order of their ids, behind that one. */
  list(limit: number, after?: string): SuppressionRow[];
  get(address: string, account: string | null): SuppressionRow | undefined;
}

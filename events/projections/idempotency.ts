/**
 * The idempotency projection: one row per account and key, so that a request that is repeated gets
 * the answer of the first instead of a second message. A key that is used anew after its time
 * replaces the row.
 */
import type { StoredEvent } from "../catalogue.ts";
import type { Projection } from "../projection.ts";

export type IdempotencyRow = {
  readonly id: string;
  /** SHA-256 over the request, hex. */
  readonly request: string;
  readonly submission: string;
  /** A line per message: stream, blank, recipient; in the order of the recipients. */
  readonly messages: string;
  /** Epoch milliseconds. */
  readonly created: number;
};

/** The key of a row. Names of accounts have no LF, so that no two pairs make the same. */
export const idempotencyId = (account: string | null, key: string): string =>
  `${account ?? ""}\n${key}`;

export const idempotencyProjection: Projection<IdempotencyRow> = {
  name: "idempotency",
  version: 1,
  columns: {
    id: "TEXT",
    request: "TEXT",
    submission: "TEXT",
    messages: "TEXT",
    created: "INTEGER",
  },
  indexes: {},
  key: (event) =>
    event.type === "Enqueued" && event.data.idempotency
      ? idempotencyId(event.data.account, event.data.idempotency.key)
      : undefined,
  apply,
  forget: (row, event) => {
    if (!row || event.type !== "Enqueued" || event.data.submission !== row.submission) return row;
    const messages = row.messages.replace(`${event.stream} ${event.data.rcptTo}\n`, "");
    return messages === "" ? undefined : { ...row, messages };
  },
};

function apply(row: IdempotencyRow | undefined, event: StoredEvent): IdempotencyRow | undefined {
  if (event.type !== "Enqueued" || !event.data.idempotency) return row;
  const { account, idempotency: { key, request }, submission, rcptTo } = event.data;
  const line = `${event.stream} ${rcptTo}\n`;
  if (row?.submission === submission) return { ...row, messages: row.messages + line };
  const created = Date.parse(event.time);
  return { id: idempotencyId(account, key), request, submission, messages: line, created };
}

/**
 * What a projection is: a pure fold of events into rows, one row per key.
 *
 * A projection never sees the store. The engine hands it the row as it stands and the event, and
 * keeps what it returns, in the transaction that appends the event. Any engine can therefore run
 * any projection, and dropping all rows and folding the log again gives the same rows.
 */
import type { StoredEvent } from "./catalogue.ts";

/** Values that a row may hold: what SQLite and PostgreSQL keep in a column as they are. */
export type Cell = string | number | null;
export type Row = { readonly [column: string]: Cell };

export interface Projection<R extends Row> {
  readonly name: string;
  /** Goes up when `apply` or the columns change; rows of another version are dropped and rebuilt. */
  readonly version: number;
  /** Column types; the first is the key. */
  readonly columns: { readonly [C in keyof R]: "TEXT" | "INTEGER" };
  /** A column whose number of rows per value is kept as counters, so that asking costs nothing. */
  readonly counted?: keyof R & string;
  /** A column that names the body (SHA-256) the row needs; null when it needs none any more. */
  readonly body?: keyof R & string;
  /** Indexes, as the parts of CREATE INDEX behind the table's name: `(due, stream) WHERE …`. */
  readonly indexes: Readonly<Record<string, string>>;
  /** The key of the row that an event touches; undefined when it touches none. */
  key(event: StoredEvent): string | undefined;
  /** The row after the event; undefined removes it. */
  apply(row: R | undefined, event: StoredEvent): R | undefined;
  /**
   * The row without an event that leaves the store for the archive: the same as folding a log in
   * which it never was. Absent: rows do not depend on streams that leave.
   */
  forget?(row: R | undefined, event: StoredEvent): R | undefined;
  /** Rows come from streams of days (day_streams.ts), and each needs one: with it the row goes. */
  readonly days?: DaysOf<R>;
}

/** Which streams of days the rows of a projection come from, and for how long they are needed. */
export interface DaysOf<R extends Row> {
  /** The first word of their names. */
  readonly kind: string;
  /**
   * The column that names the first of its series that the row needs: folding that one and those
   * behind it gives the row. It needs an index where rows are many.
   */
  readonly from: keyof R & string;
  /** When the row counts no more, in epoch milliseconds; absent: never, while it is there. */
  readonly until?: (row: R) => number;
  /**
   * What stands there answers events of messages (a bounce is put on a list, a report is sent), and
   * a message that outlived its answer would ask again: a stream is needed as long as a message
   * that had come by the end of its day is in the store.
   */
  readonly answersMessages?: true;
}

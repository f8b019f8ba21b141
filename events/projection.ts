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
}

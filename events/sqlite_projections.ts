/**
 * Projections in SQLite: makes their tables from their columns and indexes, reads and writes rows.
 * A table has its key as the clustered index; an update writes only the columns that differ, so
 * that indexes over the others are not touched.
 */
import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { CountChange, RowChange } from "./engine.ts";
import type { Cell, Projection, Row } from "./projection.ts";

/** What of a projection its rows depend on. */
export type TableShape = Pick<Projection<Row>, "name" | "columns">;

/** What becomes of a row: a new one, or columns that change, or neither: it goes. */
export interface RowWrite {
  readonly projection: string;
  readonly key: string;
  readonly row?: Row;
  readonly changed?: Row;
}

export function rowWrite({ projection, key, before, row }: RowChange): RowWrite {
  if (!row) return { projection, key };
  if (!before) return { projection, key, row };
  const changed: Record<string, Cell> = {};
  for (const column in row) {
    const value = row[column] ?? null;
    if (value !== before[column]) changed[column] = value;
  }
  return { projection, key, changed };
}

/** Rows and counters of one projection. */
export class ProjectionTable {
  readonly #columns: readonly string[];
  readonly #key: string;
  readonly #table: string;
  readonly #get: StatementSync;
  readonly #insert: StatementSync;
  readonly #delete: StatementSync;
  #page: StatementSync | undefined;
  readonly #updates = new Map<string, StatementSync>();

  /** The table must be there: see `createTable`. */
  constructor(private readonly db: DatabaseSync, projection: TableShape) {
    this.#columns = Object.keys(projection.columns);
    this.#key = identifier(this.#columns[0]!);
    this.#table = identifier(projection.name);
    const places = this.#columns.map(() => "?").join(", ");
    this.#get = db.prepare(
      `SELECT ${this.#columns.map(identifier).join(", ")} FROM ${this.#table}
       WHERE ${this.#key} = ?`,
    );
    this.#insert = db.prepare(`INSERT OR REPLACE INTO ${this.#table} VALUES (${places})`);
    this.#delete = db.prepare(`DELETE FROM ${this.#table} WHERE ${this.#key} = ?`);
  }

  get(key: string): Row | undefined {
    return this.#get.get(key) as Row | undefined;
  }

  page(after: string, limit: number): Row[] {
    this.#page ??= this.db.prepare(
      `SELECT ${this.#columns.map(identifier).join(", ")} FROM ${this.#table}
       WHERE ${this.#key} > ? ORDER BY ${this.#key} LIMIT ?`,
    );
    return this.#page.all(after, limit) as unknown as Row[];
  }

  write({ key, row, changed }: RowWrite): void {
    if (changed) this.#update(key, changed);
    else if (row) this.#insert.run(...this.#columns.map((column) => row[column] ?? null));
    else this.#delete.run(key);
  }

  #update(key: string, row: Row): void {
    const changed = Object.keys(row);
    const values: Cell[] = Object.values(row);
    if (changed.length === 0) return;
    const which = changed.join();
    let statement = this.#updates.get(which);
    if (!statement) {
      statement = this.db.prepare(
        `UPDATE ${this.#table} SET ${changed.map((c) => `${identifier(c)} = ?`).join(", ")}
         WHERE ${this.#key} = ?`,
      );
      this.#updates.set(which, statement);
    }
    statement.run(...values, key);
  }
}

/** Makes the table and indexes of a projection, dropping what was there. */
export function createTable(db: DatabaseSync, projection: Projection<Row>): void {
  const table = identifier(projection.name);
  const columns = Object.entries(projection.columns).map(([name, type], i) =>
    `${identifier(name)} ${type}${i === 0 ? " PRIMARY KEY" : ""}`
  );
  db.exec(`DROP TABLE IF EXISTS ${table}`);
  db.exec(`CREATE TABLE ${table} (${columns.join(", ")}) STRICT, WITHOUT ROWID`);
  for (const [name, parts] of Object.entries(projection.indexes)) {
    db.exec(`CREATE INDEX ${identifier(name)} ON ${table} ${parts}`);
  }
  db.prepare("DELETE FROM counts WHERE projection = ?").run(projection.name);
}

/** The statement that `writeCounts` runs. */
export const prepareCounts = (db: DatabaseSync): StatementSync =>
  db.prepare(
    `INSERT INTO counts VALUES (?, ?, ?)
     ON CONFLICT (projection, value) DO UPDATE SET n = n + excluded.n`,
  );

export function writeCounts(statement: StatementSync, counts: readonly CountChange[]): void {
  for (const { projection, value, delta } of counts) statement.run(projection, value, delta);
}

/** Quotes a name that stands in the code, never one from outside. */
function identifier(name: string): string {
  if (!/^[a-z_]+$/.test(name)) throw new TypeError(`"${name}" cannot name a table or a column`);
  return `"${name}"`;
}

/**
 * The embedded StorageEngine: one SQLite database through node:sqlite.
 *
 * WAL with synchronous=FULL: a COMMIT that returns has been fsynced. The log groups what waits into
 * one transaction, so one fsync serves many. Calls are synchronous: a transaction is never open
 * across a turn of the event loop, and a read never sees half of one.
 *
 * After a failed commit the handle is thrown away: once fsync has failed, the kernel may have
 * dropped the pages and still report them as written the next time.
 */
import { DatabaseSync, type StatementSync } from "node:sqlite";
import type {
  BodyChange,
  Checkpoint,
  Committed,
  RawEvent,
  StorageEngine,
  StoredBody,
  StreamHead,
  Transaction,
} from "./engine.ts";
import { ForeignDatabase, inspect, migrate, NEWEST_SCHEMA } from "./migrations.ts";
import type { Projection, Row } from "./projection.ts";
import {
  createTable,
  prepareCounts,
  ProjectionTable,
  type RowWrite,
  rowWrite,
  type TableShape,
  writeCounts,
} from "./sqlite_projections.ts";

/** Pages of WAL after which SQLite moves them to the database: 16 MiB. */
const CHECKPOINT_PAGES = 4096;
/** Milliseconds to wait for another process (a backup, a doctor) to let go of the database. */
const BUSY_TIMEOUT = 5000;

/** A transaction whose rows say no more than what is to be written: less to hand to a thread. */
export type Written = Omit<Transaction, "rows"> & { readonly rows: readonly RowWrite[] };

export const written = (transaction: Transaction): Written => ({
  ...transaction,
  rows: transaction.rows.map(rowWrite),
});

export class SqliteEngine implements StorageEngine {
  readonly #path: string;
  readonly #readOnly: boolean;
  readonly #projections = new Map<string, TableShape>();
  readonly #tables = new Map<string, ProjectionTable>();
  #db: DatabaseSync;
  #statements: Statements;

  /**
   * Opens the database, making it (mode 0600) and bringing its schema up to date as needed.
   * `readOnly` does neither, and works beside a program that writes.
   * @throws ForeignDatabase for a database that is not ours or newer; it is left untouched
   */
  constructor(path: string, options: { readonly readOnly?: boolean } = {}) {
    this.#path = path;
    this.#readOnly = options.readOnly ?? false;
    if (!this.#readOnly && !refuseForeign(path)) createEmpty(path);
    this.#db = this.#open();
    this.#statements = prepare(this.#db);
  }

  /** The open handle, for the views. It changes when the engine recovers. */
  get db(): DatabaseSync {
    return this.#db;
  }

  #open(): DatabaseSync {
    const db = new DatabaseSync(this.#path, { readOnly: this.#readOnly, timeout: BUSY_TIMEOUT });
    try {
      db.exec("PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA cache_size = -32768");
      if (this.#readOnly) {
        if (inspect(db, this.#path) < NEWEST_SCHEMA) {
          throw new ForeignDatabase(
            `${this.#path} has an older schema; start the queue once with this version first`,
          );
        }
        return db;
      }
      db.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
               PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES};
               PRAGMA journal_size_limit = ${16 * CHECKPOINT_PAGES * 4096}`);
      migrate(db, this.#path);
      return db;
    } catch (error) {
      db.close();
      throw error;
    }
  }

  commit(transaction: Transaction): Committed {
    return this.write(written(transaction));
  }

  /** The same, of what `written` made. */
  write(transaction: Written): Committed {
    try {
      return this.#write(transaction);
    } catch (error) {
      // From here on reads say what is on disk, and not what this handle believes.
      try {
        this.#reopen();
      } catch {
        // Then they fail, until `recover` gets further.
      }
      throw error;
    }
  }

  #write(transaction: Written): Committed {
    return this.#inTransaction(() => {
      const s = this.#statements;
      for (const e of transaction.events) {
        s.insertEvent.run(
          e.position,
          e.stream,
          e.version,
          e.type,
          e.schema,
          e.time,
          e.data,
          e.prev,
          e.hash,
        );
      }
      this.#writeRows(transaction.rows);
      writeCounts(s.count, transaction.counts);
      const freedFiles: string[] = [];
      for (const body of transaction.bodies) this.#changeBody(body, freedFiles);
      const c = transaction.checkpoint;
      if (c) {
        s.insertCheckpoint.run(
          c.number,
          c.from,
          c.to,
          c.count,
          c.root,
          c.prev,
          c.time,
          c.signature,
        );
      }
      for (const stream of transaction.prune ?? []) {
        s.allowPrune.run(stream);
        s.prune.run(stream);
        s.forbidPrune.run(stream);
      }
      return { freedFiles };
    });
  }

  #writeRows(rows: readonly RowWrite[]): void {
    for (const change of rows) this.#table(change.projection).write(change);
  }

  #changeBody({ sha256, uses, staged }: BodyChange, freedFiles: string[]): void {
    const s = this.#statements;
    if (staged) s.addBody.run(sha256, staged.size, uses, staged.inline ?? null);
    else if (uses > 0) s.useBody.run(uses, sha256);
    else {
      const gone = s.dropBody.get(sha256, -uses) as { file: number } | undefined;
      if (!gone) s.useBody.run(uses, sha256);
      else if (gone.file) freedFiles.push(sha256);
    }
  }

  recover(): void {
    this.#reopen();
    this.#inTransaction(() => this.#db.exec("UPDATE probe SET n = n + 1"));
  }

  #reopen(): void {
    try {
      this.#db.close();
    } catch {
      // Closed already by an attempt that got no further than this.
    }
    this.#tables.clear();
    this.#db = this.#open();
    this.#statements = prepare(this.#db);
    for (const [name, projection] of this.#projections) {
      this.#tables.set(name, new ProjectionTable(this.#db, projection));
    }
  }

  head(): number {
    return (this.#statements.head.get() as { position: number | null }).position ?? 0;
  }

  streamHead(stream: string): StreamHead | undefined {
    return this.#statements.streamHead.get(stream) as StreamHead | undefined;
  }

  readStream(stream: string): RawEvent[] {
    return this.#statements.readStream.all(stream) as unknown as RawEvent[];
  }

  readAll(after: number, limit: number): RawEvent[] {
    return this.#statements.readAll.all(after, limit) as unknown as RawEvent[];
  }

  rows(projection: string, keys: readonly string[]): (Row | undefined)[] {
    const table = this.#table(projection);
    return keys.map((key) => table.get(key));
  }

  /** Up to `limit` rows with a greater key, by key. */
  page(projection: string, after: string, limit: number): Row[] {
    return this.#table(projection).page(after, limit);
  }

  body(sha256: string): StoredBody | undefined {
    return this.#statements.body.get(sha256) as StoredBody | undefined;
  }

  checkpoints(after: number, limit: number): Checkpoint[] {
    return this.#statements.checkpoints.all(after, limit) as unknown as Checkpoint[];
  }

  lastCheckpoint(): Checkpoint | undefined {
    return this.#statements.lastCheckpoint.get() as Checkpoint | undefined;
  }

  prepare(projection: Projection<Row>): number | undefined {
    const { name, version } = projection;
    const known = this.#db.prepare("SELECT version, position FROM projections WHERE name = ?")
      .get(name) as { version: number; position: number | null } | undefined;
    if (known?.version !== version) {
      this.#inTransaction(() => {
        createTable(this.#db, projection);
        this.#db.prepare("INSERT OR REPLACE INTO projections VALUES (?, ?, 0)").run(name, version);
      });
    }
    this.use(projection);
    return known?.version === version ? known.position ?? undefined : 0;
  }

  /** Takes rows of a projection whose table has been made, by this handle or another. */
  use(projection: TableShape): void {
    this.#projections.set(projection.name, projection);
    this.#tables.set(projection.name, new ProjectionTable(this.#db, projection));
  }

  rebuild(projection: Projection<Row>, step: Parameters<StorageEngine["rebuild"]>[1]): void {
    this.#inTransaction(() => {
      this.#writeRows(step.rows.map(rowWrite));
      writeCounts(this.#statements.count, step.counts);
      this.#db.prepare("UPDATE projections SET position = ? WHERE name = ?")
        .run(step.done ? null : step.position, projection.name);
      if (step.done && projection.body) {
        this.#db.exec(`
          UPDATE bodies SET uses = coalesce(needed.n, 0) FROM bodies AS b LEFT JOIN (
            SELECT ${projection.body} AS sha256, count(*) AS n FROM ${projection.name}
            WHERE ${projection.body} IS NOT NULL GROUP BY 1
          ) AS needed ON needed.sha256 = b.sha256 WHERE bodies.sha256 = b.sha256`);
      }
    });
  }

  /** Drops bodies that no row needs; their files, if any, are left to the sweep. */
  dropUnusedBodies(): void {
    this.#inTransaction(() => this.#db.exec("DELETE FROM bodies WHERE uses <= 0"));
  }

  close(): void {
    try {
      this.#db.close();
    } catch {
      // A handle that failed to reopen is closed already.
    }
  }

  #table(projection: string): ProjectionTable {
    const table = this.#tables.get(projection);
    if (!table) throw new TypeError(`projection ${projection} has not been prepared`);
    return table;
  }

  #inTransaction<T>(write: () => T): T {
    this.#db.exec("BEGIN IMMEDIATE");
    try {
      const result = write();
      this.#db.exec("COMMIT");
      return result;
    } catch (error) {
      try {
        if (this.#db.isTransaction) this.#db.exec("ROLLBACK");
      } catch {
        // The first error says what happened; `recover` opens a new handle anyway.
      }
      throw error;
    }
  }
}

type Statements = ReturnType<typeof prepare>;

const EVENT = "position, stream, version, type, schema, time, data, prev, hash";
const CHECKPOINT = `number, from_position AS "from", to_position AS "to", count, root, prev, time,
  signature`;

/** Statements that are kept: preparing one costs more than running it. */
function prepare(db: DatabaseSync) {
  const statement = (sql: string): StatementSync => db.prepare(sql);
  return {
    insertEvent: statement("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"),
    allowPrune: statement("INSERT INTO pruning VALUES (?)"),
    prune: statement("DELETE FROM events WHERE stream = ?"),
    forbidPrune: statement("DELETE FROM pruning WHERE stream = ?"),
    head: statement("SELECT max(position) AS position FROM events"),
    streamHead: statement(
      "SELECT version, hash FROM events WHERE stream = ? ORDER BY version DESC LIMIT 1",
    ),
    readStream: statement(`SELECT ${EVENT} FROM events WHERE stream = ? ORDER BY version`),
    readAll: statement(`SELECT ${EVENT} FROM events WHERE position > ? ORDER BY position LIMIT ?`),
    body: statement("SELECT size, octets FROM bodies WHERE sha256 = ?"),
    addBody: statement(
      `INSERT INTO bodies VALUES (?, ?, ?, ?)
       ON CONFLICT (sha256) DO UPDATE SET uses = uses + excluded.uses`,
    ),
    useBody: statement("UPDATE bodies SET uses = uses + ? WHERE sha256 = ?"),
    dropBody: statement(
      "DELETE FROM bodies WHERE sha256 = ? AND uses <= ? RETURNING octets IS NULL AS file",
    ),
    count: prepareCounts(db),
    insertCheckpoint: statement("INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?, ?)"),
    checkpoints: statement(
      `SELECT ${CHECKPOINT} FROM checkpoints WHERE number > ? ORDER BY number LIMIT ?`,
    ),
    lastCheckpoint: statement(`SELECT ${CHECKPOINT} FROM checkpoints ORDER BY number DESC LIMIT 1`),
  };
}

/** Whether there is a database; one that is not ours to write is refused before it is opened so. */
function refuseForeign(path: string): boolean {
  try {
    if (Deno.statSync(path).size === 0) return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
  const db = new DatabaseSync(path, { readOnly: true, timeout: BUSY_TIMEOUT });
  try {
    inspect(db, path);
  } finally {
    db.close();
  }
  return true;
}

/** SQLite would make the file with the mode that the umask leaves. */
function createEmpty(path: string): void {
  Deno.openSync(path, { write: true, createNew: true, mode: 0o600 }).close();
}

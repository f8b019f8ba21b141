/**
 * The virtual disk: what is durable, what is under way, and how writing goes wrong.
 *
 * It keeps the promises of SQLite and of files that were fsynced, and no more: a transaction is
 * there whole or not at all, a failed fsync leaves it unknown which, a kill decides by chance about
 * what was under way, and what was never committed is gone. It stands behind the StorageEngine and
 * BodyFiles ports, so that the real log and body store run on it.
 */
import type {
  BodyChange,
  BodyFile,
  BodyFiles,
  Checkpoint,
  Committed,
  OpenBodyFile,
  RawEvent,
  RowChange,
  StorageEngine,
  StoredBody,
  Transaction,
} from "../../events/engine.ts";
import type { Projection, Row } from "../../events/projection.ts";
import type { Process } from "./process.ts";
import type { Dice } from "./random.ts";

/** How the disk is for a while. */
export type DiskMood =
  | "well"
  | "slow"
  | "flaky" // now and then a commit fails, some of them with an unknown result
  | "full" // ENOSPC
  | "failing"; // EIO

export interface Table {
  readonly version: number;
  /** Events up to here are folded. */
  position: number;
  done: boolean;
  readonly rows: Map<string, Row>;
  readonly counts: Map<string, number>;
}

interface KeptBody {
  uses: number;
  readonly size: number;
  readonly octets: Uint8Array | null;
}

export interface DiskObserver {
  /** A transaction has become durable, whether or not the process hears of it. */
  durable(transaction: Transaction): void;
  /** The engine was used in a way that its contract forbids. */
  misused(how: string): void;
}

export class Disk {
  mood: DiskMood = "well";
  /** Something has gone wrong since the program was started. */
  hasFailed = false;
  readonly events: RawEvent[] = [];
  readonly streams = new Map<string, RawEvent[]>();
  /** Streams that have left; `events` still has them, as the history of the world. */
  readonly pruned = new Set<string>();
  readonly tables = new Map<string, Table>();
  readonly bodies = new Map<string, KeptBody>();
  readonly checkpoints: Checkpoint[] = [];
  readonly files = new Map<string, Uint8Array>();
  /** Files that were begun and not kept. */
  readonly begun = new Set<symbol>();
  /** Files of the archive by name, and those that have no name yet. */
  readonly archive = new Map<string, string>();
  readonly archiveParts = new Map<string, string>();

  constructor(readonly dice: Dice, readonly observer: DiskObserver) {}

  /** Milliseconds that a write with fsync takes. */
  writeTime(): number {
    const { dice } = this;
    if (this.mood === "slow") return dice.between(50, 5_000);
    return dice.chance(0.01) ? dice.between(50, 1_000) : dice.between(0.5, 15);
  }

  /** The error that a read meets, if any. */
  readError(): Error | undefined {
    const chance = this.mood === "failing" ? 0.3 : this.mood === "flaky" ? 0.02 : 0;
    if (!this.dice.chance(chance)) return undefined;
    this.hasFailed = true;
    return diskError("EIO", "input/output error on reading");
  }

  readTime(): number {
    return this.mood === "slow" ? this.dice.between(1, 500) : this.dice.between(0, 1);
  }

  /** What becomes of a write: the error to report, and whether it is on disk all the same. */
  fate(): { readonly applied: boolean; readonly error?: Error } {
    const fate = this.#fate();
    if (fate.error) this.hasFailed = true;
    return fate;
  }

  #fate(): { readonly applied: boolean; readonly error?: Error } {
    switch (this.mood) {
      case "full":
        return { applied: false, error: diskError("ENOSPC", "no space left on device") };
      case "failing":
        return { applied: false, error: diskError("EIO", "input/output error") };
      case "flaky":
        if (!this.dice.chance(0.15)) return { applied: true };
        return {
          applied: this.dice.chance(0.5),
          error: diskError("EIO", "fsync failed, the result is unknown"),
        };
      case "well":
      case "slow":
        return { applied: true };
    }
  }

  /** Makes a transaction durable: all of it, or nothing when it breaks a constraint. */
  apply(transaction: Transaction): Committed {
    this.#check(transaction);
    for (const event of transaction.events) {
      this.events.push(event);
      const stream = this.streams.get(event.stream);
      if (stream) stream.push(event);
      else this.streams.set(event.stream, [event]);
    }
    for (const stream of transaction.prune ?? []) {
      this.streams.delete(stream);
      this.pruned.add(stream);
    }
    for (const change of transaction.rows) this.#row(change);
    for (const { projection, value, delta } of transaction.counts) {
      const { counts } = this.table(projection);
      counts.set(value, (counts.get(value) ?? 0) + delta);
    }
    for (const table of this.tables.values()) if (table.done) table.position = this.events.length;
    const freedFiles: string[] = [];
    for (const change of transaction.bodies) this.#body(change, freedFiles);
    if (transaction.checkpoint) this.checkpoints.push(transaction.checkpoint);
    this.observer.durable(transaction);
    return { freedFiles };
  }

  /** Writes an event past the log and its projections. */
  insert(event: RawEvent): void {
    this.events.push(event);
    this.streams.get(event.stream)!.push(event);
  }

  table(projection: string): Table {
    const table = this.tables.get(projection);
    if (!table) throw diskError("SQLITE_ERROR", `no such table: ${projection}`);
    return table;
  }

  #row({ projection, key, row }: RowChange): void {
    const { rows } = this.table(projection);
    if (row) rows.set(key, row);
    else rows.delete(key);
  }

  #body({ sha256, uses, staged }: BodyChange, freedFiles: string[]): void {
    const kept = this.bodies.get(sha256);
    if (kept) {
      kept.uses += uses;
      if (kept.uses > 0) return;
      this.bodies.delete(sha256);
      if (kept.octets === null) freedFiles.push(sha256);
    } else if (uses > 0 && staged) {
      const octets = staged.inline ? staged.inline.slice() : null;
      this.bodies.set(sha256, { uses, size: staged.size, octets });
    }
  }

  #check({ events, rows }: Transaction): void {
    let position = this.events.length;
    const versions = new Map<string, number>();
    for (const event of events) {
      const before = versions.get(event.stream) ?? this.streams.get(event.stream)?.length ?? 0;
      if (event.position !== ++position || event.version !== before + 1) {
        const { stream, version } = event;
        this.observer.misused(`UNIQUE constraint: ${event.position} ${stream} ${version}`);
        throw diskError("SQLITE_CONSTRAINT", "UNIQUE constraint failed");
      }
      versions.set(event.stream, event.version);
    }
    for (const { projection, key, fresh, before } of rows) {
      const there = this.table(projection).rows.get(key);
      if (fresh ? there === undefined : there === before) continue;
      this.observer.misused(`row ${key} of ${projection} is not as the log says it was`);
      throw diskError("SQLITE_CONSTRAINT", "UNIQUE constraint failed");
    }
  }
}

const diskError = (code: string, message: string): Error =>
  Object.assign(new Error(message), { code });

/** The disk as the event log of one process sees it. */
export class VirtualEngine implements StorageEngine {
  #writing = false;
  #failed = false;

  constructor(readonly disk: Disk, readonly process: Process) {}

  async commit(transaction: Transaction): Promise<Committed> {
    if (this.#failed) this.disk.observer.misused("a commit after one that failed, before recover");
    const killed = () => {
      if (this.disk.dice.chance(0.5)) this.disk.apply(transaction);
    };
    this.process.onDeath(killed);
    try {
      return await this.#write("commit", () => {
        this.process.forget(killed);
        const { applied, error } = this.disk.fate();
        const committed = applied ? this.disk.apply(transaction) : { freedFiles: [] };
        if (error) throw error;
        return committed;
      });
    } catch (cause) {
      this.#failed = true;
      throw cause;
    }
  }

  recover(): Promise<void> {
    return this.#write("recover", () => {
      const { error } = this.disk.fate();
      if (error) throw error;
      this.#failed = false;
    });
  }

  prepare(projection: Projection<Row>): Promise<number | undefined> {
    return this.#write(`prepare ${projection.name}`, () => {
      const { tables, events } = this.disk;
      let table = tables.get(projection.name);
      if (table?.version !== projection.version) {
        const { version } = projection;
        const done = events.length === 0;
        table = { version, position: 0, done, rows: new Map(), counts: new Map() };
        tables.set(projection.name, table);
      }
      return table.done ? undefined : table.position;
    });
  }

  rebuild(
    projection: Projection<Row>,
    step: Parameters<StorageEngine["rebuild"]>[1],
  ): Promise<void> {
    return this.#write(`rebuild ${projection.name}`, () => {
      const table = this.disk.table(projection.name);
      for (const { key, row } of step.rows) {
        if (row) table.rows.set(key, row);
        else table.rows.delete(key);
      }
      for (const { value, delta } of step.counts) {
        table.counts.set(value, (table.counts.get(value) ?? 0) + delta);
      }
      table.position = step.position;
      table.done = step.done;
      if (step.done && projection.body) this.#recount(table, projection.body);
    });
  }

  head(): Promise<number> {
    return this.#read("head", () => this.disk.events.length);
  }

  streamHead(stream: string): Promise<{ version: number; hash: string } | undefined> {
    return this.#read("stream head", () => this.disk.streams.get(stream)?.at(-1));
  }

  readStream(stream: string): Promise<RawEvent[]> {
    return this.#read("stream", () => [...(this.disk.streams.get(stream) ?? [])]);
  }

  readAll(after: number, limit: number): Promise<RawEvent[]> {
    return this.#read("log", () => {
      const { events, pruned } = this.disk;
      if (pruned.size === 0) return events.slice(after, after + limit);
      return events.slice(after).filter(({ stream }) => !pruned.has(stream)).slice(0, limit);
    });
  }

  rows(projection: string, keys: readonly string[]): Promise<(Row | undefined)[]> {
    return this.#read("rows", () => {
      const { rows } = this.disk.table(projection);
      return keys.map((key) => rows.get(key));
    });
  }

  body(sha256: string): Promise<StoredBody | undefined> {
    return this.#read("body", () => this.disk.bodies.get(sha256));
  }

  checkpoints(after: number, limit: number): Promise<Checkpoint[]> {
    return this.#read("checkpoints", () => this.disk.checkpoints.slice(after, after + limit));
  }

  lastCheckpoint(): Promise<Checkpoint | undefined> {
    return this.#read("checkpoint", () => this.disk.checkpoints.at(-1));
  }

  close(): void {}

  #read<T>(what: string, effect: () => T): Promise<T> {
    return this.process.call(`reading ${what}`, this.disk.readTime(), () => {
      const error = this.disk.readError();
      if (error) throw error;
      return effect();
    });
  }

  async #write<T>(what: string, effect: () => T): Promise<T> {
    if (this.#writing) this.disk.observer.misused(`${what} while another write is under way`);
    this.#writing = true;
    try {
      return await this.process.call(what, this.disk.writeTime(), effect);
    } finally {
      this.#writing = false;
    }
  }

  #recount(table: Table, column: string): void {
    const uses = new Map<string, number>();
    for (const row of table.rows.values()) {
      const sha256 = row[column];
      if (typeof sha256 === "string") uses.set(sha256, (uses.get(sha256) ?? 0) + 1);
    }
    for (const [sha256, body] of this.disk.bodies) {
      body.uses = uses.get(sha256) ?? 0;
      if (body.uses === 0) this.disk.bodies.delete(sha256);
    }
  }
}

/** The folder of large bodies as one process sees it. */
export class VirtualBodyFiles implements BodyFiles {
  constructor(readonly disk: Disk, readonly process: Process) {}

  create(): Promise<BodyFile> {
    const { disk } = this;
    return this.#write("begin a body file", () => {
      const id = Symbol("body file");
      disk.begun.add(id);
      const chunks: Uint8Array[] = [];
      return {
        write: (chunk: Uint8Array) => {
          const copy = chunk.slice();
          return this.#write("write to a body file", () => void chunks.push(copy));
        },
        keep: (sha256: string) =>
          this.#write("keep a body file", () => {
            disk.begun.delete(id);
            disk.files.set(sha256, concat(chunks));
          }),
        discard: () =>
          this.process.call("discard a body file", disk.readTime(), () => {
            disk.begun.delete(id);
          }),
      };
    });
  }

  open(sha256: string): Promise<OpenBodyFile | undefined> {
    return this.process.call("open a body file", this.disk.readTime(), () => {
      const octets = this.disk.files.get(sha256);
      if (!octets) return undefined;
      let at = 0;
      return {
        size: octets.length,
        read: (into: Uint8Array) =>
          this.process.call("read a body file", this.disk.readTime(), () => {
            const part = octets.subarray(at, at + into.length);
            into.set(part);
            at += part.length;
            return part.length === 0 ? null : part.length;
          }),
        close: () => {},
      };
    });
  }

  remove(sha256: string): Promise<void> {
    return this.process.call("remove a body file", this.disk.readTime(), () => {
      this.disk.files.delete(sha256);
    });
  }

  async *sweep(): AsyncGenerator<string> {
    yield* await this.process.call("sweep body files", this.disk.readTime(), () => {
      this.disk.begun.clear();
      return [...this.disk.files.keys()];
    });
  }

  #write<T>(what: string, effect: () => T): Promise<T> {
    return this.process.call(what, this.disk.writeTime(), () => {
      const { applied, error } = this.disk.fate();
      const result = applied ? effect() : undefined;
      if (error) throw error;
      return result as T;
    });
  }
}

function concat(chunks: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}

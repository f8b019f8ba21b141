/**
 * The StorageEngine port: what the event log asks of a disk, and nothing about events' meaning.
 *
 * The log (log.ts) decides everything: versions, positions, hashes, folds, checkpoints, and what
 * goes into one transaction. An engine only keeps what it is given and gives it back. The embedded
 * one is SQLite (sqlite_engine.ts); a database server, a worker thread or a virtual disk can stand
 * behind the same port, which is why every method may answer at once or with a promise.
 *
 * The log never has two `commit`, `recover`, `prepare` or `rebuild` calls under way at once, and
 * passes no transaction before `recover` has succeeded when one failed. Reads may come at any time,
 * also while a commit is under way, and see either all of it or nothing of it.
 */
import type { Projection, Row } from "./projection.ts";
import type { StagedBody } from "./store.ts";

export type MaybePromise<T> = T | Promise<T>;

/** An event as it stands in the log. `data` is the exact canonical JSON text that was hashed. */
export interface RawEvent {
  readonly position: number;
  readonly stream: string;
  readonly version: number;
  readonly type: string;
  readonly schema: number;
  readonly time: string;
  readonly data: string;
  readonly prev: string;
  readonly hash: string;
}

/** A signed statement about all events of a span of positions. See checkpoints.ts. */
export interface Checkpoint {
  /** 1, 2, 3 … */
  readonly number: number;
  /** Positions of the first and last event covered. */
  readonly from: number;
  readonly to: number;
  readonly count: number;
  /** Merkle tree hash (RFC 6962, section 2.1) over the hashes of the events, hex. */
  readonly root: string;
  /** Hash of the checkpoint before, hex; 64 zeros for the first. */
  readonly prev: string;
  /** RFC 3339, UTC, milliseconds. */
  readonly time: string;
  /** Ed25519 (RFC 8032) over the canonical JSON of the other members, base64. */
  readonly signature: string;
}

/** The row of a projection as a transaction leaves it; undefined removes it. */
export interface RowChange {
  readonly projection: string;
  readonly key: string;
  /** True when there was no such row before. A hint: insert instead of replace. */
  readonly fresh: boolean;
  /** The row as it was, when not fresh. A hint: only what differs need be written. */
  readonly before: Row | undefined;
  readonly row: Row | undefined;
}

/** The number of rows of a projection that have `value` in its counted column changes by `delta`. */
export interface CountChange {
  readonly projection: string;
  readonly value: string;
  readonly delta: number;
}

/**
 * The number of rows that need a body changes by `uses`. A body is kept with that number, and goes
 * when it is zero (or less). `staged` comes with bodies that may be new: kept unless already there.
 * Lowering the uses of a body that is not there is no error.
 */
export interface BodyChange {
  readonly sha256: string;
  readonly uses: number;
  readonly staged?: StagedBody;
}

/** All that one commit writes: everything of it or nothing. */
export interface Transaction {
  /** In order of position, without gap after the head. May be empty. */
  readonly events: readonly RawEvent[];
  /** At most one per projection and key. */
  readonly rows: readonly RowChange[];
  readonly counts: readonly CountChange[];
  /** At most one per body. */
  readonly bodies: readonly BodyChange[];
  readonly checkpoint?: Checkpoint;
  /** Streams whose events all leave the store: a file of the archive has them, durably. */
  readonly prune?: readonly string[];
}

/** What a commit did that the caller has to follow up outside the database. */
export interface Committed {
  /** Bodies that went and whose octets were in files: the files can be removed now. */
  readonly freedFiles: readonly string[];
}

/** The last event of a stream. */
export interface StreamHead {
  readonly version: number;
  readonly hash: string;
}

/** A stream with its last version. */
export interface WholeStream {
  readonly stream: string;
  readonly version: number;
}

export interface StoredBody {
  readonly size: number;
  /** The octets, or null when they are in a file. */
  readonly octets: Uint8Array | null;
}

export interface StorageEngine {
  /**
   * Writes a transaction; when it returns (or resolves) it is durable.
   * Throws when it could not be written or it is not known whether it was; the log then refuses
   * everything until `recover` has succeeded, and asks for the head and the rows anew.
   */
  commit(transaction: Transaction): MaybePromise<Committed>;

  /**
   * After a failed commit: discards whatever cannot be trusted any more (reopens files), and proves
   * with a tiny durable write that the disk takes writes again. Throws as long as it does not.
   */
  recover(): MaybePromise<void>;

  /** Position of the last event, 0 for an empty log. */
  head(): MaybePromise<number>;
  /** The last event of a stream; undefined when there is no such stream. */
  streamHead(stream: string): MaybePromise<StreamHead | undefined>;
  /** All events of a stream by version. */
  readStream(stream: string): MaybePromise<RawEvent[]>;
  /** Up to `limit` events with a greater position, in order. */
  readAll(after: number, limit: number): MaybePromise<RawEvent[]>;
  /** The rows with these keys, in the same order; undefined where there is none. */
  rows(projection: string, keys: readonly string[]): MaybePromise<(Row | undefined)[]>;
  /** A body with its octets or the word that they are in a file; undefined when it is not known. */
  body(sha256: string): MaybePromise<StoredBody | undefined>;
  /** Up to `limit` checkpoints with a greater number, in order. */
  checkpoints(after: number, limit: number): MaybePromise<Checkpoint[]>;
  lastCheckpoint(): MaybePromise<Checkpoint | undefined>;

  /**
   * Makes a projection's table. Returns undefined when its rows are in step with the log. Else the
   * rows (and counts) of another version are dropped, and the position up to which events have
   * been folded is returned: 0, or more when a rebuild was cut short.
   */
  prepare(projection: Projection<Row>): MaybePromise<number | undefined>;
  /**
   * One step of a rebuild: writes rows and counts and notes that events up to `position` are
   * folded. With `done` the rows are in step, and the uses of all bodies are counted anew from the
   * rows of this projection if it has a body column.
   */
  rebuild(
    projection: Projection<Row>,
    step: {
      readonly rows: readonly RowChange[];
      readonly counts: readonly CountChange[];
      readonly position: number;
      readonly done: boolean;
    },
  ): MaybePromise<void>;

  /** Ends all access. Never throws. */
  close(): MaybePromise<void>;
}

/** The log as it stands, for verifying and exporting: nothing is upcast or checked. */
export interface RawLog {
  /** Number of the newest checkpoint, and position of the newest event: at least what it covers. */
  newest(): Promise<{ readonly checkpoint: number; readonly position: number }>;
  /** Up to `limit` events after `position`, in log order. */
  events(after: number, limit: number): Promise<RawEvent[]>;
  /** All events of a stream. */
  stream(stream: string): Promise<RawEvent[]>;
  /** Up to `limit` checkpoints after a number. */
  checkpoints(after: number, limit: number): Promise<Checkpoint[]>;
}

/** Where bodies over the inline limit live. Names are SHA-256 in hex. */
export interface BodyFiles {
  /** Begins a file under a name of its own; nothing of it is seen before `keep`. */
  create(): Promise<BodyFile>;
  /** Opens a kept file; undefined when there is none. */
  open(sha256: string): Promise<OpenBodyFile | undefined>;
  remove(sha256: string): Promise<void>;
  /** Removes what was begun and never kept, and yields the names of all kept files. */
  sweep(): AsyncIterable<string>;
}

export interface BodyFile {
  write(chunk: Uint8Array): Promise<void>;
  /** Makes the octets durable, gives the file its name, and makes the name durable. */
  keep(sha256: string): Promise<void>;
  /** Removes the file. Never throws. */
  discard(): Promise<void>;
}

export interface OpenBodyFile {
  readonly size: number;
  /** Up to `into.length` octets; null at the end. */
  read(into: Uint8Array): Promise<number | null>;
  close(): void;
}

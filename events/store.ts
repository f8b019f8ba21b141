/**
 * The EventStore contract: what every engine of the log promises, and nothing about how.
 *
 * - `append` is atomic over all streams, bodies and projections it touches, and durable (fsynced)
 *   when its promise resolves. Appends that wait at the same time share one transaction.
 * - Each stream of an append names the version it expects; a second writer gets WrongVersion and
 *   nothing of its append is written.
 * - Projections that the store was opened with are updated in the same transaction: a view is
 *   never behind its log.
 * - Listeners hear of events in log order, after they are durable, and never of events that are not.
 */
import type { Fact, StoredEvent } from "./catalogue.ts";

/** Facts for one stream. `expectedVersion` 0 means: this stream does not exist yet. */
export interface StreamAppend {
  readonly stream: string;
  readonly expectedVersion: number;
  readonly facts: readonly Fact[];
}

/** A body that is staged (large ones: written and fsynced) and becomes part of the next append. */
export interface StagedBody {
  /** SHA-256 over the octets, hex. */
  readonly sha256: string;
  readonly size: number;
  /** The octets themselves when they go into the database; absent when they are in a file. */
  readonly inline?: Uint8Array;
}

export interface EventStore {
  /**
   * Appends to one or several streams at once; resolves when all of it is on disk.
   * @throws WrongVersion when a stream is not at its expected version
   * @throws StoreUnavailable when it could not be written (disk full, fsync failed, closed)
   */
  append(appends: readonly StreamAppend[], bodies?: readonly StagedBody[]): Promise<StoredEvent[]>;

  /**
   * All events of a stream, oldest first; empty when there is no such stream.
   * @throws UnreadableStream naming stream and version when an event cannot be read, or the chain
   *   of the stream is broken at it
   */
  readStream(stream: string): Promise<StoredEvent[]>;

  /** The version of a stream, 0 when there is none, without reading (or trusting) its events. */
  version(stream: string): Promise<number>;

  /**
   * Up to `limit` events after `position`, in log order, without those that cannot be read; none
   * at the end of the log alone. Raw reading for verifying is in audit.
   */
  readAll(after: number, limit: number): Promise<StoredEvent[]>;

  /**
   * The time whose day names streams of days (day_streams.ts), epoch milliseconds: the clock's, but
   * where that was set back none whose streams may have left for the archive.
   */
  dayTime(): number;

  /** Position of the newest durable event, 0 for an empty log. */
  head(): number;

  /** Calls `listener` with every committed batch; returns the way to stop. Must not throw. */
  subscribe(listener: (events: readonly StoredEvent[]) => void): () => void;

  /** Whether the last write reached the disk; if not, why and since when (epoch milliseconds). */
  health(): { readonly ok: true } | {
    readonly ok: false;
    readonly why: string;
    readonly since: number;
  };
}

/** Message content, beside the log: written before the Enqueued that names it, gone when released. */
export interface BodyStore {
  /** Begins a new body. The writer holds at most the inline limit (256 KiB) in memory. */
  create(): BodyWriter;
  /**
   * Opens a stored body for reading, in chunks.
   * @throws BodyMissing when there is no such body
   * @throws BodyDamaged when it is not what was stored; a large one at the end of its chunks
   */
  open(sha256: string): Promise<BodyReader>;
}

export interface BodyWriter {
  /** @throws StoreUnavailable when the disk does not take it; the writer is then discarded */
  write(chunk: Uint8Array): Promise<void>;
  /** Ends the body; a large one is fsynced, its name too. Use the result in one `append`. */
  finish(): Promise<StagedBody>;
  /** Gives the body up, at any time, also after `finish` when the append failed. */
  discard(): Promise<void>;
}

export interface BodyReader {
  readonly size: number;
  /** The octets, in order, each chunk at most 64 KiB. Ending the iteration early closes the file. */
  chunks(): AsyncIterable<Uint8Array>;
}

/** A stream was not at the version that the append expected: someone else wrote first. */
export class WrongVersion extends Error {
  override readonly name = "WrongVersion";
  constructor(readonly stream: string, readonly expected: number, readonly actual: number) {
    super(`stream ${stream} is at version ${actual}, not ${expected}`);
  }
}

/** The store cannot take a write now. Nothing of the append is on disk. */
export class StoreUnavailable extends Error {
  override readonly name = "StoreUnavailable";
}

/** An event of a stream is of an unknown type or schema, or its data is out of shape. */
export class UnreadableStream extends Error {
  override readonly name = "UnreadableStream";
  constructor(readonly stream: string, readonly version: number, why: string) {
    super(`stream ${stream}, version ${version}: ${why}`);
  }
}

export class BodyMissing extends Error {
  override readonly name = "BodyMissing";
  constructor(readonly sha256: string, why = "is not in the body store") {
    super(`body ${sha256} ${why}`);
  }
}

/** The stored body is not what was stored: as good as none, since it must not be delivered. */
export class BodyDamaged extends BodyMissing {
  constructor(sha256: string) {
    super(sha256, "is damaged: its content is not what was taken in");
  }
}

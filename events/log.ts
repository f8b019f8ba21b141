/**
 * The event log: an EventStore over any StorageEngine.
 *
 * An append goes through these steps:
 *  1. Its facts are checked against the catalogue and turned into canonical JSON, at once.
 *  2. It waits until the end of the turn of the event loop; all that waits then is one batch.
 *  3. Expected versions are compared. An append that is behind is left out, alone.
 *  4. Events get their time, position and hash; projections are folded; a checkpoint is added when
 *     one is due.
 *  5. The engine writes all of it in one transaction, durably. Then every waiter is told.
 *
 * When the engine fails, every waiter gets StoreUnavailable, nothing is remembered of the batch, and
 * appends are refused until a probe (after 1 s, 2 s, … 10 s) finds the disk taking writes again.
 */
import { archiveFiles } from "./archive.ts";
import { checked, prepare, type Prepared, type Waiting } from "./batch.ts";
import type { StoredEvent } from "./catalogue.ts";
import { CHECKPOINT_EVENTS, CHECKPOINT_INTERVAL, type Signer, Uncovered } from "./checkpoints.ts";
import { decodeReadable, decodeStream, messageOf } from "./decode.ts";
import type {
  Checkpoint,
  MaybePromise,
  RawEvent,
  StorageEngine,
  StreamHead,
  WholeStream,
} from "./engine.ts";
import { bodyChanges, type ReadRows } from "./fold.ts";
import type { Projection, Row } from "./projection.ts";
import { queueProjection } from "./projections/queue.ts";
import { preparePruning } from "./prune.ts";
import { bringInStep } from "./rebuild.ts";
import { Recent } from "./recent.ts";
import {
  type EventStore,
  type StagedBody,
  StoreUnavailable,
  type StreamAppend,
  type UnreadableStream,
} from "./store.ts";

/** Time, as the log needs it; the clock of actors/ports.ts fits. */
export interface LogClock {
  /** Epoch milliseconds. */
  now(): number;
  /** Milliseconds since some moment in the past. */
  monotonic(): number;
  /** Calls `run` once after `ms` milliseconds; returns the way to cancel it. */
  timer(ms: number, run: () => void): () => void;
}

/** What a successful commit was: for metrics. */
export interface CommitReport {
  readonly appends: number;
  readonly events: number;
  readonly milliseconds: number;
}

export interface LogOptions {
  readonly engine: StorageEngine;
  readonly clock: LogClock;
  /** Runs the flush later in the same turn of the event loop; setImmediate if not given. */
  readonly schedule?: (flush: () => void) => void;
  /** Signs checkpoints; without one none are written. */
  readonly signer?: Signer;
  /** Rows to keep in step; the queue if not given. */
  readonly projections?: readonly Projection<Row>[];
  /** Is told of bodies that became part of the log, and of files that it needs no more. */
  readonly bodies?: {
    taken(bodies: readonly StagedBody[]): void;
    freed(sha256: readonly string[]): void;
  };
  /** A transaction holds no more than this, but for a single append that is larger. */
  readonly maxEvents?: number;
  readonly maxBytes?: number;
  readonly onCommit?: (report: CommitReport) => void;
  /** A listener threw; nothing else comes of it. */
  readonly onListenerError?: (error: unknown) => void;
  /** An event that could not be folded while a projection was rebuilt. */
  readonly onUnreadable?: (broken: UnreadableStream) => void;
}

type Health = ReturnType<EventStore["health"]>;

const MAX_EVENTS = 1000;
const MAX_BYTES = 8 * 1024 * 1024;
const PROBE_FIRST = 1000;
const PROBE_MOST = 10_000;

export class EventLog implements EventStore {
  readonly #engine: StorageEngine;
  readonly #options: LogOptions;
  readonly #projections: readonly Projection<Row>[];
  readonly #listeners = new Set<(events: readonly StoredEvent[]) => void>();
  readonly #recent = new Recent();
  #queue: Waiting[] = [];
  #scheduled = false;
  #flushing: Promise<void> | undefined;
  #position = 0;
  #uncovered = Uncovered.after(undefined);
  /** Monotonic time at which the oldest event that no checkpoint covers was written. */
  #uncoveredSince = 0;
  #cancelCheckpoint: (() => void) | undefined;
  #cancelProbe: (() => void) | undefined;
  #health: Health = { ok: true };
  /** Up to when streams of days may have left for the archive. */
  #leftUntil = 0;
  #closed = false;
  #closing: Promise<void> | undefined;

  private constructor(options: LogOptions) {
    this.#options = options;
    this.#engine = options.engine;
    this.#projections = options.projections ?? [queueProjection as unknown as Projection<Row>];
  }

  /** Opens the log: projections are brought in step first, which may take its time. */
  static async open(options: LogOptions): Promise<EventLog> {
    const log = new EventLog(options);
    for (const projection of log.#projections) {
      await bringInStep(options.engine, projection, options.onUnreadable);
    }
    log.#position = await options.engine.head();
    const stream = async (name: string) => await options.engine.readStream(name);
    for (const { until } of await archiveFiles({ stream })) log.#leave(until);
    await log.#loadUncovered();
    return log;
  }

  append(
    appends: readonly StreamAppend[],
    bodies: readonly StagedBody[] = [],
  ): Promise<StoredEvent[]> {
    return new Promise((resolve, reject) => {
      this.#refuseIfUnavailable();
      this.#queue.push({ ...checked(appends, bodies), resolve, reject });
      this.#wake();
    });
  }

  async readStream(stream: string): Promise<StoredEvent[]> {
    return decodeStream(await this.#read(() => this.#engine.readStream(stream)));
  }

  async version(stream: string): Promise<number> {
    const head = await this.#head(stream);
    return head?.version ?? 0;
  }

  async readAll(after: number, limit: number): Promise<StoredEvent[]> {
    for (let from = after;;) {
      const raws = await this.#read(() => this.#engine.readAll(from, limit));
      const events = decodeReadable(raws);
      if (events.length > 0 || raws.length === 0) return events;
      from = raws.at(-1)!.position;
    }
  }

  dayTime(): number {
    return Math.max(this.#options.clock.now(), this.#leftUntil);
  }

  head(): number {
    return this.#position;
  }

  subscribe(listener: (events: readonly StoredEvent[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  health(): Health {
    return this.#health;
  }

  /**
   * Refuses new appends, writes what waits and a last checkpoint, and closes the engine.
   * Never throws; may be called twice.
   */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    this.#closed = true;
    while (this.#flushing || this.#queue.length > 0) {
      await (this.#flushing ?? this.#flush());
    }
    this.#cancelCheckpoint?.();
    this.#cancelProbe?.();
    if (this.#health.ok) await this.#writeCheckpoint();
    await this.#engine.close();
  }

  #refuseIfUnavailable(): void {
    if (this.#closed) throw new StoreUnavailable("the store is closed");
    if (!this.#health.ok) {
      throw new StoreUnavailable(`the store takes no writes: ${this.#health.why}`);
    }
  }

  async #read<T>(ask: () => MaybePromise<T>): Promise<T> {
    try {
      return await ask();
    } catch (cause) {
      throw new StoreUnavailable(`the store cannot be read: ${messageOf(cause)}`, { cause });
    }
  }

  #wake(): void {
    if (this.#scheduled || this.#flushing) return;
    this.#scheduled = true;
    (this.#options.schedule ?? setImmediate)(() => {
      this.#scheduled = false;
      if (!this.#flushing && this.#queue.length > 0) void this.#flush();
    });
  }

  /** Writes one batch. Never rejects: whatever happens is told to the waiters. */
  #flush(): Promise<void> {
    this.#flushing = this.#writeBatch(this.#takeBatch()).finally(() => {
      this.#flushing = undefined;
      if (this.#queue.length > 0) this.#wake();
    });
    return this.#flushing;
  }

  #takeBatch(): Waiting[] {
    const { maxEvents = MAX_EVENTS, maxBytes = MAX_BYTES } = this.#options;
    let events = 0;
    let bytes = 0;
    let n = 0;
    for (const waiting of this.#queue) {
      events += waiting.events;
      bytes += waiting.bytes;
      if (n > 0 && (events > maxEvents || bytes > maxBytes)) break;
      n++;
    }
    return this.#queue.splice(0, n);
  }

  async #writeBatch(batch: Waiting[]): Promise<void> {
    let prepared: Prepared;
    try {
      prepared = await this.#prepare(batch);
    } catch (error) {
      // An append that cannot even be prepared must not take its neighbours along.
      if (batch.length === 1) batch[0]!.reject(asError(error));
      else for (const waiting of batch) await this.#writeBatch([waiting]);
      return;
    }
    if (!this.#health.ok) return this.#rejectAll(batch, this.#health.why);
    const { accepted, refused, raw } = prepared;
    if (raw.length > 0) {
      try {
        await this.#write(prepared);
      } catch (cause) {
        return this.#fail(cause, batch);
      }
    }
    for (const [waiting, error] of refused) waiting.reject(error);
    for (const { waiting, events } of accepted) waiting.resolve(events);
    if (raw.length > 0) this.#publish(accepted.flatMap(({ events }) => events));
  }

  #prepare(batch: readonly Waiting[]): Promise<Prepared> {
    return prepare(batch, {
      position: this.#position,
      time: new Date(this.#options.clock.now()).toISOString(),
      projections: this.#projections,
      head: (stream) => this.#head(stream),
      rows: (projection, keys) => this.#rows(projection, keys),
    });
  }

  #head(stream: string): MaybePromise<StreamHead | undefined> {
    return this.#recent.head(stream) ?? this.#read(() => this.#engine.streamHead(stream));
  }

  #rows(projection: string, keys: readonly string[]): ReturnType<ReadRows> {
    return this.#recent.rows(
      projection,
      keys,
      (...missing) => this.#read(() => this.#engine.rows(...missing)),
    );
  }

  async #write({ accepted, raw, heads, folded }: Prepared): Promise<void> {
    const { clock, signer, bodies, onCommit } = this.#options;
    const staged = accepted.flatMap(({ waiting }) => waiting.bodies);
    const uncovered = signer ? this.#uncovered.add(raw) : this.#uncovered;
    const checkpoint = this.#checkpointIfDue(uncovered);
    const begun = clock.monotonic();
    const { freedFiles } = await this.#engine.commit({
      events: raw,
      rows: folded.rows,
      counts: folded.counts,
      bodies: bodyChanges(folded.uses, staged),
      checkpoint,
    });
    const milliseconds = clock.monotonic() - begun;
    this.#recent.committed(heads, folded.rows);
    this.#committed(raw, uncovered, checkpoint);
    // What follows is told to others, and none of it can undo that the events are on disk.
    this.#guard(() => onCommit?.({ appends: accepted.length, events: raw.length, milliseconds }));
    if (staged.length > 0) this.#guard(() => bodies?.taken(staged));
    // A body whose message came and went within this batch has a file and never got a row.
    const passed = staged.filter((body) => !body.inline && !folded.uses.get(body.sha256));
    const freed = [...freedFiles, ...passed.map((body) => body.sha256)];
    if (freed.length > 0) this.#guard(() => bodies?.freed(freed));
  }

  #committed(
    raw: readonly RawEvent[],
    uncovered: Uncovered,
    checkpoint: Checkpoint | undefined,
  ): void {
    this.#position = raw.at(-1)?.position ?? this.#position;
    const wasCovered = this.#uncovered.count === 0;
    this.#uncovered = checkpoint ? Uncovered.after(checkpoint) : uncovered;
    if (this.#uncovered.count === 0) {
      this.#cancelCheckpoint?.();
      this.#cancelCheckpoint = undefined;
    } else if (wasCovered) {
      this.#uncoveredSince = this.#options.clock.monotonic();
      this.#armCheckpoint();
    }
  }

  #leave(until: string): void {
    this.#leftUntil = Math.max(this.#leftUntil, Date.parse(until));
  }

  #publish(events: readonly StoredEvent[]): void {
    for (const { type, data } of events) if (type === "StreamsArchived") this.#leave(data.until);
    for (const listener of [...this.#listeners]) this.#guard(() => listener(events));
  }

  #guard(tell: () => void): void {
    try {
      tell();
    } catch (error) {
      this.#options.onListenerError?.(error);
    }
  }

  // Checkpoints. The timer runs only while there are events that no checkpoint covers.

  #checkpointIfDue(uncovered: Uncovered): Checkpoint | undefined {
    const { signer, clock } = this.#options;
    if (!signer) return undefined;
    const waited = this.#uncovered.count > 0 ? clock.monotonic() - this.#uncoveredSince : 0;
    if (uncovered.count < CHECKPOINT_EVENTS && waited < CHECKPOINT_INTERVAL) return undefined;
    return uncovered.checkpoint(new Date(clock.now()).toISOString(), signer);
  }

  #armCheckpoint(): void {
    if (!this.#options.signer || this.#cancelCheckpoint || this.#closed) return;
    this.#cancelCheckpoint = this.#options.clock.timer(CHECKPOINT_INTERVAL, () => {
      this.#cancelCheckpoint = undefined;
      void this.#checkpointOnTimer();
    });
  }

  async #checkpointOnTimer(): Promise<void> {
    while (this.#flushing) await this.#flushing;
    if (this.#closed || !this.#health.ok) return;
    this.#flushing = this.#writeCheckpoint().finally(() => {
      this.#flushing = undefined;
      if (this.#queue.length > 0) this.#wake();
    });
    await this.#flushing;
  }

  /** Writes a checkpoint over whatever none covers yet, in a transaction of its own. */
  async #writeCheckpoint(): Promise<void> {
    const { signer, clock } = this.#options;
    if (!signer || this.#uncovered.count === 0) return;
    try {
      const time = new Date(clock.now()).toISOString();
      const checkpoint = this.#uncovered.checkpoint(time, signer);
      await this.#engine.commit({ events: [], rows: [], counts: [], bodies: [], checkpoint });
      this.#committed([], this.#uncovered, checkpoint);
    } catch (cause) {
      this.#fail(cause, []);
    }
  }

  /** Sums up the events behind the last checkpoint anew, from the engine. */
  async #loadUncovered(): Promise<void> {
    if (!this.#options.signer) return;
    const last = await this.#engine.lastCheckpoint();
    let uncovered = Uncovered.after(last);
    for (let after = last?.to ?? 0;;) {
      const events = await this.#engine.readAll(after, MAX_EVENTS);
      uncovered = uncovered.add(events);
      after = events.at(-1)?.position ?? after;
      if (events.length < MAX_EVENTS) break;
    }
    this.#uncovered = uncovered;
    this.#uncoveredSince = this.#options.clock.monotonic();
    if (uncovered.count > 0) this.#armCheckpoint();
  }

  /**
   * Lets streams go that a file of the archive has, durably; one that has grown since is left.
   * @returns how many were left
   * @throws StoreUnavailable when it could not be written
   */
  async prune(streams: readonly WholeStream[]): Promise<number> {
    while (this.#flushing) await this.#flushing;
    this.#refuseIfUnavailable();
    const pruned = this.#prune(streams);
    this.#flushing = pruned.then(() => {}, () => {}).finally(() => {
      this.#flushing = undefined;
      if (this.#queue.length > 0) this.#wake();
    });
    return await pruned;
  }

  async #prune(streams: readonly WholeStream[]): Promise<number> {
    const { transaction, left } = await preparePruning(
      streams,
      this.#projections,
      (stream) => this.#read(() => this.#engine.readStream(stream)),
      (projection, keys) => this.#rows(projection, keys),
    );
    if (!transaction) return left;
    try {
      await this.#engine.commit(transaction);
    } catch (cause) {
      this.#fail(cause, []);
      throw new StoreUnavailable(`the store takes no writes: ${messageOf(cause)}`, { cause });
    }
    this.#recent.pruned(transaction.prune, transaction.rows);
    return left;
  }

  // When the disk fails.

  #fail(cause: unknown, batch: readonly Waiting[]): void {
    const why = messageOf(cause);
    this.#health = { ok: false, why, since: this.#options.clock.now() };
    this.#recent.forget();
    this.#cancelCheckpoint?.();
    this.#cancelCheckpoint = undefined;
    this.#rejectAll([...batch, ...this.#queue.splice(0)], why, cause);
    if (!this.#closed) this.#probeAfter(PROBE_FIRST);
  }

  #rejectAll(waiters: readonly Waiting[], why: string, cause?: unknown): void {
    for (const waiting of waiters) {
      waiting.reject(new StoreUnavailable(`the store takes no writes: ${why}`, { cause }));
    }
  }

  #probeAfter(ms: number): void {
    this.#cancelProbe?.();
    this.#cancelProbe = this.#options.clock.timer(ms, () => {
      this.#cancelProbe = undefined;
      if (this.#closed) return;
      this.#flushing = this.#probe(ms).finally(() => {
        this.#flushing = undefined;
      });
    });
  }

  async #probe(waited: number): Promise<void> {
    try {
      await this.#engine.recover();
      const head = await this.#engine.head();
      // A commit that was reported as failed may have reached the disk after all: then it counts,
      // and is told before anything is taken that it might change.
      const missed = head > this.#position ? await this.#readFrom(this.#position) : [];
      await this.#loadUncovered();
      this.#position = head;
      this.#health = { ok: true };
      if (missed.length > 0) this.#publish(missed);
    } catch (cause) {
      const since = this.#health.ok ? this.#options.clock.now() : this.#health.since;
      this.#health = { ok: false, why: messageOf(cause), since };
      if (!this.#closed) this.#probeAfter(Math.min(2 * waited, PROBE_MOST));
    }
  }

  async #readFrom(position: number): Promise<StoredEvent[]> {
    const found: StoredEvent[] = [];
    for (let after = position;;) {
      const events = await this.readAll(after, MAX_EVENTS);
      if (events.length === 0) return found;
      found.push(...events);
      after = events.at(-1)!.position;
    }
  }
}

const asError = (error: unknown): Error =>
  error instanceof Error ? error : new Error(String(error));

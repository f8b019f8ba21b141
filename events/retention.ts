/**
 * Retention: what has been finished for long enough leaves the store for the archive.
 *
 *   1. Streams of messages, and of days (day_streams.ts), are chosen in the order of their names,
 *      whose every event a checkpoint covers, and not the last one: what a start checks stays in
 *      the store, as does what webhooks have not been told yet.
 *   2. Their events are written to a file of the archive, which is fsynced and gets its name.
 *   3. StreamsArchived names the file, with its hash. Now it counts.
 *   4. The streams are pruned, a few at a time with pauses, so that no delivery waits for it.
 *   5. StreamsPruned says that this is done.
 *
 * Killed before 3, the file is swept and written anew. Killed before 5, the next run prunes what
 * the file holds and the store has too. At no moment is an event in neither.
 */
import {
  archivedEvents,
  type ArchiveFile,
  type ArchiveFiles,
  archiveFiles,
  RETENTION_STREAM,
} from "./archive.ts";
import { eventLine, exportHeader } from "./audit/jsonl.ts";
import type { Fact } from "./catalogue.ts";
import { seriesOf } from "./day_streams.ts";
import type { RawEvent, RawLog, WholeStream } from "./engine.ts";
import type { EventLog, LogClock } from "./log.ts";

/** What retention asks of a store, beside the log. */
export interface RetentionView {
  /**
   * Up to `limit` finished streams behind a name, in order: messages, then streams of days, with
   * when they began and ended; the end of a stream that is kept is Infinity.
   */
  finished(after: string, limit: number): Promise<FinishedStream[]>;
  /** The positions of a stream's events, in order. */
  positions(stream: string): Promise<number[]>;
  /** The events at these positions, in order. */
  events(positions: readonly number[]): Promise<RawEvent[]>;
  /** The first position that the last checkpoint covers; 0 when there is none. */
  lastCheckpointFrom(): Promise<number>;
}

/** Times are epoch milliseconds. */
export interface FinishedStream {
  readonly stream: string;
  readonly created: number;
  readonly finished: number;
}

export interface RetentionPorts {
  readonly clock: LogClock;
  readonly log: Pick<EventLog, "append" | "version" | "prune">;
  readonly raw: RawLog;
  readonly view: RetentionView;
  readonly files: ArchiveFiles;
}

export interface Archived {
  readonly streams: number;
  readonly events: number;
  readonly files: number;
}

const DAY = 86_400_000;
/** No message has a name behind this: ids are upper case. */
const BEHIND_MESSAGES = "a";
/** Streams in one file, at most. */
const STREAMS = 5_000;
/**
 * What one step does, of which each takes a few milliseconds: names that are looked at, events that
 * are written to a file, events that are pruned (but for a stream that has more).
 */
const PAGE = 100;
const EVENTS = 50;
const STEP = 100;
/** Milliseconds between two steps at least, and how many times as long as a step took. */
const BREATH = 10;
const SHARE = 3;

export class Retention {
  /** How many files the log names; undefined before the first run, and after one that was cut off. */
  #files: number | undefined;

  constructor(private readonly ports: RetentionPorts) {}

  /**
   * Archives and prunes what was finished more than `keep` milliseconds ago; of days, whole ones.
   * @param told the position behind which events are still to be told to somebody, and stay
   * @throws StoreUnavailable, ArchiveDamaged, or what the disk says; run again, it goes on
   */
  async run(
    keep: number,
    signal: AbortSignal,
    told: () => number = () => Infinity,
  ): Promise<Archived> {
    const { clock } = this.ports;
    let number = this.#files ?? await this.#takeUp(signal);
    this.#files = undefined;
    const now = clock.now();
    const before = keep < DAY ? now - keep : Math.floor((now - keep) / DAY) * DAY;
    const total = { streams: 0, events: 0, files: 0 };
    for await (const { created, streams } of this.#batches(before, told(), signal)) {
      const file = `${dateOf(created)}-${String(++number).padStart(6, "0")}.jsonl.gz`;
      const whole = await this.#archive(file, streams, before, signal);
      if (signal.aborted) break;
      total.files += 1;
      total.streams += whole.length;
      total.events += whole.reduce((sum, { version }) => sum + version, 0);
      await this.#prune(file, whole, signal);
    }
    if (!signal.aborted) this.#files = number;
    return total;
  }

  /** Goes on where the last run was cut off. @returns how many files the log names */
  async #takeUp(signal: AbortSignal): Promise<number> {
    const archived = await archiveFiles(this.ports.raw);
    const names = new Set(archived.map(({ file }) => file));
    await this.ports.files.sweep((name) => names.has(name));
    const pruned = new Set(
      (await this.ports.raw.stream(RETENTION_STREAM))
        .filter(({ type }) => type === "StreamsPruned")
        .map(({ data }) => (JSON.parse(data) as { file: string }).file),
    );
    for (const file of archived) {
      if (!pruned.has(file.file) && !signal.aborted) await this.#pruneAgain(file, signal);
    }
    return archived.length;
  }

  /** Streams that may go: messages by the day on which they began, then streams of days. */
  async *#batches(
    before: number,
    told: number,
    signal: AbortSignal,
  ): AsyncGenerator<Batch> {
    const { view } = this.ports;
    const below = Math.min(await view.lastCheckpointFrom(), told + 1);
    let batch: Batch | undefined;
    let spared = "";
    for (let after = "";;) {
      let begun = this.ports.clock.monotonic();
      const page = await view.finished(after, PAGE);
      for (const { stream, created, finished } of page) {
        after = stream;
        const ofDay = stream > BEHIND_MESSAGES;
        if (ofDay && seriesOf(stream) === spared) continue;
        const positions = finished < before ? await view.positions(stream) : [];
        if (positions.length === 0 || positions.at(-1)! >= below) {
          // A series leaves from its oldest stream on.
          if (ofDay) spared = seriesOf(stream);
          continue;
        }
        if (batch && !fits(batch, created, ofDay)) {
          yield batch;
          batch = undefined;
          begun = this.ports.clock.monotonic();
        }
        batch ??= { created, ofDays: ofDay, streams: new Map() };
        batch.streams.set(stream, positions);
      }
      await this.#rest(begun, signal);
      if (page.length < PAGE || signal.aborted) break;
      // Names of messages sort by arrival: behind one that is too young all are.
      if (after < BEHIND_MESSAGES && page.at(-1)!.created >= before) after = BEHIND_MESSAGES;
    }
    if (batch && !signal.aborted) yield batch;
  }

  async #archive(
    file: string,
    streams: ReadonlyMap<string, readonly number[]>,
    before: number,
    signal: AbortSignal,
  ): Promise<WholeStream[]> {
    const { files, log } = this.ports;
    const positions = [...streams.values()].flat().sort((a, b) => a - b);
    const until = new Date(before).toISOString();
    const lines = this.#lines(positions, until, signal);
    const { sha256, octets } = await files.write(file, lines);
    if (signal.aborted) return [];
    const names = [...streams.keys()].sort();
    await this.#append({
      type: "StreamsArchived",
      data: {
        file,
        sha256,
        octets,
        streams: streams.size,
        events: positions.length,
        until,
        first: names[0]!,
        last: names.at(-1)!,
        from: positions[0]!,
        to: positions.at(-1)!,
      },
    }, log);
    return names.map((stream) => ({ stream, version: streams.get(stream)!.length }));
  }

  async *#lines(
    positions: readonly number[],
    until: string,
    signal: AbortSignal,
  ): AsyncGenerator<string> {
    yield exportHeader({ until });
    for (let at = 0; at < positions.length && !signal.aborted; at += EVENTS) {
      const begun = this.ports.clock.monotonic();
      const events = await this.ports.view.events(positions.slice(at, at + EVENTS));
      yield events.map((event) => `${eventLine(event)}\n`).join("");
      await this.#rest(begun, signal);
    }
  }

  /** Prunes what a file holds that was recorded before a crash; not without having read it. */
  async #pruneAgain(file: ArchiveFile, signal: AbortSignal): Promise<void> {
    const versions = new Map<string, number>();
    let read = 0;
    let begun = this.ports.clock.monotonic();
    for await (const { stream, version } of archivedEvents(this.ports.files, file)) {
      versions.set(stream, version);
      if (++read % EVENTS > 0) continue;
      await this.#rest(begun, signal);
      if (signal.aborted) return;
      begun = this.ports.clock.monotonic();
    }
    const whole = Array.from(versions, ([stream, version]) => ({ stream, version }));
    await this.#prune(file.file, whole, signal);
  }

  async #prune(file: string, streams: readonly WholeStream[], signal: AbortSignal): Promise<void> {
    const { clock, log } = this.ports;
    let left = 0;
    for (const step of steps(streams)) {
      if (signal.aborted) return;
      const begun = clock.monotonic();
      left += await log.prune(step);
      await this.#rest(begun, signal);
    }
    await this.#append({ type: "StreamsPruned", data: { file, left } }, log);
  }

  async #append(fact: Fact, log: RetentionPorts["log"]): Promise<void> {
    const expectedVersion = await log.version(RETENTION_STREAM);
    await log.append([{ stream: RETENTION_STREAM, expectedVersion, facts: [fact] }]);
  }

  /** Leaves the thread and the disk to others, for longer when a step took longer. */
  #rest(begun: number, signal: AbortSignal): Promise<void> {
    const ms = Math.max(BREATH, SHARE * (this.ports.clock.monotonic() - begun));
    return new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const stop = () => {
        cancel();
        resolve();
      };
      const cancel = this.ports.clock.timer(ms, () => {
        signal.removeEventListener("abort", stop);
        resolve();
      });
      signal.addEventListener("abort", stop, { once: true });
    });
  }
}

/** Streams that go into one file. */
interface Batch {
  /** When the first of them began. */
  readonly created: number;
  readonly ofDays: boolean;
  /** The positions of their events, by name. */
  readonly streams: Map<string, number[]>;
}

const dateOf = (time: number): string => new Date(time).toISOString().slice(0, 10);

/** Messages are found by the day of their file, and streams of days are few. */
const fits = (batch: Batch, created: number, ofDays: boolean): boolean =>
  batch.streams.size < STREAMS && batch.ofDays === ofDays &&
  (ofDays || dateOf(batch.created) === dateOf(created));

function* steps(streams: readonly WholeStream[]): Generator<WholeStream[]> {
  let step: WholeStream[] = [];
  let events = 0;
  for (const one of streams) {
    if (step.length > 0 && events + one.version > STEP) {
      yield step;
      step = [];
      events = 0;
    }
    step.push(one);
    events += one.version;
  }
  if (step.length > 0) yield step;
}

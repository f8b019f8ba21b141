/**
 * The checker's books on what has left the store: every file of the archive that the log names is
 * on disk as it was written, has whole streams that were finished for long enough, and an event
 * leaves the store only when such a file has it. At the end store and archive together are the log.
 *
 * Some worlds keep what is finished for a while that is short enough to see it go.
 */
import type { ArchiveFile } from "../../events/archive.ts";
import { eventLine } from "../../events/audit/jsonl.ts";
import { trail } from "../../events/audit/trail.ts";
import { verifyCheckpoints } from "../../events/audit/verify.ts";
import { sha256 } from "../../events/chain.ts";
import { seriesOf } from "../../events/day_streams.ts";
import type { RawEvent, Transaction } from "../../events/engine.ts";
import { archiveProjection } from "../../events/projections/archive.ts";
import { queueProjection } from "../../events/projections/queue.ts";
import type { FinishedStream } from "../../events/retention.ts";
import { archiveLookup, finishedStreams, spanningLog } from "./archive.ts";
import { DAY, HOUR, MINUTE } from "./clock.ts";
import type { Disk } from "./disk.ts";
import { Violation } from "./invariants.ts";
import type { World } from "./world.ts";

/** How many worlds let go of anything. */
const RETAINING = 0.25;
/** Between two looks at what may go (src/retention_chore.ts), and what one may take. */
const LOOK = 11 * MINUTE;
/** Streams that are read back at the end. */
const READ_BACK = 3;

export class Archives {
  /** Milliseconds for which what is finished is kept; undefined: for ever. */
  readonly keep: number | undefined;
  /** What files have that the log names. */
  readonly #files = new Map<string, string>();
  readonly #unpruned = new Set<string>();
  /** Streams that files have, with the hash of their last event. */
  readonly #archived = new Map<string, string>();
  /** Ends of the process in the midst of it. */
  interrupted = 0;

  constructor(readonly world: World) {
    const dice = world.dice.fork("retention");
    const { window } = world;
    const keep = dice.pick([window / 40, window / 20, window / 4, Math.min(window / 2, DAY)]);
    // Shorter ones only look more often.
    if (dice.chance(RETAINING)) this.keep = Math.round(Math.max(keep, 4 * MINUTE));
  }

  get files(): number {
    return this.#files.size;
  }

  /** Events that have left the store. */
  get events(): number {
    return this.#disk.events.filter(({ stream }) => this.#disk.pruned.has(stream)).length;
  }

  /** How long the world goes on for what is finished at last. */
  get patience(): number {
    return this.keep === undefined ? 0 : Math.min(this.keep, HOUR) + LOOK;
  }

  /** Nothing more has to leave; the next checkpoint lets go of what the last one keeps. */
  get settled(): boolean {
    return this.keep === undefined || this.#remaining() === undefined;
  }

  get #disk(): Disk {
    return this.world.disk;
  }

  /** Between the first octet of a file and the word that what it has was pruned. */
  get busy(): boolean {
    const { archive, archiveParts } = this.#disk;
    return archiveParts.size > 0 || archive.size > this.#files.size || this.#unpruned.size > 0;
  }

  /** The process ended. */
  ended(): void {
    if (this.busy) this.interrupted++;
  }

  /** A transaction has become durable. */
  durable({ events, prune = [] }: Transaction): void {
    for (const event of events) {
      if (event.type === "StreamsArchived") this.#named(JSON.parse(event.data));
      if (event.type === "StreamsPruned") this.#pruned(JSON.parse(event.data).file);
    }
    for (const stream of prune) this.#left(stream);
    for (const [file, text] of this.#files) {
      if (this.#disk.archive.get(file) !== text) throw new Violation(`${file} is gone or changed`);
    }
  }

  end(): void {
    if (this.keep === undefined) return;
    const remaining = this.#remaining();
    if (remaining !== undefined) throw new Violation(`the archive is not made: ${remaining}`);
    const rows = this.#disk.tables.get(archiveProjection.name)?.rows;
    for (const file of this.#files.keys()) {
      if (!rows?.has(file)) throw new Violation(`6: ${file} has no row`);
    }
  }

  /** Store and archive are the log, whole, and it verifies; chains were as it grew. */
  async verify(): Promise<void> {
    if (this.#files.size === 0) return;
    const log = spanningLog(this.#disk, ({ message }) => {
      throw new Violation(message);
    });
    const { ok, findings, events } = await verifyCheckpoints(trail(log), undefined);
    if (!ok) throw new Violation(`8: ${findings.map((one) => JSON.stringify(one)).join("; ")}`);
    if (events !== this.#disk.events.length) {
      throw new Violation(`store and archive have ${events} of ${this.#disk.events.length} events`);
    }
    const lookup = archiveLookup(this.#disk);
    for (const stream of [...this.#disk.pruned].slice(-READ_BACK)) {
      const found = await lookup.find(stream);
      const history = this.#history(stream);
      if (
        !sameEvents(found?.events ?? [], history) || !sameEvents(await log.stream(stream), history)
      ) {
        throw new Violation(`${stream} is not read back as it was`);
      }
    }
  }

  /** The log names a file: from now on that is where its events are. */
  #named(file: ArchiveFile): void {
    const text = this.#disk.archive.get(file.file);
    if (text === undefined) throw new Violation(`${file.file} is named, and not on disk`);
    if (sha256(text) !== file.sha256) throw new Violation(`${file.file} is another one`);
    if (this.#files.has(file.file)) throw new Violation(`${file.file} is named again`);
    const [, ...lines] = text.trimEnd().split("\n");
    const streams = new Set(lines.map((line) => (JSON.parse(line) as RawEvent).stream));
    const finished = new Map(finishedStreams(this.#disk).map((one) => [one.stream, one]));
    const events: RawEvent[] = [];
    for (const stream of streams) {
      const whole = this.#disk.streams.get(stream);
      if (!whole) throw new Violation(`${file.file} has ${stream}, which is not in the store`);
      this.#mayGo(finished.get(stream), whole.at(-1)!, file.file);
      this.world.hooks.leaves(stream);
      this.#archived.set(stream, whole.at(-1)!.hash);
      events.push(...whole);
    }
    events.sort((a, b) => a.position - b.position);
    if (events.map(eventLine).join("\n") !== lines.join("\n")) {
      throw new Violation(`${file.file} does not have its streams as they are`);
    }
    const names = [...streams].sort();
    const said = [file.streams, file.events, file.first, file.last, file.from, file.to];
    const is = [
      names.length,
      events.length,
      names[0],
      names.at(-1),
      events[0]?.position,
      events.at(-1)?.position,
    ];
    if (String(said) !== String(is)) throw new Violation(`${file.file} has ${is}, not ${said}`);
    this.#files.set(file.file, text);
    this.#unpruned.add(file.file);
  }

  /** It was finished for long enough, and no start needs it. */
  #mayGo(found: FinishedStream | undefined, last: RawEvent, file: string): void {
    const { stream, position } = last;
    if (!found || found.finished + this.keep! > this.world.time.latest()) {
      throw new Violation(`${file} has ${stream}, which is not finished for long enough`);
    }
    if (position >= this.#disk.checkpoints.at(-1)!.from) {
      throw new Violation(`${file} has ${stream}, which the last checkpoint covers`);
    }
  }

  #left(stream: string): void {
    const last = this.#history(stream).at(-1)!;
    if (this.#archived.get(stream) !== last.hash) {
      throw new Violation(`${stream} has left the store, and is in no file that the log names`);
    }
    if (this.#disk.tables.get(queueProjection.name)?.rows.has(stream)) {
      throw new Violation(`6: ${stream} has left the store, and its row has not`);
    }
  }

  #pruned(file: string): void {
    if (!this.#files.has(file)) throw new Violation(`${file} is pruned, and the log has it not`);
    this.#unpruned.delete(file);
  }

  #history(stream: string): RawEvent[] {
    return this.#disk.events.filter((event) => event.stream === stream);
  }

  /** What is to leave, or to be swept, and is there still. */
  #remaining(): string | undefined {
    const { archive, archiveParts, checkpoints, streams } = this.#disk;
    for (const file of this.#unpruned) return `${file} is not pruned`;
    for (const file of [...archiveParts.keys(), ...archive.keys()]) {
      if (!this.#files.has(file)) return `${file} is not swept`;
    }
    const now = this.world.time.now();
    const keep = this.keep!;
    const before = keep < DAY ? now - keep : Math.floor((now - keep) / DAY) * DAY;
    const needed = checkpoints.at(-1)?.from ?? 0;
    let spared: string | undefined;
    for (const { stream, finished } of finishedStreams(this.#disk)) {
      const ofDay = stream.includes(" ");
      if (ofDay && seriesOf(stream) === spared) continue;
      if (finished < before && streams.get(stream)!.at(-1)!.position < needed) return stream;
      if (ofDay) spared = seriesOf(stream);
    }
    return undefined;
  }
}

type Hashed = readonly { readonly hash: string }[];

const sameEvents = (a: Hashed, b: Hashed): boolean =>
  a.length === b.length && a.every(({ hash }, i) => hash === b[i]!.hash);

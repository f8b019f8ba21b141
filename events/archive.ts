/**
 * The archive: finished streams that have left the store, in files of gzip (RFC 1952) over JSON
 * lines as exports have them (audit/jsonl.ts), the events in the order of the log. Each file is
 * named by an event on the stream `retention`, with its SHA-256; a file that no event names holds
 * nothing that is not in the store too.
 *
 * `zcat FILE | deno task audit verify -` verifies one by itself.
 */
import { createHash } from "node:crypto";
import { dirname } from "node:path";
import { parseJsonLines } from "./audit/jsonl.ts";
import type { EventData } from "./catalogue.ts";
import { syncDirectory } from "./data_folder.ts";
import { messageOf } from "./decode.ts";
import type { RawEvent, RawLog } from "./engine.ts";

export const RETENTION_STREAM = "retention";

export const archivePath = (dataDir: string): string => `${dataDir}/archive`;

/** What the log says of a file of the archive. */
export type ArchiveFile = EventData<"StreamsArchived">;

/** A file of the archive is missing, or is not the one that was written. */
export class ArchiveDamaged extends Error {
  override readonly name = "ArchiveDamaged";
  constructor(readonly file: string, readonly why: string) {
    super(`archive ${file}: ${why}`);
  }
}

/** Where the files are. Names are those of StreamsArchived. */
export interface ArchiveFiles extends ArchiveReader {
  /**
   * Writes a file of lines, compressed, and makes it and its name durable.
   * @returns SHA-256 over the file, hex, and its octets
   * @throws when there is one of that name: it may be all that is left of its events
   */
  write(name: string, lines: AsyncIterable<string>): Promise<{ sha256: string; octets: number }>;
  /** Removes what was begun, and every file that is not `kept`. */
  sweep(kept: (name: string) => boolean): Promise<void>;
}

export interface ArchiveReader {
  /**
   * The lines of a file again, in pieces of any length.
   * @param sha256 of the file, as `write` returned it
   * @throws ArchiveDamaged, at the latest at the end, when it is not the file that was written
   */
  read(name: string, sha256: string): AsyncIterable<Uint8Array>;
}

export class DirectoryArchiveFiles implements ArchiveFiles {
  constructor(private readonly dir: string) {}

  async write(
    name: string,
    lines: AsyncIterable<string>,
  ): Promise<{ sha256: string; octets: number }> {
    await Deno.mkdir(this.dir, { recursive: true, mode: 0o700 });
    await syncDirectory(dirname(this.dir));
    const path = `${this.dir}/${name}`;
    if (await exists(path)) throw new Error(`${path} is there already, and is not replaced`);
    const part = `${path}.part`;
    const hash = createHash("sha256");
    let octets = 0;
    const file = await Deno.open(part, { write: true, create: true, truncate: true, mode: 0o600 });
    try {
      const compressed = ReadableStream.from(lines)
        .pipeThrough(new TextEncoderStream())
        .pipeThrough(new CompressionStream("gzip"));
      for await (const chunk of compressed) {
        hash.update(chunk);
        octets += chunk.length;
        for (let at = 0; at < chunk.length;) at += await file.write(chunk.subarray(at));
      }
      await file.sync();
    } catch (cause) {
      await Deno.remove(part).catch(() => {});
      throw cause;
    } finally {
      file.close();
    }
    await Deno.rename(part, path);
    await syncDirectory(this.dir);
    return { sha256: hash.digest("hex"), octets };
  }

  async *read(name: string, sha256: string): AsyncGenerator<Uint8Array> {
    let file: Deno.FsFile;
    try {
      file = await Deno.open(`${this.dir}/${name}`);
    } catch (cause) {
      if (cause instanceof Deno.errors.NotFound) throw new ArchiveDamaged(name, "is missing");
      throw new ArchiveDamaged(name, `cannot be read: ${messageOf(cause)}`);
    }
    const hash = createHash("sha256");
    const hashed = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
      transform: (chunk, next) => {
        hash.update(chunk);
        next.enqueue(chunk);
      },
    });
    try {
      // Ending the iteration early closes the file.
      yield* file.readable.pipeThrough(hashed).pipeThrough(new DecompressionStream("gzip"));
    } catch (cause) {
      throw new ArchiveDamaged(name, `is damaged: ${messageOf(cause)}`);
    }
    if (hash.digest("hex") !== sha256) {
      throw new ArchiveDamaged(name, "is not the file that was written");
    }
  }

  async sweep(kept: (name: string) => boolean): Promise<void> {
    try {
      for await (const { name, isFile } of Deno.readDir(this.dir)) {
        if (isFile && OURS.test(name) && !kept(name)) await Deno.remove(`${this.dir}/${name}`);
      }
    } catch (cause) {
      if (!(cause instanceof Deno.errors.NotFound)) throw cause;
    }
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return false;
    throw cause;
  }
}

const OURS = /^\d{4}-\d\d-\d\d-\d{6}\.jsonl\.gz(\.part)?$/;

/**
 * The events of a file, in order.
 * @throws ArchiveDamaged, at the latest behind the last event
 */
export async function* archivedEvents(
  files: ArchiveReader,
  { file, sha256, events }: ArchiveFile,
): AsyncGenerator<RawEvent> {
  let found = 0;
  for await (const entry of parseJsonLines(files.read(file, sha256))) {
    if ("bad" in entry) {
      throw new ArchiveDamaged(file, `line ${entry.bad.line}: ${entry.bad.what}`);
    }
    if (!("event" in entry)) continue;
    found += 1;
    yield entry.event;
  }
  if (found !== events) throw new ArchiveDamaged(file, `has ${found} events, not ${events}`);
}

/** The files that the log names, in the order in which they were written. */
export async function archiveFiles(log: Pick<RawLog, "stream">): Promise<ArchiveFile[]> {
  return (await log.stream(RETENTION_STREAM)).filter(({ type }) => type === "StreamsArchived")
    .map(({ data }) => JSON.parse(data) as ArchiveFile);
}

/**
 * The log as it was before anything left the store: events of the store and of the archive, merged
 * by position. An event that is in both, because it has not been pruned yet, comes once.
 *
 * Files that are damaged are told to `report` once each, and give what can be read of them.
 */
export class SpanningLog implements RawLog {
  readonly #store: RawLog;
  readonly #files: ArchiveReader;
  readonly #report: (damaged: ArchiveDamaged) => void;
  /** A reader that goes on where it stopped finds the files still open. */
  #reading: { at: number; readonly events: AsyncGenerator<RawEvent> } | undefined;

  constructor(
    store: RawLog,
    files: ArchiveReader,
    report: (damaged: ArchiveDamaged) => void = () => {},
  ) {
    this.#store = store;
    this.#files = files;
    this.#report = report;
  }

  newest: RawLog["newest"] = () => this.#store.newest();
  checkpoints: RawLog["checkpoints"] = (after, limit) => this.#store.checkpoints(after, limit);

  async events(after: number, limit: number): Promise<RawEvent[]> {
    // Taken out while it is used: another reader at the same time begins its own.
    let reading = this.#reading;
    this.#reading = undefined;
    if (reading?.at !== after) {
      await reading?.events.return(undefined);
      reading = { at: after, events: this.#merged(after) };
    }
    const page: RawEvent[] = [];
    while (page.length < limit) {
      const next = await reading.events.next();
      if (next.done) return page;
      page.push(next.value);
    }
    reading.at = page.at(-1)?.position ?? after;
    if (this.#reading) await reading.events.return(undefined);
    else this.#reading = reading;
    return page;
  }

  async stream(stream: string): Promise<RawEvent[]> {
    const kept = await this.#store.stream(stream);
    if (kept.length > 0) return kept;
    // Names of messages sort by time of arrival, so that few files span one. The newest is right.
    for (const file of (await archiveFiles(this.#store)).toReversed()) {
      if (stream < file.first || stream > file.last) continue;
      const events: RawEvent[] = [];
      for await (const event of this.#eventsOf(file)) {
        if (event.stream === stream) events.push(event);
      }
      if (events.length > 0) return events;
    }
    return [];
  }

  async *#merged(after: number): AsyncGenerator<RawEvent> {
    const waiting = (await archiveFiles(this.#store)).filter(({ to }) => to > after)
      .sort((a, b) => a.from - b.from);
    const open: { head: RawEvent; readonly rest: AsyncGenerator<RawEvent> }[] = [];
    const begin = async (rest: AsyncGenerator<RawEvent>) => {
      for await (const head of only(rest, after)) {
        open.push({ head, rest });
        return;
      }
    };
    try {
      await begin(this.#ofStore(after));
      let last: RawEvent | undefined;
      for (;;) {
        let first = lowest(open);
        // A file is opened when its first event is next, and not before.
        while (waiting.length > 0 && (!first || waiting[0]!.from <= first.head.position)) {
          await begin(this.#eventsOf(waiting.shift()!));
          first = lowest(open);
        }
        if (!first) return;
        const event = first.head;
        const next = await first.rest.next();
        if (next.done) open.splice(open.indexOf(first), 1);
        else first.head = next.value;
        if (last?.position === event.position && last.hash === event.hash) continue;
        last = event;
        yield event;
      }
    } finally {
      for (const { rest } of open) await rest.return(undefined);
    }
  }

  async *#ofStore(after: number): AsyncGenerator<RawEvent> {
    for (;;) {
      const page = await this.#store.events(after, PAGE);
      yield* page;
      if (page.length < PAGE) return;
      after = page.at(-1)!.position;
    }
  }

  async *#eventsOf(file: ArchiveFile): AsyncGenerator<RawEvent> {
    try {
      yield* archivedEvents(this.#files, file);
    } catch (cause) {
      if (!(cause instanceof ArchiveDamaged)) throw cause;
      this.#report(cause);
    }
  }
}

const PAGE = 1_000;

/** The first event behind a position; the rest stays in the generator. */
async function* only(events: AsyncGenerator<RawEvent>, after: number): AsyncGenerator<RawEvent> {
  for (;;) {
    const next = await events.next();
    if (next.done) return;
    if (next.value.position > after) yield next.value;
  }
}

const lowest = <S extends { readonly head: RawEvent }>(open: readonly S[]): S | undefined =>
  open.reduce<S | undefined>(
    (best, one) => best && best.head.position <= one.head.position ? best : one,
    undefined,
  );

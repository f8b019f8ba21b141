/**
 * Looks up a stream that has left the store, for whoever asks what happened to a message long ago.
 *
 * Only files that can hold it are read, piece by piece: what is not of the stream is passed over
 * unparsed, so that neither memory nor the event loop feels the size of a file. A few look at a
 * time, some wait, and whoever has gone away reads no further.
 */
import { Buffer } from "node:buffer";
import { ArchiveDamaged, type ArchiveReader } from "./archive.ts";
import { parseJsonLines } from "./audit/jsonl.ts";
import type { StoredEvent } from "./catalogue.ts";
import { decodeStream } from "./decode.ts";
import type { RawEvent } from "./engine.ts";
import type { ArchiveView, KnownFile } from "./projections/archive.ts";

export interface ArchivedStream {
  /** Name in the folder `archive`. */
  readonly file: string;
  readonly events: readonly StoredEvent[];
}

/** More look into the archive than may wait. */
export class LookupBusy extends Error {
  override readonly name = "LookupBusy";
  constructor() {
    super("many are looking into the archive already");
  }
}

export interface LookupLimits {
  /** Files that are read at a time. */
  readonly atOnce: number;
  /** Lookups that wait for their turn. */
  readonly waiting: number;
}

const LIMITS: LookupLimits = { atOnce: 2, waiting: 20 };
/** Octets of a line, at most; as an export is read back. */
const LONGEST_LINE = 16 * 1024 * 1024;
/** Octets that are looked through between two turns of the event loop. */
const TURN = 256 * 1024;
const LF = 0x0a;

export class ArchiveLookup {
  #running = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(
    private readonly view: ArchiveView,
    private readonly files: ArchiveReader,
    private readonly limits = LIMITS,
  ) {}

  /**
   * The stream, whole; undefined when no file has it.
   * @throws ArchiveDamaged when a file that can hold it is not as it was written
   * @throws UnreadableStream, LookupBusy, or the reason of the signal
   */
  async find(
    stream: string,
    signal: AbortSignal = new AbortController().signal,
  ): Promise<ArchivedStream | undefined> {
    const files = await this.view.filesOf(stream);
    if (files.length === 0) return undefined;
    await this.#turn(signal);
    try {
      for (const file of files) {
        const raws = await this.#read(file, stream, signal);
        if (raws.length > 0) return { file: file.file, events: decodeStream(raws) };
      }
      return undefined;
    } finally {
      const next = this.#waiting.shift();
      if (next) next(); // takes over its turn
      else this.#running -= 1;
    }
  }

  async #turn(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#running < this.limits.atOnce) {
      this.#running += 1;
      return;
    }
    if (this.#waiting.length >= this.limits.waiting) throw new LookupBusy();
    await new Promise<void>((resolve, reject) => {
      const start = () => {
        signal.removeEventListener("abort", leave);
        resolve();
      };
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(start), 1);
        reject(signal.reason);
      };
      this.#waiting.push(start);
      signal.addEventListener("abort", leave, { once: true });
    });
  }

  /** To its end, since only there it is known whether the file is the one that was written. */
  async #read(
    { file, sha256 }: KnownFile,
    stream: string,
    signal: AbortSignal,
  ): Promise<RawEvent[]> {
    const events: RawEvent[] = [];
    const text = `"stream":${JSON.stringify(stream)}`;
    const lines = linesWith(text, file, untilGone(this.files.read(file, sha256), signal));
    for await (const entry of parseJsonLines(lines)) {
      if ("bad" in entry) throw new ArchiveDamaged(file, `a line is ${entry.bad.what}`);
      if ("event" in entry && entry.event.stream === stream) events.push(entry.event);
    }
    return events;
  }
}

/**
 * Nobody reads on for whoever has gone away; and others have their turn, which they would not by
 * themselves: what has been decompressed comes without waiting for anything.
 */
async function* untilGone(
  pieces: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  let octets = 0;
  for await (const piece of pieces) {
    signal.throwIfAborted();
    yield piece;
    octets += piece.length;
    if (octets < TURN) continue;
    octets = 0;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** The whole lines that have a text in them. */
async function* linesWith(
  text: string,
  file: string,
  octets: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const wanted = Buffer.from(text);
  /** The beginning of a line whose end has not come yet. */
  let begun: Uint8Array[] = [];
  let length = 0;
  for await (const piece of octets) {
    const end = piece.lastIndexOf(LF) + 1;
    if (end > 0) {
      const whole = Buffer.concat([...begun, piece.subarray(0, end)]);
      begun = [];
      length = 0;
      for (let at = whole.indexOf(wanted); at >= 0;) {
        const next = whole.indexOf(LF, at) + 1;
        yield whole.subarray(whole.lastIndexOf(LF, at) + 1, next);
        at = whole.indexOf(wanted, next);
      }
    }
    length += piece.length - end;
    if (length > LONGEST_LINE) {
      throw new ArchiveDamaged(file, `has a line of more than ${LONGEST_LINE} octets`);
    }
    if (end < piece.length) begun.push(piece.slice(end));
  }
}

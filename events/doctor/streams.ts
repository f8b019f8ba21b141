/**
 * The log itself: positions and checkpoints in the order of the log, then every stream by itself:
 * its chain, whether its events can be read, and whether a fold accepts them.
 */
import type { KeyObject } from "node:crypto";
import type { StoredEvent } from "../catalogue.ts";
import { chainFindings, type Link } from "../chain.ts";
import { decode, messageOf } from "../decode.ts";
import { trail } from "../audit/trail.ts";
import { verifyCheckpoints } from "../audit/verify.ts";
import type { RawEvent, RawLog } from "../engine.ts";
import { FROM_BACKUP, type Report } from "./finding.ts";
import type { SqliteEngine } from "../sqlite_engine.ts";
import type { Scratch } from "./scratch.ts";

/** Begins the fold of a stream: what it returns takes its events and throws at an impossible one. */
export type BeginFold = (stream: string) => (event: StoredEvent) => void;

export interface LogSize {
  readonly events: number;
  readonly checkpoints: number;
  streams: number;
}

export async function examineLog(
  raw: RawLog,
  publicKey: KeyObject | undefined,
  report: Report,
): Promise<LogSize> {
  const verdict = await verifyCheckpoints(trail(raw), publicKey);
  for (const { checkpoint, position, what } of verdict.findings) {
    report({
      kind: "log",
      where: checkpoint === undefined ? `position ${position}` : `checkpoint ${checkpoint}`,
      what,
      means: checkpoint === undefined
        ? "events were dropped from the log, or moved in it"
        : "the events that it covers, or the checkpoint, are not those that were signed",
      remedy: `events are never repaired: ${FROM_BACKUP}, or keep the log as evidence`,
    });
  }
  const { events, checkpoints } = verdict;
  return { events, checkpoints, streams: 0 };
}

export function examineStreams(
  engine: SqliteEngine,
  beginFold: BeginFold,
  scratch: Scratch,
  size: LogSize,
  report: Report,
): void {
  let stream: StreamExamination | undefined;
  for (const event of byStream(engine)) {
    if (stream?.stream !== event.stream) {
      stream?.end(scratch, report);
      stream = new StreamExamination(event.stream, beginFold(event.stream));
      size.streams += 1;
    }
    stream.take(event);
  }
  stream?.end(scratch, report);
}

function byStream(engine: SqliteEngine): Iterable<RawEvent> {
  return engine.db.prepare(
    `SELECT position, stream, version, type, schema, time, data, prev, hash FROM events
     ORDER BY stream, version`,
  ).iterate() as unknown as Iterable<RawEvent>;
}

class StreamExamination {
  #before: Link | undefined;
  #broken: { readonly at: RawEvent; readonly what: string; readonly means: string } | undefined;
  #quarantined = false;

  constructor(readonly stream: string, private readonly fold: (event: StoredEvent) => void) {}

  take(event: RawEvent): void {
    const [chain] = chainFindings(event, this.#before);
    if (chain !== undefined) {
      this.#break(event, chain, "the event, or one before it, was changed behind our back");
    }
    this.#before = event;
    let decoded: StoredEvent;
    try {
      decoded = decode(event);
    } catch (cause) {
      const means = "a newer version wrote it, or it was changed behind our back";
      const what = messageOf(cause).replace(/^stream \S+, version \d+: /, ""); // said by `where`
      return this.#break(event, what, means);
    }
    this.#quarantined = decoded.type === "Held" && decoded.data.why.startsWith("quarantined");
    if (this.#broken) return;
    try {
      this.fold(decoded);
    } catch (cause) {
      this.#break(event, messageOf(cause), "the event cannot have happened where it stands");
    }
  }

  /** The first thing that is wrong says what has to be said; the rest follows from it. */
  #break(at: RawEvent, what: string, means: string): void {
    this.#broken ??= { at, what, means };
  }

  end(scratch: Scratch, report: Report): void {
    if (!this.#broken) return;
    const { at, what, means } = this.#broken;
    scratch.addBroken(this.stream);
    report({
      kind: "stream",
      where: `message ${this.stream}, version ${at.version}, position ${at.position}`,
      what,
      means: `${means}; the message is ${
        this.#quarantined ? "held, and" : "held when it is due, and"
      } not attempted`,
      remedy: `events are never repaired: ${FROM_BACKUP}, or read what is left of it with ` +
        `"audit export --message ${this.stream}"`,
    });
  }
}

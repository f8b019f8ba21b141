/**
 * Expiry: gives up on messages that wait, when their time is over. That is the deadline which their
 * submitter set, or the lifetime which the policy in force grants them, whichever ends first, and
 * wherever they wait: for their next attempt, for their turn in a backlog, for a destination that
 * is down. What is held does not expire, and an attempt that is under way ends first.
 *
 * The queue projection has what waits in the order of deadlines, and in the order of age. Which
 * lifetime a message has is for the configuration to say; each that there is has a mark in the
 * order of age, up to which messages were asked whether it is theirs. So a message is looked at
 * once for its deadline and once for each lifetime, at the moment when that would end, and one
 * timer waits for the earliest such moment.
 */
import type { StoredEvent } from "../events/catalogue.ts";
import type { QueueRow, WaitLimit } from "../events/projections/queue.ts";
import type { Message } from "./message.ts";
import { losePatienceWith, type MessagePorts } from "./message_actor.ts";
import { factsOf } from "./patience.ts";
import type { RoutingFacts } from "./ports.ts";
import { Rounds } from "./rounds.ts";
import { pause } from "./waiting.ts";

export interface ExpiryPorts extends MessagePorts {
  /** Every lifetime that `policy` may give a message, milliseconds. */
  readonly lifetimes: () => readonly number[];
}

/** What messages wait for, and who has to know that one waits no more. */
export interface Waits {
  /** The destination of a message, and why it is down; `down` is absent when it is not. */
  destinationOf(facts: RoutingFacts): { readonly key: string; readonly down?: string };
  /** A message has ended while it waited. */
  ended(stream: string): void;
  /** Reading ended with this. It goes on when it is opened again. */
  failed(cause: unknown): void;
  /** Aborts the recording of what the store does not take: the process ends. */
  readonly gone: AbortSignal;
}

/** The last attempt is due when the lifetime ends: it has this long to begin, milliseconds. */
export const LAST_TURN = 10_000;
/**
 * What outlived its lifetime while nobody could try it (the process was down, the disk full) is
 * tried for this long first, milliseconds.
 */
export const LAST_CHANCE = 900_000;
/**
 * Which lifetime a message has may change with what is learnt of its destination: so often all are
 * asked again, milliseconds.
 */
const ASK_AGAIN = 3_600_000;
/** Rows read at once. */
const PAGE = 500;
/** A pause between full pages, in which deliveries go on, milliseconds. */
const BREATH = 2;
/** Messages given up on at once: their events share commits. */
const AT_ONCE = 20;

interface Mark {
  readonly by: WaitLimit;
  /** Milliseconds from what the rows have to the moment that is meant. */
  readonly after: number;
  /** Up to here messages were looked at. */
  passed: { readonly at: number; readonly stream: string };
}

export class Expiry {
  readonly #ports: ExpiryPorts;
  readonly #waits: Waits;
  readonly #rounds: Rounds;
  #marks: Mark[] = [];
  /** Messages that wait again, and whose time may have ended while they did not. */
  readonly #returned = new Set<string>();
  /** Monotonic. */
  #chanceUntil = 0;
  #askAgainAt = 0;
  /** The least lifetime that a message may have now, milliseconds; undefined: not asked yet. */
  #least: number | undefined;
  /** When marks were moved, and when one has to be moved again; epoch milliseconds. */
  #movedAt = Infinity;
  #moveAt = Infinity;

  constructor(ports: ExpiryPorts, waits: Waits) {
    this.#ports = ports;
    this.#waits = waits;
    this.#rounds = new Rounds(ports.clock, () => this.#look(), waits.failed);
  }

  open(): void {
    this.#chanceUntil = this.#ports.clock.monotonic() + LAST_CHANCE;
    this.#returned.clear();
    this.#rounds.open();
    this.askAgain();
  }

  close(): void {
    this.#rounds.close();
  }

  /** Lifetimes may have changed. */
  askAgain(): void {
    this.#least = undefined;
    this.#askAgainAt = -Infinity;
    this.#movedAt = Infinity;
    this.#rounds.ask();
  }

  /** Looks out for the end of what is new. */
  committed(events: readonly StoredEvent[]): void {
    for (const { type, data, stream, time } of events) {
      if (type !== "Enqueued") continue;
      const { expires } = data;
      const agesFrom = Math.max(Date.parse(time), Date.parse(data.due));
      this.#await(stream, agesFrom, expires);
    }
  }

  /** A message waits again. */
  expect(stream: string, { agesFrom, enqueued }: Message): void {
    this.#await(stream, agesFrom, enqueued.expires);
  }

  #await(stream: string, agesFrom: number, expires: string | undefined): void {
    // Not for every message: there may be as many lifetimes as accounts.
    this.#least ??= Math.min(...new Set(this.#ports.lifetimes()));
    const lifetimeEnds = agesFrom + this.#least + LAST_TURN;
    const ends = Math.min(lifetimeEnds, expires === undefined ? Infinity : Date.parse(expires));
    if (ends > this.#ports.clock.now()) {
      this.#moveAt = Math.min(this.#moveAt, ends);
      return this.#rounds.wake(ends);
    }
    this.#returned.add(stream);
    this.#rounds.ask();
  }

  async #look(): Promise<void> {
    const { clock, view } = this.#ports;
    for (const stream of this.#returned) {
      this.#returned.delete(stream);
      const row = await view.get(stream);
      if (row?.state === "queued") await this.#judge([row]);
      if (!this.#rounds.isOpen) return;
    }
    const now = clock.now();
    // Sleeps are short, because the wall clock may jump.
    if (now >= this.#movedAt && now < this.#moveAt) return this.#rounds.wake(this.#moveAt);
    this.#setMarks();
    this.#movedAt = now;
    const askAgain = this.#askAgainAt - clock.monotonic();
    this.#moveAt = now + Math.ceil(Math.min(askAgain, this.#chance || Infinity));
    for (const mark of this.#marks) {
      const next = await this.#pass(mark);
      this.#moveAt = Math.min(this.#moveAt, next);
    }
    this.#rounds.wake(this.#moveAt);
  }

  /** For how long lifetimes are not enforced yet, milliseconds. */
  get #chance(): number {
    return Math.max(0, this.#chanceUntil - this.#ports.clock.monotonic());
  }

  #setMarks(): void {
    const { clock } = this.#ports;
    if (clock.monotonic() >= this.#askAgainAt) {
      this.#askAgainAt = clock.monotonic() + ASK_AGAIN;
      this.#marks = [];
    }
    const lifetimes = this.#chance > 0 ? [] : new Set(this.#ports.lifetimes());
    const ages = [...lifetimes].map((ms) => ({ by: "ages_from" as const, after: ms + LAST_TURN }));
    this.#marks = [{ by: "expires" as const, after: 0 }, ...ages].map((one) =>
      this.#marks.find(({ by, after }) => by === one.by && after === one.after) ??
        { ...one, passed: { at: Number.MIN_SAFE_INTEGER, stream: "" } }
    );
  }

  /** Moves a mark up to now; says when there is more to do for it, epoch milliseconds. */
  async #pass(mark: Mark): Promise<number> {
    const { clock, view } = this.#ports;
    const { by, after } = mark;
    while (this.#rounds.isOpen) {
      const upTo = clock.now() - after;
      // The wall clock was set back: what has come since then lies behind the mark.
      if (mark.passed.at > upTo) mark.passed = { at: upTo, stream: "" };
      const rows = await view.waiting(by, upTo, PAGE, mark.passed);
      await this.#judge(rows);
      const last = rows.at(-1);
      if (last) mark.passed = { at: last[by]!, stream: last.stream };
      if (rows.length < PAGE) {
        const next = await view.nextWaiting(by, upTo);
        return next === undefined ? Infinity : next + after;
      }
      await pause(clock, BREATH, this.#waits.gone);
    }
    return Infinity;
  }

  /** Gives up on those whose time is over. */
  async #judge(rows: readonly QueueRow[]): Promise<void> {
    for (let n = 0; n < rows.length && this.#rounds.isOpen; n += AT_ONCE) {
      await Promise.all(rows.slice(n, n + AT_ONCE).map((row) => this.#judgeOne(row)));
    }
  }

  async #judgeOne(row: QueueRow): Promise<void> {
    const { clock, policy } = this.#ports;
    const { stream, account, expires, ages_from } = row;
    const now = clock.now();
    const { key: destination, down } = this.#waits.destinationOf(factsOf(row));
    const isOld = () =>
      this.#chance === 0 &&
      now >= ages_from + policy({ account, destination }).lifetime + LAST_TURN;
    const act = expires !== null && now >= expires
      ? "missDeadline"
      : isOld()
      ? "expire"
      : undefined;
    if (!act) return;
    const why = down === undefined ? undefined : `its destination is down: ${down}`;
    const message = await losePatienceWith(this.#ports, stream, act, why, this.#waits.gone);
    if (message?.status === "failed") this.#waits.ended(stream);
  }
}

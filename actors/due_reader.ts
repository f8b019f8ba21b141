/**
 * Reads what is due out of the queue projection, in due order, a page at a time.
 *
 * It remembers how far it has read. Where a line of the schedule is full, it goes on without it,
 * and reads that line on from where it was turned away once there is room. One timer wakes it at
 * the earliest due time there is.
 */
import { before, type Place } from "./line.ts";
import type { Clock, QueueRow, QueueView } from "./ports.ts";
import { Rounds } from "./rounds.ts";
import type { Refill } from "./schedule.ts";

/** Rows read at once. */
const PAGE = 500;

/** Sorts after every stream id. */
const LAST_STREAM = "\u{10ffff}";
const START: Place = { due: Number.MIN_SAFE_INTEGER, stream: "" };

/** Where the rows go. */
export interface Reading {
  /** No more is to be read until `roomAgain`. */
  full(): boolean;
  /** Takes a row; the name of its line when that is full (the schedule remembers the place). */
  offer(row: QueueRow): string | undefined;
  /** A page was offered. */
  read(): void;
  /** Reading ended with this. It goes on when it is opened again. */
  failed(cause: unknown): void;
}

export const lineOf = ({ destination, owner }: { destination: string; owner: string }): string =>
  `${destination}\n${owner}`;

export class DueReader {
  readonly #ports: { readonly clock: Clock; readonly view: QueueView };
  readonly #into: Reading;
  readonly #rounds: Rounds;
  /** Everything before this place was offered, or was turned away and is remembered. */
  #cursor: Place = START;
  /** Lines that have to be read on. */
  #refills: Refill[] = [];
  /** Reading stopped because there was no room. */
  #paused = false;

  constructor(ports: { readonly clock: Clock; readonly view: QueueView }, into: Reading) {
    this.#ports = ports;
    this.#into = into;
    this.#rounds = new Rounds(ports.clock, () => this.#readAll(), into.failed);
  }

  /** Reads from the beginning, and from then on whatever becomes due. */
  open(): void {
    this.#cursor = START;
    this.#refills = [];
    this.#rounds.open();
  }

  close(): void {
    this.#rounds.close();
  }

  /** A message is due at a place in the order that reading may have passed already. */
  expect(place: Place): void {
    if (!before(this.#cursor, place)) this.#cursor = { due: place.due, stream: "" };
    if (place.due > this.#ports.clock.now()) this.#rounds.wake(place.due);
    else this.#rounds.ask();
  }

  /** A line is half empty, and has to be read on. */
  refill(refill: Refill): void {
    this.#refills.push(refill);
    this.#rounds.ask();
  }

  /** There is room again, if there was none. */
  roomAgain(): void {
    if (this.#paused) this.#rounds.ask();
  }

  async #readAll(): Promise<void> {
    const { view, clock } = this.#ports;
    // One moment for both questions: what became due between two would be in neither answer.
    let now = clock.now();
    for (let more = true; more || this.#refills.length > 0;) {
      this.#paused = this.#into.full();
      if (this.#paused || !this.#rounds.isOpen) return;
      const refill = this.#refills.pop();
      if (refill) await this.#readLine(refill);
      else more = await this.#readOn(now = clock.now());
    }
    const due = await view.nextDue(now);
    if (due !== undefined) this.#rounds.wake(due);
  }

  /** Reads a page from the cursor on; false when there is no more that is due. */
  async #readOn(now: number): Promise<boolean> {
    const from = this.#cursor;
    const { rows } = await this.#offerPage(from, now);
    if (this.#cursor !== from) return true; // `expect` has moved it back meanwhile: it stands
    this.#cursor = rows.at(-1) ?? from;
    return rows.length === PAGE;
  }

  /** Reads a line on until it is full again or nothing is due. */
  async #readLine(refill: Refill): Promise<void> {
    const { from } = refill;
    // What stands at the place itself was turned away: start just before it.
    let after: Place = { due: from.due - 1, stream: LAST_STREAM };
    for (;;) {
      const { rows, turnedAway } = await this.#offerPage(after, this.#ports.clock.now());
      if (rows.length < PAGE || turnedAway.has(lineOf(refill))) return;
      after = rows.at(-1)!;
      if (!this.#rounds.isOpen) return;
      if (this.#into.full()) {
        this.#refills.push({ ...refill, from: after });
        return;
      }
    }
  }

  /** Offers the rows that are due after a place; says which lines had no room for some. */
  async #offerPage(
    after: Place,
    now: number,
  ): Promise<{ rows: Place[]; turnedAway: Set<string> }> {
    const rows = await this.#ports.view.due(now, PAGE, after);
    const turnedAway = new Set<string>();
    for (const row of rows) {
      const line = this.#into.offer(row);
      if (line !== undefined) turnedAway.add(line);
    }
    this.#into.read();
    return { rows: rows.map((row) => ({ due: row.due!, stream: row.stream })), turnedAway };
  }
}

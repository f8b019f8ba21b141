/**
 * One destination: what waits for a next hop, how much of it may run at once, and where in the
 * due order the rest begins.
 *
 * The line is short (LINE_LENGTH): a backlog stays in the queue projection. When the line is full,
 * what comes next is not taken, and `overflow` remembers the first place in the due order from
 * which this destination has to be read again.
 */

/** A place in the due order of the queue projection: due time (epoch milliseconds), then stream. */
export interface Place {
  readonly due: number;
  readonly stream: string;
}

export function before(a: Place, b: Place): boolean {
  return a.due < b.due || (a.due === b.due && a.stream < b.stream);
}

/** How many messages stand in line per destination; a few round trips' worth of work. */
export const LINE_LENGTH = 100;

export class Destination<Item extends Place> {
  /** Attempts running now. */
  running = 0;
  #line: Item[] = [];
  #next = 0;
  #overflow: Place | undefined;

  constructor(readonly key: string, public limit: number) {}

  get waiting(): number {
    return this.#line.length - this.#next;
  }

  /** Whether something could be started here now. */
  get ready(): boolean {
    return this.waiting > 0 && this.running < this.limit;
  }

  /** Whether there is nothing to remember about this destination. */
  get idle(): boolean {
    return this.waiting === 0 && this.running === 0 && this.#overflow === undefined;
  }

  /** Where to read on, once the line is half empty and something was turned away. */
  get refillFrom(): Place | undefined {
    return this.waiting <= LINE_LENGTH / 2 ? this.#overflow : undefined;
  }

  /** Takes the item in, or remembers where it was turned away. */
  offer(item: Item): boolean {
    if (this.waiting < LINE_LENGTH) {
      this.#line.push(item);
      return true;
    }
    if (!this.#overflow || before(item, this.#overflow)) this.#overflow = item;
    return false;
  }

  /** The reading that `refillFrom` asked for begins; it will mark again what it turns away. */
  refilling(): void {
    this.#overflow = undefined;
  }

  /** Takes the next item out of the line and counts it as running. */
  start(): Item | undefined {
    const item = this.#line[this.#next];
    if (item === undefined) return undefined;
    this.#next++;
    if (this.#next === this.#line.length) {
      this.#line = [];
      this.#next = 0;
    }
    this.running++;
    return item;
  }

  ended(): void {
    this.running--;
  }
}

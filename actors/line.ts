/**
 * A line: the messages of one owner that wait for one destination, the most urgent first.
 *
 * It is short (LINE_LENGTH): a backlog stays in the queue projection. When it is full, what comes
 * next is not taken, and `overflow` remembers the first place in the due order from which it has
 * to be read again.
 */

/** A place in the due order of the queue projection: due time (epoch milliseconds), then stream. */
export interface Place {
  readonly due: number;
  readonly stream: string;
}

export function before(a: Place, b: Place): boolean {
  return a.due < b.due || (a.due === b.due && a.stream < b.stream);
}

/** How many messages stand in a line; a few round trips' worth of work. */
export const LINE_LENGTH = 100;

export interface Urgent extends Place {
  /** MT-PRIORITY (RFC 6710): -9 to 9, the higher the sooner; 0 when absent. */
  readonly priority?: number;
}

export class Line<Item extends Urgent> {
  #items: Item[] = [];
  #next = 0;
  #overflow: Place | undefined;

  get waiting(): number {
    return this.#items.length - this.#next;
  }

  /** Where to read on, once the line is half empty and something was turned away. */
  get refillFrom(): Place | undefined {
    return this.waiting <= LINE_LENGTH / 2 ? this.#overflow : undefined;
  }

  /** Whether there is nothing to remember about this line. */
  get idle(): boolean {
    return this.waiting === 0 && this.#overflow === undefined;
  }

  /** Takes the item in, or remembers where it was turned away. */
  offer(item: Item): boolean {
    if (this.waiting >= LINE_LENGTH) {
      if (!this.#overflow || before(item, this.#overflow)) this.#overflow = item;
      return false;
    }
    const priority = item.priority ?? 0;
    let at = this.#items.length;
    while (at > this.#next && (this.#items[at - 1]!.priority ?? 0) < priority) at--;
    if (at === this.#items.length) this.#items.push(item);
    else this.#items.splice(at, 0, item);
    return true;
  }

  /** The reading that `refillFrom` asked for begins; it will mark again what it turns away. */
  refilling(): void {
    this.#overflow = undefined;
  }

  /** Takes those out of the line that match, at most so many, in their order. */
  takeMatching(matches: (item: Item) => boolean, most: number): Item[] {
    const taken: Item[] = [];
    const left: Item[] = [];
    for (let n = this.#next; n < this.#items.length; n++) {
      const item = this.#items[n]!;
      (taken.length < most && matches(item) ? taken : left).push(item);
    }
    if (taken.length > 0) {
      this.#items = left;
      this.#next = 0;
    }
    return taken;
  }

  /** Takes the next item out of the line. */
  take(): Item | undefined {
    const item = this.#items[this.#next];
    if (item === undefined) return undefined;
    this.#next++;
    if (this.#next === this.#items.length) {
      this.#items = [];
      this.#next = 0;
    }
    return item;
  }
}

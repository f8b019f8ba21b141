/**
 * Virtual time: a queue of what happens when, and a clock that stands still in between.
 *
 * Everything that the code under test waits for is an entry of this queue: timers, disk, network,
 * DNS. After each entry the promise jobs it set off run until none is left (a macrotask comes only
 * when the engine's job queue is empty), so an entry is one indivisible step of the world and the
 * order of steps depends on the seed alone.
 */
import { setImmediate } from "node:timers";

interface Entry {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
  cancelled: boolean;
}

export class VirtualTime {
  /** Milliseconds since the world began; never goes back. */
  #elapsed = 0;
  #wallAtZero: number;
  #order = 0;
  #latest = 0;
  readonly #heap: Entry[] = [];

  constructor(wall: number) {
    this.#wallAtZero = wall;
  }

  monotonic(): number {
    return this.#elapsed;
  }

  /** Wall time, epoch milliseconds, whole. */
  now(): number {
    return Math.floor(this.#wallAtZero + this.#elapsed);
  }

  /** The latest that the wall clock has ever shown. */
  latest(): number {
    return Math.max(this.#latest, this.now());
  }

  /** Sets the wall clock forward (or back, when negative). Timers do not notice. */
  jump(ms: number): void {
    this.#latest = this.latest();
    this.#wallAtZero += ms;
  }

  /** Runs `run` after `ms` virtual milliseconds; equal times keep the order of the calls. */
  after(ms: number, run: () => void): () => void {
    const entry: Entry = {
      at: this.#elapsed + Math.max(0, ms),
      order: this.#order++,
      run,
      cancelled: false,
    };
    this.#push(entry);
    return () => {
      entry.cancelled = true;
    };
  }

  /** Time of the next entry; undefined when nothing will ever happen again. */
  next(): number | undefined {
    for (;;) {
      const top = this.#heap[0];
      if (!top) return undefined;
      if (!top.cancelled) return top.at;
      this.#pop();
    }
  }

  /** Goes to the next entry, runs it and all promise jobs it sets off. */
  async step(): Promise<boolean> {
    if (this.next() === undefined) return false;
    const entry = this.#pop();
    this.#elapsed = Math.max(this.#elapsed, entry.at);
    entry.run();
    await settle();
    return true;
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let i = heap.push(entry) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (before(heap[parent]!, entry)) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = entry;
  }

  #pop(): Entry {
    const heap = this.#heap;
    const top = heap[0]!;
    const last = heap.pop()!;
    if (heap.length === 0) return top;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
      if (before(last, heap[child]!)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
    return top;
  }
}

const before = (a: Entry, b: Entry): boolean => a.at < b.at || (a.at === b.at && a.order < b.order);

/** Resolves when no promise job is left to run. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

const SECOND = 1_000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

/**
 * What the DNS said, for as long as it said: a bounded map whose entries expire, and whose least
 * recently used entry goes when it is full. Time is monotonic, so that a wall clock that is set
 * back keeps nothing alive.
 */
import type { Clock } from "../../actors/ports.ts";

export class ExpiringCache<V> {
  readonly #entries = new Map<string, { readonly value: V; readonly until: number }>();
  readonly #clock: Clock;
  readonly #limit: number;

  constructor(clock: Clock, limit: number) {
    this.#clock = clock;
    this.#limit = limit;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** The value and the milliseconds that it may still be kept. */
  get(key: string): { readonly value: V; readonly left: number } | undefined {
    const entry = this.#entries.get(key);
    if (!entry) return undefined;
    this.#entries.delete(key);
    const left = entry.until - this.#clock.monotonic();
    if (left <= 0) return undefined;
    this.#entries.set(key, entry); // to the end: the most recently used
    return { value: entry.value, left };
  }

  /** Keeps a value for `ms` milliseconds; not at all when that is nothing. */
  set(key: string, value: V, ms: number): void {
    this.#entries.delete(key);
    if (!(ms > 0)) return;
    this.#entries.set(key, { value, until: this.#clock.monotonic() + ms });
    if (this.#entries.size > this.#limit) {
      const oldest = this.#entries.keys().next();
      if (!oldest.done) this.#entries.delete(oldest.value);
    }
  }
}

/**
 * One incarnation of the program under test, from start to kill or orderly stop.
 *
 * All that it does to the world goes through `call`: the moment before an effect and the moment
 * after it are where a kill can be seen from outside, so a kill at any of these moments stands for
 * a kill at every await point in between. A dead process hears nothing and does nothing: its
 * pending calls never resolve, and what its code still calls is swallowed.
 */
import type { Clock } from "../../actors/ports.ts";
import type { VirtualTime } from "./clock.ts";

export class Process implements Clock {
  #alive = true;
  readonly #onDeath = new Set<() => void>();

  constructor(
    /** 1, 2, 3 … */
    readonly incarnation: number,
    readonly time: VirtualTime,
    /** Told of every moment at which a kill makes a difference; it may kill. */
    readonly boundary: (process: Process, where: string) => void,
  ) {}

  get alive(): boolean {
    return this.#alive;
  }

  /** Ends the process. What was registered with `onDeath` runs in the order of registration. */
  die(): void {
    if (!this.#alive) return;
    this.#alive = false;
    for (const run of this.#onDeath) run();
    this.#onDeath.clear();
  }

  onDeath(run: () => void): void {
    this.#onDeath.add(run);
  }

  /** Takes back what was given to `onDeath`. */
  forget(run: () => void): void {
    this.#onDeath.delete(run);
  }

  /** Brings `effect` about after `latency` milliseconds, and tells the caller of it. */
  call<T>(where: string, latency: number, effect: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      if (!this.#alive) return;
      this.boundary(this, `before ${where}`);
      if (!this.#alive) return;
      this.time.after(latency, () => {
        if (!this.#alive) return;
        let result: T;
        try {
          result = effect();
        } catch (cause) {
          reject(cause);
          return;
        }
        this.boundary(this, `after ${where}`);
        if (this.#alive) resolve(result);
      });
    });
  }

  now(): number {
    return this.time.now();
  }

  monotonic(): number {
    return this.time.monotonic();
  }

  timer(ms: number, run: () => void): () => void {
    if (!this.#alive) return () => {};
    return this.time.after(ms, () => {
      if (this.#alive) run();
    });
  }
}

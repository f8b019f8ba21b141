/**
 * The real clock, which can be put forward: hours pass at once for whoever asks it, while sockets
 * and programs of others go on in real time.
 */
import type { Clock } from "../../actors/ports.ts";

interface Timer {
  /** Monotonic milliseconds. */
  readonly due: number;
  readonly run: () => void;
  id: ReturnType<typeof setTimeout> | undefined;
}

export class JumpingClock implements Clock {
  readonly #timers = new Set<Timer>();
  readonly #begun: number;
  #jumped = 0;

  /** @param start epoch milliseconds that it shows now */
  constructor(start: number) {
    this.#begun = start - performance.now();
  }

  now(): number {
    return Math.floor(this.#begun + this.monotonic());
  }

  monotonic(): number {
    return performance.now() + this.#jumped;
  }

  timer(ms: number, run: () => void): () => void {
    const timer: Timer = { due: this.monotonic() + ms, run, id: undefined };
    this.#timers.add(timer);
    this.#arm(timer);
    return () => {
      clearTimeout(timer.id);
      this.#timers.delete(timer);
    };
  }

  /** Puts it forward by `ms` milliseconds; timers that are due by then run soon. */
  jump(ms: number): void {
    this.#jumped += ms;
    for (const timer of this.#timers) {
      clearTimeout(timer.id);
      this.#arm(timer);
    }
  }

  #arm(timer: Timer): void {
    timer.id = setTimeout(() => {
      this.#timers.delete(timer);
      timer.run();
    }, Math.max(0, timer.due - this.monotonic()));
  }
}

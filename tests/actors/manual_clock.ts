/** A clock that moves only when told to, for tests of actors. */
import { setImmediate } from "node:timers";
import type { Clock, Log } from "../../actors/ports.ts";

export class ManualClock implements Clock {
  #timers: { at: number; run: () => void }[] = [];
  constructor(public wall: number, private elapsed = 0) {}

  now(): number {
    return this.wall;
  }
  monotonic(): number {
    return this.elapsed;
  }
  timer(ms: number, run: () => void): () => void {
    const timer = { at: this.elapsed + Math.max(0, ms), run };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }
  get timers(): number {
    return this.#timers.length;
  }

  /** Moves on by `ms`, running what is due in order, and all promise jobs after each. */
  async advance(ms: number): Promise<void> {
    await settle();
    for (const end = this.elapsed + ms;;) {
      this.#timers.sort((a, b) => a.at - b.at);
      const next = this.#timers[0];
      const at = Math.min(next?.at ?? Infinity, end);
      this.wall += at - this.elapsed;
      this.elapsed = at;
      if (!next || next.at > end) return;
      this.#timers.shift();
      next.run();
      await settle();
    }
  }
}

/** Resolves when no promise job is left (and a few turns of the event loop have passed). */
export async function settle(): Promise<void> {
  for (let i = 0; i < 4; i++) await new Promise((resolve) => setImmediate(resolve));
}

export class LogLines implements Log {
  readonly lines: string[] = [];
  #note = (level: string) => (message: string, fields?: Record<string, unknown>) => {
    this.lines.push(`${level} ${message} ${JSON.stringify(fields ?? {})}`);
  };
  info = this.#note("info");
  warn = this.#note("warn");
  error = this.#note("error");
}

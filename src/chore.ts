/**
 * A chore: work that is done again and again beside the queue, and that says itself when it is next
 * due. One run at a time. A disk that takes no writes is waited for; another fault fails the part.
 */
import type { Clock } from "../actors/ports.ts";
import type { Part } from "../actors/supervision.ts";
import { StoreUnavailable } from "../events/store.ts";

/** Milliseconds until it is tried again when the store was not to be had. */
const STORE_AWAY = 60_000;

export interface ChoreOptions {
  readonly name: string;
  /** Milliseconds from the start of the part to the first run. */
  readonly first: () => number;
  /** Does the work; returns milliseconds until the next run. To end soon when aborted. */
  readonly run: (signal: AbortSignal) => Promise<number>;
}

export class Chore implements Part {
  readonly name: string;
  readonly #clock: Pick<Clock, "timer">;
  readonly #options: ChoreOptions;
  #stop = new AbortController();
  #disarm = () => {};
  #running: Promise<void> = Promise.resolve();

  constructor(clock: Pick<Clock, "timer">, options: ChoreOptions) {
    this.name = options.name;
    this.#clock = clock;
    this.#options = options;
  }

  start(failed: (cause: unknown) => void): Promise<void> {
    this.#stop = new AbortController();
    this.#arm(this.#options.first(), failed);
    return Promise.resolve();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    this.#disarm();
    await this.#running;
  }

  #arm(ms: number, failed: (cause: unknown) => void): void {
    const { signal } = this.#stop;
    this.#disarm = this.#clock.timer(ms, () => {
      this.#running = this.#options.run(signal)
        .catch((cause) => {
          if (cause instanceof StoreUnavailable) return STORE_AWAY;
          if (!signal.aborted) failed(cause);
          return undefined;
        })
        .then((next) => {
          if (next !== undefined && !signal.aborted) this.#arm(next, failed);
        });
    });
  }
}

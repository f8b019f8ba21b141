/**
 * Rounds of work: one at a time, again when it is asked for meanwhile, and at a time in the future
 * by one timer. What reads the queue in due order, and what sends reports, works in rounds.
 */
import type { Clock } from "./ports.ts";

/** The wall clock may jump, so that nothing sleeps for longer than this, milliseconds. */
export const LONGEST_SLEEP = 30_000;

export class Rounds {
  readonly #clock: Clock;
  readonly #round: () => Promise<void>;
  readonly #failed: (cause: unknown) => void;
  #open = false;
  #working = false;
  #again = false;
  #wakeAt = Infinity;
  #cancelWake = () => {};

  /** @param failed is told what ended a round; the rounds go on when they are opened again */
  constructor(clock: Clock, round: () => Promise<void>, failed: (cause: unknown) => void) {
    this.#clock = clock;
    this.#round = round;
    this.#failed = failed;
  }

  get isOpen(): boolean {
    return this.#open;
  }

  open(): void {
    this.#open = true;
    this.ask();
  }

  close(): void {
    this.#open = false;
    this.#cancelWake();
    this.#wakeAt = Infinity;
  }

  /** Asks for a round, now or after the one under way. */
  ask(): void {
    this.#again = true;
    if (!this.#working) void this.#work();
  }

  /** Asks for a round at a time, epoch milliseconds, unless an earlier one is coming. */
  wake(at: number): void {
    if (at >= this.#wakeAt || !this.#open) return;
    this.#cancelWake();
    this.#wakeAt = at;
    const wait = Math.min(Math.max(at - this.#clock.now(), 0), LONGEST_SLEEP);
    this.#cancelWake = this.#clock.timer(wait, () => {
      this.#wakeAt = Infinity;
      this.ask();
    });
  }

  /** Never rejects. */
  async #work(): Promise<void> {
    this.#working = true;
    try {
      while (this.#open && this.#again) {
        this.#again = false;
        await this.#round();
      }
    } catch (cause) {
      this.#failed(cause);
    } finally {
      this.#working = false;
    }
  }
}

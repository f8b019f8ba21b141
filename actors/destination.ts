/**
 * One destination, the next hop of many messages: how many attempts may run at it at once, how
 * fast they may follow each other, and whether it is down.
 *
 * - The concurrency window starts small, widens by one with each window of deliveries, and is
 *   halved by every refusal that is about us and not about one message ("too many connections").
 * - A destination that several attempts running could not reach is down. It is then probed with
 *   one attempt at a time, after waits that double; everything else waits in line, unburnt, until
 *   a probe gets an answer.
 * - Messages are spaced so that a rate is kept at any moment, not only on average. Several
 *   recipients of one message are one attempt here, and as many messages.
 *
 * No effects: time comes in, and what changed comes out. Times are monotonic milliseconds, so that
 * setting the clock neither shortens nor prolongs a wait.
 */

/** Durations in milliseconds. */
export interface DestinationPolicy {
  /** Attempts at once at the most. */
  readonly concurrency: number;
  /** Messages started per minute and per hour at the most; absent: as many as can be. */
  readonly perMinute?: number;
  readonly perHour?: number;
  /**
   * Attempts running that could not reach it before it is down; absent: UNREACHABLE_BEFORE_DOWN.
   * Infinity: never, and its window stays as it is; only to measure what that costs.
   */
  readonly unreachableBeforeDown?: number;
}

/** Attempts at once at a destination that nothing is known of. */
export const FIRST_WINDOW = 5;
/** Attempts running that could not reach it, with none between that did, before it is down. */
export const UNREACHABLE_BEFORE_DOWN = 3;
/** Wait before the first probe of a destination that is down; doubles with each, up to the most. */
export const FIRST_PROBE = 60_000;
export const LONGEST_PROBE = 3_600_000;

/**
 * What an attempt learnt about the destination.
 * - `delivered`: it took the message
 * - `answered`: it refused this message, and so is there
 * - `busy`: it turned us away before the message mattered
 * - `unreachable`: nobody was there, or the connection broke
 * - `unknown`: the attempt says nothing about the destination
 */
export type Experience = "delivered" | "answered" | "busy" | "unreachable" | "unknown";

export interface Down {
  readonly since: number;
  /** When it is probed next. */
  readonly until: number;
  /** Milliseconds between the latest probe and the next. */
  readonly wait: number;
  /** What the last attempt met. */
  readonly why: string;
}

/** A time for which it was down; `until` is Infinity while it is. */
export interface Outage {
  readonly since: number;
  readonly until: number;
  readonly why: string;
}

/** A change worth telling of: it went down (or stays down until later), or is up again. */
export type Change =
  | { readonly kind: "down"; readonly down: Down }
  | { readonly kind: "up"; readonly down: Down };

export class Destination {
  /** Attempts running now. */
  running = 0;
  #window = FIRST_WINDOW;
  #unreachable = 0;
  #down: Down | undefined;
  #lastOutage: Outage | undefined;
  /** Earliest time of the next start that keeps the rates. */
  #paced = -Infinity;

  constructor(public policy: DestinationPolicy) {}

  /** Attempts that may run at once now. */
  get window(): number {
    return this.#down
      ? 1
      : Math.max(1, Math.min(Math.floor(this.#window), this.policy.concurrency));
  }

  get down(): Down | undefined {
    return this.#down;
  }

  /** Earliest time of the next start that keeps the rates; -Infinity when nothing was started. */
  get paced(): number {
    return this.#paced;
  }

  /** The latest time for which it was down; undefined when it never was. */
  get outage(): Outage | undefined {
    const down = this.#down;
    return down ? { since: down.since, until: Infinity, why: down.why } : this.#lastOutage;
  }

  /** Messages that one attempt may carry, so that the rates are kept; one, when it is a probe. */
  get together(): number {
    if (this.#down) return 1;
    return Math.max(
      1,
      Math.min(this.policy.perMinute ?? Infinity, this.policy.perHour ?? Infinity),
    );
  }

  /** Whether nothing runs and nothing would be broken if it were forgotten: no probe, no pace. */
  forgettable(now: number): boolean {
    return this.running === 0 && !this.#down && this.#paced <= now;
  }

  /**
   * When the next attempt may start: a time that has passed already, one that has to come, or
   * Infinity when a running attempt has to end first.
   */
  startableAt(): number {
    if (this.running >= this.window) return Infinity;
    return Math.max(this.#down?.until ?? -Infinity, this.#paced);
  }

  started(now: number): void {
    this.running++;
    this.#paced = now + this.#spacing;
  }

  /** An attempt that was just started takes along so many more messages. */
  joined(messages: number): void {
    this.#paced += messages * this.#spacing;
  }

  /** An attempt ended; says when that changed whether the destination is down. */
  ended(experience: Experience, why: string, now: number): Change | undefined {
    this.running--;
    switch (experience) {
      case "delivered":
        this.#window = Math.min(this.#window + 1 / this.#window, this.policy.concurrency);
        return this.#reached(now);
      case "answered":
        return this.#reached(now);
      case "busy":
        this.#window = Math.max(1, this.#window / 2);
        return this.#reached(now);
      case "unreachable":
        return this.#missed(why, now);
      case "unknown":
        return undefined;
    }
  }

  #reached(now: number): Change | undefined {
    this.#unreachable = 0;
    const down = this.#down;
    if (!down) return undefined;
    this.#down = undefined;
    this.#lastOutage = { since: down.since, until: now, why: down.why };
    this.#window = 1;
    return { kind: "up", down };
  }

  #missed(why: string, now: number): Change | undefined {
    const { unreachableBeforeDown = UNREACHABLE_BEFORE_DOWN } = this.policy;
    if (unreachableBeforeDown === Infinity) return undefined;
    this.#unreachable++;
    this.#window = Math.max(1, this.#window / 2);
    if (this.#unreachable < unreachableBeforeDown) return undefined;
    const before = this.#down;
    // Attempts that were under way when it went down are no probes.
    if (before && now < before.until) return undefined;
    const wait = before ? Math.min(2 * before.wait, LONGEST_PROBE) : FIRST_PROBE;
    this.#down = { since: before?.since ?? now, until: now + wait, wait, why };
    return { kind: "down", down: this.#down };
  }

  get #spacing(): number {
    const { perMinute, perHour } = this.policy;
    return Math.max(
      perMinute === undefined ? 0 : 60_000 / perMinute,
      perHour === undefined ? 0 : 3_600_000 / perHour,
    );
  }
}

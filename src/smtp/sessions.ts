/**
 * Sessions that are kept open after a message, for the next one to the same place.
 *
 * The key says what "the same place" is: address, port, local address and TLS policy, so that a
 * message never travels under a weaker policy than its own. Bounded in number, idle time, age and
 * messages; the idle time stays below what servers under stress allow. One timer serves all, and
 * runs only while a session is idle.
 */
import type { Clock } from "../../actors/ports.ts";
import type { ClientSession } from "./client.ts";

export interface SessionLimits {
  /** Idle sessions of one key, and of all. */
  readonly perKey: number;
  readonly total: number;
  /** Milliseconds that a session may be idle, and that it may live. */
  readonly idle: number;
  readonly age: number;
  /** Messages over one session. */
  readonly messages: number;
  /** Refusals after which a session is not kept: servers slow down whoever collects them. */
  readonly refusals: number;
}

export const SESSION_LIMITS: SessionLimits = {
  perKey: 20,
  total: 500,
  idle: 8_000,
  age: 300_000,
  messages: 100,
  refusals: 5,
};

interface Idle {
  readonly key: string;
  readonly session: ClientSession;
  readonly since: number;
}

export class Sessions {
  readonly #clock: Clock;
  readonly #limits: SessionLimits;
  /** Of each key the latest at the end. */
  readonly #byKey = new Map<string, Idle[]>();
  /** All, in the order in which they became idle. */
  readonly #all = new Set<Idle>();
  /** Sessions that are taking leave. */
  readonly #leaving = new Set<Promise<void>>();
  #cancelTimer: (() => void) | undefined;
  #closed = false;

  constructor(clock: Clock, limits: Partial<SessionLimits> = {}) {
    this.#clock = clock;
    this.#limits = { ...SESSION_LIMITS, ...limits };
  }

  /** Idle sessions. */
  get size(): number {
    return this.#all.size;
  }

  /** A session to reuse, the one that was idle for the shortest time; the caller owns it now. */
  take(key: string): ClientSession | undefined {
    const idle = this.#byKey.get(key)?.at(-1);
    if (!idle) return undefined;
    this.#remove(idle);
    if (this.#clock.monotonic() - idle.since < this.#limits.idle) return idle.session;
    this.#leave(idle.session);
    return undefined; // those below it have been idle for longer
  }

  /**
   * Gives a session back after use: it is kept for the next message, or takes leave.
   * @param most messages over one session at this destination, where that is less than for all
   */
  give(key: string, session: ClientSession, most = Infinity): void {
    if (!session.usable) return;
    const now = this.#clock.monotonic();
    const { messages, refusals, age, perKey, total } = this.#limits;
    const worn = session.sent >= Math.min(messages, most) || session.refusals >= refusals ||
      now - session.begun >= age;
    if (this.#closed || worn) return this.#leave(session);
    const idle: Idle = { key, session, since: now };
    const siblings = this.#byKey.get(key);
    if (siblings) siblings.push(idle);
    else this.#byKey.set(key, [idle]);
    this.#all.add(idle);
    if (siblings && siblings.length > perKey) this.#expire(siblings[0]!);
    if (this.#all.size > total) this.#expire(this.#oldest()!);
    this.#cancelTimer ??= this.#clock.timer(this.#limits.idle, this.#sweep);
  }

  /** Closes the idle sessions of a key: one of them was found dead. */
  drop(key: string): void {
    for (const idle of [...this.#byKey.get(key) ?? []]) {
      this.#remove(idle);
      idle.session.close();
    }
  }

  /** Takes leave of every idle session, and of those that come back later; resolves when done. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const idle of [...this.#all]) this.#expire(idle);
    await Promise.all(this.#leaving);
  }

  readonly #sweep = (): void => {
    this.#cancelTimer = undefined;
    const now = this.#clock.monotonic();
    for (let idle = this.#oldest(); idle; idle = this.#oldest()) {
      const left = idle.since + this.#limits.idle - now;
      if (left > 0) {
        this.#cancelTimer = this.#clock.timer(left, this.#sweep);
        return;
      }
      this.#expire(idle);
    }
  };

  #oldest(): Idle | undefined {
    return this.#all.values().next().value;
  }

  #expire(idle: Idle): void {
    this.#remove(idle);
    this.#leave(idle.session);
  }

  #leave(session: ClientSession): void {
    const leaving = session.quit().finally(() => this.#leaving.delete(leaving));
    this.#leaving.add(leaving);
  }

  #remove(idle: Idle): void {
    this.#all.delete(idle);
    const siblings = this.#byKey.get(idle.key);
    if (siblings) {
      siblings.splice(siblings.lastIndexOf(idle), 1);
      if (siblings.length === 0) this.#byKey.delete(idle.key);
    }
    if (this.#all.size === 0) {
      this.#cancelTimer?.();
      this.#cancelTimer = undefined;
    }
  }
}

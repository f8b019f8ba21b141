/**
 * The real clock, randomness, ids and log: what production hands to the actors.
 */
import { monotonicFactory } from "ulid";
import type { Clock, Ids, Log, Random } from "../actors/ports.ts";

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  timer(ms, run) {
    const id = setTimeout(run, ms);
    return () => clearTimeout(id);
  },
};

/** Uniform in [0, 1) from the system's cryptographic source: ids must not be guessable. */
export const systemRandom: Random = {
  next() {
    if (drawn === pool.length) {
      crypto.getRandomValues(pool);
      drawn = 0;
    }
    return pool[drawn++]! / 2 ** 32;
  },
};
const pool = new Uint32Array(256);
let drawn = pool.length;

/** ULIDs that increase even within a millisecond and when the clock is set back. */
export function ulids(clock: Clock, random: Random): Ids {
  const next = monotonicFactory(() => random.next());
  return { next: () => next(clock.now()) };
}

export type LogFormat = "text" | "json";

/** One line per message on `write`; control characters escaped, so that no line can be forged. */
export function lineLog(
  write: (line: string) => void,
  clock: Clock,
  format: LogFormat = "text",
): Log {
  const at = (level: string) => (message: string, fields: Record<string, unknown> = {}) => {
    const time = new Date(clock.now()).toISOString();
    if (format === "json") return write(JSON.stringify({ time, level, message, ...fields }));
    const details = Object.entries(fields)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => ` ${name}=${plain(value)}`);
    write(`${time} ${level} ${message}${details.join("")}`);
  };
  return { info: at("info"), warn: at("warn"), error: at("error") };
}

const BARE = /^[\w.:@<>[\]+/-]+$/;
const plain = (value: unknown): string =>
  typeof value === "string" && BARE.test(value) ? value : JSON.stringify(value) ?? "undefined";

/** Logs for the tests of the reckoning: events as they stand in an export. */
import { Books } from "./books.ts";
import type { LogEvent, LogReader } from "./log.ts";

export type Fact = Pick<LogEvent, "type" | "data"> & { readonly stream?: string };

/** Where the clock of these logs begins; one second passes with each event. */
export const BEGAN = Date.parse("2026-01-01T00:00:00.000Z");
export const secondsAfter = (n: number): number => BEGAN + n * 1_000;

export const enqueued = (data: LogEvent["data"] = {}): Fact => ({
  type: "Enqueued",
  data: { mailFrom: "s@x.example", rcptTo: "1@x.example", due: "now", source: {}, ...data },
});
export const started: Fact = { type: "AttemptStarted", data: { attempt: 1 } };
export const delivered: Fact = { type: "Delivered", data: {} };
export const failed = (data: LogEvent["data"] = {}): Fact => ({
  type: "Failed",
  data: { permanent: false, result: "temperror", reason: "451", next: "later", ...data },
});
export const refused: Fact = failed({ permanent: true, next: undefined });
export const interrupted: Fact = failed({
  result: "canceled",
  reason: "interrupted, outcome unknown",
});
export const on = (stream: string, fact: Fact): Fact => ({ ...fact, stream });

/** Lets readers read these, in this order; on the stream "m" where nothing else is said. */
export function readAll(facts: readonly Fact[], ...readers: readonly LogReader[]): void {
  const versions = new Map<string, number>();
  for (const [n, { stream = "m", type, data }] of facts.entries()) {
    const version = (versions.get(stream) ?? 0) + 1;
    versions.set(stream, version);
    const time = new Date(secondsAfter(n + 1)).toISOString();
    for (const read of readers) read({ position: n + 1, stream, version, type, time, data });
  }
}

export function booksOf(...facts: Fact[]): Books {
  const books = new Books();
  readAll(facts, books.read);
  return books;
}

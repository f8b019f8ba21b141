/** Given/when/then for the message decider: events before, a command, the facts it makes. */
import assert from "node:assert/strict";
import type { EventData, Fact, StoredEvent } from "../../events/catalogue.ts";
import { type Command, CommandRefused, decide, fold, type Message } from "../../actors/message.ts";
import type { RetryPolicy } from "../../actors/retry.ts";

export const MINUTE = 60_000;
export const T0 = Date.parse("2026-03-01T12:00:00.000Z");
export const iso = (ms: number): string => new Date(ms).toISOString();

export const policy: RetryPolicy = {
  waits: [7.5, 15, 30, 60, 120, 240, 480, 960].map((minutes) => minutes * MINUTE),
  maxAttempts: 8,
  delayNoticeAfter: 5,
  lifetime: 5 * 24 * 60 * MINUTE,
};

export const enqueued = (data: Partial<EventData<"Enqueued">> = {}): Fact => ({
  type: "Enqueued",
  data: {
    account: null,
    mailFrom: "alice@example.com",
    rcptTo: "bob@example.net",
    size: 1234,
    body: "ab".repeat(32),
    messageId: "<1@example.com>",
    has8bit: false,
    smtputf8: false,
    requireTLS: false,
    dsn: {},
    submission: "01SUBMISSION",
    source: { kind: "smtp", peer: "127.0.0.1:40000" },
    due: iso(T0),
    ...data,
  },
});

export const started = (attempt: number, at = T0): Fact => ({
  type: "AttemptStarted",
  data: { attempt, next: iso(at + 7.5 * MINUTE) },
});

export const direct: EventData<"TransportChosen"> = {
  transport: "direct",
  type: "direct",
  because: { kind: "default" },
};
export const chosen: Fact = { type: "TransportChosen", data: direct };

export const hostTried = (data: Partial<EventData<"HostTried">> = {}) => ({
  type: "HostTried" as const,
  data: {
    host: "mx.example.net",
    address: "192.0.2.1",
    port: 25,
    tlsMode: "opportunistic" as const,
    verifiedBy: "none" as const,
    result: "ok" as const,
    phases: { connect: 3 },
    ...data,
  },
});

export const failedTemporarily = (data: Partial<EventData<"Failed">> = {}): Fact => ({
  type: "Failed",
  data: {
    permanent: false,
    result: "temperror",
    reason: "try again later",
    next: iso(T0 + 7.5 * MINUTE),
    ...data,
  },
});

/** Facts as a store would give them back, a second apart. */
export function stored(facts: readonly Fact[], stream = "01STREAM"): StoredEvent[] {
  return facts.map((fact, index) => ({
    ...fact,
    position: index + 1,
    stream,
    version: index + 1,
    schema: 1,
    time: iso(T0 + index * 1_000),
    prev: "0".repeat(64),
    hash: "0".repeat(64),
  }));
}

export function given(...facts: Fact[]) {
  const state = fold(stored(facts));
  return {
    state: state as Message,
    when(command: Command) {
      return {
        then(...expected: Fact[]) {
          assert.deepEqual(decide(command, state), expected);
        },
        refused(text: RegExp) {
          assert.throws(() => decide(command, state), (error: unknown) => {
            assert.ok(error instanceof CommandRefused, String(error));
            assert.match(error.message, text);
            return true;
          });
        },
      };
    },
  };
}

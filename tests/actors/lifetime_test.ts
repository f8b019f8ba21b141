/** How long a message may wait: its lifetime and its deadline, as the decider sees them. */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import type { Fact } from "../../events/catalogue.ts";
import { ageOf, decide, fold, plainReason } from "../../actors/message.ts";
import { lastAttemptAt, type RetryPolicy } from "../../actors/retry.ts";
import {
  chosen,
  direct,
  enqueued,
  failedTemporarily,
  given,
  iso,
  MINUTE,
  policy,
  started,
  stored,
  T0,
} from "./given.ts";

const HOUR = 60 * MINUTE;
const short: RetryPolicy = { ...policy, waits: [40 * MINUTE], maxAttempts: 20, lifetime: HOUR };
const by = { who: "op", why: "testing" };
const released = (at: number): Fact => ({ type: "Released", data: { ...by, due: iso(at) } });
const held: Fact = { type: "Held", data: by };
const refusal = {
  kind: "failed",
  permanent: false,
  result: "temperror",
  reason: "mx.example.net said so",
  code: 451,
  reply: { code: 451, text: "try again in 1 day" },
} as const;

describe("a lifetime", () => {
  it("has its last attempt when it ends, and not later", () => {
    const start = { type: "StartAttempt", transport: direct, random: 0.5, policy: short } as const;
    const early = decide({ ...start, now: T0 }, fold(stored([enqueued()])));
    assert.equal(
      (early[0] as Extract<Fact, { type: "AttemptStarted" }>).data.next,
      iso(T0 + 40 * MINUTE + 2_500),
    );
    const facts = [enqueued(), started(1), chosen, failedTemporarily()];
    const late = decide({ ...start, now: T0 + 30 * MINUTE }, fold(stored(facts)));
    assert.equal((late[0] as Extract<Fact, { type: "AttemptStarted" }>).data.next, iso(T0 + HOUR));
  });

  it("comes before the wait that a host asks for", () => {
    const state = fold(stored([enqueued(), started(1), chosen]));
    const conclude = { type: "Conclude", findings: [], outcome: refusal, policy: short } as const;
    const [failed] = decide({ ...conclude, now: T0 + MINUTE }, state);
    assert.ok(failed?.type === "Failed");
    assert.deepEqual([failed.data.permanent, failed.data.next], [false, iso(T0 + HOUR)]);
    const [last] = decide({ ...conclude, now: T0 + HOUR }, state);
    assert.ok(last?.type === "Failed");
    assert.deepEqual(
      [last.data.permanent, last.data.reason],
      [true, "gave up after 1 hour: mx.example.net said so"],
    );
  });

  it("that ends while the message waits is a failure, with what was last said", () => {
    const { code, reply } = refusal;
    const failure = { reason: "busy", class: "rate-limited", remoteMTA: "mx.example.net" } as const;
    given(enqueued(), started(1), chosen, failedTemporarily({ ...failure, code, reply }))
      .when({ type: "Expire", now: T0 + 5 * 24 * HOUR })
      .then({
        type: "Failed",
        data: {
          permanent: true,
          result: "timeout",
          class: "rate-limited",
          reason: "gave up after 120 hours: busy",
          enhanced: "4.4.7",
          remoteMTA: "mx.example.net",
          reply,
        },
      });
  });

  it("does not make a bounce of a refusal that was tried again", () => {
    const reply = { code: 550, enhanced: "5.1.1", text: "no such user" };
    const facts = [enqueued(), started(1), chosen];
    const failed = failedTemporarily({ class: "unknown-user", code: 550, reply });
    const state = fold(stored([...facts, failed]));
    const [fact] = decide({ type: "Expire", now: T0 + 5 * 24 * HOUR }, state);
    assert.ok(fact?.type === "Failed");
    assert.deepEqual([fact.data.class, fact.data.reply], ["network", reply]);
  });

  it("that ends before the first attempt says what the message waited for", () => {
    const expire = { type: "Expire", now: T0 + 20 * MINUTE } as const;
    const data = {
      permanent: true,
      result: "timeout",
      class: "network",
      enhanced: "4.4.7",
    } as const;
    given(enqueued()).when(expire).then({
      type: "Failed",
      data: {
        ...data,
        reason: "gave up after 20 minutes: it was not tried: its turn did not come",
      },
    });
    given(enqueued()).when({ ...expire, why: "its destination is down: no answer" }).then({
      type: "Failed",
      data: { ...data, reason: "gave up after 20 minutes: its destination is down: no answer" },
    });
  });

  it("does not end while an attempt is under way, or the message is held", () => {
    const expire = { type: "Expire", now: T0 + 200 * HOUR } as const;
    given(enqueued(), started(1), chosen).when(expire).refused(/is attempting/);
    given(enqueued(), held).when(expire).refused(/is held/);
    given(enqueued(), held).when({ type: "MissDeadline" }).refused(/is held/);
  });

  it("begins anew when the message is released", () => {
    const state = fold(stored([enqueued(), held, released(T0 + 99 * HOUR)]))!;
    assert.equal(ageOf(state, T0 + 100 * HOUR), HOUR);
    assert.equal(state.arrived, T0, "the time of arrival stays what it was");
  });

  it("bounds what a report of the delay promises", () => {
    assert.equal(lastAttemptAt(short, 1, T0 + 40 * MINUTE, T0), T0 + HOUR);
    assert.equal(lastAttemptAt({ ...short, maxAttempts: 2 }, 1, T0 + MINUTE, T0), T0 + MINUTE);
  });

  it("can be taken out of the reason", () => {
    assert.equal(plainReason("gave up after 20 minutes: busy"), "busy");
    assert.equal(plainReason("gave up after 1 hour: busy"), "busy");
  });
});

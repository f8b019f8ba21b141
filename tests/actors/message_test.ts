import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import type { Fact } from "../../events/catalogue.ts";
import {
  ageOf,
  type Command,
  CommandRefused,
  decide,
  evolve,
  fold,
  ImpossibleEvent,
  INTERRUPTED,
  type Message,
  plainReason,
  TRIED_KEPT,
} from "../../actors/message.ts";
import type { Outcome } from "../../actors/ports.ts";
import {
  chosen,
  direct,
  enqueued,
  failedTemporarily,
  given,
  hostTried,
  iso,
  MINUTE,
  policy,
  started,
  stored,
  T0,
} from "./given.ts";

const delivered: Outcome = {
  kind: "delivered",
  host: "mx.example.net",
  address: "192.0.2.1",
  reply: { code: 250, enhanced: "2.0.0", text: "Ok" },
  tls: { mode: "opportunistic", verifiedBy: "none" },
  dsnOffered: false,
};
const refused = (permanent: boolean): Outcome => ({
  kind: "failed",
  permanent,
  result: permanent ? "permerror" : "temperror",
  reason: "mx.example.net said so",
  code: permanent ? 550 : 450,
  enhanced: permanent ? "5.1.1" : "4.2.0",
  remoteMTA: "mx.example.net",
});
const startAttempt: Command = {
  type: "StartAttempt",
  now: T0,
  transport: direct,
  policy,
  random: 0,
};
const conclude = (outcome: Outcome, now = T0 + 5_000): Command => ({
  type: "Conclude",
  now,
  findings: [hostTried()],
  outcome,
  policy,
});
/** Attempts 1 to n, each failed for now. */
const failures = (n: number): Fact[] =>
  Array.from({ length: n }, (_, i) => [started(i + 1), chosen, failedTemporarily()]).flat();

const postponedNotice: Fact = {
  type: "DSNPostponed",
  data: { kind: "delayed", due: iso(T0 + MINUTE), until: iso(T0 + 60 * MINUTE) },
};

describe("the message decider", () => {
  it("enqueues once", () => {
    const command: Command = { type: "Enqueue", data: enqueued().data as never };
    assert.deepEqual(decide(command, undefined), [enqueued()]);
    given(enqueued()).when(command).refused(/enqueued already/);
  });

  it("refuses every other command to a stream without events", () => {
    assert.throws(() => decide(startAttempt, undefined), CommandRefused);
  });

  it("starts an attempt with the next one's time set", () => {
    given(enqueued()).when(startAttempt).then(
      { type: "AttemptStarted", data: { attempt: 1, next: iso(T0 + 7.5 * MINUTE) } },
      chosen,
    );
  });

  it("adds a jitter of at most five seconds", () => {
    given(enqueued()).when({ ...startAttempt, random: 0.999_999 } as Command).then(
      { type: "AttemptStarted", data: { attempt: 1, next: iso(T0 + 7.5 * MINUTE + 5_000) } },
      chosen,
    );
  });

  it("runs one attempt at a time", () => {
    given(enqueued(), started(1)).when(startAttempt).refused(/attempting/);
  });

  it("concludes with Delivered, after what was found", () => {
    given(enqueued(), started(1), chosen).when(conclude(delivered)).then(hostTried(), {
      type: "Delivered",
      data: {
        host: "mx.example.net",
        address: "192.0.2.1",
        reply: { code: 250, enhanced: "2.0.0", text: "Ok" },
        tls: { mode: "opportunistic", verifiedBy: "none" },
        queued: 5_000,
      },
    });
  });

  it("never reports a negative time in queue when the clock jumped back", () => {
    const facts = decide(
      conclude(delivered, T0 - 60_000),
      given(enqueued(), started(1), chosen).state,
    );
    assert.equal((facts.at(-1)!.data as { queued: number }).queued, 0);
  });

  it("concludes a temporary refusal with the time set at the start", () => {
    given(enqueued(), started(1), chosen).when(conclude(refused(false))).then(hostTried(), {
      type: "Failed",
      data: {
        permanent: false,
        result: "temperror",
        class: "other",
        reason: "mx.example.net said so",
        code: 450,
        enhanced: "4.2.0",
        remoteMTA: "mx.example.net",
        next: iso(T0 + 7.5 * MINUTE),
      },
    });
  });

  it("never schedules the next attempt into the past", () => {
    const facts = decide(
      conclude(refused(false), T0 + 30 * MINUTE),
      given(enqueued(), started(1), chosen).state,
    );
    assert.equal((facts.at(-1)!.data as { next: string }).next, iso(T0 + 30 * MINUTE));
  });

  it("concludes a permanent refusal without a next attempt", () => {
    const facts = decide(conclude(refused(true)), given(enqueued(), started(1), chosen).state);
    const failed = facts.at(-1)!;
    assert.equal(failed.type, "Failed");
    assert.deepEqual([(failed.data as { permanent: boolean }).permanent], [true]);
    assert.ok(!("next" in failed.data));
  });

  it("gives up with the last attempt, keeping the reason", () => {
    const state = given(enqueued(), ...failures(7), started(8), chosen).state;
    const failed = decide(conclude(refused(false)), state).at(-1)!;
    assert.ok(failed.type === "Failed");
    assert.equal(failed.data.permanent, true);
    assert.match(failed.data.reason, /^gave up after 8 attempts: mx\.example\.net said so$/);
  });

  it("ends an attempt that a crash left open as temporary, even the last one", () => {
    given(enqueued(), ...failures(7), started(8), chosen)
      .when({ type: "Interrupt", now: T0 + 1_000 })
      .then({
        type: "Failed",
        data: {
          permanent: false,
          result: "canceled",
          reason: INTERRUPTED,
          next: iso(T0 + 7.5 * MINUTE),
        },
      });
  });

  it("refuses to end an attempt that is not open", () => {
    given(enqueued()).when({ type: "Interrupt", now: T0 }).refused(/queued/);
  });

  it("holds a message after three faults of our own in a row", () => {
    const fault: Command = { type: "Fault", reason: "TypeError: x", stack: "TypeError: x\n at y" };
    const faulty = failedTemporarily({ result: "error", stack: "at y" });
    const before = [enqueued(), started(1), faulty, started(2), faulty, started(3)];
    const facts = decide(fault, given(...before).state);
    assert.deepEqual(facts.map((fact) => fact.type), ["Failed", "Held"]);
    const held = facts[1]!;
    assert.ok(held.type === "Held");
    assert.equal(held.data.who, "supervisor");
    assert.equal(held.data.stack, "TypeError: x\n at y");

    const interrupted = [enqueued(), started(1), faulty, started(2), failedTemporarily()];
    const again = given(...interrupted, started(3), faulty, started(4));
    assert.deepEqual(decide(fault, again.state).map((fact) => fact.type), ["Failed"]);
  });

  it("lets operators act on what is not under way, and not on what has ended", () => {
    const who = "op";
    const why = "maintenance";
    const hold: Command = { type: "Hold", who, why };
    const release: Command = { type: "Release", who, why, now: T0 };
    const cancel: Command = { type: "Cancel", who, why };
    given(enqueued()).when(hold).then({ type: "Held", data: { who, why } });
    given(enqueued(), started(1)).when(hold).refused(/attempting/);
    given(enqueued()).when(release).refused(/must be held/);
    const held: Fact = { type: "Held", data: { who, why } };
    given(enqueued(), held).when(release)
      .then({ type: "Released", data: { who, why, due: iso(T0) } });
    given(enqueued(), held).when(cancel).then({ type: "Cancelled", data: { who, why } });
    const cancelled: Fact = { type: "Cancelled", data: { who, why } };
    for (const command of [hold, release, cancel, startAttempt]) {
      given(enqueued(), cancelled).when(command).refused(/cancelled/);
    }
    const assign: Command = { type: "AssignTransport", who, why, transport: "relay" };
    given(enqueued()).when(assign)
      .then({ type: "TransportAssigned", data: { who, why, transport: "relay" } });
  });

  it("remembers the operator's transport until it is taken back", () => {
    const assigned = (transport: string | null): Fact => ({
      type: "TransportAssigned",
      data: { who: "op", why: "direct is blocked", transport },
    });
    const message = given(enqueued(), assigned("relay"));
    assert.deepEqual(message.state.override, { transport: "relay", who: "op" });
    assert.equal(
      given(enqueued(), assigned("relay"), assigned(null)).state.override,
      undefined,
    );
  });

  it("remembers the addresses tried, with a bound", () => {
    const many = Array.from(
      { length: TRIED_KEPT + 10 },
      (_, i) => hostTried({ address: `192.0.2.${i}`, result: "timeout" }),
    );
    const { state } = given(enqueued(), started(1), chosen, ...many);
    assert.equal(state.tried.length, TRIED_KEPT);
    assert.deepEqual(state.tried.at(-1), {
      attempt: 1,
      host: "mx.example.net",
      address: `192.0.2.${TRIED_KEPT + 9}`,
      result: "timeout",
    });
  });
});

describe("evolve", () => {
  it("refuses events that cannot follow", () => {
    const end: Fact = { type: "Cancelled", data: { who: "op", why: "x" } };
    for (
      const facts of [
        [started(1)],
        [enqueued(), enqueued()],
        [enqueued(), chosen],
        [enqueued(), end, started(1)],
        [enqueued(), started(1), started(2)],
        [enqueued(), failedTemporarily()],
        [enqueued(), started(1), postponedNotice],
        [enqueued(), started(1), failedTemporarily({ permanent: true }), postponedNotice],
        [
          enqueued(),
          started(1),
          failedTemporarily({ permanent: true }),
          {
            type: "DSNSent",
            data: { kind: "delayed", dsn: "01DSN" },
          } satisfies Fact,
        ],
        [enqueued(), { type: "IntakePaused", data: { who: "op", why: "x" } } satisfies Fact],
      ]
    ) assert.throws(() => fold(stored(facts)), ImpossibleEvent);
  });

  it("knows of a report on a delay until it is sent, or something else happens", () => {
    const act = { who: "op", why: "x" };
    const delayed = [enqueued(), started(1), failedTemporarily(), postponedNotice];
    const due = (...more: Fact[]) => {
      const { reportDue, delay } = given(...delayed, ...more).state;
      return reportDue === undefined ? undefined : { reportDue, delay };
    };
    const waits = { reportDue: T0 + MINUTE, delay: { until: T0 + 60 * MINUTE } };
    assert.deepEqual(due(), waits);
    for (
      const kept of [
        { type: "Rescheduled", data: { ...act, due: iso(T0) } },
        { type: "TransportAssigned", data: { ...act, transport: "relay" } },
      ] satisfies Fact[]
    ) assert.deepEqual(due(kept), waits, kept.type);
    for (
      const end of [
        started(2),
        failedTemporarily({ permanent: true }), // its deadline has passed while it waited
        { type: "Held", data: act },
        { type: "Cancelled", data: act },
        { type: "DSNSent", data: { kind: "delayed", dsn: "01DSN" } },
      ] satisfies Fact[]
    ) assert.equal(due(end), undefined, end.type);
    const ended = failedTemporarily({ permanent: true, reportDue: iso(T0 + 5 * MINUTE) });
    assert.deepEqual(due(ended), { reportDue: T0 + 5 * MINUTE, delay: undefined });
  });

  it("accepts everything that decide makes, whatever the order of commands", () => {
    const who = "op";
    const why = "because";
    const command = fc.nat(10).chain((kind) =>
      fc.record({ permanent: fc.boolean(), now: fc.integer({ min: T0, max: T0 + 1e9 }) }).map((
        { permanent, now },
      ): Command =>
        ([
          startAttempt,
          conclude(delivered, now),
          conclude(refused(permanent), now),
          { type: "Interrupt", now },
          { type: "Fault", reason: "x", stack: "x" },
          { type: "Hold", who, why },
          { type: "Release", who, why, now },
          { type: "Reschedule", who, why, due: now },
          { type: "AssignTransport", who, why, transport: permanent ? "relay" : null },
          { type: "Cancel", who, why },
          { type: "NoteFindings", findings: [hostTried()] },
        ] satisfies Command[])[kind]!
      )
    );
    fc.assert(fc.property(fc.array(command, { maxLength: 60 }), (commands) => {
      const log = stored([enqueued()]);
      let state: Message = fold(log)!;
      let open = 0;
      for (const each of commands) {
        let facts: Fact[];
        try {
          facts = decide(each, state);
        } catch (error) {
          assert.ok(error instanceof CommandRefused);
          continue;
        }
        for (const fact of facts) {
          const event = { ...stored([fact])[0]!, version: log.length + 1 };
          log.push(event);
          state = evolve(state, event);
          if (fact.type === "AttemptStarted") open++;
          if (fact.type === "Delivered" || fact.type === "Failed") open--;
          assert.ok(open === 0 || open === 1, "one attempt at a time, one outcome each");
        }
      }
      assert.equal(open === 1, state.status === "attempting");
      assert.deepEqual(fold(log), state);
    }));
  });
});

describe("a deadline, and a wait that is asked for", () => {
  const reply = (text: string) => ({ code: 451, enhanced: "4.7.1", text });
  const put = (text: string) =>
    ({
      kind: "failed",
      permanent: false,
      result: "temperror",
      reason: "mx.example.net said so",
      code: 451,
      reply: reply(text),
    }) as const;
  const conclude = (facts: Fact[], text: string) => {
    const state = fold(stored(facts));
    const command = {
      type: "Conclude",
      now: T0,
      findings: [],
      outcome: put(text),
      policy,
    } as const;
    const [fact] = decide(command, state);
    assert.ok(fact?.type === "Failed");
    return fact.data;
  };

  it("is waited for where it is longer than the schedule", () => {
    const { next, retryAfter } = conclude([enqueued(), started(1), chosen], "try again in 1 hour");
    assert.deepEqual([next, retryAfter], [iso(T0 + 60 * MINUTE), 3600]);
  });
  it("does not bring the next attempt forward", () => {
    const { next, retryAfter } = conclude([enqueued(), started(1), chosen], "retry in 60 seconds");
    assert.deepEqual([next, retryAfter], [iso(T0 + 7.5 * MINUTE), 60]);
  });
  it("is not read out of a permanent refusal", () => {
    const state = fold(stored([enqueued(), started(1), chosen]));
    const outcome = { ...put("try again in 1 hour"), permanent: true } as const;
    const [fact] = decide({ type: "Conclude", now: T0, findings: [], outcome, policy }, state);
    assert.ok(fact?.type === "Failed" && fact.data.retryAfter === undefined);
  });
  it("ends the message when the next attempt would come after it", () => {
    const expires = iso(T0 + 5 * MINUTE);
    const { permanent, reason } = conclude([enqueued({ expires }), started(1), chosen], "no");
    assert.equal(permanent, true);
    assert.equal(reason, `gave up for the deadline ${expires}: mx.example.net said so`);
    assert.equal(plainReason(reason), "mx.example.net said so");
  });
  it("leaves the message alone while another attempt can keep it", () => {
    const expires = iso(T0 + 8 * MINUTE);
    assert.equal(conclude([enqueued({ expires }), started(1), chosen], "no").permanent, false);
  });
  it("that is missed while it waits is a failure with its reason", () => {
    const expires = iso(T0);
    given(enqueued({ expires }), started(1), chosen, failedTemporarily()).when({
      type: "MissDeadline",
    }).then({
      type: "Failed",
      data: {
        permanent: true,
        result: "timeout",
        class: "network",
        reason: `gave up for the deadline ${expires}: try again later`,
        enhanced: "5.4.7",
      },
    });
  });
  it("counts the lifetime from the release of a message that was to be held (RFC 4865)", () => {
    const due = T0 + policy.lifetime;
    const state = fold(stored([enqueued({ due: iso(due) })]))!;
    assert.equal(ageOf(state, due + MINUTE), MINUTE);
  });
});

import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import type { EventData, Fact } from "../../events/catalogue.ts";
import {
  decideReport,
  DELAY_WINDOW,
  dueReport,
  postponed,
  REPORT_WINDOW,
  reportId,
} from "../../actors/reports.ts";
import { enqueued, failedTemporarily, given, iso, MINUTE, policy, started, T0 } from "./given.ts";

const failures = (n: number): Fact[] =>
  Array.from({ length: n }, (_, k) => [started(k + 1), failedTemporarily()]).flat();

const decideOn = (facts: Fact[], conclusion: Fact, dsnOffered = false) =>
  decideReport(given(...facts).state, conclusion, { policy, dsnOffered });

const report = (facts: Fact[], data: Partial<EventData<"Failed">>) =>
  decideOn(facts, failedTemporarily(data));

const delivered: Fact = {
  type: "Delivered",
  data: {
    host: "mx.example.net",
    address: "192.0.2.1",
    reply: { code: 250, text: "Ok" },
    tls: { mode: "none", verifiedBy: "none" },
    queued: 1,
  },
};

describe("reports to the sender: of failures", () => {
  it("is due for every permanent one", () => {
    assert.deepEqual(report([enqueued(), started(1)], { permanent: true }), { kind: "failed" });
  });

  it("is due once for a delay, after attempt 5, and says until when it is tried", () => {
    assert.equal(report([enqueued(), ...failures(3), started(4)], {}), undefined);
    const fifth = [enqueued(), ...failures(4), started(5)];
    // Attempt 6 is due in 7.5 minutes (as the fact says), 7 four hours later, 8 another eight.
    assert.deepEqual(report(fifth, {}), {
      kind: "delayed",
      until: T0 + (7.5 + 240 + 480) * MINUTE,
    });
    const told: Fact = { type: "DSNSent", data: { kind: "delayed", dsn: "01DSN" } };
    assert.equal(report([...fifth, failedTemporarily(), told, started(6)], {}), undefined);
  });

  it("says of a delay until when it is tried: not before the next attempt", () => {
    const seventh = [enqueued(), ...failures(6), started(7)];
    const next = T0 + 24 * 60 * MINUTE; // asked for by the reply
    assert.deepEqual(report(seventh, { next: iso(next) }), { kind: "delayed", until: next });
  });

  it("says of a delay until when it is tried: not after the deadline", () => {
    const expires = iso(T0 + 60 * MINUTE);
    const fifth = [enqueued({ expires }), ...failures(4), started(5)];
    assert.deepEqual(report(fifth, {}), { kind: "delayed", until: T0 + 60 * MINUTE });
  });

  it("says of a delay until when it is tried: counted from when it was to be sent", () => {
    const due = T0 + 7 * 24 * 60 * MINUTE; // HOLDUNTIL (RFC 4865), longer than its lifetime
    const next = iso(due + 7.5 * MINUTE);
    const started = (attempt: number): Fact => ({
      type: "AttemptStarted",
      data: { attempt, next },
    });
    const facts = [1, 2, 3, 4].flatMap((n) => [started(n), failedTemporarily({ next })]);
    assert.deepEqual(
      report([enqueued({ due: iso(due) }), ...facts, started(5)], { next }),
      { kind: "delayed", until: due + (7.5 + 240 + 480) * MINUTE },
    );
  });

  it("is never sent to the null reverse-path", () => {
    assert.deepEqual(
      report([enqueued({ mailFrom: "" }), started(1)], { permanent: true }),
      { kind: "failed", notSent: "the sender is the null reverse-path" },
    );
  });

  it("is never sent on a report that came back under another sender", () => {
    const messageId = reportId("01JBCDEFGH0123456789ABCDEF", "mail.example.org");
    for (const id of [messageId, messageId.slice(1, -1)]) {
      assert.deepEqual(
        report([enqueued({ messageId: id }), started(1)], { permanent: true }),
        { kind: "failed", notSent: "the message is itself a report" },
      );
    }
    for (const id of [null, "<report.1@example.com>", `x${messageId}`]) {
      const facts = [enqueued({ messageId: id }), started(1)];
      assert.deepEqual(report(facts, { permanent: true }), { kind: "failed" });
    }
  });

  it("obeys NOTIFY", () => {
    const never = enqueued({ dsn: { notify: ["NEVER"] } });
    assert.deepEqual(report([never, started(1)], { permanent: true }), {
      kind: "failed",
      notSent: "the sender asked for NOTIFY=NEVER",
    });
    const failure = enqueued({ dsn: { notify: ["FAILURE"] } });
    assert.deepEqual(report([failure, started(1)], { permanent: true }), { kind: "failed" });
    assert.deepEqual(report([failure, ...failures(4), started(5)], {}), {
      kind: "delayed",
      notSent: "the sender asked for NOTIFY=FAILURE",
    });
  });
});

describe("reports to the sender: of success (RFC 3461, section 5.2.2)", () => {
  const asked = enqueued({ dsn: { notify: ["SUCCESS", "FAILURE"] } });

  it("is due where it was asked for and the next host does not report", () => {
    assert.deepEqual(decideOn([asked, started(1)], delivered), { kind: "relayed" });
  });

  it("is left to a next host that offers DSN", () => {
    assert.deepEqual(decideOn([asked, started(1)], delivered, true), {
      kind: "relayed",
      notSent: "mx.example.net offers DSN, and reports from there on",
    });
  });

  it("is not thought of where it was not asked for", () => {
    for (const dsn of [{}, { notify: ["FAILURE" as const] }]) {
      assert.equal(decideOn([enqueued({ dsn }), started(1)], delivered), undefined);
    }
  });

  it("is never sent to the null reverse-path", () => {
    const dsn = { notify: ["SUCCESS" as const] };
    assert.deepEqual(decideOn([enqueued({ mailFrom: "", dsn }), started(1)], delivered), {
      kind: "relayed",
      notSent: "the sender is the null reverse-path",
    });
  });
});

describe("reports to the sender: together", () => {
  const failed = failedTemporarily({ permanent: true });
  const { state } = given(enqueued({ recipients: 3 }), started(1));

  it("waits for other recipients of the submission, which the log says", () => {
    const [fact] = postponed([failed], state, { kind: "failed" }, T0) ?? [];
    assert.ok(fact?.type === "Failed");
    assert.equal(fact.data.reportDue, iso(T0 + REPORT_WINDOW));
    const [success] = postponed([delivered], state, { kind: "relayed" }, T0) ?? [];
    assert.ok(success?.type === "Delivered");
    assert.equal(success.data.reportDue, iso(T0 + REPORT_WINDOW));
  });

  it("does not wait where there are no others, or nothing is sent", () => {
    const alone = given(enqueued(), started(1)).state;
    const delayed = { kind: "delayed", until: T0 + 60 * MINUTE } as const;
    for (const kind of ["failed", "delayed"] as const) {
      assert.equal(postponed([failed], state, { kind, notSent: "x" }, T0), undefined);
    }
    assert.equal(postponed([failed], alone, { kind: "failed" }, T0), undefined);
    assert.equal(postponed([failedTemporarily()], alone, delayed, T0), undefined);
  });

  const delayed = { kind: "delayed", until: T0 + 60 * MINUTE } as const;
  const noted = (why?: string): Fact => ({
    type: "DSNPostponed",
    data: {
      kind: "delayed",
      due: iso(T0 + DELAY_WINDOW),
      until: iso(delayed.until),
      ...(why === undefined ? {} : { why }),
    },
  });

  it("waits likewise when it is on a delay, which the log says beside the failure", () => {
    const failed = failedTemporarily();
    assert.deepEqual(postponed([failed], state, delayed, T0), [failed, noted()]);
    const waits = given(enqueued({ recipients: 3 })).state;
    const why = "its destination is down: no answer";
    assert.deepEqual(postponed([], waits, delayed, T0, why), [noted(why)]);
  });

  it("does not wait on a delay for longer than until the next attempt, which would take it back", () => {
    const next = (ms: number) => [failedTemporarily({ next: iso(T0 + ms) })];
    assert.equal(postponed(next(DELAY_WINDOW), state, delayed, T0), undefined);
    assert.equal(postponed(next(DELAY_WINDOW + 1), state, delayed, T0)?.length, 2);
  });

  it("says of a delay what is known when it is sent", () => {
    const facts = [enqueued({ recipients: 3 }), started(1), failedTemporarily(), noted()];
    const report = dueReport("01STREAM", given(...facts).state);
    assert.ok(report.kind === "delayed");
    assert.deepEqual([report.attempt, report.failure.reason], [1, "try again later"]);
    assert.deepEqual([report.at, report.until], [T0 + 1_000, delayed.until]);
    const later = iso(T0 + 90 * MINUTE);
    const put: Fact = { type: "Rescheduled", data: { who: "op", why: "x", due: later } };
    const putOff = dueReport("01STREAM", given(...facts, put).state);
    assert.equal(putOff.kind === "delayed" && putOff.until, T0 + 90 * MINUTE);
  });

  it("says of a delay without an attempt what the message waits for", () => {
    const why = "its destination is down: no answer";
    const { state } = given(enqueued({ recipients: 3 }), noted(why));
    const report = dueReport("01STREAM", state);
    assert.ok(report.kind === "delayed");
    assert.deepEqual([report.attempt, report.failure.reason], [0, why]);
    const taken = given(enqueued({ recipients: 3 }), noted(why), started(1)).state;
    assert.throws(() => dueReport("01STREAM", taken), /attempting: there is nothing to report/);
  });

  it("is decided anew after a failure that follows one it was taken back for", () => {
    const facts = [enqueued({ recipients: 3 }), ...failures(5), noted(), started(6)];
    assert.equal(report(facts, {})?.kind, "delayed");
    const told: Fact = { type: "DSNSent", data: { kind: "delayed", dsn: "01DSN" } };
    const once = [enqueued({ recipients: 3 }), ...failures(5), noted(), told, started(6)];
    assert.equal(report(once, {}), undefined);
  });

  it("is due until it is noted as sent, or as not to be sent", () => {
    const facts = [enqueued({ recipients: 3 }), started(1)];
    const due = given(...facts, failedTemporarily({ permanent: true, reportDue: iso(T0) })).state;
    assert.equal(due.reportDue, T0);
    const sent: Fact = { type: "DSNSent", data: { kind: "failed", dsn: "01DSN" } };
    const told = given(
      ...facts,
      failedTemporarily({ permanent: true, reportDue: iso(T0) }),
      sent,
    ).state;
    assert.equal(told.reportDue, undefined);
  });
});

import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import {
  booksOf,
  delivered,
  enqueued,
  type Fact,
  failed,
  on,
  refused,
  secondsAfter,
  started,
} from "./given.ts";
import { checkReports } from "./reports.ts";

const STOPPED = secondsAfter(100);

const report = (data: Record<string, unknown> = {}, stream = "r"): Fact =>
  on(
    stream,
    enqueued({
      mailFrom: "",
      rcptTo: "s@x.example",
      messageId: `<${stream}>`,
      source: { kind: "dsn", of: "m" },
      ...data,
    }),
  );
const sent = (dsn?: string): Fact => ({ type: "DSNSent", data: { kind: "failed", dsn } });
const notify = (...notify: string[]) => enqueued({ dsn: { notify } });
const check = (...facts: Fact[]) => checkReports(booksOf(...facts), STOPPED);
const violations = (...facts: Fact[]) => check(...facts).violations.join();

describe("the reports of a crash test", () => {
  it("are in order when what failed was reported on once, and what was asked for", () => {
    assert.deepEqual(check(enqueued(), started, refused, sent("r"), report()), {
      reports: 1,
      reportsDue: 0,
      violations: [],
    });
    assert.equal(violations(notify("SUCCESS"), started, delivered, sent("r"), report()), "");
    assert.equal(violations(enqueued(), started, delivered), "");
  });

  it("are missed where the sender is owed one", () => {
    assert.match(violations(enqueued(), started, refused), /1 was never reported on/);
    assert.match(violations(enqueued(), started, refused, sent()), /1 was never reported on/);
    assert.match(violations(notify("SUCCESS"), started, delivered), /1 was never reported on/);
  });

  it("are too many where nobody is, or one was sent", () => {
    const end = [started, refused, sent("r"), report()];
    assert.match(violations(notify("NEVER"), ...end), /reported on 1 times, and 0 is right/);
    assert.match(violations(enqueued({ mailFrom: "" }), ...end), /reported on 1 times, and 0/);
    assert.match(violations(enqueued(), started, delivered, sent("r"), report()), /and 0 is right/);
    assert.match(
      violations(enqueued(), ...end, sent("r2"), report({}, "r2")),
      /reported on 2 times, and 1 is right/,
    );
  });

  it("have to be there as the log says, and go to the sender", () => {
    assert.match(violations(enqueued(), started, refused, sent("r")), /is no report in the log/);
    assert.match(violations(enqueued(), started, delivered, report()), /r is on nothing/);
    assert.match(
      violations(enqueued(), started, refused, sent("r"), report({ rcptTo: "t@x.example" })),
      /goes to t@x.example, not to s@x.example/,
    );
  });

  it("may wait for others until their time has come, and no longer", () => {
    const due = (n: number) =>
      failed({
        permanent: true,
        next: undefined,
        reportDue: new Date(secondsAfter(n)).toISOString(),
      });
    assert.deepEqual(check(enqueued(), started, due(99)), {
      reports: 0,
      reportsDue: 1,
      violations: [],
    });
    assert.match(violations(enqueued(), started, due(90)), /was due at .* and not made/);
  });
});

import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { type Act, ActBooks, type Answer, compareActs, type Kind } from "./acts.ts";
import { Books } from "./books.ts";
import { enqueued, type Fact, on, readAll, started } from "./given.ts";

const act = (kind: Kind, answer?: Answer): Act => ({
  kind,
  reason: "act 1",
  ...(answer ? { answer } : {}),
});
const by = (type: string, stream = "m", why = "act 1", who = "crash (token)"): Fact =>
  on(stream, { type, data: { who, why } });

function check(acts: readonly Act[], log: readonly Fact[], ruled: readonly string[] = []) {
  const books = new Books();
  const found = new ActBooks();
  readAll(log, books.read, found.read);
  const held = new Map(ruled.map((id) => [id, "act 1"]));
  return compareActs(acts, found, held, books.byId);
}
const violations = (...args: Parameters<typeof check>): string => check(...args).violations.join();

describe("the acts of operators in a crash test", () => {
  const DONE: Answer = { done: true, stream: "m" };
  const each = (...results: [string, boolean][]): Answer => ({ each: new Map(results) });

  it("are in the log when they were answered as done", () => {
    const log = [enqueued(), by("Held")];
    assert.equal(violations([act("hold", DONE)], log), "");
    assert.equal(check([act("hold", DONE)], log).acts, 1);
    assert.match(violations([act("hold", DONE)], [enqueued()]), /as done, and is in the log 0/);
    assert.match(
      violations([act("hold", { done: true, stream: "n" })], log),
      /as done, and is in the log 1/,
    );
    assert.match(violations([act("pause", { done: true })], []), /pause \(act 1\) was answered/);
  });

  it("say who: an act of somebody else is not theirs", () => {
    const log = [enqueued(), by("Held", "m", "act 1", "supervisor")];
    assert.match(violations([act("hold", DONE)], log), /as done, and is in the log 0/);
  });

  it("are what was asked for, and happen once", () => {
    const log = [enqueued(), by("Held"), by("Released")];
    assert.match(violations([act("hold", DONE)], log), /is a Released in the log/);
    const twice = [enqueued(), by("Rescheduled"), by("Rescheduled")];
    assert.match(violations([act("kick", each(["m", true]))], twice), /in the log twice, on m/);
  });

  it("by a filter are in the log of each message that was named as done, and of no other", () => {
    const log = [enqueued(), on("n", enqueued({ rcptTo: "2@x.example" })), by("Held")];
    assert.equal(violations([act("hold", each(["m", true], ["n", false]))], log), "");
    assert.match(violations([act("hold", each(["n", true], ["m", true]))], log), /done on n, and/);
    assert.match(violations([act("hold", each(["m", false]))], log), /as not done on m, and is/);
    assert.match(violations([act("hold", each())], log), /was not to act on m/);
  });

  it("are not in the log when they were refused, and may be when nothing was answered", () => {
    const log = [enqueued(), by("Held")];
    assert.match(violations([act("hold", { refused: "409" })], log), /refused \(409\), and is in/);
    assert.equal(violations([act("hold")], log), "");
    assert.deepEqual(
      [check([act("hold")], log), check([act("hold")], [])].map((one) => one.unansweredAndDone),
      [1, 0],
    );
  });

  it("hold mail that comes in while a rule does", () => {
    const rule = by("Held", "m", "hold rule 01: act 1");
    assert.equal(violations([], [enqueued(), rule], ["1"]), "");
    assert.match(violations([], [enqueued(), started], ["1"]), /1 came in while a rule held it/);
    assert.match(violations([], [enqueued(), started, rule], ["1"]), /and was not held/);
    assert.match(violations([], [enqueued(), by("Held")], ["1"]), /and was not held/);
  });
});

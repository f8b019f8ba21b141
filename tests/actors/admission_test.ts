/** Hold rules and pauses: given what stands on the stream, when an operator asks, then these facts. */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import {
  Admission,
  ADMISSION_STREAM,
  type AdmissionCommand,
  type AdmissionState,
  decideAdmission,
  evolveAdmission,
  holds,
  IntakeIsPaused,
  MAX_HOLD_RULES,
} from "../../actors/admission.ts";
import { CommandRefused } from "../../actors/message.ts";
import { QueueSubmitter } from "../../actors/submitter.ts";
import type { Fact } from "../../events/catalogue.ts";
import { stored } from "./given.ts";
import { QueueHarness } from "./queue_harness.ts";

const by = { who: "ann", why: "storm" };
const rule = (id: string): Fact => ({
  type: "HoldRuleAdded",
  data: { ...by, id, filter: { toDomain: "example.net" } },
});
const paused: Fact = { type: "IntakePaused", data: by };

function given(...facts: Fact[]) {
  const nothing: AdmissionState = { version: 0, rules: [] };
  const state = stored(facts, ADMISSION_STREAM).reduce(evolveAdmission, nothing);
  return {
    state,
    when: (command: AdmissionCommand) => ({
      then: (...expected: Fact[]) => assert.deepEqual(decideAdmission(command, state), expected),
      refused: (words: RegExp) =>
        assert.throws(
          () => decideAdmission(command, state),
          (error) => error instanceof CommandRefused && words.test(error.message),
        ),
    }),
  };
}

describe("admission", () => {
  it("adds a rule with a criterion, once, and not too many", () => {
    const add = { type: "AddHoldRule", id: "r1", filter: { to: "b@example.net" }, ...by } as const;
    given().when(add).then({
      type: "HoldRuleAdded",
      data: { ...by, id: "r1", filter: add.filter },
    });
    given(rule("r1")).when(add).refused(/already/);
    given().when({ ...add, filter: {} }).refused(/needs a criterion/);
    const many = Array.from({ length: MAX_HOLD_RULES }, (_, n) => rule(`x${n}`));
    given(...many).when(add).refused(/remove some/);
  });

  it("removes a rule that is there", () => {
    const remove = { type: "RemoveHoldRule", id: "r1", ...by } as const;
    const removed: Fact = { type: "HoldRuleRemoved", data: { ...by, id: "r1" } };
    given(rule("r1"), rule("r2")).when(remove).then(removed);
    assert.deepEqual(given(rule("r1"), rule("r2"), removed).state.rules.map(({ id }) => id), [
      "r2",
    ]);
    given(rule("r1"), removed).when(remove).refused(/no hold rule r1/);
  });

  it("pauses what is not paused, and resumes what is", () => {
    given().when({ type: "PauseIntake", ...by }).then(paused);
    given(paused).when({ type: "PauseIntake", ...by }).refused(/paused already: by ann: storm/);
    const resumed: Fact = { type: "IntakeResumed", data: by };
    given(paused).when({ type: "ResumeIntake", ...by }).then(resumed);
    given(paused, resumed).when({ type: "ResumeIntake", ...by }).refused(/not paused/);
  });

  it("holds what meets every criterion of a rule", () => {
    const mail = { account: "alice", mailFrom: "Ann@example.com", rcptTo: "bob@Example.NET" };
    assert(holds({ from: "ann@EXAMPLE.com", to: "bob@example.net", account: "alice" }, mail));
    assert(holds({ toDomain: "example.net" }, mail));
    assert(!holds({ toDomain: "net" }, mail), "what is below a domain is another");
    assert(!holds({ toDomain: "example.net", account: "bob" }, mail));
    assert(!holds({ account: "Alice" }, mail), "names of accounts are as they are");
    assert(!holds({ from: "" }, mail));
    assert(holds({ from: "" }, { ...mail, mailFrom: "" }));
  });
});

describe("admission of a running queue", () => {
  it("carries out any number of acts at once, one after the other", async () => {
    const harness = await QueueHarness.create();
    try {
      const admission = new Admission(harness.opened.store);
      await admission.load();
      const add = (id: string) =>
        admission.act({ type: "AddHoldRule", id, filter: { toDomain: "example.net" }, ...by });
      const ids = Array.from({ length: 12 }, (_, n) => `r${n}`);
      await Promise.all([...ids.map(add), assert.rejects(add("r0"), CommandRefused)]);
      assert.deepEqual(admission.state.rules.map(({ id }) => id), ids);
    } finally {
      await harness.remove();
    }
  });

  it("holds new mail in the append that enqueues it, and nothing is attempted", async () => {
    const harness = await QueueHarness.create();
    try {
      const admission = new Admission(harness.opened.store);
      await admission.load();
      let ids = 0;
      harness.submitter = new QueueSubmitter({
        clock: harness.clock,
        ids: { next: () => `02${String(++ids).padStart(24, "0")}` },
        store: harness.opened.store,
        admission,
      });
      await harness.supervisor.start();
      await admission.act({
        type: "AddHoldRule",
        id: "r1",
        filter: { toDomain: "example.net" },
        ...by,
      });
      const held = await harness.submit("bob@example.net");
      const free = await harness.submit("eve@example.org");
      await harness.untilState(free, "delivered");
      assert.deepEqual(await harness.types(held), ["Enqueued", "Held"]);
      assert.deepEqual(harness.jobs.map(({ stream }) => stream), [free]);

      await admission.act({ type: "PauseIntake", ...by });
      assert.equal(harness.submitter.paused, true);
      await assert.rejects(harness.submit("eve@example.org"), IntakeIsPaused);
      await harness.supervisor.act(held, { type: "Release", ...by, now: harness.clock.now() });
      await harness.clock.advance(1);
      await harness.untilState(held, "delivered");
      await admission.act({ type: "ResumeIntake", ...by });
      await harness.untilState(await harness.submit("eve@example.org"), "delivered");

      const again = new Admission(harness.opened.store);
      await again.load();
      assert.deepEqual(again.state, admission.state);
    } finally {
      await harness.remove();
    }
  });
});

/** Whether anything is left to be done: what an operator goes by who drains the queue. */
import assert from "node:assert/strict";
import { describe, it } from "@std/testing/bdd";
import type { QueueRow, QueueView } from "../../../events/projections/queue.ts";
import { intakeState } from "../../../src/http/admission.ts";

/** A queue whose only message goes on from one state to the next whenever something was asked. */
function queueOf(...states: ("queued" | "attempting" | "delivered")[]) {
  const counted = { queued: 0, attempting: 0, held: 0, delivered: 0, failed: 0, cancelled: 0 };
  const now = () => states.length > 1 ? states.shift()! : states[0]!;
  const queue: Pick<QueueView, "depth" | "due" | "nextDue"> = {
    depth: () => Promise.resolve({ ...counted, [now()]: 1 }),
    due: () => Promise.resolve(now() === "queued" ? [{ due: 1 } as QueueRow] : []),
    nextDue: () => Promise.resolve(undefined),
  };
  return queue;
}
const intakeOf = (queue: ReturnType<typeof queueOf>) =>
  intakeState({ queue, now: () => 2, admission: { state: { version: 0, rules: [] } } });

describe("the intake", () => {
  it("is idle when nothing is due and nothing is being tried", async () => {
    assert.equal((await intakeOf(queueOf("delivered"))).idle, true);
    assert.equal((await intakeOf(queueOf("queued"))).idle, false);
    assert.equal((await intakeOf(queueOf("attempting"))).idle, false);
  });

  it("is not idle when a message that was due is tried while it looks", async () => {
    assert.equal((await intakeOf(queueOf("queued", "attempting"))).idle, false);
  });
});

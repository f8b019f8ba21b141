import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { BodyDamaged, BodyMissing } from "../../events/store.ts";
import { decide } from "../../actors/message.ts";
import { delivered, QueueHarness } from "./queue_harness.ts";

describe("a message whose content is lost", () => {
  let queue: QueueHarness;
  beforeEach(async () => {
    queue = await QueueHarness.create();
  });
  afterEach(() => queue.remove());

  for (const Lost of [BodyMissing, BodyDamaged]) {
    it(`is held at the first attempt (${Lost.name}), and its neighbour goes out`, async () => {
      queue.script = (job) => {
        if (job.message.rcptTo.startsWith("lost")) throw new Lost(job.message.body);
        return Promise.resolve(delivered);
      };
      await queue.supervisor.start();
      const lost = await queue.submit("lost@example.net");
      await queue.untilState(await queue.submit("bob@example.net"), "delivered");
      await queue.untilState(lost, "held");
      assert.deepEqual(await queue.types(lost), [
        "Enqueued",
        "AttemptStarted",
        "TransportChosen",
        "Failed",
        "Held",
      ]);
      const held = (await queue.events(lost)).at(-1)!;
      assert.ok(held.type === "Held");
      assert.match(held.data.why, /^the content cannot be read: body [0-9a-f]{64} is /);
      await queue.clock.advance(3_600_000);
      assert.equal(queue.jobs.filter(({ stream }) => stream === lost).length, 1);
    });
  }

  it("can be released when the content is back", async () => {
    let back = false;
    queue.script = (job) => {
      if (!back) throw new BodyMissing(job.message.body);
      return Promise.resolve(delivered);
    };
    await queue.supervisor.start();
    const stream = await queue.submit();
    await queue.untilState(stream, "held");
    back = true;
    const now = queue.clock.now();
    await queue.supervisor.act(stream, { type: "Release", who: "test", why: "back", now });
    await queue.clock.advance(1);
    await queue.untilState(stream, "delivered");
  });

  it("must be in an attempt for that to be found out", () => {
    assert.throws(() => decide({ type: "LoseBody", reason: "gone" }, undefined), /no such message/);
  });
});

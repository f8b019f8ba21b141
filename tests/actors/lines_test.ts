/** Messages that stand in line when it turns out that they should stand elsewhere, or nowhere. */
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import type { TransportChoice } from "../../actors/ports.ts";
import { direct, MINUTE } from "./given.ts";
import { delivered, QueueHarness } from "./queue_harness.ts";

const by = { who: "op", why: "the relay is dead" };
const relay: TransportChoice = { ...direct, transport: "relay", type: "smtp" };
const nobody = { kind: "failed", permanent: false, result: "timeout", reason: "nobody" } as const;

let queue: QueueHarness;
beforeEach(async () => {
  queue = await QueueHarness.create();
  queue.choose = ({ override }) => override?.transport === "direct" ? direct : relay;
  queue.script = ({ transport }) => Promise.resolve(transport === relay ? nobody : delivered);
});
afterEach(() => queue.remove());

/** Messages that wait for a relay that is down, and were not tried yet. */
async function waiting(messages: number): Promise<string[]> {
  await queue.supervisor.start();
  for (let n = 0; n < 3; n++) await queue.submit();
  await queue.until(() => queue.supervisor.destinations().some(({ down }) => down));
  const streams: string[] = [];
  for (let n = 0; n < messages; n++) streams.push(await queue.submit());
  return streams;
}

describe("a message in line", () => {
  it("goes over the transport that an operator assigns, and waits no more for the other", async () => {
    const [stream] = await waiting(1);
    const assign = { type: "AssignTransport", transport: "direct" } as const;
    await queue.supervisor.act(stream!, { ...assign, ...by });
    await queue.untilState(stream!, "delivered");
  });

  it("leaves it when an operator holds or cancels the message", async () => {
    const [held, cancelled, left] = await waiting(3);
    const inLine = () => queue.supervisor.destinations().find(({ down }) => down)!.waiting;
    assert.equal(inLine(), 3);
    await queue.supervisor.act(held!, { type: "Hold", ...by });
    await queue.supervisor.act(cancelled!, { type: "Cancel", ...by });
    assert.equal(inLine(), 1);
    await queue.supervisor.act(left!, { type: "Reschedule", due: queue.clock.now(), ...by });
    await queue.until(() => inLine() === 1);
  });

  it("goes where the routes of a new configuration send it", async () => {
    const streams = await waiting(7);
    queue.choose = () => direct;
    queue.supervisor.limits = { concurrency: 20, policy: () => queue.limits };
    for (const stream of streams) await queue.untilState(stream, "delivered");
    await queue.clock.advance(MINUTE);
    assert.equal(queue.jobs.filter(({ stream }) => streams.includes(stream)).length, 7);
  });
});

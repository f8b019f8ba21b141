import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import type { MessagePorts } from "../../actors/message_actor.ts";
import { Patience } from "../../actors/patience.ts";
import type { QueueRow, QueueView } from "../../actors/ports.ts";
import { MINUTE, T0 } from "./given.ts";
import { ManualClock, settle } from "./manual_clock.ts";

describe("patience", () => {
  it("leaves no timer behind that would keep the process, when it is stopped as it looks", async () => {
    const clock = new ManualClock(T0);
    let answer = (_: QueueRow[]) => {};
    const view = { due: () => new Promise<QueueRow[]>((resolve) => answer = resolve) };
    const ports = { clock, view } as unknown as MessagePorts & { readonly view: QueueView };
    const patience = new Patience(ports, {
      anyDown: () => true,
      downFor: () => undefined,
      failed: (cause) => assert.fail(String(cause)),
      gone: new AbortController().signal,
    });
    patience.start();
    await clock.advance(6 * MINUTE);
    patience.stop();
    answer([]);
    await settle();
    assert.equal(clock.timers, 0);
  });
});

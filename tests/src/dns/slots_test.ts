import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { Slots } from "../../../src/dns/slots.ts";

const never = new AbortController().signal;
const turn = () => new Promise((resolve) => setTimeout(resolve));

describe("slots", () => {
  it("lets so many in, and the next in the order they came", async () => {
    const slots = new Slots(2);
    const began: number[] = [];
    const ends = [0, 1, 2, 3].map((n) => {
      const end = Promise.withResolvers<void>();
      slots.run(never, () => {
        began.push(n);
        return end.promise;
      });
      return end;
    });
    await turn();
    assert.deepEqual(began, [0, 1]);
    ends[1]?.resolve();
    await turn();
    assert.deepEqual(began, [0, 1, 2]);
    ends[0]?.resolve();
    await turn();
    assert.deepEqual(began, [0, 1, 2, 3]);
  });

  it("lets one go who waits no longer, and keeps no slot for it", async () => {
    const slots = new Slots(1);
    const end = Promise.withResolvers<void>();
    const first = slots.run(never, () => end.promise);
    const leaver = new AbortController();
    const left = slots.run(leaver.signal, () => assert.fail("it had left"));
    const third = slots.run(never, () => Promise.resolve("in"));
    leaver.abort(new Error("left"));
    await assert.rejects(left, /left/);
    end.resolve();
    await first;
    assert.equal(await third, "in");
    assert.equal(await slots.run(never, () => Promise.resolve("free again")), "free again");
  });

  it("is freed by work that fails", async () => {
    const slots = new Slots(1);
    await assert.rejects(slots.run(never, () => Promise.reject(new Error("broken"))), /broken/);
    assert.equal(await slots.run(never, () => Promise.resolve(1)), 1);
  });
});

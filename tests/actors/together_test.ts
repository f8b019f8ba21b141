/** Recipients of one submission at one destination: one attempt, an outcome for each. */
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import type { StoredEventOf } from "../../events/catalogue.ts";
import { MAX_TOGETHER } from "../../actors/ports.ts";
import { iso, MINUTE, T0 } from "./given.ts";
import { delivered, QueueHarness, refused } from "./queue_harness.ts";

let queue: QueueHarness;
beforeEach(async () => {
  queue = await QueueHarness.create();
});
afterEach(() => queue.remove());

const to = (domain: string, count: number) =>
  Array.from({ length: count }, (_, n) => `r${n}@${domain}`);
const sizes = () => queue.transactions.map((jobs) => jobs.length);

describe("recipients of one submission", () => {
  it("go together, and each attempt is on disk before", async () => {
    let onDisk: string[][] = [];
    queue.script = async () => {
      onDisk = await Promise.all(streams.map((stream) => queue.types(stream)));
      return delivered;
    };
    await queue.supervisor.start();
    const streams = await queue.submitTo(to("example.net", 3));
    for (const stream of streams) await queue.untilState(stream, "delivered");
    assert.deepEqual(sizes(), [3]);
    for (const types of onDisk) {
      assert.deepEqual(types, ["Enqueued", "AttemptStarted", "TransportChosen"]);
    }
  });

  it("have each an outcome and a next attempt of their own", async () => {
    queue.script = (job) => {
      const { rcptTo } = job.message;
      if (rcptTo.startsWith("r0")) return Promise.resolve(delivered);
      return Promise.resolve(refused(rcptTo.startsWith("r1")));
    };
    await queue.supervisor.start();
    const streams = await queue.submitTo(to("example.net", 3));
    for (const [n, state] of ["delivered", "failed", "queued"].entries()) {
      await queue.untilState(streams[n]!, state);
    }
    queue.script = () => Promise.resolve(delivered);
    await queue.clock.advance(8 * MINUTE);
    await queue.untilState(streams[2]!, "delivered");
    assert.deepEqual(sizes().slice(0, 1), [3]);
    const again = queue.transactions.filter(([job]) => job?.stream === streams[2]);
    assert.deepEqual(again.map((jobs) => jobs.length), [1], "alone the second time");
  });

  it("are due again when an operator says so, though another is still being attempted", async () => {
    let end = () => {};
    queue.script = async (job, findings) => {
      const failed = refused(false);
      if (job.attempt > 1) return delivered;
      if (job.message.rcptTo.startsWith("r0")) await findings.settle(failed);
      else await new Promise<void>((resolve) => end = resolve);
      return failed;
    };
    await queue.supervisor.start();
    const [first] = await queue.submitTo(to("example.net", 2));
    await queue.untilState(first!, "queued");
    await queue.until(async () => (await queue.types(first!)).includes("Failed"));
    const act = { who: "op", why: "the server is back" };
    await queue.supervisor.act(first!, { type: "Reschedule", ...act, due: T0 - MINUTE });
    await queue.clock.advance(1_000);
    assert.equal(queue.transactions.length, 1, "not while the attempt lasts");
    end();
    await queue.until(() => queue.supervisor.running === 0);
    await queue.clock.advance(1_000);
    await queue.untilState(first!, "delivered");
  });

  it("at other destinations, or of other submissions, do not go along", async () => {
    await queue.submitTo(["a@one.example", "b@two.example", "c@one.example"]);
    await queue.submitTo(["d@one.example", "e@one.example"]);
    await queue.supervisor.start();
    await queue.until(async () => (await queue.opened.view.depth()).delivered === 5);
    const names = queue.transactions.map((jobs) =>
      jobs.map((job) => job.message.rcptTo[0]).join("")
    );
    assert.deepEqual(names.toSorted(), ["ac", "b", "de"]);
  });

  it("are a transaction for each hundred", async () => {
    await queue.supervisor.start();
    await queue.submitTo(to("example.net", 2 * MAX_TOGETHER + 10));
    await queue.until(async () => {
      return (await queue.opened.view.depth()).delivered === 2 * MAX_TOGETHER + 10;
    });
    assert.ok(sizes().every((size) => size <= MAX_TOGETHER));
    assert.ok(sizes().length <= 6, `${sizes()}`);
  });

  it("keep the rate of their destination together", async () => {
    queue.limits = { concurrency: 5, perMinute: 4 };
    await queue.supervisor.start();
    await queue.submitTo(to("example.net", 10));
    await queue.until(() => queue.jobs.length === 4 && queue.supervisor.running === 0);
    await queue.clock.advance(59_000);
    assert.equal(queue.jobs.length, 4);
    await queue.clock.advance(2_000);
    await queue.until(() => queue.jobs.length === 8);
  });

  it("are not all burnt by a probe of a destination that is down", async () => {
    queue.script = () =>
      Promise.resolve({ kind: "failed", permanent: false, result: "timeout", reason: "nobody" });
    await queue.supervisor.start();
    for (let n = 0; n < 3; n++) await queue.submit(`x${n}@dead.example`);
    await queue.until(() => queue.supervisor.destinations().some(({ down }) => down));
    const [first] = await queue.submitTo(to("dead.example", 20));
    const before = queue.jobs.length;
    await queue.clock.advance(61_000);
    await queue.until(() => queue.jobs.length > before && queue.supervisor.running === 0);
    assert.equal(queue.jobs.length, before + 1, "one probe, for one message");
    assert.ok(first);
  });

  it("beside one whose delivery is a fault of ours go alone from then on", async () => {
    queue.script = (job) => {
      if (job.message.rcptTo.startsWith("r1@")) throw new TypeError("boom");
      return Promise.resolve(delivered);
    };
    await queue.supervisor.start();
    const [good, poison, other] = await queue.submitTo(to("example.net", 3));
    await queue.until(() => queue.transactions.length === 1 && queue.supervisor.running === 0);
    for (let n = 0; n < 3; n++) await queue.clock.advance(20 * MINUTE);
    await queue.untilState(poison!, "held");
    await queue.untilState(good!, "delivered");
    await queue.untilState(other!, "delivered");
    assert.equal(sizes()[0], 3);
    assert.ok(sizes().slice(1).every((size) => size === 1));
  });

  it("that are certain are on disk while others go on", async () => {
    let goOn = () => {};
    const waiting = new Promise<void>((resolve) => goOn = resolve);
    queue.script = async (job, findings) => {
      if (job.message.rcptTo.startsWith("r0")) await findings.settle(delivered);
      else await waiting;
      return delivered;
    };
    await queue.supervisor.start();
    const [first, second] = await queue.submitTo(to("example.net", 2));
    await queue.untilState(first!, "delivered");
    assert.equal((await queue.opened.view.get(second!))?.state, "attempting");
    goOn();
    await queue.untilState(second!, "delivered");
    assert.deepEqual((await queue.types(first!)).filter((type) => type === "Delivered").length, 1);
  });
});

describe("a message that waited for a destination", () => {
  it("says since when, and why", async () => {
    let up = false;
    queue.script = () =>
      Promise.resolve(
        up
          ? delivered
          : { kind: "failed", permanent: false, result: "timeout", reason: "no answer" } as const,
      );
    await queue.supervisor.start();
    for (let n = 0; n < 3; n++) await queue.submit(`x${n}@dead.example`);
    await queue.until(() => queue.supervisor.destinations().some(({ down }) => down));
    const late = await queue.submit("late@dead.example");
    const since = queue.clock.now();
    up = true;
    await queue.clock.advance(70_000);
    await queue.untilState(late, "delivered");
    const started = (await queue.events(late)).find(({ type }) => type === "AttemptStarted");
    const { waited } = (started as StoredEventOf<"AttemptStarted">).data;
    assert.deepEqual(waited, { since: iso(since), why: "no answer" });
  });
});

describe("a deadline", () => {
  it("that passes while a message waits for its turn fails it, with a report", async () => {
    await queue.supervisor.start();
    queue.script = () => Promise.resolve(refused(false));
    const [stream] = await queue.submitTo(["bob@example.net"], "alice@example.com", {
      due: T0 + 10 * MINUTE,
      expires: T0 + 5 * MINUTE,
    });
    await queue.clock.advance(11 * MINUTE);
    await queue.untilState(stream!, "failed");
    assert.deepEqual(await queue.types(stream!), ["Enqueued", "Failed", "DSNSent"]);
    assert.ok(queue.jobs.every((job) => job.stream !== stream));
  });

  it("is kept for a message whose destination is down", async () => {
    queue.script = () =>
      Promise.resolve({ kind: "failed", permanent: false, result: "timeout", reason: "nobody" });
    await queue.supervisor.start();
    for (let n = 0; n < 3; n++) await queue.submit(`x${n}@dead.example`);
    await queue.until(() => queue.supervisor.destinations().some(({ down }) => down));
    const streams = [];
    for (let n = 0; n < 8; n++) {
      const [stream] = await queue.submitTo([`y${n}@dead.example`], "alice@example.com", {
        expires: T0 + 6 * MINUTE,
      });
      streams.push(stream!);
    }
    await queue.clock.advance(11 * MINUTE);
    for (const stream of streams) await queue.untilState(stream, "failed");
  });
});

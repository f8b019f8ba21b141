import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import { FIRST_WINDOW } from "../../actors/destination.ts";
import { LINE_LENGTH } from "../../actors/line.ts";
import { type Limits, type Refill, Schedule, type Waiting } from "../../actors/schedule.ts";

const NOW = 1_000_000;
const limits: Limits = { concurrency: 10, policy: () => ({ concurrency: 3 }) };
const one: Limits = { concurrency: 1, policy: () => ({ concurrency: 1 }) };
const item = (destination: string, n: number, rest: Partial<Waiting> = {}): Waiting => ({
  destination,
  owner: "shop",
  due: n,
  stream: `${destination}-${rest.owner ?? "shop"}-${String(n).padStart(5, "0")}`,
  ...rest,
});
const drain = (schedule: Schedule<Waiting>): Waiting[] => {
  const started: Waiting[] = [];
  for (let next; (next = schedule.next(NOW));) started.push(next);
  return started;
};
const end = (schedule: Schedule<Waiting>, each: Waiting): Refill | undefined =>
  schedule.ended(each, "delivered", "", NOW).refill;

describe("the schedule", () => {
  it("starts no more per destination than it may, nor overall", () => {
    const schedule = new Schedule(limits);
    for (const destination of ["a", "b", "c", "d", "e"]) {
      for (let n = 0; n < 5; n++) schedule.offer(item(destination, n), NOW);
    }
    const started = drain(schedule);
    assert.equal(started.length, 10);
    const per = Map.groupBy(started, ({ destination }) => destination);
    for (const [, items] of per) assert.ok(items.length <= 3);
  });

  it("begins small at a destination that nothing is known of", () => {
    const schedule = new Schedule({ concurrency: 100, policy: () => ({ concurrency: 50 }) });
    for (let n = 0; n < 50; n++) schedule.offer(item("a", n), NOW);
    assert.equal(drain(schedule).length, FIRST_WINDOW);
  });

  it("turns among destinations, so that a long line does not hold up another", () => {
    const schedule = new Schedule({ concurrency: 2, policy: () => ({ concurrency: 2 }) });
    for (let n = 0; n < LINE_LENGTH; n++) schedule.offer(item("busy", n), NOW);
    const first = schedule.next(NOW)!;
    schedule.offer(item("other", 0), NOW);
    assert.equal(first.destination, "busy");
    const second = schedule.next(NOW)!;
    end(schedule, first);
    const third = schedule.next(NOW)!;
    assert.deepEqual(
      new Set([second.destination, third.destination]),
      new Set(["busy", "other"]),
    );
  });

  it("turns among owners at a destination", () => {
    const schedule = new Schedule(one);
    for (let n = 0; n < LINE_LENGTH; n++) schedule.offer(item("a", n, { owner: "bulk" }), NOW);
    const first = schedule.next(NOW)!;
    schedule.offer(item("a", 9_999, { owner: "alice" }), NOW);
    end(schedule, first);
    const owners: string[] = [];
    for (let n = 0; n < 2; n++) {
      const next = schedule.next(NOW)!;
      owners.push(next.owner);
      end(schedule, next);
    }
    assert.ok(owners.includes("alice"), "one of the next two");
  });

  it("starts the urgent first, and equals in the order in which they came", () => {
    const schedule = new Schedule(one);
    const priorities = [0, 4, 0, 4, -4, undefined];
    priorities.forEach((priority, n) => {
      schedule.offer(item("a", n, priority === undefined ? {} : { priority }), NOW);
    });
    const order: number[] = [];
    for (let next; (next = schedule.next(NOW)); end(schedule, next)) order.push(next.due);
    assert.deepEqual(order, [1, 3, 0, 2, 5, 4]);
  });

  it("never has a stream twice", () => {
    const schedule = new Schedule(limits);
    assert.ok(schedule.offer(item("a", 1), NOW));
    assert.ok(schedule.offer(item("a", 1), NOW));
    const started = schedule.next(NOW)!;
    assert.equal(schedule.next(NOW), undefined);
    assert.ok(schedule.offer(item("a", 1), NOW), "not while it runs either");
    assert.equal(schedule.next(NOW), undefined);
    end(schedule, started);
    schedule.offer(item("a", 1), NOW);
    assert.ok(schedule.next(NOW));
  });

  it("says where to read on when a full line is half empty", () => {
    const schedule = new Schedule(one);
    for (let n = 0; n < LINE_LENGTH; n++) assert.ok(schedule.offer(item("a", n), NOW));
    assert.equal(schedule.offer(item("a", LINE_LENGTH + 5), NOW), false);
    assert.equal(schedule.offer(item("a", LINE_LENGTH), NOW), false);
    let refill: Refill | undefined;
    let ended = 0;
    while (!refill) {
      refill = end(schedule, schedule.next(NOW)!);
      ended++;
    }
    assert.deepEqual([refill.destination, refill.owner, refill.from.due], [
      "a",
      "shop",
      LINE_LENGTH,
    ]);
    assert.equal(ended, LINE_LENGTH / 2);
  });

  it("keeps what it knows of destinations within bounds", () => {
    const schedule = new Schedule(limits);
    for (let n = 0; n < 5_000; n++) {
      schedule.offer(item(`d${n}`, n), NOW);
      end(schedule, schedule.next(NOW)!);
    }
    assert.ok([...schedule.destinations()].length <= 2_000);
  });

  it("waits for the probe of a destination that is down, and says when it is", () => {
    const schedule = new Schedule(limits);
    for (let n = 0; n < 10; n++) schedule.offer(item("dead", n), NOW);
    const started = drain(schedule);
    const changes = started.map((each) => schedule.ended(each, "unreachable", "refused", NOW));
    const down = changes.at(-1)!.change!;
    assert.equal(down.kind, "down");
    assert.deepEqual(drain(schedule), []);
    assert.equal(schedule.nextTick(), down.down.until);
    schedule.tick(down.down.until);
    assert.ok(schedule.next(down.down.until), "the probe");
    assert.equal(schedule.next(down.down.until), undefined, "one at a time");
  });

  it("loses nothing and stays within its limits, whatever comes and ends (property)", () => {
    const experience = fc.constantFrom(
      "delivered" as const,
      "answered" as const,
      "busy" as const,
      "unreachable" as const,
      "unknown" as const,
    );
    const step = fc.oneof(
      fc.record({ offer: fc.tuple(fc.constantFrom("a", "b"), fc.nat(400)), owner: fc.nat(2) }),
      fc.record({ end: fc.nat(20), experience }),
      fc.record({ drop: fc.nat(400) }),
      fc.record({ wait: fc.nat(100_000) }),
      fc.constant({ next: true }),
    );
    fc.assert(fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      let now = NOW;
      const schedule = new Schedule<Waiting>({
        concurrency: 10,
        policy: (key) => ({ concurrency: 3, ...(key === "b" ? { perMinute: 6 } : {}) }),
      });
      const offered = new Set<string>();
      const running: Waiting[] = [];
      let ended = 0;
      let latest = -Infinity;
      for (const each of steps) {
        if ("offer" in each) {
          const next = item(...each.offer, { owner: `owner${each.owner}` });
          if (offered.has(next.stream)) continue;
          if (schedule.offer(next, now)) offered.add(next.stream);
        } else if ("end" in each) {
          const [done] = running.splice(each.end, 1);
          if (!done) continue;
          schedule.ended(done, each.experience, "because", now);
          ended++;
        } else if ("drop" in each) {
          const stream = [...offered][each.drop % Math.max(offered.size, 1)] ?? "none";
          const before = schedule.waiting;
          schedule.drop(stream);
          ended += before - schedule.waiting;
        } else if ("wait" in each) {
          schedule.tick(now += each.wait);
        } else {
          const next = schedule.next(now);
          if (!next) continue;
          running.push(next);
          if (next.destination !== "b") continue;
          assert.ok(now - latest >= 10_000, "six a minute, at any moment");
          latest = now;
        }
        assert.equal(schedule.running, running.length);
        for (const [, list] of Map.groupBy(running, ({ destination }) => destination)) {
          assert.ok(list.length <= 3);
        }
        assert.equal(offered.size, schedule.waiting + running.length + ended);
      }
      // Nothing is stuck: with all ended, and time, everything left comes to its turn.
      for (let round = 0; round < 2_000 && schedule.waiting + running.length > 0; round++) {
        for (const done of running.splice(0)) schedule.ended(done, "delivered", "", now);
        schedule.tick(now += 3_600_000);
        for (let next; (next = schedule.next(now));) running.push(next);
      }
      assert.equal(schedule.waiting, 0);
    }));
  });

  it("drops what has ended while it waited, which costs nobody's turn", () => {
    const schedule = new Schedule({ concurrency: 9, policy: () => ({ concurrency: 1 }) });
    const items = Array.from({ length: LINE_LENGTH }, (_, n) => item("a", n));
    for (const each of items) assert.ok(schedule.offer(each, NOW));
    const beyond = item("a", LINE_LENGTH);
    assert.ok(!schedule.offer(beyond, NOW));
    const running = schedule.next(NOW)!;
    assert.equal(schedule.drop(running.stream), undefined);
    assert.ok(schedule.has(running.stream), "what runs is left alone");
    assert.equal(schedule.drop(beyond.stream), undefined, "so is what nobody knows");
    const refills = items.slice(1).map(({ stream }) => schedule.drop(stream));
    assert.equal(schedule.waiting, 0);
    assert.ok(items.slice(1).every(({ stream }) => !schedule.has(stream)));
    const asked = refills.filter((refill) => refill !== undefined);
    assert.deepEqual(asked.map(({ from }) => from.due), [LINE_LENGTH], "read on, once");
    assert.ok(schedule.offer(beyond, NOW));
    end(schedule, running);
    assert.equal(schedule.next(NOW)?.stream, beyond.stream);
  });

  it("gives an attempt those of its owner and destination that go along, up to a number", () => {
    const schedule = new Schedule(limits);
    for (let n = 0; n < 8; n++) schedule.offer(item("a", n), NOW);
    schedule.offer(item("a", 0, { owner: "other" }), NOW);
    schedule.offer(item("b", 0), NOW);
    const first = schedule.next(NOW)!;
    const even = schedule.takeAlong(first, ({ due }) => due % 2 === 0, 3, NOW);
    assert.deepEqual(even.map(({ due }) => due), [2, 4], "three with the first");
    assert.deepEqual([schedule.running, schedule.waiting], [1, 7]);
    assert.ok(schedule.has(even[0]!.stream), "not to be offered again while it runs");
    schedule.ended(first, "delivered", "", NOW, even);
    assert.ok(!schedule.has(even[0]!.stream));
    assert.equal(schedule.running, 0);
    const rest: number[] = [];
    for (let next; (next = schedule.next(NOW));) {
      if (next.destination === "a" && next.owner === "shop") rest.push(next.due);
      end(schedule, next);
    }
    assert.deepEqual(rest, [1, 3, 5, 6, 7], "in their order");
  });
});

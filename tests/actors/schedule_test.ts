import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import { LINE_LENGTH } from "../../actors/destination.ts";
import { Schedule, type Waiting } from "../../actors/schedule.ts";

const limits = { concurrency: 10, destinationConcurrency: 3 };
const item = (destination: string, n: number): Waiting => ({
  destination,
  due: n,
  stream: `${destination}-${String(n).padStart(5, "0")}`,
});

describe("the schedule", () => {
  it("starts no more per destination than it may, nor overall", () => {
    const schedule = new Schedule(limits);
    for (const destination of ["a", "b", "c", "d", "e"]) {
      for (let n = 0; n < 5; n++) schedule.offer(item(destination, n));
    }
    const started: Waiting[] = [];
    for (let next; (next = schedule.next());) started.push(next);
    assert.equal(started.length, 10);
    const per = Map.groupBy(started, ({ destination }) => destination);
    for (const [, items] of per) assert.ok(items.length <= 3);
  });

  it("turns among destinations, so that a long line does not hold up another", () => {
    const schedule = new Schedule({ concurrency: 2, destinationConcurrency: 2 });
    for (let n = 0; n < LINE_LENGTH; n++) schedule.offer(item("busy", n));
    const first = schedule.next()!;
    schedule.offer(item("other", 0));
    assert.equal(first.destination, "busy");
    const second = schedule.next()!;
    schedule.ended(first);
    const third = schedule.next()!;
    assert.deepEqual(
      new Set([second.destination, third.destination]),
      new Set(["busy", "other"]),
    );
  });

  it("never has a stream twice", () => {
    const schedule = new Schedule(limits);
    assert.ok(schedule.offer(item("a", 1)));
    assert.ok(schedule.offer(item("a", 1)));
    const started = schedule.next()!;
    assert.equal(schedule.next(), undefined);
    assert.ok(schedule.offer(item("a", 1)), "not while it runs either");
    assert.equal(schedule.next(), undefined);
    schedule.ended(started);
    schedule.offer(item("a", 1));
    assert.ok(schedule.next());
  });

  it("says where to read on when a full line is half empty", () => {
    const schedule = new Schedule({ concurrency: 1, destinationConcurrency: 1 });
    for (let n = 0; n < LINE_LENGTH; n++) assert.ok(schedule.offer(item("a", n)));
    assert.equal(schedule.offer(item("a", LINE_LENGTH + 5)), false);
    assert.equal(schedule.offer(item("a", LINE_LENGTH)), false);
    let refill;
    let ended = 0;
    while (!refill) {
      refill = schedule.ended(schedule.next()!);
      ended++;
    }
    assert.equal(refill.due, LINE_LENGTH);
    assert.equal(ended, LINE_LENGTH / 2);
  });

  it("forgets destinations with nothing to do", () => {
    const schedule = new Schedule(limits);
    schedule.offer(item("a", 1));
    schedule.ended(schedule.next()!);
    assert.deepEqual([...schedule.destinations()], []);
  });

  it("loses nothing and stays within its limits, whatever comes and ends (property)", () => {
    const step = fc.oneof(
      fc.record({ offer: fc.tuple(fc.constantFrom("a", "b", "c"), fc.nat(400)) }),
      fc.record({ end: fc.nat(20) }),
      fc.constant({ next: true }),
    );
    fc.assert(fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      const schedule = new Schedule(limits);
      const offered = new Set<string>();
      const running: Waiting[] = [];
      let ended = 0;
      for (const each of steps) {
        if ("offer" in each) {
          const next = item(...each.offer);
          if (offered.has(next.stream)) continue;
          if (schedule.offer(next)) offered.add(next.stream);
        } else if ("end" in each) {
          const [done] = running.splice(each.end, 1);
          if (!done) continue;
          schedule.ended(done);
          ended++;
        } else {
          const next = schedule.next();
          if (next) running.push(next);
        }
        assert.equal(schedule.running, running.length);
        assert.ok(running.length <= limits.concurrency);
        for (const [, list] of Map.groupBy(running, ({ destination }) => destination)) {
          assert.ok(list.length <= limits.destinationConcurrency);
        }
        assert.equal(offered.size, schedule.waiting + running.length + ended);
      }
    }));
  });
});

import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import {
  Destination,
  FIRST_PROBE,
  FIRST_WINDOW,
  LONGEST_PROBE,
  UNREACHABLE_BEFORE_DOWN,
} from "../../actors/destination.ts";

const NOW = 1_000_000_000;
/** One attempt from start to end. */
const attempt = (
  destination: Destination,
  ...[experience, why, now]: Parameters<Destination["ended"]>
) => {
  destination.started(now);
  return destination.ended(experience, why, now);
};
const dead = (): Destination => {
  const destination = new Destination({ concurrency: 20 });
  for (let n = 0; n < UNREACHABLE_BEFORE_DOWN; n++) {
    attempt(destination, "unreachable", "refused", NOW);
  }
  return destination;
};

describe("a destination", () => {
  it("widens its window with each window of deliveries, up to the limit", () => {
    const destination = new Destination({ concurrency: 20 });
    assert.equal(destination.window, FIRST_WINDOW);
    for (let n = 0; n < FIRST_WINDOW + 1; n++) attempt(destination, "delivered", "", NOW);
    assert.equal(destination.window, FIRST_WINDOW + 1);
    for (let n = 0; n < 1_000; n++) attempt(destination, "delivered", "", NOW);
    assert.equal(destination.window, 20);
  });

  it("never opens wider than a limit below the first window", () => {
    assert.equal(new Destination({ concurrency: 2 }).window, 2);
  });

  it("halves its window when it is turned away, not when a message is refused", () => {
    const destination = new Destination({ concurrency: 20 });
    for (let n = 0; n < 1_000; n++) attempt(destination, "delivered", "", NOW);
    attempt(destination, "answered", "no such user", NOW);
    assert.equal(destination.window, 20);
    attempt(destination, "busy", "too many connections", NOW);
    assert.equal(destination.window, 10);
    for (let n = 0; n < 10; n++) attempt(destination, "busy", "", NOW);
    assert.equal(destination.window, 1);
  });

  it("is down after several attempts that could not reach it, and none that did", () => {
    const destination = new Destination({ concurrency: 20 });
    for (let n = 1; n < UNREACHABLE_BEFORE_DOWN; n++) {
      assert.equal(attempt(destination, "unreachable", "refused", NOW), undefined);
    }
    attempt(destination, "answered", "greylisted", NOW);
    assert.equal(attempt(destination, "unreachable", "refused", NOW), undefined);
    assert.equal(dead().down?.why, "refused");
  });

  it("is probed one attempt at a time, after waits that double", () => {
    const destination = dead();
    const waits: number[] = [];
    let now = NOW;
    for (let n = 0; n < 10; n++) {
      const at = destination.startableAt();
      waits.push(at - now);
      now = at;
      destination.started(now);
      assert.equal(destination.startableAt(), Infinity);
      destination.ended("unreachable", "refused", now);
    }
    assert.deepEqual(waits.slice(0, 3), [FIRST_PROBE, 2 * FIRST_PROBE, 4 * FIRST_PROBE]);
    assert.equal(waits.at(-1), LONGEST_PROBE);
    assert.equal(destination.down?.since, NOW);
  });

  it("is up with the first answer, whatever it says, and begins with one attempt", () => {
    const destination = dead();
    const later = destination.down!.until;
    const change = attempt(destination, "answered", "greylisted", later);
    assert.equal(change?.kind, "up");
    assert.equal(change?.down.since, NOW);
    assert.equal(destination.window, 1);
    assert.ok(destination.startableAt() <= later);
  });

  it("does not count attempts that were under way when it went down as probes", () => {
    const destination = new Destination({ concurrency: 20 });
    for (let n = 0; n < 5; n++) destination.started(NOW);
    for (let n = 0; n < 5; n++) destination.ended("unreachable", "refused", NOW + n);
    assert.equal(destination.down?.wait, FIRST_PROBE);
  });

  it("keeps a rate at any moment", () => {
    const destination = new Destination({ concurrency: 20, perMinute: 30, perHour: 3_600 });
    destination.started(NOW);
    assert.equal(destination.startableAt(), NOW + 2_000);
    assert.ok(destination.startableAt() <= NOW + 2_000);
  });
});

describe("several messages in one attempt", () => {
  it("count as one attempt, and as many messages for its rate", () => {
    const destination = new Destination({ concurrency: 20, perMinute: 6 });
    assert.equal(destination.together, 6);
    destination.started(NOW);
    destination.joined(5);
    assert.equal(destination.running, 1);
    assert.equal(destination.startableAt(), NOW + 60_000);
  });

  it("are none where it is probed", () => {
    assert.equal(new Destination({ concurrency: 20 }).together, Infinity);
    assert.equal(dead().together, 1);
  });
});

describe("an outage", () => {
  it("is told while it lasts, and after", () => {
    const destination = dead();
    assert.deepEqual(destination.outage, { since: NOW, until: Infinity, why: "refused" });
    attempt(destination, "delivered", "", NOW + 5_000);
    assert.deepEqual(destination.outage, { since: NOW, until: NOW + 5_000, why: "refused" });
    assert.equal(new Destination({ concurrency: 1 }).outage, undefined);
  });

  it("is never seen where that is switched off, to measure what it costs", () => {
    const destination = new Destination({ concurrency: 20, unreachableBeforeDown: Infinity });
    for (let n = 0; n < 100; n++) attempt(destination, "unreachable", "refused", NOW);
    assert.deepEqual([destination.down, destination.window], [undefined, FIRST_WINDOW]);
  });
});

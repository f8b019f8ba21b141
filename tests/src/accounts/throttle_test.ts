/** Guessing passwords: how slow it gets, who is refused, and who is not. In virtual time. */
import assert from "node:assert/strict";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import {
  FIRST_REFUSAL,
  FREE_ACCOUNT_FAILURES,
  FREE_FAILURES,
  LoginThrottle,
  LONGEST_REFUSAL,
  LONGEST_WAIT,
  MEMORY,
  MOST_FAILURES,
  sourceOf,
} from "../../../src/accounts/throttle.ts";
import { ManualClock } from "../../actors/manual_clock.ts";

const setUp = () => {
  const clock = new ManualClock(0);
  const throttle = new LoginThrottle(clock);
  const fail = (address: string, account: string, times = 1) => {
    for (let i = 0; i < times; i++) throttle.begin(address, account).failed();
  };
  const refused = (address: string, account: string) => {
    const attempt = throttle.begin(address, account);
    attempt.withdrawn();
    return attempt.refused();
  };
  const wait = (address: string, account: string) => {
    const attempt = throttle.begin(address, account);
    attempt.withdrawn();
    return attempt.wait;
  };
  return { clock, throttle, fail, refused, wait };
};

const OWNER = "192.0.2.1";
const ATTACKER = "203.0.113.66";

describe("LoginThrottle", () => {
  it("waits twice as long each time after a few failures, and refuses in the end", () => {
    const { fail, wait, refused } = setUp();
    const waits: number[] = [];
    for (let i = 0; i < MOST_FAILURES; i++) {
      waits.push(wait(ATTACKER, "alice"));
      assert.equal(refused(ATTACKER, "alice"), undefined);
      fail(ATTACKER, "alice");
    }
    assert.deepEqual(waits, [0, 0, 0, 0, 250, 500, 1_000, 2_000, 4_000, LONGEST_WAIT]);
    assert.equal(refused(ATTACKER, "alice"), FIRST_REFUSAL);
    assert.equal(refused(ATTACKER, "somebody else"), FIRST_REFUSAL);
  });

  it("lets one more guess through after the refusal, and refuses longer then", async () => {
    const { clock, fail, refused } = setUp();
    fail(ATTACKER, "alice", MOST_FAILURES);
    await clock.advance(FIRST_REFUSAL - 1);
    assert.equal(refused(ATTACKER, "alice"), 1);
    await clock.advance(1);
    assert.equal(refused(ATTACKER, "alice"), undefined);
    fail(ATTACKER, "alice");
    assert.equal(refused(ATTACKER, "alice"), 2 * FIRST_REFUSAL);
    fail(ATTACKER, "alice", 100);
    assert.equal(refused(ATTACKER, "alice"), LONGEST_REFUSAL);
  });

  it("forgets after a day without a failure", async () => {
    const { clock, fail, refused, wait } = setUp();
    fail(ATTACKER, "alice", 50);
    await clock.advance(MEMORY + 1);
    assert.equal(refused(ATTACKER, "alice"), undefined);
    assert.equal(wait(ATTACKER, "alice"), 0);
  });

  it("locks the owner out from nowhere else, whatever an attacker does", () => {
    const { throttle, fail, refused, wait } = setUp();
    throttle.begin(OWNER, "alice").succeeded();
    for (let i = 0; i < 300; i++) fail(`203.0.${i % 250}.${i}`, "alice", 20);
    assert.equal(refused(OWNER, "alice"), undefined);
    assert.equal(wait(OWNER, "alice"), 0, "from where the owner has logged in before");
    const elsewhere = "198.51.100.1";
    assert.equal(refused(elsewhere, "alice"), undefined);
    assert.ok(wait(elsewhere, "alice") <= LONGEST_WAIT);
  });

  it("does not let a neighbour behind the same address lock the owner out", () => {
    const { throttle, fail, refused, wait } = setUp();
    throttle.begin(OWNER, "alice").succeeded();
    fail(OWNER, "bob", 50);
    assert.ok(refused(OWNER, "bob"));
    assert.ok(refused(OWNER, "carl"));
    assert.equal(refused(OWNER, "alice"), undefined);
    assert.equal(wait(OWNER, "alice"), 0);
    fail(OWNER, "alice", MOST_FAILURES);
    assert.ok(refused(OWNER, "alice"), "its own failures count");
  });

  it("is not reset for others by a login to an account of one's own", () => {
    const { throttle, fail, refused } = setUp();
    fail(ATTACKER, "mallory", 2);
    fail(ATTACKER, "alice", MOST_FAILURES - 1);
    throttle.begin(ATTACKER, "mallory").succeeded();
    assert.equal(refused(ATTACKER, "alice"), undefined);
    fail(ATTACKER, "alice");
    assert.ok(refused(ATTACKER, "alice"));
  });

  it("forgives the failures of somebody who then logs in", () => {
    const { throttle, fail, wait } = setUp();
    fail(OWNER, "alice", FREE_FAILURES + 3);
    assert.ok(wait(OWNER, "alice") > 0);
    throttle.begin(OWNER, "alice").succeeded();
    assert.equal(wait(OWNER, "alice"), 0);
    assert.equal(wait(OWNER, "bob"), 0);
  });

  it("slows guesses at one account that come from everywhere", () => {
    const { fail, wait } = setUp();
    for (let i = 0; i < FREE_ACCOUNT_FAILURES + 4; i++) fail(`198.51.100.${i}`, "alice");
    assert.ok(wait("198.51.100.250", "alice") >= 2_000);
    assert.equal(wait("198.51.100.251", "bob"), 0);
  });

  it("slows guesses that are made side by side, and refuses those that have waited", () => {
    const { throttle } = setUp();
    const attempts = Array.from({ length: 200 }, () => throttle.begin(ATTACKER, "alice"));
    const atOnce = attempts.filter(({ wait }) => wait === 0);
    assert.ok(atOnce.length <= 20, `${atOnce.length} at once`);
    for (const attempt of atOnce) attempt.failed();
    const late = attempts.filter((attempt) => !atOnce.includes(attempt));
    assert.ok(late.every((attempt) => attempt.refused() !== undefined));
  });

  it("counts an attempt once, however often it is told of its end", () => {
    const { throttle, wait } = setUp();
    const attempt = throttle.begin(OWNER, "alice");
    for (let i = 0; i < 20; i++) attempt.failed();
    attempt.succeeded();
    attempt.withdrawn();
    assert.equal(wait(OWNER, "alice"), 0);
  });

  it("holds a bounded number of entries", () => {
    const { fail, wait } = setUp();
    fail(OWNER, "alice", 6);
    assert.ok(wait(OWNER, "alice") > 0);
    for (let i = 0; i < 10_000; i++) {
      fail(`2001:db8:${(i >> 8).toString(16)}:${i & 255}::1`, `${i}`);
    }
    assert.equal(wait(OWNER, "alice"), 0, "what was not used for the longest time is forgotten");
  });
});

describe("sourceOf", () => {
  it("is the address, or the /64 of an IPv6 address", () => {
    for (
      const [address, source] of [
        ["192.0.2.1", "192.0.2.1"],
        ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
        ["2001:DB8:1:2::", "2001:db8:1:2::/64"],
        ["2001:db8::1", "2001:db8:0:0::/64"],
        ["::1", "0:0:0:0::/64"],
        ["fe80::1%eth0", "fe80:0:0:0::/64"],
        ["2001:db8::192.0.2.1", "2001:db8:0:0::/64"],
        ["1::2:3:4:5:6:7", "1:0:2:3::/64"],
      ] as const
    ) assert.equal(sourceOf(address), source, address);
  });

  it("gives addresses of one /64 one source, and others another", () => {
    const group = fc.integer({ min: 0, max: 0xffff }).map((n) => n.toString(16));
    const half = fc.tuple(group, group, group, group);
    fc.assert(fc.property(half, half, half, (network, a, b) => {
      const source = (host: readonly string[]) => sourceOf([...network, ...host].join(":"));
      assert.equal(source(a), source(b));
      assert.equal(source(a), `${network.join(":")}::/64`);
    }));
  });
});

/** Messages whose time ends while they wait: wherever that is, and within seconds. */
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import type { StoredEventOf } from "../../events/catalogue.ts";
import type { Outcome } from "../../actors/ports.ts";
import { LAST_CHANCE, LAST_TURN } from "../../actors/expiry.ts";
import { LINE_LENGTH } from "../../actors/line.ts";
import type { RetryPolicy } from "../../actors/retry.ts";
import { iso, MINUTE, policy, T0 } from "./given.ts";
import { delivered, QueueHarness, refused } from "./queue_harness.ts";

const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const SECOND = 1_000;
const by = { who: "op", why: "testing" };

let queue: QueueHarness;
beforeEach(async () => {
  queue = await QueueHarness.create();
});
afterEach(() => queue.remove());

const depth = () => queue.opened.view.depth();
const failure = async (stream: string) => {
  const event = (await queue.events(stream)).findLast(({ type }) => type === "Failed");
  assert.ok(event, `${stream} has failed`);
  return (event as StoredEventOf<"Failed">).data;
};
const submit = async (
  rcptTo: string,
  more: { readonly due?: number; readonly expires?: number; readonly account?: string } = {},
) => (await queue.submitTo([rcptTo], "alice@example.com", more))[0]!;
/** In one commit, so in this order. */
const submitMany = (n: number, ...args: Parameters<typeof submit>) =>
  Promise.all(Array.from({ length: n }, () => submit(...args)));
const triesOf = (stream: string) => queue.jobs.filter((job) => job.stream === stream).length;
const triesAt = (domain: string) =>
  queue.jobs.filter(({ message }) => message.rcptTo.endsWith(`@${domain}`)).length;

describe("a deadline of a message that waits", () => {
  const expires = T0 + 10 * MINUTE;

  it("is kept in a backlog, in line and beyond it, and costs nobody's turn", async () => {
    queue.limits = { concurrency: 5, perMinute: 6 };
    await queue.supervisor.start();
    const backlog = LINE_LENGTH + 60;
    await submitMany(backlog, "bob@slow.example", { expires });
    const patient = await submitMany(5, "bob@slow.example");
    await queue.clock.advance(10 * MINUTE - SECOND);
    const tried = triesAt("slow.example");
    assert.ok(tried >= 59 && tried <= 61, `${tried} tried in ten minutes, six a minute`);
    await queue.clock.advance(2 * SECOND);
    await queue.until(
      async () => (await depth()).failed === backlog - tried,
      "the rest has failed",
    );
    // Six a minute: the five have their turns at once, not behind a hundred that are over.
    await queue.clock.advance(MINUTE);
    for (const stream of patient) await queue.untilState(stream, "delivered");
  });

  it("leaves a place in line to those who were turned away, though no attempt ends", async () => {
    queue.limits = { concurrency: 5, perHour: 1 };
    await queue.supervisor.start();
    await submit("bob@slow.example");
    await submitMany(LINE_LENGTH, "bob@slow.example", { expires });
    const beyond = await submit("bob@slow.example");
    await queue.clock.advance(11 * MINUTE);
    await queue.until(async () => (await depth()).failed === LINE_LENGTH);
    await queue.clock.advance(HOUR);
    await queue.untilState(beyond, "delivered");
  });

  it("is kept for one that is not due yet", async () => {
    await queue.supervisor.start();
    const stream = await submit("bob@example.net", { due: T0 + HOUR, expires });
    await queue.clock.advance(10 * MINUTE - 1);
    assert.equal((await queue.opened.view.get(stream))?.state, "queued");
    await queue.clock.advance(2);
    await queue.untilState(stream, "failed");
    assert.deepEqual(await queue.types(stream), ["Enqueued", "Failed", "DSNSent"]);
    const { reason, enhanced } = await failure(stream);
    assert.equal(
      reason,
      `gave up for the deadline ${iso(expires)}: it was not tried: its turn did not come`,
    );
    assert.equal(enhanced, "5.4.7");
    assert.equal(triesOf(stream), 0);
  });

  it("is kept where the destination is down, and says so", async () => {
    const outcome = {
      kind: "failed",
      permanent: false,
      result: "timeout",
      reason: "nobody",
    } as const;
    queue.script = (job) => Promise.resolve(job.message.mailFrom === "" ? delivered : outcome);
    await queue.supervisor.start();
    await submitMany(3, "bob@dead.example");
    await queue.until(() => queue.supervisor.destinations().some(({ down }) => down));
    const stream = await submit("bob@dead.example", { expires: T0 + 30 * SECOND });
    await queue.clock.advance(31 * SECOND);
    await queue.untilState(stream, "failed");
    assert.match((await failure(stream)).reason, /: its destination is down: nobody$/);
  });

  it("does not end an attempt that is under way, whose failure is then the last", async () => {
    let end = (_: Outcome) => {};
    queue.script = () => new Promise((resolve) => end = resolve);
    await queue.supervisor.start();
    const stream = await submit("bob@example.net", { expires });
    await queue.untilState(stream, "attempting");
    await queue.clock.advance(11 * MINUTE);
    assert.equal((await queue.opened.view.get(stream))?.state, "attempting");
    end(refused(false, "busy"));
    await queue.untilState(stream, "failed");
    assert.equal((await failure(stream)).reason, `gave up for the deadline ${iso(expires)}: busy`);
  });

  it("waits for the release of a message that is held", async () => {
    await queue.supervisor.start();
    const stream = await submit("bob@example.net", { due: T0 + MINUTE, expires });
    await queue.supervisor.act(stream, { type: "Hold", ...by });
    await queue.clock.advance(HOUR);
    assert.equal((await queue.opened.view.get(stream))?.state, "held");
    await queue.supervisor.act(stream, { type: "Release", ...by, now: queue.clock.now() });
    await queue.untilState(stream, "failed");
    assert.equal(triesOf(stream), 0);
  });

  it("is kept by a process that starts after it", async () => {
    const stream = await submit("bob@example.net", { due: T0 + DAY, expires });
    await queue.clock.advance(HOUR);
    await queue.supervisor.start();
    await queue.untilState(stream, "failed");
  });

  it("is kept when the disk takes writes again", async () => {
    await queue.supervisor.start();
    const stream = await submit("bob@example.net", { due: T0 + HOUR, expires });
    queue.diskFull = true;
    await queue.clock.advance(20 * MINUTE);
    assert.equal((await queue.opened.view.get(stream))?.state, "queued");
    queue.diskFull = false;
    await queue.clock.advance(6 * SECOND);
    await queue.untilState(stream, "failed");
  });

  it("is kept after the wall clock has been set back, and forward", async () => {
    await queue.supervisor.start();
    const first = await submit("bob@example.net", { due: T0 + DAY, expires: T0 + MINUTE });
    await queue.clock.advance(2 * MINUTE);
    await queue.untilState(first, "failed");
    queue.clock.wall -= HOUR;
    const now = queue.clock.now();
    const second = await submit("bob@example.net", { due: now + DAY, expires: now + MINUTE });
    const third = await submit("bob@example.net", { due: now + DAY, expires: now + 10 * HOUR });
    await queue.clock.advance(MINUTE + SECOND);
    await queue.untilState(second, "failed");
    queue.clock.wall += 11 * HOUR;
    await queue.clock.advance(31 * SECOND);
    await queue.untilState(third, "failed");
  });

  it("needs no timer of its own", async () => {
    await queue.supervisor.start();
    const due = T0 + DAY;
    await submit("bob@example.net", { due, expires });
    await queue.clock.advance(1);
    const timers = queue.clock.timers;
    await Promise.all(
      Array.from(
        { length: 50 },
        (_, n) => submit("bob@example.net", { due, expires: expires + (n - 25) * SECOND }),
      ),
    );
    await queue.clock.advance(1);
    assert.equal(queue.clock.timers, timers, "timers for 50 more");
  });
});

describe("the lifetime of a message that waits", () => {
  const short: RetryPolicy = { ...policy, waits: [20 * MINUTE], maxAttempts: 99, lifetime: HOUR };

  /** Everything is given a lifetime of an hour, but for mail to long.example. */
  beforeEach(() => {
    queue.retry = ({ destination }) => destination === "long.example" ? policy : short;
    queue.lifetimes = [policy.lifetime, short.lifetime];
  });

  it("ends in a backlog, with what was last said of the message", async () => {
    queue.limits = { concurrency: 5, perHour: 20 };
    const later = { ...refused(false, "451 come back later"), code: 451 };
    queue.script = ({ message }) => Promise.resolve(message.mailFrom === "" ? delivered : later);
    await queue.supervisor.start();
    const streams = await submitMany(LINE_LENGTH + 20, "bob@slow.example");
    const other = await submit("bob@long.example");
    await queue.clock.advance(HOUR - SECOND);
    assert.equal((await depth()).failed, 0);
    await queue.clock.advance(2 * SECOND + LAST_TURN);
    await queue.until(async () => (await depth()).failed === streams.length, "all have failed");
    const [first, last] = [await failure(streams[0]!), await failure(streams.at(-1)!)];
    assert.equal(first.reason, "gave up after 1 hour: 451 come back later");
    assert.equal(
      last.reason,
      "gave up after 1 hour: it was not tried: its turn did not come",
    );
    assert.deepEqual(await queue.types(streams.at(-1)!), ["Enqueued", "Failed", "DSNSent"]);
    assert.equal((await queue.opened.view.get(other))?.state, "queued");
  });

  it("ends with a last attempt where the destination has a turn for it", async () => {
    queue.script = (job) => Promise.resolve(job.attempt === 4 ? delivered : refused(false));
    await queue.supervisor.start();
    const stream = await submit("bob@example.net");
    await queue.clock.advance(HOUR - SECOND);
    assert.equal(triesOf(stream), 3, "at 0, 20 and 40 minutes and a bit");
    await queue.clock.advance(SECOND);
    await queue.untilState(stream, "delivered");
  });

  it("gives what outlived it while the process was down a last chance", async () => {
    queue.limits = { concurrency: 5, perMinute: 2 };
    await submitMany(50, "bob@slow.example");
    await queue.clock.advance(DAY);
    await queue.supervisor.start();
    await queue.clock.advance(LAST_CHANCE - SECOND);
    assert.equal((await depth()).failed, 0);
    const sent = (await depth()).delivered;
    assert.ok(sent >= 29 && sent <= 31, `${sent} delivered in a quarter of an hour`);
    await queue.clock.advance(2 * SECOND);
    await queue.until(async () => (await depth()).failed >= 50 - sent - 1);
  });

  it("does not end on hold, and begins anew with the release", async () => {
    await queue.supervisor.start();
    const stream = await submit("bob@example.net", { due: T0 + MINUTE });
    await queue.supervisor.act(stream, { type: "Hold", ...by });
    await queue.clock.advance(DAY);
    queue.script = (job) => Promise.resolve(job.attempt === 3 ? delivered : refused(false));
    await queue.supervisor.act(stream, { type: "Release", ...by, now: queue.clock.now() });
    await queue.clock.advance(50 * MINUTE);
    await queue.untilState(stream, "delivered");
  });

  it("counts from the time until which the submitter had the message held", async () => {
    await queue.supervisor.start();
    queue.limits = { concurrency: 5, perHour: 1 };
    await submit("bob@slow.example", { due: T0 + DAY });
    const stream = await submit("bob@slow.example", { due: T0 + DAY });
    await queue.clock.advance(DAY + HOUR - SECOND);
    assert.equal((await queue.opened.view.get(stream))?.state, "queued");
    await queue.clock.advance(SECOND + LAST_TURN);
    await queue.until(async () => (await queue.opened.view.get(stream))?.state !== "queued");
  });

  it("that changed with what was learnt of the destination is found within an hour", async () => {
    let learnt = false;
    queue.retry = () => learnt ? short : policy;
    queue.limits = { concurrency: 5, perHour: 0.1 };
    await queue.supervisor.start();
    await submit("bob@slow.example");
    const stream = await submit("bob@slow.example");
    // A look at one message does not put off the next look at all.
    const overdue = await submit("bob@slow.example", { expires: T0 + 3.5 * HOUR });
    await queue.clock.advance(3 * HOUR + 10 * MINUTE);
    learnt = true;
    await queue.clock.advance(HOUR);
    await queue.untilState(overdue, "failed");
    assert.equal((await queue.opened.view.get(stream))?.state, "failed");
  });

  it("does not end unseen where the history cannot be followed: the message is held", async () => {
    queue.limits = { concurrency: 5, perHour: 0.1 };
    await queue.supervisor.start();
    await submit("bob@slow.example");
    const stream = await submit("bob@slow.example");
    await queue.opened.store.append([{
      stream,
      expectedVersion: 1,
      facts: [{ type: "Released", data: { ...by, due: iso(T0) } }],
    }]);
    await queue.clock.advance(HOUR + MINUTE);
    await queue.untilState(stream, "held");
    const [held] = (await queue.events(stream)).slice(-1);
    assert.ok(held?.type === "Held");
    assert.match(held.data.why, /^quarantined: ImpossibleEvent: Released cannot follow/);
  });

  it("is that of the configuration in force", async () => {
    queue.retry = () => policy;
    queue.limits = { concurrency: 5, perHour: 1 };
    await queue.supervisor.start();
    await submit("bob@slow.example");
    const stream = await submit("bob@slow.example", { due: T0 + 30 * MINUTE });
    await queue.clock.advance(55 * MINUTE);
    queue.retry = () => ({ ...policy, lifetime: 20 * MINUTE });
    queue.lifetimes = [20 * MINUTE];
    const { limits } = queue;
    queue.supervisor.limits = { concurrency: 20, policy: () => limits };
    await queue.untilState(stream, "failed");
    assert.equal(triesOf(stream), 0);
  });
});

import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import type { StoredEventOf } from "../../events/catalogue.ts";
import { dayStream, DESTINATION_DAYS } from "../../events/day_streams.ts";
import { StoreUnavailable } from "../../events/store.ts";
import { LINE_LENGTH } from "../../actors/line.ts";
import { runAttempts } from "../../actors/attempts.ts";
import { finishInterrupted } from "../../actors/message_actor.ts";
import { quarantine } from "../../actors/quarantine.ts";
import { ABORT_GRACE } from "../../actors/waiting.ts";
import { CommandRefused, INTERRUPTED } from "../../actors/message.ts";
import { ATTEMPT_DEADLINE } from "../../actors/supervisor.ts";
import { hostTried, MINUTE, T0 } from "./given.ts";
import { settle } from "./manual_clock.ts";
import { delivered, QueueHarness, refused } from "./queue_harness.ts";

let queue: QueueHarness;
beforeEach(async () => {
  queue = await QueueHarness.create();
});
afterEach(() => queue.remove());

const last = async <T extends "Failed" | "Held" | "DSNSent">(stream: string, type: T) => {
  const event = (await queue.events(stream)).findLast((each) => each.type === type);
  assert.ok(event, `${stream} has ${type}`);
  return event as StoredEventOf<T>;
};

describe("an attempt", () => {
  it("goes from Enqueued to Delivered, and the body is released", async () => {
    await queue.supervisor.start();
    const stream = await queue.submit();
    await queue.untilState(stream, "delivered");
    assert.deepEqual(await queue.types(stream), [
      "Enqueued",
      "AttemptStarted",
      "TransportChosen",
      "HostTried",
      "Delivered",
    ]);
    await assert.rejects(queue.opened.bodies.open(queue.jobs[0]!.message.body), /not in the body/);
  });

  it("is on disk before anything is dialled", async () => {
    let onDisk: string[] = [];
    queue.script = async (job) => {
      onDisk = await queue.types(job.stream);
      return delivered;
    };
    await queue.supervisor.start();
    await queue.untilState(await queue.submit(), "delivered");
    assert.deepEqual(onDisk, ["Enqueued", "AttemptStarted", "TransportChosen"]);
  });

  it("has what a host said on disk before the next is tried", async () => {
    let onDisk: string[] = [];
    queue.script = async (job, findings) => {
      findings.note(hostTried({ result: "timeout" }));
      await findings.flush();
      onDisk = await queue.types(job.stream);
      return delivered;
    };
    await queue.supervisor.start();
    await queue.untilState(await queue.submit(), "delivered");
    assert.equal(onDisk.at(-1), "HostTried");
  });

  it("is made again when the next one is due, with no timer per waiting message", async () => {
    queue.script = (job) => Promise.resolve(job.attempt === 1 ? refused(false) : delivered);
    await queue.supervisor.start();
    const streams: string[] = [];
    for (let n = 0; n < 30; n++) streams.push(await queue.submit(`bob@d${n}.example`));
    for (const stream of streams) await queue.untilState(stream, "queued");
    await queue.until(() => queue.supervisor.running === 0);
    const timers = queue.clock.timers;
    assert.ok(timers <= 4, `${timers} timers for 30 waiting messages`);
    await queue.clock.advance(7 * MINUTE);
    assert.equal(queue.jobs.length, 30);
    await queue.clock.advance(MINUTE);
    for (const stream of streams) await queue.untilState(stream, "delivered");
    assert.equal(queue.jobs.length, 60);
  });

  it("of a message whose delivery throws fails for now, and harms no neighbour", async () => {
    queue.script = (job) => {
      if (job.message.rcptTo.startsWith("poison")) throw new TypeError("boom");
      return Promise.resolve(delivered);
    };
    await queue.supervisor.start();
    const poison = await queue.submit("poison@example.net");
    const good = await queue.submit("good@example.net");
    await queue.untilState(good, "delivered");
    await queue.untilState(poison, "queued");
    const { data } = await last(poison, "Failed");
    assert.equal(data.permanent, false);
    assert.match(data.reason, /fault in our own code: TypeError: boom/);
    assert.match(data.stack!, /supervisor_test/);
    assert.deepEqual(queue.failed, []);
  });

  for (
    const [what, thrown] of [
      ["null", null],
      ["a string", "boom"],
      ["an object that cannot be described", {
        toString() {
          throw new Error("no");
        },
      }],
    ] as const
  ) {
    it(`holds a message whose delivery throws ${what} three times running`, async () => {
      queue.script = () => Promise.reject(thrown);
      await queue.supervisor.start();
      const stream = await queue.submit();
      for (let n = 1; n <= 3; n++) {
        await queue.until(() => queue.jobs.length === n && queue.supervisor.running === 0);
        await queue.clock.advance(15 * MINUTE);
      }
      await queue.untilState(stream, "held");
      const { data } = await last(stream, "Held");
      assert.equal(data.who, "supervisor");
      assert.ok(data.stack, "the stack, or what there is of it");
      await queue.clock.advance(600 * MINUTE);
      assert.equal(queue.jobs.length, 3);
    });
  }

  it("whose content the disk does not give fails for now, and is no fault of the code", async () => {
    queue.script = () => Promise.reject(new StoreUnavailable("input/output error on reading"));
    await queue.supervisor.start();
    const stream = await queue.submit();
    await queue.until(() => queue.jobs.length === 1 && queue.supervisor.running === 0);
    const { data } = await last(stream, "Failed");
    assert.deepEqual([data.permanent, data.enhanced, data.stack], [false, "4.3.0", undefined]);
    assert.match(data.reason, /input\/output error/);
  });

  it("that never ends is aborted, given up on, and recorded", async () => {
    queue.script = () => new Promise(() => {});
    await queue.supervisor.start();
    const stream = await queue.submit();
    await queue.untilState(stream, "attempting");
    await queue.clock.advance(ATTEMPT_DEADLINE + ABORT_GRACE);
    // The next attempt was due long ago, and is under way.
    await queue.until(() => queue.jobs.length === 2);
    assert.match((await last(stream, "Failed")).data.reason, /did not end within/);
  });

  it("is not made before it is due, however early it is asked for", async () => {
    await queue.supervisor.start();
    queue.script = () => Promise.resolve(refused(false));
    const stream = await queue.submit();
    await queue.until(() => queue.jobs.length === 1 && queue.supervisor.running === 0);
    const { signal } = new AbortController();
    const ports = { ...queue, store: queue.opened.store } as never;
    const [attempted] = await runAttempts(ports, [{ stream }], signal, signal);
    assert.deepEqual([attempted?.message?.status, attempted?.concluded], ["queued", undefined]);
    assert.equal(queue.jobs.length, 1);
  });

  it("is not made of a message that was cancelled and archived while it waited in line", async () => {
    queue.limits = { concurrency: 1 };
    const answer = Promise.withResolvers<typeof delivered>();
    queue.script = () => answer.promise;
    await queue.supervisor.start();
    const first = await queue.submit();
    await queue.untilState(first, "attempting");
    const waits = await queue.submit();
    await queue.supervisor.act(waits, { type: "Cancel", who: "operator", why: "test" });
    const { store } = queue.opened;
    assert.equal(await store.prune([{ stream: waits, version: 2 }]), 0);
    answer.resolve(delivered);
    await queue.untilState(first, "delivered");
    await queue.until(() => queue.supervisor.running === 0);
    assert.equal(await store.version(waits), 0, "nothing is written");
  });
});

describe("reports", () => {
  it("are enqueued in the transaction that records the failure", async () => {
    queue.script = (job) =>
      Promise.resolve(job.message.mailFrom === "" ? delivered : refused(true, "no such user"));
    await queue.supervisor.start();
    const stream = await queue.submit();
    await queue.untilState(stream, "failed");
    const sent = await last(stream, "DSNSent");
    const dsn = sent.data.dsn!;
    await queue.untilState(dsn, "delivered");
    const [enqueued] = await queue.events(dsn);
    assert.ok(enqueued?.type === "Enqueued");
    assert.equal(enqueued.position, sent.position + 1, "nothing between them in the log");
    assert.equal(enqueued.data.mailFrom, "");
    assert.equal(enqueued.data.rcptTo, "alice@example.com");
    assert.deepEqual(enqueued.data.source, { kind: "dsn", of: stream });
  });

  it("are never made about a report", async () => {
    queue.script = () => Promise.resolve(refused(true));
    await queue.supervisor.start();
    const stream = await queue.submit();
    await queue.untilState(stream, "failed");
    const dsn = (await last(stream, "DSNSent")).data.dsn!;
    await queue.untilState(dsn, "failed");
    assert.equal((await last(dsn, "DSNSent")).data.notSent, "the sender is the null reverse-path");
  });
});

describe("the supervisor", () => {
  it("runs no more attempts at a destination than it may", async () => {
    const ends: (() => void)[] = [];
    queue.script = () => new Promise((resolve) => ends.push(() => resolve(delivered)));
    await queue.supervisor.start();
    for (let n = 0; n < 12; n++) await queue.submit("bob@busy.example");
    await queue.submit("bob@other.example");
    await queue.until(() => ends.length === 6);
    await settle();
    assert.equal(queue.supervisor.running, 6);
    while (queue.supervisor.running > 0) {
      ends.splice(0).forEach((end) => end());
      await settle();
    }
    assert.equal(queue.jobs.length, 13);
  });

  it("works off a backlog longer than a line, and fresh mail elsewhere does not wait", async () => {
    const backlog = 3 * LINE_LENGTH + 7;
    for (let n = 0; n < backlog; n++) await queue.submit("bob@busy.example");
    await queue.supervisor.start();
    const fresh = await queue.submit("bob@other.example");
    await queue.untilState(fresh, "delivered");
    assert.ok(queue.jobs.length < backlog);
    await queue.until(async () => (await queue.opened.view.depth()).delivered === backlog + 1);
    assert.equal(queue.jobs.length, backlog + 1, "each once");
  });

  it("does not burn messages against a destination that is down", async () => {
    let up = false;
    queue.script = () =>
      Promise.resolve(
        up
          ? delivered
          : { kind: "failed", permanent: false, result: "timeout", reason: "no answer" } as const,
      );
    await queue.supervisor.start();
    const streams: string[] = [];
    for (let n = 0; n < 40; n++) streams.push(await queue.submit("bob@dead.example"));
    await queue.until(() => queue.supervisor.running === 0);
    await queue.clock.advance(20_000);
    const noted = () => dayStream(DESTINATION_DAYS, "dead.example", queue.clock.now());
    const burnt = queue.jobs.length;
    assert.ok(burnt <= 5 + 2, `${burnt} attempts before it was down`);
    await queue.clock.advance(15 * MINUTE);
    // Probes after 1, 2, 4 and 8 minutes.
    assert.ok(queue.jobs.length <= burnt + 4, `${queue.jobs.length - burnt} probes in 15 minutes`);
    const events = await queue.events(noted());
    assert.equal(events[0]?.type, "DestinationDown");
    const [view] = [...queue.supervisor.destinations()];
    assert.ok(view?.down && view.waiting > 0);

    const other = await queue.submit("bob@alive.example");
    up = true;
    await queue.untilState(other, "delivered");
    await queue.clock.advance(60 * MINUTE);
    for (const stream of streams) await queue.untilState(stream, "delivered");
    assert.equal((await queue.events(noted())).at(-1)?.type, "DestinationUp");
  });

  it("notes that a destination is up again at once after it was noted as down", async () => {
    const answers: (() => void)[] = [];
    const lost = { kind: "failed", permanent: false, result: "timeout", reason: "gone" } as const;
    queue.script = () =>
      new Promise((resolve) => {
        const outcome = answers.length < 3 ? lost : delivered;
        answers.push(() => resolve(outcome));
      });
    await queue.supervisor.start();
    for (let n = 0; n < 4; n++) await queue.submit("bob@flaky.example");
    await queue.until(() => answers.length === 4);
    for (const answer of answers) answer();
    await queue.until(() => queue.supervisor.running === 0);
    const stream = dayStream(DESTINATION_DAYS, "flaky.example", queue.clock.now());
    const types = async () => (await queue.events(stream)).map(({ type }) => type);
    await queue.until(async () => (await types()).length === 2);
    assert.deepEqual(await types(), ["DestinationDown", "DestinationUp"]);
  });

  it("ends attempts that a crash left open, and tries again when they are due", async () => {
    queue.script = () => new Promise(() => {});
    await queue.supervisor.start();
    const stream = await queue.submit();
    await queue.untilState(stream, "attempting");
    // A crash: the log is what it is, and nobody hears of what was running.
    await queue.opened.close();
    await queue.open();
    queue.script = () => Promise.resolve(delivered);
    await queue.supervisor.start();
    const { data } = await last(stream, "Failed");
    assert.deepEqual([data.permanent, data.reason], [false, INTERRUPTED]);
    await queue.clock.advance(8 * MINUTE);
    await queue.untilState(stream, "delivered");
  });

  it("leaves an attempt to its actor where that ends it after all", async () => {
    queue.script = () => Promise.resolve(refused(false));
    await queue.supervisor.start();
    const stream = await queue.submit();
    await queue.until(() => queue.jobs.length === 1 && queue.supervisor.running === 0);
    const events = await queue.events(stream);
    const before = events.slice(0, events.findIndex(({ type }) => type === "Failed"));
    const { store, view } = queue.opened;
    const { clock, log } = queue;
    await finishInterrupted({
      clock,
      log,
      view,
      store: {
        append: (appends, bodies) => store.append(appends, bodies),
        readStream: () => Promise.resolve(before),
        version: (of) => store.version(of),
        readAll: (after, limit) => store.readAll(after, limit),
        dayTime: () => store.dayTime(),
        head: () => store.head(),
        subscribe: (listener) => store.subscribe(listener),
        health: () => store.health(),
      },
    }, stream);
    assert.deepEqual(await queue.events(stream), events);
  });

  it("quarantines a stream that no fold accepts, and goes on with the others", async () => {
    const stream = await queue.submit();
    const impossible = { host: "x", address: "y", reply: { code: 250, text: "" }, queued: 0 };
    await queue.opened.store.append([{
      stream,
      expectedVersion: 1,
      facts: [
        { type: "Delivered", data: { ...impossible, tls: { mode: "none", verifiedBy: "none" } } },
        {
          type: "Released",
          data: { who: "nobody", why: "no reason", due: "2026-03-01T12:00:00.000Z" },
        },
      ],
    }]);
    const good = await queue.submit();
    await queue.supervisor.start();
    await queue.untilState(good, "delivered");
    await queue.untilState(stream, "held");
    const { data } = await last(stream, "Held");
    assert.match(data.why, /quarantined: ImpossibleEvent: Delivered cannot follow/);
    assert.ok(data.stack);
    assert.equal(queue.jobs.length, 1);
    // Whoever comes upon it once more leaves it as it is.
    const { opened: { store, view }, log } = queue;
    const again = () => quarantine({ store, view, log }, stream, new Error("again"));
    await Promise.all([again(), again()]);
    assert.equal((await queue.types(stream)).filter((type) => type === "Held").length, 1);
  });

  it("starts nothing that cannot be recorded, and goes on when the disk takes writes", async () => {
    const stream = await queue.submit();
    queue.diskFull = true;
    await queue.supervisor.start();
    await queue.until(() => queue.log.lines.some((line) => line.includes("does not take writes")));
    await queue.clock.advance(MINUTE);
    assert.equal(queue.jobs.length, 0, "nothing was dialled");
    queue.diskFull = false;
    await queue.clock.advance(1_000);
    await queue.untilState(stream, "delivered");
  });

  it("starts on a full disk, and finishes what a crash left open when there is room", async () => {
    queue.script = () => new Promise(() => {});
    await queue.supervisor.start();
    const stream = await queue.submit();
    await queue.untilState(stream, "attempting");
    await queue.opened.close();
    await queue.open();
    queue.script = () => Promise.resolve(delivered);
    queue.diskFull = true;
    await queue.supervisor.start();
    await queue.clock.advance(10 * MINUTE);
    assert.equal((await queue.opened.view.get(stream))?.state, "attempting");
    queue.diskFull = false;
    await queue.clock.advance(10_000);
    await queue.untilState(stream, "delivered");
    assert.equal((await last(stream, "Failed")).data.reason, INTERRUPTED);
  });

  it("keeps the outcome of a delivery until the disk takes it", async () => {
    queue.script = () => {
      queue.diskFull = true;
      return Promise.resolve(delivered);
    };
    await queue.supervisor.start();
    const stream = await queue.submit();
    await queue.until(() => queue.log.lines.some((line) => line.includes("not recorded")));
    await queue.clock.advance(MINUTE);
    assert.equal((await queue.opened.view.get(stream))?.state, "attempting");
    queue.diskFull = false;
    await queue.clock.advance(10_000);
    await queue.untilState(stream, "delivered");
    assert.equal(queue.jobs.length, 1, "delivered once");
  });

  it("tries what an operator released, also when that was reported as failed", async () => {
    const stream = await queue.submit();
    const by = { who: "operator", why: "test" };
    await queue.supervisor.act(stream, { type: "Hold", ...by });
    await queue.supervisor.start();
    queue.unsure = true;
    await assert.rejects(
      queue.supervisor.act(stream, { type: "Release", ...by, now: queue.clock.now() }),
      StoreUnavailable,
    );
    queue.unsure = false;
    await queue.clock.advance(10_000);
    await queue.untilState(stream, "delivered");
  });

  it("lets running attempts end when it stops, then aborts them and records that", async () => {
    let end = () => {};
    queue.script = (job, _findings, signal) =>
      new Promise((resolve) => {
        if (job.message.rcptTo.startsWith("quick")) end = () => resolve(delivered);
        signal.addEventListener("abort", () => {
          resolve({ kind: "failed", permanent: false, result: "canceled", reason: "canceled" });
        });
      });
    await queue.supervisor.start();
    const quick = await queue.submit("quick@example.net");
    const slow = await queue.submit("slow@example.net");
    await queue.until(() => queue.jobs.length === 2);
    let stopped = false;
    const stopping = queue.supervisor.stop(30_000).then(() => stopped = true);
    const late = await queue.submit("late@example.net");
    end();
    await queue.untilState(quick, "delivered");
    await queue.clock.advance(29_000);
    assert.equal(stopped, false);
    await queue.clock.advance(1_000);
    await stopping;
    assert.deepEqual((await last(slow, "Failed")).data.result, "canceled");
    assert.deepEqual(
      await queue.types(late),
      ["Enqueued"],
      "accepted, and left for the next start",
    );
  });

  it("carries out what an operator asks of a message, at once", async () => {
    queue.script = (job) => Promise.resolve(job.attempt === 1 ? refused(false) : delivered);
    await queue.supervisor.start();
    const stream = await queue.submit();
    await queue.until(() => queue.jobs.length === 1 && queue.supervisor.running === 0);
    const act = { who: "op", why: "the server is back" };
    await queue.supervisor.act(stream, { type: "Hold", ...act });
    await queue.clock.advance(60 * MINUTE);
    assert.equal(queue.jobs.length, 1);
    await queue.supervisor.act(stream, { type: "Release", ...act, now: queue.clock.now() });
    await queue.clock.advance(1_000);
    await queue.untilState(stream, "delivered");
    await assert.rejects(
      queue.supervisor.act(stream, { type: "Cancel", ...act }),
      (error) => error instanceof CommandRefused && /delivered/.test(error.message),
    );
  });

  it("tells senders of the delay, and gives up in the end, while a destination is down", async () => {
    queue.script = (job) =>
      Promise.resolve(
        job.message.mailFrom === ""
          ? delivered
          : { kind: "failed", permanent: false, result: "timeout", reason: "no answer" } as const,
      );
    await queue.supervisor.start();
    const streams: string[] = [];
    for (let n = 0; n < 120; n++) streams.push(await queue.submit("bob@dead.example"));
    for (let hour = 0; hour < 5; hour++) await queue.clock.advance(60 * MINUTE);
    const waiting = streams.at(-1)!;
    await queue.until(async () => (await queue.opened.view.get(waiting))?.delay_reported === 1);
    assert.deepEqual(await queue.types(waiting), ["Enqueued", "DSNSent"], "told, and unburnt");
    for (let hour = 5; hour < 5 * 24 + 2; hour++) await queue.clock.advance(60 * MINUTE);
    for (const stream of streams) await queue.untilState(stream, "failed");
    const { data } = await last(waiting, "Failed");
    assert.match(data.reason, /gave up after 120 hours: its destination is down: no answer/);
    assert.equal((await last(waiting, "DSNSent")).data.kind, "failed");
    const reports = 2 * streams.length;
    assert.ok(queue.jobs.length < reports + 200, `${queue.jobs.length} attempts`);
  });

  it("probes a destination that is down when it would have, also with the clock set back", async () => {
    const failed = { kind: "failed", permanent: false, result: "timeout", reason: "-" } as const;
    queue.script = () => Promise.resolve(failed);
    await queue.supervisor.start();
    for (let n = 0; n < 10; n++) await queue.submit("bob@dead.example");
    await queue.until(() => queue.supervisor.running === 0);
    const burnt = queue.jobs.length;
    queue.clock.wall -= 24 * 60 * MINUTE;
    await queue.submit("late@dead.example");
    await queue.clock.advance(4 * MINUTE);
    assert.ok(queue.jobs.length > burnt, "probed");
  });

  it("starts a message that an operator has changed while it stood in line", async () => {
    const ends: (() => void)[] = [];
    queue.script = () => new Promise((resolve) => ends.push(() => resolve(delivered)));
    await queue.supervisor.start();
    const streams: string[] = [];
    for (let n = 0; n < 6; n++) streams.push(await queue.submit("bob@busy.example"));
    await queue.until(() => ends.length === 5);
    const waiting = streams[5]!;
    await queue.supervisor.act(waiting, {
      type: "AssignTransport",
      who: "op",
      why: "direct is blocked",
      transport: "relay",
    });
    ends.splice(0).forEach((end) => end());
    await queue.until(() => ends.length === 1);
    ends.splice(0).forEach((end) => end());
    await queue.untilState(waiting, "delivered");
  });

  it("finds what is due after the wall clock has been set back", async () => {
    queue.script = (job) => Promise.resolve(job.attempt === 1 ? refused(false) : delivered);
    await queue.supervisor.start();
    const stream = await queue.submit();
    await queue.until(() => queue.jobs.length === 1 && queue.supervisor.running === 0);
    queue.clock.wall = T0 - 120 * MINUTE;
    const early = await queue.submit("early@example.org");
    await queue.until(() => queue.jobs.length === 2 && queue.supervisor.running === 0);
    await queue.clock.advance(10 * MINUTE);
    await queue.untilState(early, "delivered");
    await queue.clock.advance(130 * MINUTE);
    await queue.untilState(stream, "delivered");
  });
});

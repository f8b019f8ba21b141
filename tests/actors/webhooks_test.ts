import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import type { EventStore } from "../../actors/ports.ts";
import type { Fact, StoredEvent } from "../../events/catalogue.ts";
import { webhooksProjection } from "../../events/projections/webhooks.ts";
import { StoreUnavailable } from "../../events/store.ts";
import type { WebhookMessage } from "../../actors/webhook_message.ts";
import { CommandRefused } from "../../actors/message.ts";
import type { WebhookEndpoint } from "../../actors/webhook_endpoint.ts";
import { Webhooks, type WebhookState } from "../../actors/webhooks.ts";
import { delivered, enqueued, failed, type Given, givenStore, started } from "../events/given.ts";
import { LogLines, ManualClock, settle } from "./manual_clock.ts";

const DAY = 86_400_000;
const ENDPOINT: WebhookEndpoint = {
  name: "hook",
  url: "https://example.com/hook",
  events: ["delivered", "delayed", "failed", "suppressed"],
  concurrency: 4,
  parkAfter: DAY,
};

interface Hook {
  readonly given: Given;
  readonly clock: ManualClock;
  readonly log: LogLines;
  readonly webhooks: Webhooks;
  readonly sent: WebhookMessage[];
  /** What the endpoint answers; an error is no answer. */
  answer: (message: WebhookMessage) => number | Promise<number>;
  append(stream: string, expectedVersion: number, ...facts: Fact[]): Promise<StoredEvent[]>;
  state(): WebhookState;
  /** A new run on the same store, as after a kill: the old one records nothing more. */
  again(): Promise<Webhooks>;
}

async function withHook(
  run: (hook: Hook) => Promise<void>,
  endpoint: WebhookEndpoint = ENDPOINT,
  storeOf: (real: EventStore) => EventStore = (real) => real,
): Promise<void> {
  const given = await givenStore();
  const store = storeOf(given.store);
  const clock = new ManualClock(given.clock.now());
  const log = new LogLines();
  const sent: WebhookMessage[] = [];
  const make = (dead: { yes: boolean }) =>
    new Webhooks([endpoint], {
      clock,
      random: { next: () => 0.5 },
      log,
      store,
      row: (name) => given.row(webhooksProjection, name),
      sender: {
        send: async (_, message, signal) => {
          signal.throwIfAborted();
          return await new Promise<number>((resolve, reject) => {
            signal.addEventListener("abort", () => reject(new Error("cut off")));
            if (dead.yes) return;
            sent.push(message);
            Promise.resolve(hook.answer(message)).then(resolve, reject);
          });
        },
      },
    });
  let newest = { yes: false };
  const hook: Hook = {
    given,
    clock,
    log,
    webhooks: make(newest),
    sent,
    answer: () => 200,
    append: (stream, expectedVersion, ...facts) =>
      given.store.append([{ stream, expectedVersion, facts }]),
    state: () => hook.webhooks.list()[0]!,
    again: async () => {
      newest.yes = true;
      newest = { yes: false };
      const next = make(newest);
      await next.start();
      return next;
    },
  };
  await hook.webhooks.start();
  try {
    await run(hook);
    await hook.webhooks.stop();
  } finally {
    await given.end();
  }
}

/** The store, with one of its ways changed. */
const changed = (real: EventStore, change: Partial<EventStore>): EventStore => ({
  append: (appends, bodies) => real.append(appends, bodies),
  readStream: (stream) => real.readStream(stream),
  version: (stream) => real.version(stream),
  readAll: (after, limit) => real.readAll(after, limit),
  dayTime: () => real.dayTime(),
  head: () => real.head(),
  subscribe: (listener) => real.subscribe(listener),
  health: () => real.health(),
  ...change,
});

const calm = async (hook: Hook, ms = 0) => {
  await hook.clock.advance(ms);
  await settle();
};
const types = (hook: Hook) => hook.sent.map(({ body }) => JSON.parse(body).type);
const ids = (hook: Hook) => hook.sent.map(({ id }) => id);

describe("webhooks", () => {
  it("tell what became of a message", () =>
    withHook(async (hook) => {
      await hook.append("m1", 0, enqueued({ metadata: { order: "17" } }));
      await hook.append("m1", 1, started(1), failed(false, "greylisted"));
      await hook.append("m1", 3, started(2), delivered);
      await calm(hook);
      assert.deepEqual(types(hook), ["delayed", "delivered"]);
      const [delayed, told] = hook.sent.map(({ body }) => JSON.parse(body));
      assert.equal(delayed.failure.reason, "greylisted");
      assert.equal(delayed.message.attempts, 1);
      assert.equal(told.id, "m1:5");
      assert.deepEqual(
        [told.message.to, told.message.attempts, told.message.metadata, told.delivery.reply.code],
        ["rcpt@example.net", 2, { order: "17" }, 250],
      );
    }));

  it("begin with what happens after they are configured", async () => {
    const given = await givenStore();
    try {
      await given.store.append([
        { stream: "old", expectedVersion: 0, facts: [enqueued(), started(1), delivered] },
      ]);
      const clock = new ManualClock(given.clock.now());
      const sent: string[] = [];
      const webhooks = new Webhooks([ENDPOINT], {
        clock,
        random: { next: () => 0.5 },
        log: new LogLines(),
        store: given.store,
        row: (name) => given.row(webhooksProjection, name),
        sender: { send: (_, { id }) => Promise.resolve(sent.push(id) && 200) },
      });
      await webhooks.start();
      await clock.advance(0);
      assert.deepEqual(sent, []);
      await webhooks.stop();
    } finally {
      await given.end();
    }
  });

  it("say up to where the log is needed no more, which is not for one that is parked", () =>
    withHook(async (hook) => {
      await hook.append("m1", 0, enqueued(), started(1), delivered);
      await calm(hook);
      const told = hook.given.store.head();
      assert.equal(hook.webhooks.toldUpTo, told);
      hook.answer = () => 500;
      await hook.append("m2", 0, enqueued(), started(1), delivered);
      await hook.append("m3", 0, enqueued());
      await calm(hook);
      assert.equal(hook.webhooks.toldUpTo, told + 2, "the event that it did not take stays");
      hook.answer = () => 410;
      await calm(hook, DAY);
      assert.ok(hook.state().parked);
      assert.equal(hook.webhooks.toldUpTo, Infinity);
    }));

  it("write and read nothing when there are none", async () => {
    const given = await givenStore();
    try {
      const webhooks = new Webhooks([], {
        clock: new ManualClock(0),
        random: { next: () => 0.5 },
        log: new LogLines(),
        store: {
          ...given.store,
          append: () => assert.fail("it wrote"),
          readAll: () => assert.fail("it read"),
          subscribe: () => assert.fail("it listens"),
        } as unknown as Given["store"],
        row: () => undefined,
        sender: { send: () => assert.fail("it sent") },
      });
      await webhooks.start();
      await webhooks.stop();
      assert.deepEqual(webhooks.list(), []);
    } finally {
      await given.end();
    }
  });

  it("keep the order of a message while it is not taken, and let the others go on", () =>
    withHook(async (hook) => {
      hook.answer = ({ id }) => id.startsWith("m1:") ? 503 : 204;
      await hook.append("m1", 0, enqueued(), started(1), failed(false));
      await hook.append("m1", 3, started(2), delivered);
      await hook.append("m2", 0, enqueued(), started(1), delivered);
      await calm(hook, 60_000);
      assert.ok(ids(hook).includes("m2:3"));
      assert.ok(!ids(hook).includes("m1:5"), "the second of a message waits for its first");
      assert.equal(hook.state().behind > 0, true);
      hook.answer = () => 200;
      await calm(hook, 3_600_000);
      assert.deepEqual(ids(hook).slice(-2), ["m1:3", "m1:5"]);
      assert.equal(hook.state().told, 3);
    }));

  it("are sent again after a kill: at least once, from the position that was recorded", () =>
    withHook(async (hook) => {
      await hook.append("m1", 0, enqueued(), started(1), delivered);
      await calm(hook, 2_000); // recorded
      await hook.append("m2", 0, enqueued(), started(1), delivered);
      await calm(hook); // taken, and not recorded
      assert.deepEqual(ids(hook), ["m1:3", "m2:3"]);
      const next = await hook.again();
      await calm(hook);
      assert.deepEqual(ids(hook), ["m1:3", "m2:3", "m2:3"]);
      await next.stop();
    }));

  it("are not sent again after a kill because one event before them was refused", () =>
    withHook(async (hook) => {
      hook.answer = ({ id }) => id === "m1:3" || id === "m3:3" ? 400 : 200;
      for (const stream of ["m1", "m2", "m3", "m4"]) {
        await hook.append(stream, 0, enqueued(), started(1), delivered);
        await calm(hook, 2_000);
      }
      await calm(hook, 60_000);
      const { position, told } = hook.state();
      assert.equal(told, 2);
      // A start that has one of them taken while the other hangs forgets neither it nor the rest.
      hook.answer = ({ id }) => id === "m3:3" ? new Promise(() => {}) : 200;
      const second = await hook.again();
      assert.equal(second.list()[0]!.position, position);
      await hook.append("m5", 0, enqueued(), started(1), delivered);
      await calm(hook, 2_000);
      assert.equal(second.list()[0]!.told, 4);
      const sent = hook.sent.length;
      hook.answer = () => 200;
      const third = await hook.again();
      await calm(hook, 2_000);
      assert.deepEqual(ids(hook).slice(sent), ["m3:3"]);
      assert.deepEqual([third.list()[0]!.told, third.list()[0]!.behind <= 1], [5, true]);
      await Promise.all([second.stop(), third.stop()]);
    }));

  it("catch up with a long backlog, in order", () =>
    withHook(async (hook) => {
      let open = () => {};
      const gate = new Promise<void>((resolve) => open = resolve);
      hook.answer = () => gate.then(() => 200);
      for (let n = 0; n < 700; n++) {
        void hook.append(`m${n}`, 0, enqueued(), started(1), delivered);
      }
      await calm(hook);
      assert.ok(hook.sent.length <= 4, `${hook.sent.length} at once`);
      open();
      for (let n = 0; n < 300 && hook.sent.length < 700; n++) await settle();
      assert.equal(new Set(ids(hook)).size, 700);
      assert.equal(hook.sent.length, 700);
    }));

  it("park an endpoint that took nothing for too long, and go on when it is resumed", () =>
    withHook(async (hook) => {
      hook.answer = () => Promise.reject(new Error("connection refused"));
      await hook.append("m1", 0, enqueued(), started(1), delivered);
      await hook.append("m2", 0, enqueued(), started(1), delivered);
      await calm(hook, 30_000);
      assert.equal(hook.state().parked, null);
      assert.match(hook.state().lastError ?? "", /connection refused/);
      await calm(hook, 2 * DAY);
      const { parked } = hook.state();
      assert.match(parked?.why ?? "", /failures in a row, the last: connection refused/);
      const tried = hook.sent.length;
      assert.ok(tried < 60, `a dead endpoint was asked ${tried} times in a day`);
      await hook.append("m3", 0, enqueued(), started(1), delivered);
      await calm(hook, DAY);
      assert.equal(hook.sent.length, tried, "nothing is sent to it");
      hook.answer = () => 200;
      const act = { act: "resume", who: "ann", why: "mended" } as const;
      await hook.webhooks.act("hook", act);
      await calm(hook, 1_000);
      assert.deepEqual(ids(hook).slice(tried), ["m1:3", "m2:3", "m3:3"]);
      assert.equal(hook.state().parked, null);
      await assert.rejects(hook.webhooks.act("hook", act), CommandRefused);
    }));

  it("can be parked by hand, and resumed without what happened meanwhile", () =>
    withHook(async (hook) => {
      await hook.webhooks.act("hook", { act: "park", who: "ann", why: "too loud" });
      await hook.append("m1", 0, enqueued(), started(1), delivered);
      await calm(hook, 1_000);
      assert.equal(hook.state().parked?.why, "too loud");
      await hook.webhooks.act("hook", { act: "resume", who: "ann", why: "quiet", skip: true });
      await hook.append("m2", 0, enqueued(), started(1), delivered);
      await calm(hook, 1_000);
      assert.deepEqual(ids(hook), ["m2:3"]);
    }));

  it("say what left the store while an endpoint was parked, when it is resumed", () =>
    withHook(async (hook) => {
      const file = {
        sha256: "0".repeat(64),
        octets: 1,
        streams: 7,
        events: 21,
        until: "2026-01-31T00:00:00.000Z",
        first: "A",
        last: "B",
      };
      const archived = (n: number, to: number): Fact => ({
        type: "StreamsArchived",
        data: { ...file, file: `2026-01-31-00000${n}.jsonl.gz`, from: 1, to },
      });
      const by = { who: "ann", why: "test" };
      await hook.append("m1", 0, enqueued(), started(1), delivered);
      await calm(hook, 2_000);
      await hook.webhooks.act("hook", { act: "park", ...by });
      const { position } = hook.state();
      await hook.append("retention", 0, archived(1, position), archived(2, position + 9));
      await hook.webhooks.act("hook", { act: "resume", ...by });
      const { stream } = hook.given.row(webhooksProjection, "hook")!;
      const last = (await hook.given.store.readStream(stream)).at(-1)!;
      assert.deepEqual([last.type, last.data], [
        "WebhookResumed",
        { endpoint: "hook", ...by, archived: 7 },
      ]);
      assert.match(hook.log.lines.join("\n"), /warn webhook resumed; .*"archived":7/);
    }));

  it("park an endpoint that says that it is gone, at once", () =>
    withHook(async (hook) => {
      hook.answer = () => 410;
      await hook.append("m1", 0, enqueued(), started(1), delivered);
      await calm(hook);
      assert.match(hook.state().parked?.why ?? "", /410/);
    }));

  it("give up an event that is refused for days while others are taken", () =>
    withHook(async (hook) => {
      hook.answer = ({ id }) => id === "m1:3" ? 400 : 200;
      await hook.append("m1", 0, enqueued(), started(1), delivered);
      for (let hour = 0; hour < 100; hour++) {
        await hook.append(`n${hour}`, 0, enqueued(), started(1), delivered);
        await calm(hook, 3_600_000);
      }
      const { givenUp, told, parked } = hook.state();
      assert.deepEqual([givenUp, told, parked], [1, 100, null]);
    }));

  it("are not told what was skipped, though the position was not recorded when they were parked", () =>
    withHook(async (hook) => {
      hook.answer = ({ id }) => id === "m1:3" ? 200 : 410;
      await hook.append("m1", 0, enqueued(), started(1), delivered);
      await calm(hook); // taken, and recorded within a second
      await hook.append("m2", 0, enqueued(), started(1), delivered);
      await calm(hook); // parked
      await hook.append("m3", 0, enqueued(), started(1), delivered);
      hook.answer = () => 200;
      await hook.webhooks.act("hook", { act: "resume", who: "ann", why: "new", skip: true });
      await calm(hook, 5_000);
      await hook.append("m4", 0, enqueued(), started(1), delivered);
      await calm(hook, 5_000);
      assert.deepEqual(ids(hook), ["m1:3", "m2:3", "m4:3"]);
      assert.deepEqual([hook.state().told, hook.state().behind <= 1], [2, true]);
    }));

  it("come to a state that acts at the same time make one after the other", () =>
    withHook(async (hook) => {
      let answer = (_: number) => {};
      hook.answer = () => new Promise((resolve) => answer = resolve);
      await hook.append("m1", 0, enqueued(), started(1), delivered);
      await calm(hook);
      hook.answer = () => 200;
      const by = { who: "ann", why: "test" };
      const acts = [
        hook.webhooks.act("hook", { act: "park", ...by }),
        hook.webhooks.act("hook", { act: "resume", ...by }),
        hook.webhooks.act("hook", { act: "park", ...by }),
        hook.webhooks.use([{ ...ENDPOINT, url: "https://example.com/other" }]),
        hook.webhooks.act("hook", { act: "resume", ...by }),
      ];
      answer(200);
      await Promise.all(acts);
      await hook.append("m2", 0, enqueued(), started(1), delivered);
      await calm(hook, 60_000);
      assert.deepEqual(ids(hook).filter((id) => id === "m2:3"), ["m2:3"], "one runner tells it");
    }));

  it("go on when an act could not be written", () => {
    const full = (real: EventStore) =>
      changed(real, {
        append: (appends, bodies) =>
          appends[0]?.facts[0]?.type === "WebhookParked"
            ? Promise.reject(new StoreUnavailable("disk full"))
            : real.append(appends, bodies),
      });
    return withHook(
      async (hook) => {
        const act = { act: "park", who: "ann", why: "too loud" } as const;
        await assert.rejects(hook.webhooks.act("hook", act), StoreUnavailable);
        await hook.append("m1", 0, enqueued(), started(1), delivered);
        await calm(hook);
        assert.deepEqual(ids(hook), ["m1:3"]);
        // One that is dead is parked when the disk takes it, and asked nothing meanwhile.
        hook.answer = () => 410;
        await hook.append("m2", 0, enqueued(), started(1), delivered);
        await calm(hook, 60_000);
        assert.deepEqual([ids(hook).length, hook.state().parked], [2, null]);
      },
      ENDPOINT,
      full,
    );
  });

  it("are parked by an act whose write failed and is on disk all the same", () => {
    const broken = (real: EventStore) =>
      changed(real, {
        append: async (appends, bodies) => {
          const events = await real.append(appends, bodies);
          if (events[0]?.type === "WebhookParked") throw new StoreUnavailable("no answer");
          return events;
        },
      });
    return withHook(
      async (hook) => {
        const act = { act: "park", who: "ann", why: "too loud" } as const;
        await assert.rejects(hook.webhooks.act("hook", act), StoreUnavailable);
        await hook.append("m1", 0, enqueued(), started(1), delivered);
        await calm(hook, 60_000);
        assert.equal(hook.state().parked?.why, "too loud");
        assert.deepEqual(ids(hook), [], "a parked endpoint has no runner");
      },
      ENDPOINT,
      broken,
    );
  });

  it("miss nothing that is committed while the end of the log cannot be read", () => {
    let during: (() => Promise<unknown>) | undefined;
    const unreadable = (real: EventStore) =>
      changed(real, {
        readAll: async (after, limit) => {
          const commit = during;
          if (!commit) return await real.readAll(after, limit);
          during = undefined;
          await commit();
          return [];
        },
      });
    return withHook(
      async (hook) => {
        await hook.webhooks.stop();
        await hook.append("m1", 0, enqueued());
        during = () => hook.append("m2", 0, enqueued(), started(1), delivered);
        const next = await hook.again();
        await calm(hook, 10_000);
        await next.stop();
        assert.deepEqual(ids(hook), ["m2:3"]);
      },
      ENDPOINT,
      unreadable,
    );
  });

  it("are not told of reports", () =>
    withHook(async (hook) => {
      const source = { kind: "dsn", of: "m0" } as const;
      await hook.append("m1", 0, enqueued({ mailFrom: "", source }), started(1), delivered);
      await calm(hook, 2_000);
      assert.deepEqual(ids(hook), []);
      assert.equal(hook.state().behind, 0);
    }));

  it("are told of the accounts that they are for", () =>
    withHook(async (hook) => {
      await hook.append("m1", 0, enqueued({ account: "ann" }), started(1), delivered);
      await hook.append("m2", 0, enqueued({ account: "bob" }), started(1), delivered);
      await hook.append("m3", 0, enqueued(), started(1), delivered);
      await calm(hook);
      assert.deepEqual(ids(hook), ["m2:3"]);
    }, { ...ENDPOINT, accounts: ["bob"] }));
});

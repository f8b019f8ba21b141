import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import type { EventStore } from "../../actors/ports.ts";
import type { WebhookEndpoint } from "../../actors/webhook_endpoint.ts";
import { WebhookMessages } from "../../actors/webhook_message.ts";
import { WebhookRunner } from "../../actors/webhook_runner.ts";
import { Webhooks } from "../../actors/webhooks.ts";
import type { Fact, StoredEvent } from "../../events/catalogue.ts";
import type { WebhookRow } from "../../events/projections/webhooks.ts";
import { delivered, enqueued, failed, started } from "../events/given.ts";
import { LogLines, ManualClock } from "./manual_clock.ts";

const DAY = 86_400_000;
const START = Date.parse("2026-01-31T09:30:00.000Z");

const endpoint = (name: string, concurrency: number): WebhookEndpoint => ({
  name,
  url: `https://${name}.example/`,
  events: ["delivered", "delayed"],
  concurrency,
  parkAfter: DAY,
});

const rowOf = (name: string): WebhookRow => ({
  endpoint: name,
  position: 0,
  told: 0,
  given_up: 0,
  beyond: null,
  parked: null,
  parked_since: null,
  stream: "",
});

/** Each message: taken in, tried, delayed, tried, delivered. */
const FACTS: readonly Fact[] = [enqueued(), started(1), failed(false), started(2), delivered];

/** A log of as many messages as it is told, one behind the other, that nobody has to hold. */
class LongLog implements EventStore {
  messages = 0;
  handedOut = 0;
  streamsRead = 0;
  readonly appended: Fact[] = [];
  /** Messages that have left the store: after their events were read, or before. */
  readonly left = new Set<string>();
  readonly gone = new Set<string>();

  at(position: number): StoredEvent {
    const message = Math.ceil(position / FACTS.length);
    const version = position - (message - 1) * FACTS.length;
    return {
      ...FACTS[version - 1]!,
      position,
      version,
      stream: `m${message}`,
      schema: 1,
      time: new Date(START).toISOString(),
      prev: "",
      hash: "",
    };
  }
  head(): number {
    return this.messages * FACTS.length;
  }
  readAll(after: number, limit: number): Promise<StoredEvent[]> {
    const found: StoredEvent[] = [];
    for (let at = after + 1; at <= this.head() && found.length < limit; at++) {
      const event = this.at(at);
      if (!this.gone.has(event.stream)) found.push(event);
    }
    this.handedOut += found.length;
    return Promise.resolve(found);
  }
  readStream(stream: string): Promise<StoredEvent[]> {
    this.streamsRead += 1;
    if (this.left.has(stream)) return Promise.resolve([]);
    const before = (Number(stream.slice(1)) - 1) * FACTS.length;
    return Promise.resolve(FACTS.map((_, n) => this.at(before + n + 1)));
  }
  append(appends: Parameters<EventStore["append"]>[0]): Promise<StoredEvent[]> {
    this.appended.push(...appends.flatMap(({ facts }) => facts));
    return Promise.resolve([]);
  }
  dayTime(): number {
    return START;
  }
  version(): Promise<number> {
    return Promise.resolve(0);
  }
  subscribe(): () => void {
    return () => {};
  }
  health(): { readonly ok: true } {
    return { ok: true };
  }
}

describe("the runner of a webhook", () => {
  let clock: ManualClock;
  let store: LongLog;
  let log: LogLines;
  let runner: WebhookRunner;
  let dead: string[];
  /** Ids, in the order in which they were sent and taken; on their way, and most of them at once. */
  let sent: string[];
  let taken: string[];
  const onTheWay = new Set<string>();
  let most: number;
  let answer: (id: string) => number | Promise<number>;
  const after = (ms: number, status = 200) =>
    new Promise<number>((resolve) => clock.timer(ms, () => resolve(status)));

  const ports = () => ({
    row: rowOf,
    clock,
    random: { next: () => 0.5 },
    log,
    store,
    messages: new WebhookMessages(store),
    sender: {
      send: (_: WebhookEndpoint, { id }: { id: string }, signal: AbortSignal) => {
        sent.push(id);
        onTheWay.add(id);
        most = Math.max(most, onTheWay.size);
        return new Promise<number>((resolve, reject) => {
          signal.addEventListener("abort", () => reject(new Error("cut off")));
          Promise.resolve(answer(id)).then(resolve, reject);
        }).then((status) => {
          if (status < 300) taken.push(id);
          return status;
        }).finally(() => onTheWay.delete(id));
      },
    },
  });
  const begin = (concurrency: number, messages: number, row: Partial<WebhookRow> = {}) => {
    store.messages = messages;
    runner = new WebhookRunner(
      endpoint("hook", concurrency),
      { ...rowOf("hook"), ...row },
      ports(),
      (why) => dead.push(why),
    );
    runner.wake();
  };

  beforeEach(() => {
    clock = new ManualClock(START);
    store = new LongLog();
    log = new LogLines();
    dead = [];
    sent = [];
    taken = [];
    onTheWay.clear();
    most = 0;
    answer = () => 200;
  });
  afterEach(async () => {
    await runner.stop();
  });

  it("keeps up with a queue: 32 posts at a time where an answer takes 50 ms", async () => {
    answer = () => after(50);
    begin(32, 1_000);
    await clock.advance(5_000);
    assert.equal(taken.length, 2_000, "in 5 seconds");
    assert.equal(most, 32);
    assert.equal(runner.position, store.head());
  });

  it("tells a message in order, and others beside it", async () => {
    // The first of every third message takes its time.
    answer = (id) => after(id.endsWith(":3") && Number(id.slice(1, -2)) % 3 === 0 ? 900 : 20);
    begin(16, 60);
    await clock.advance(20_000);
    assert.equal(new Set(taken).size, 120);
    for (let n = 1; n <= 60; n++) {
      assert.deepEqual(taken.filter((id) => id.startsWith(`m${n}:`)), [`m${n}:3`, `m${n}:5`]);
    }
    assert.ok(taken.indexOf("m40:5") < taken.indexOf("m3:3"), "40 does not wait for 3");
  });

  it("begins with one post, and has one more on its way for each that is taken", async () => {
    answer = () => after(100);
    begin(8, 100);
    const widths: number[] = [];
    for (let n = 0; n < 5; n++) {
      await clock.advance(0);
      widths.push(onTheWay.size);
      await clock.advance(100);
    }
    assert.deepEqual(widths, [1, 2, 4, 8, 8]);
  });

  it("holds no more of a million events than there is room for", async () => {
    answer = () => after(10_000_000);
    begin(4, 1_000_000);
    await clock.advance(1_000);
    assert.equal(sent.length, 1);
    assert.ok(store.handedOut <= 500, `${store.handedOut} events were read`);
    await runner.stop();
    answer = () => after(1);
    begin(4, 1_000_000);
    await clock.advance(1_000);
    const held = store.handedOut - runner.position;
    assert.ok(taken.length > 1_000 && held < 2_000, `${held} events held after ${taken.length}`);
  });

  it("takes what is committed while there is room, and reads the rest when there is again", async () => {
    begin(4, 0);
    const commit = (messages: number) => {
      const from = store.head();
      store.messages += messages;
      const count = store.head() - from;
      runner.committed(Array.from({ length: count }, (_, n) => store.at(from + n + 1)));
    };
    commit(50);
    await clock.advance(1);
    assert.deepEqual([taken.length, store.handedOut], [100, 0], "without reading the log");
    let open = () => {};
    const gate = new Promise<number>((resolve) => open = () => resolve(200));
    answer = () => gate;
    for (let n = 0; n < 100; n++) commit(10);
    await clock.advance(1);
    assert.equal(store.handedOut, 0, "the outbox is full");
    open();
    await clock.advance(1_000);
    assert.equal(taken.length, 2_100);
    assert.ok(store.handedOut >= 4_000, `${store.handedOut} of 5,000 events were read`);
  });

  it("counts failures of posts that were on their way together as one", async () => {
    let well = true;
    answer = () => after(50).then(() => well ? 200 : 503);
    begin(32, 200);
    await clock.advance(500);
    assert.equal(onTheWay.size, 32);
    well = false;
    await clock.advance(50);
    assert.equal(runner.failures, 1);
    well = true;
    await clock.advance(10_000);
    assert.equal(runner.failures, 0);
    assert.equal(taken.length, 400, "a restart of the endpoint does not cost it an hour");
  });

  it("probes an endpoint that takes nothing with one post, seldom", async () => {
    begin(32, 200);
    await clock.advance(100);
    answer = () => after(10, 503);
    store.messages += 200;
    runner.wake();
    await clock.advance(100);
    most = 0;
    sent = [];
    await clock.advance(3_600_000);
    assert.equal(most, 1);
    assert.ok(sent.length < 15, `${sent.length} probes in an hour`);
    assert.deepEqual(dead, []);
    await clock.advance(DAY);
    assert.match(dead.join(), /failures in a row, the last: the answer is 503/);
  });

  it("goes on beside events that are refused, be they many", async () => {
    answer = (id) => Number(id.slice(1, -2)) % 5 === 1 ? 400 : 200;
    begin(4, 100);
    await clock.advance(60_000);
    assert.equal(taken.length, 160);
    store.messages += 20;
    runner.wake();
    await clock.advance(3_600_000);
    assert.equal(taken.length, 192);
    assert.deepEqual(dead, []);
  });

  it("takes no clock that is set for a day that has passed", async () => {
    answer = () => 503;
    begin(4, 50);
    await clock.advance(3_600_000);
    clock.wall += 365 * DAY;
    await clock.advance(3_600_000);
    assert.deepEqual([dead, runner.givenUp], [[], 0]);
  });

  it("gives up what has left the store, and says so", async () => {
    store.left.add("m2");
    begin(4, 3);
    await clock.advance(2_000);
    assert.deepEqual(taken, ["m1:3", "m1:5", "m3:3", "m3:5"]);
    assert.equal(runner.givenUp, 2);
    assert.match(log.lines.join("\n"), /error webhook: an event cannot be told .*m2 has left/);
    assert.deepEqual(store.appended.at(-1), {
      type: "WebhookAdvanced",
      data: { endpoint: "hook", upTo: 15, told: 4, givenUp: 2 },
    });
  });

  it("gives up what was open when it was stopped and has left the store since", async () => {
    store.gone.add("m1");
    const open = [3, 8];
    begin(4, 3, { position: 2, told: 3, beyond: JSON.stringify({ upTo: 15, open }) });
    await clock.advance(2_000);
    assert.deepEqual(taken, ["m2:3"]);
    assert.equal(runner.position, 15);
    assert.match(log.lines.join("\n"), /warn webhook: an event has left the store untold/);
    assert.deepEqual(store.appended.at(-1), {
      type: "WebhookAdvanced",
      data: { endpoint: "hook", upTo: 15, told: 4, givenUp: 1 },
    });
  });

  it("lets 49 endpoints be told while one hangs", async () => {
    begin(4, 0);
    store.messages = 20;
    const told = new Map<string, number>();
    const endpoints = Array.from({ length: 50 }, (_, n) => endpoint(`hook${n}`, 4));
    const webhooks = new Webhooks(endpoints, {
      ...ports(),
      row: rowOf,
      sender: {
        send: ({ name }) => {
          if (name === "hook7") return after(10_000).then(() => Promise.reject(new Error("late")));
          told.set(name, (told.get(name) ?? 0) + 1);
          return after(20);
        },
      },
    });
    await webhooks.start();
    await clock.advance(1_000);
    assert.equal(told.size, 49);
    assert.ok([...told.values()].every((count) => count === 40));
    assert.equal(store.streamsRead, 40, "a message is made once for all of them");
    assert.equal(webhooks.list().filter(({ behind }) => behind === 0).length, 49);
    const stopped = webhooks.stop();
    await clock.advance(10_000);
    await stopped;
  });
});

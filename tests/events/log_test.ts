import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { CATALOGUE, read, UnreadableEvent } from "../../events/catalogue.ts";
import type { Committed, StorageEngine, Transaction } from "../../events/engine.ts";
import { EventLog } from "../../events/log.ts";
import { SqliteEngine } from "../../events/sqlite_engine.ts";
import { StoreUnavailable, UnreadableStream, WrongVersion } from "../../events/store.ts";
import { delivered, enqueued, type Given, givenStore, ManualClock, started } from "./given.ts";

/** An engine whose disk can be told to fail. */
class FailingEngine {
  commits = 0;
  recoveries = 0;
  why: string | undefined;
  /** The transaction reaches the disk, and the failure comes after. */
  lands = false;
  /** Why it cannot be read; asked before each page of the log is. */
  unread: () => Promise<string | undefined> = () => Promise.resolve(undefined);
  constructor(readonly inner: SqliteEngine) {}

  /** The port, with everything but writing passed through. */
  get engine(): StorageEngine {
    return new Proxy(this.inner, {
      get: (inner, name) => {
        if (name === "commit") return (transaction: Transaction) => this.#commit(transaction);
        if (name === "recover") return () => this.#recover();
        if (name === "readAll") {
          return async (after: number, limit: number) => {
            const why = await this.unread();
            if (why !== undefined) throw new Error(why);
            return inner.readAll(after, limit);
          };
        }
        const member = Reflect.get(inner, name);
        return typeof member === "function" ? member.bind(inner) : member;
      },
    });
  }

  #commit(transaction: Transaction): Committed {
    this.commits += 1;
    if (this.why !== undefined && !this.lands) throw new Error(this.why);
    const committed = this.inner.commit(transaction);
    if (this.why !== undefined) throw new Error(this.why);
    return committed;
  }

  #recover(): void {
    this.recoveries += 1;
    if (this.why !== undefined) throw new Error(this.why);
    this.inner.recover();
  }
}

describe("appending", () => {
  let given: Given;
  beforeEach(async () => {
    given = await givenStore();
  });
  afterEach(() => given.end());

  it("gives events their place, their time and their hashes", async () => {
    const { store } = given;
    const [first, second] = await store.append([
      { stream: "a", expectedVersion: 0, facts: [enqueued(), started(1)] },
    ]);
    assert.deepEqual([first?.position, first?.version, second?.position, second?.version], [
      1,
      1,
      2,
      2,
    ]);
    assert.equal(first?.time, "2026-01-31T09:30:00.000Z");
    assert.equal(second?.prev, first?.hash);
    assert.deepEqual(await store.readStream("a"), [first, second]);
    assert.deepEqual(await store.readAll(1, 10), [second]);
    assert.equal(store.head(), 2);
    assert.equal(await store.version("a"), 2);
    assert.equal(await store.version("b"), 0);
  });

  it("refuses the second writer of a version, alone", async () => {
    const { store } = given;
    const results = await Promise.allSettled([
      store.append([{ stream: "a", expectedVersion: 0, facts: [enqueued()] }]),
      store.append([{ stream: "a", expectedVersion: 0, facts: [enqueued()] }]),
      store.append([{ stream: "b", expectedVersion: 0, facts: [enqueued()] }]),
    ]);
    assert.deepEqual(results.map(({ status }) => status), ["fulfilled", "rejected", "fulfilled"]);
    const refused = results[1] as PromiseRejectedResult;
    assert.ok(refused.reason instanceof WrongVersion);
    assert.deepEqual([refused.reason.expected, refused.reason.actual], [0, 1]);
    assert.equal(store.head(), 2);
    // Also when nothing about the stream is remembered.
    given = await given.reopen();
    await assert.rejects(
      given.store.append([{ stream: "a", expectedVersion: 0, facts: [enqueued()] }]),
      WrongVersion,
    );
  });

  it("writes all streams of an append or none", async () => {
    const { store } = given;
    await store.append([{ stream: "a", expectedVersion: 0, facts: [enqueued()] }]);
    await assert.rejects(
      store.append([
        { stream: "b", expectedVersion: 0, facts: [enqueued()] },
        { stream: "a", expectedVersion: 0, facts: [started(1)] },
      ]),
      WrongVersion,
    );
    assert.deepEqual(await store.readStream("b"), []);
    assert.equal(await given.view.get("b"), undefined);
    await store.append([
      { stream: "b", expectedVersion: 0, facts: [enqueued()] },
      { stream: "a", expectedVersion: 1, facts: [started(1)] },
    ]);
    assert.equal(await store.version("b"), 1);
    assert.equal((await given.view.get("a"))?.state, "attempting");
  });

  it("refuses a fact that does not fit the catalogue, and no other", async () => {
    const { store } = given;
    const bad = store.append([
      { stream: "a", expectedVersion: 0, facts: [enqueued({ size: -1 })] },
    ]);
    const good = store.append([{ stream: "b", expectedVersion: 0, facts: [enqueued()] }]);
    await assert.rejects(bad, /Enqueued: size/);
    await good;
    assert.equal(store.head(), 1);
  });

  it("keeps text that was cut inside a character", async () => {
    const [event] = await given.store.append([
      { stream: "a", expectedVersion: 0, facts: [enqueued({ messageId: "cut \ud83d" })] },
    ]);
    assert.equal(event?.type === "Enqueued" && event.data.messageId, "cut \ufffd");
    assert.deepEqual(await given.store.readStream("a"), [event]);
  });

  it("tells listeners in log order what is durable, and survives those that throw", async () => {
    const errors: unknown[] = [];
    given = await given.reopen({ onListenerError: (error) => errors.push(error) });
    const heard: number[] = [];
    given.store.subscribe(() => {
      throw new Error("listener");
    });
    const stop = given.store.subscribe((events) => {
      heard.push(...events.map(({ position }) => position));
    });
    await Promise.all(
      ["a", "b", "c"].map((stream) =>
        given.store.append([{ stream, expectedVersion: 0, facts: [enqueued(), started(1)] }])
      ),
    );
    assert.deepEqual(heard, [1, 2, 3, 4, 5, 6]);
    assert.equal(errors.length, 1);
    stop();
    await given.store.append([{ stream: "d", expectedVersion: 0, facts: [enqueued()] }]);
    assert.equal(heard.length, 6);
  });

  it("refuses appends once it is closed, and writes those that wait", async () => {
    const waiting = given.store.append([{ stream: "a", expectedVersion: 0, facts: [enqueued()] }]);
    const closing = given.store.close();
    await assert.rejects(
      given.store.append([{ stream: "b", expectedVersion: 0, facts: [enqueued()] }]),
      StoreUnavailable,
    );
    await closing;
    assert.equal((await waiting).length, 1);
    given = await given.reopen();
    assert.equal(given.store.head(), 1);
  });

  it("names stream and version of an event that it cannot read", async () => {
    const engine = new SqliteEngine(`${given.dataDir}/other.db`);
    const log = await EventLog.open({ engine, clock: new ManualClock() });
    await log.append([{ stream: "a", expectedVersion: 0, facts: [enqueued()] }]);
    engine.commit({
      events: [{ ...engine.readStream("a")[0]!, position: 2, version: 2, type: "Sung" }],
      rows: [],
      counts: [],
      bodies: [],
    });
    await assert.rejects(log.readStream("a"), (error) => {
      assert.ok(error instanceof UnreadableStream);
      assert.deepEqual([error.stream, error.version], ["a", 2]);
      return true;
    });
    await log.close();
  });

  it("reads the log past events that it cannot read, a page of them too", async () => {
    const engine = new SqliteEngine(`${given.dataDir}/other.db`);
    const log = await EventLog.open({ engine, clock: new ManualClock() });
    await log.append([{ stream: "a", expectedVersion: 0, facts: [enqueued()] }]);
    const [known] = engine.readStream("a");
    const foreign = [2, 3, 4].map((n) => ({ ...known!, position: n, version: n, type: "Sung" }));
    const after = { ...known!, stream: "b", position: 5, version: 1 };
    engine.commit({ events: [...foreign, after], rows: [], counts: [], bodies: [] });
    const positions = async (from: number, limit: number) =>
      (await log.readAll(from, limit)).map(({ position }) => position);
    assert.deepEqual(await positions(0, 10), [1, 5]);
    assert.deepEqual(await positions(1, 2), [5], "none at the end of the log alone");
    assert.deepEqual(await positions(5, 2), []);
    await log.close();
  });
});

describe("group commit", () => {
  let inner: SqliteEngine;
  let disk: FailingEngine;
  let clock: ManualClock;
  let log: EventLog;
  let dir: string;
  beforeEach(async () => {
    dir = await Deno.makeTempDir();
    inner = new SqliteEngine(`${dir}/test.db`);
    disk = new FailingEngine(inner);
    clock = new ManualClock();
    log = await EventLog.open({ engine: disk.engine, clock, maxEvents: 100 });
  });
  afterEach(async () => {
    await log.close();
    await Deno.remove(dir, { recursive: true });
  });
  const append = (stream: string) =>
    log.append([{ stream, expectedVersion: 0, facts: [enqueued(), started(1)] }]);

  it("puts all that waits into one transaction", async () => {
    await Promise.all(Array.from({ length: 50 }, (_, i) => append(`m${i}`)));
    assert.equal(disk.commits, 1);
    assert.equal(log.head(), 100);
  });

  it("keeps transactions bounded", async () => {
    await Promise.all(Array.from({ length: 120 }, (_, i) => append(`m${i}`)));
    assert.equal(disk.commits, 3);
    assert.equal(log.head(), 240);
  });

  it("turns everything away when the disk fails, and comes back by itself", async () => {
    await append("before");
    disk.why = "disk I/O error";
    const lost = await Promise.allSettled([append("a"), append("b")]);
    for (const one of lost) {
      assert.ok(one.status === "rejected" && one.reason instanceof StoreUnavailable);
      assert.match(one.reason.message, /disk I\/O error/);
    }
    assert.deepEqual(log.health(), { ok: false, why: "disk I/O error", since: clock.now() });
    const since = clock.now();
    await assert.rejects(append("c"), StoreUnavailable);
    assert.equal(disk.commits, 2, "nothing is tried in between");

    await clock.advance(1000);
    assert.equal(disk.recoveries, 1);
    await clock.advance(1000);
    assert.equal(disk.recoveries, 1, "the next probe comes after 2 s");
    await clock.advance(1000);
    assert.equal(disk.recoveries, 2);
    assert.deepEqual(log.health(), { ok: false, why: "disk I/O error", since });

    disk.why = undefined;
    await clock.advance(10_000);
    assert.deepEqual(log.health(), { ok: true });
    assert.equal(log.head(), 2);
    const [event] = await append("a");
    assert.equal(event?.position, 3);
    assert.equal(clock.pending, 0);
  });

  it("counts and tells what reached the disk although it was reported as failed", async () => {
    const heard: string[] = [];
    log.subscribe((events) => heard.push(...events.map(({ stream }) => stream)));
    disk.why = "fsync failed";
    disk.lands = true;
    await assert.rejects(append("a"), StoreUnavailable);
    assert.deepEqual(heard, []);
    disk.why = undefined;
    await clock.advance(1000);
    assert.deepEqual(heard, ["a", "a"]);
    assert.equal(await log.version("a"), 2);
    await assert.rejects(append("a"), WrongVersion);
  });

  it("tells of it as well when it cannot be read at once", async () => {
    const heard: string[] = [];
    log.subscribe((events) => heard.push(...events.map(({ stream }) => stream)));
    disk.why = "fsync failed";
    disk.lands = true;
    await assert.rejects(append("a"), StoreUnavailable);
    disk.why = undefined;
    disk.unread = () => Promise.resolve("disk I/O error");
    await clock.advance(1000);
    assert.equal(log.health().ok, false);
    disk.unread = () => Promise.resolve(undefined);
    await clock.advance(2000);
    assert.deepEqual([log.health().ok, heard], [true, ["a", "a"]]);
  });

  it("takes nothing before it has told of it", async () => {
    const heard: string[] = [];
    log.subscribe((events) => heard.push(...events.map(({ stream }) => stream)));
    disk.why = "fsync failed";
    disk.lands = true;
    await assert.rejects(append("a"), StoreUnavailable);
    disk.why = undefined;
    const untold: boolean[] = [];
    disk.unread = () => {
      untold.push(log.health().ok && heard.length === 0);
      return Promise.resolve(undefined);
    };
    await clock.advance(1000);
    assert.deepEqual([log.health().ok, heard], [true, ["a", "a"]]);
    assert.ok(untold.length > 0 && !untold.includes(true));
  });

  it("does not let an append that cannot be prepared take its neighbours along", async () => {
    const engine = new Proxy(disk.engine, {
      get: (engine, name) =>
        name === "streamHead"
          ? (stream: string) => {
            if (stream === "torn") throw new Error("malformed page");
            return engine.streamHead(stream);
          }
          : Reflect.get(engine, name),
    });
    log = await EventLog.open({ engine, clock });
    const [torn, whole] = await Promise.allSettled([append("torn"), append("whole")]);
    assert.ok(torn.status === "rejected" && torn.reason instanceof StoreUnavailable);
    assert.equal(whole.status, "fulfilled");
    assert.deepEqual(log.health(), { ok: true });
  });
});

describe("a disk that is full", () => {
  it("costs nothing that was acknowledged, and is noticed when it has room again", async () => {
    const dir = await Deno.makeTempDir();
    const engine = new SqliteEngine(`${dir}/test.db`);
    const clock = new ManualClock();
    const log = await EventLog.open({ engine, clock });
    // A limit of SQLite's own, which the next handle does not have.
    engine.db.exec("PRAGMA max_page_count = 40");
    const acknowledged: string[] = [];
    for (let i = 0; log.health().ok; i++) {
      assert.ok(i < 1000, "the limit is never met");
      await log.append([{ stream: `m${i}`, expectedVersion: 0, facts: [enqueued()] }]).then(
        () => acknowledged.push(`m${i}`),
        (error) => assert.match(error.message, /database or disk is full/),
      );
    }
    assert.ok(acknowledged.length > 0);
    await clock.advance(1000);
    assert.deepEqual(log.health(), { ok: true });
    await log.append([{ stream: "z", expectedVersion: 0, facts: [enqueued()] }]);
    const kept = (await log.readAll(0, 2000)).map(({ stream }) => stream);
    assert.deepEqual(kept, [...acknowledged, "z"]);
    await log.close();
    await Deno.remove(dir, { recursive: true });
  });
});

describe("upcasting", () => {
  it("brings data of an older schema to the newest, step by step", () => {
    const catalogue = CATALOGUE as unknown as Record<string, unknown>;
    const known = catalogue["Held"];
    catalogue["Held"] = {
      schema: 3,
      data: CATALOGUE.Held.data,
      upcasters: {
        1: ({ by, ...rest }: Record<string, unknown>) => ({ ...rest, who: by }),
        2: (data: Record<string, unknown>) => ({ ...data, why: data["why"] ?? "not said" }),
      },
    };
    try {
      assert.deepEqual(read("Held", 1, { by: "ann" }), {
        type: "Held",
        data: { who: "ann", why: "not said" },
      });
      assert.deepEqual(read("Held", 2, { who: "bob" }).data, { who: "bob", why: "not said" });
      assert.throws(() => read("Held", 4, { who: "eve", why: "later" }), UnreadableEvent);
    } finally {
      catalogue["Held"] = known;
    }
  });

  it("refuses what no version of the catalogue says", () => {
    assert.throws(() => read("Sung", 1, {}), /not in the catalogue/);
    assert.throws(() => read("Delivered", 1, { ...delivered.data, extra: 1 }), UnreadableEvent);
    assert.throws(() => read("toString", 1, {}), /not in the catalogue/);
  });
});

/** The engine whose commits run on a thread: the same promises as without it, and after a failure. */
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import type { RawEvent, Transaction } from "../../events/engine.ts";
import { NEWEST_SCHEMA } from "../../events/migrations.ts";
import { openReader } from "../../events/open.ts";
import { SqliteEngine } from "../../events/sqlite_engine.ts";
import { StoreUnavailable, WrongVersion } from "../../events/store.ts";
import { ThreadedEngine } from "../../events/threaded_engine.ts";
import { delivered, enqueued, type Given, givenStore, smallBody, started } from "./given.ts";

describe("a store that commits on a thread", () => {
  let given: Given;

  beforeEach(async () => {
    given = await givenStore({ commitThread: true });
  });
  afterEach(() => given.end());

  it("shows an append to everybody when it has resolved: log, views, bodies, other processes", async () => {
    const body = smallBody("hello");
    const fact = enqueued({ body: body.sha256 });
    await given.store.append([{ stream: "a", expectedVersion: 0, facts: [fact] }], [body]);
    assert.equal((await given.store.readStream("a")).length, 1);
    assert.equal((await given.view.get("a"))?.state, "queued");
    assert.equal((await given.bodies.open(body.sha256)).size, 5);
    const reader = openReader(given.dataDir);
    assert.equal((await reader.readStream("a")).length, 1);
    reader.close();
  });

  it("goes on committing while the process does other things, and keeps the order", async () => {
    const appends = Array.from(
      { length: 50 },
      (_, n) => given.store.append([{ stream: `s${n}`, expectedVersion: 0, facts: [enqueued()] }]),
    );
    const stored = (await Promise.all(appends)).flat();
    assert.deepEqual(stored.map(({ position }) => position), stored.map((_, n) => n + 1));
    await Promise.all(
      stored.map(({ stream }) =>
        given.store.append([{ stream, expectedVersion: 1, facts: [started(1), delivered] }])
      ),
    );
    assert.equal((await given.view.depth()).delivered, 50);
  });

  it("refuses the second writer", async () => {
    await given.store.append([{ stream: "a", expectedVersion: 0, facts: [enqueued()] }]);
    await assert.rejects(
      given.store.append([{ stream: "a", expectedVersion: 0, facts: [enqueued()] }]),
      WrongVersion,
    );
  });

  it("has what it resolved after closing and opening again", async () => {
    await given.store.append([{ stream: "a", expectedVersion: 0, facts: [enqueued()] }]);
    given = await given.reopen({ commitThread: true });
    assert.equal((await given.store.readStream("a")).length, 1);
    await given.store.append([{ stream: "a", expectedVersion: 1, facts: [started(1)] }]);
  });

  it("refuses appends once it is closed", async () => {
    await given.store.close();
    const late = given.store.append([{ stream: "a", expectedVersion: 0, facts: [enqueued()] }]);
    await assert.rejects(late, StoreUnavailable);
  });
});

describe("a threaded engine", () => {
  let dir: string;
  let engine: ThreadedEngine;

  beforeEach(async () => {
    dir = await Deno.makeTempDir();
    engine = new ThreadedEngine(new SqliteEngine(`${dir}/test.db`), `${dir}/test.db`);
  });
  afterEach(async () => {
    await engine.close();
    await Deno.remove(dir, { recursive: true });
  });

  const event = (position: number): RawEvent => ({
    position,
    stream: "a",
    version: position,
    type: "Cancelled",
    schema: 1,
    time: "2026-01-31T09:30:00.000Z",
    data: "{}",
    prev: "",
    hash: "",
  });
  const transaction = (...positions: number[]): Transaction => ({
    events: positions.map(event),
    rows: [],
    counts: [],
    bodies: [],
  });

  it("says why a commit failed, keeps nothing of it, and commits again after recovering", async () => {
    await engine.commit(transaction(1));
    await assert.rejects(engine.commit(transaction(2, 1)), /UNIQUE constraint/);
    assert.equal(engine.head(), 1);
    await engine.recover();
    await engine.commit(transaction(2));
    assert.equal(engine.head(), 2);
  });

  it("fails every commit when the thread cannot open the database, until it can", async () => {
    const schema = (change: string) => {
      const db = new DatabaseSync(`${dir}/test.db`);
      db.exec(`PRAGMA user_version = ${change}`);
      db.close();
    };
    schema("999");
    await assert.rejects(engine.commit(transaction(1)), /newer Postledger/);
    await assert.rejects(engine.commit(transaction(1)), /not open/);
    schema(String(NEWEST_SCHEMA));
    await engine.recover();
    await engine.commit(transaction(1));
    assert.equal(engine.head(), 1);
  });

  it("can be closed twice, and without ever having committed", async () => {
    await engine.close();
    await engine.close();
  });
});

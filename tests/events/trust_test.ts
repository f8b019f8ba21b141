import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { DataFolderError } from "../../events/data_folder.ts";
import { BodyDamaged, BodyMissing, UnreadableStream } from "../../events/store.ts";
import { inspectWal } from "../../events/wal.ts";
import { appendForeign, contents, flip, tamper } from "./damage.ts";
import {
  delivered,
  enqueued,
  type Given,
  givenStore,
  octetsOf,
  smallBody,
  started,
} from "./given.ts";

describe("a start on a data folder that came to harm", () => {
  let given: Given;
  let copy: string | undefined;
  beforeEach(async () => {
    given = await givenStore();
    for (let n = 0; n < 40; n++) {
      const body = smallBody(`body ${n}`.repeat(100));
      const facts = [enqueued({ body: body.sha256 })];
      await given.store.append([{ stream: `m${10 + n}`, expectedVersion: 0, facts }], [body]);
    }
    const done = [started(1), delivered];
    await given.store.append([{ stream: "m10", expectedVersion: 1, facts: done }]);
  });
  afterEach(async () => {
    await given.end();
    if (copy) await Deno.remove(copy, { recursive: true });
    copy = undefined;
  });

  const database = () => `${given.dataDir}/postledger.db`;
  const change = (sql: string) => tamper(given.dataDir, sql);

  /** The folder as a process that was killed leaves it: with a WAL. */
  const afterKill = async (): Promise<string> => {
    copy = await Deno.makeTempDir({ prefix: "postledger-killed-" });
    for (const name of ["postledger.db", "postledger.db-wal", "checkpoint.key", "checkpoint.pub"]) {
      await Deno.copyFile(`${given.dataDir}/${name}`, `${copy}/${name}`);
    }
    await Deno.mkdir(`${copy}/bodies`);
    return copy;
  };

  /** Refused with one line that says this, and nothing changed by it. */
  const refused = async (what: RegExp, dataDir = given.dataDir): Promise<void> => {
    const before = await contents(dataDir);
    await assert.rejects(givenStore({ dataDir }), (error: unknown) => {
      assert.ok(error instanceof DataFolderError, String(error));
      assert.match(error.message, what);
      assert.ok(error.message.includes(dataDir), error.message);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    });
    assert.deepEqual(await contents(dataDir), before);
  };

  it("goes well when there is none, with a WAL or without", async () => {
    const killed = await givenStore({ dataDir: await afterKill() });
    assert.equal(killed.store.head(), 42);
    assert.deepEqual(killed.broken, []);
    await killed.close();
    given = await given.reopen();
    assert.deepEqual(given.broken, []);
  });

  it("refuses a database whose pages, header or tables are damaged", async () => {
    await given.close();
    const whole = await Deno.readFile(database());
    const cases: readonly (readonly [string, () => Promise<void> | void, RegExp])[] = [
      ["magic", () => flip(database(), 0, 8), /file is not a database/],
      ["page size", () => flip(database(), 16), /./],
      ["schema page", () => flip(database(), 100, 160), /postledger\.db/],
      [
        "b-tree page",
        () => flip(database(), whole.length - 8192, whole.length - 8000),
        /Tree|malformed/,
      ],
      ["cut by a page", () => Deno.truncate(database(), whole.length - 4096), /cut short: 1 of/],
      ["cut to less than a header", () => Deno.truncate(database(), 50), /less than a header/],
      ["table", () => change("ALTER TABLE queue ADD COLUMN x TEXT"), /table queue is not as/],
    ];
    for (const [, harm, what] of cases) {
      await Deno.writeFile(database(), whole);
      await harm();
      await refused(what);
    }
  });

  it("refuses a WAL of which transactions that were on disk would be lost", async () => {
    const dataDir = await afterKill();
    const wal = `${dataDir}/postledger.db-wal`;
    const whole = await Deno.readFile(wal);
    const frames = (whole.length - 32) / 4120;
    assert.equal((await inspectWal(wal)).frames, frames);
    await flip(wal, 32 + 4120 * Math.floor(frames / 2) + 500);
    await refused(/-wal: frame \d+ is damaged, and at least \d+ transactions/, dataDir);
    await Deno.writeFile(wal, whole);
    await flip(wal, 9);
    await refused(/-wal: its header is damaged/, dataDir);
  });

  it("takes a WAL whose last transaction was cut short for what it is", async () => {
    const dataDir = await afterKill();
    const wal = `${dataDir}/postledger.db-wal`;
    await Deno.truncate(wal, (await Deno.stat(wal)).size - 100);
    const state = await inspectWal(wal);
    assert.equal(state.damage, undefined);
    const opened = await givenStore({ dataDir });
    assert.equal(opened.store.head(), 40, "the last append was not on disk as a whole");
    await opened.close();
  });

  it("refuses a log from which events were dropped or exchanged", async () => {
    await given.close();
    const whole = await Deno.readFile(database());
    const both = (table: string) => `DELETE FROM ${table} WHERE stream = 'm20';`;
    change(both("events") + both("queue"));
    await refused(/the event at position 11 is missing/);
    await Deno.writeFile(database(), whole);
    change("DELETE FROM events WHERE position > 40");
    await refused(/covers events up to position 42, they end at 40/);
    await Deno.writeFile(database(), whole);
    change("UPDATE checkpoints SET root = replace(root, substr(root, 1, 1), 'e')");
    await refused(/did not sign checkpoint 1/);
  });

  it("refuses rows that do not say what the events do", async () => {
    await given.close();
    const whole = await Deno.readFile(database());
    change("UPDATE queue SET recipient = 'thief@example.com' WHERE stream = 'm30'");
    await refused(/row of message m30 is wrong; run "deno task doctor --repair/);
    await Deno.writeFile(database(), whole);
    change("UPDATE queue SET state = 'delivered', finished = 1 WHERE stream = 'm30'");
    await refused(/rows, their indexes and their counters do not agree/);
  });

  it("sets aside a stream that is broken, and no other", async () => {
    await given.close();
    change(`UPDATE events SET data = replace(data, 'rcpt@', 'thief@') WHERE stream = 'm30'`);
    appendForeign(given.dataDir, "m31", { type: "Sung", schema: 1, data: "{}" });
    appendForeign(given.dataDir, "m32", { type: "Held", schema: 2, data: "{}" });
    given = await givenStore({ dataDir: given.dataDir, clock: given.clock });
    assert.deepEqual(given.broken.map(({ message }) => message).sort(), [
      "stream m30, version 1: hash does not cover the content",
      `stream m31, version 2: event type "Sung" is not in the catalogue of this version`,
      "stream m32, version 2: Held has schema 2, this version knows up to 1: written by a newer one",
    ]);
    await assert.rejects(given.store.readStream("m30"), UnreadableStream);
    assert.equal((await given.store.readStream("m33")).length, 1);
    await given.bodies.open(smallBody("body 20".repeat(100)).sha256); // the one of m30
  });

  it("keeps content that an event which cannot be read may need", async () => {
    await given.close();
    change(`UPDATE events SET schema = 9 WHERE stream = 'm30';
            UPDATE projections SET version = 0`);
    for (let n = 0; n < 2; n++) {
      given = await givenStore({ dataDir: given.dataDir, clock: given.clock });
      assert.equal(await given.view.get("m30"), undefined);
      await given.bodies.open(smallBody("body 20".repeat(100)).sha256);
      await given.close();
    }
  });

  it("names large bodies whose files are gone, and delivers nothing in their place", async () => {
    const large = async (letter: number) => {
      const writer = given.bodies.create();
      await writer.write(new Uint8Array(300_000).fill(letter));
      const body = await writer.finish();
      const facts = [enqueued({ body: body.sha256 })];
      const stream = `large${letter}`;
      await given.store.append([{ stream, expectedVersion: 0, facts }], [body]);
      return {
        sha256: body.sha256,
        path: `${given.dataDir}/bodies/${body.sha256.slice(0, 2)}/${body.sha256}`,
      };
    };
    const [gone, short, changed] = [await large(1), await large(2), await large(3)];
    await Deno.remove(gone.path);
    await Deno.truncate(short.path, 7);
    await flip(changed.path, 299_999);
    given = await given.reopen();
    const lost = Object.fromEntries(given.lostBodies.map(({ path, why }) => [path, why]));
    assert.deepEqual(lost, {
      [gone.path]: "is missing",
      [short.path]: "has 7 octets, not 300000",
    });
    await assert.rejects(given.bodies.open(gone.sha256), BodyMissing);
    await assert.rejects(given.bodies.open(short.sha256), BodyDamaged);
    const reader = await given.bodies.open(changed.sha256);
    await assert.rejects(octetsOf(reader.chunks()), BodyDamaged);
  });

  it("does not give out content that was changed in the database", async () => {
    await given.close();
    const db = new DatabaseSync(database());
    db.exec("UPDATE bodies SET octets = x'00'");
    db.close();
    given = await givenStore({ dataDir: given.dataDir, clock: given.clock });
    const { sha256 } = smallBody("body 5".repeat(100));
    await assert.rejects(given.bodies.open(sha256), BodyDamaged);
  });
});

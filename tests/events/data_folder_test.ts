import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { DataFolderError } from "../../events/data_folder.ts";
import { NEWEST_SCHEMA } from "../../events/migrations.ts";
import { openReader } from "../../events/open.ts";
import {
  delivered,
  enqueued,
  type Given,
  givenStore,
  octetsOf,
  smallBody,
  started,
} from "./given.ts";

const refused = (what: RegExp) => (error: unknown) => {
  assert.ok(error instanceof DataFolderError, String(error));
  assert.match(error.message, what);
  assert.doesNotMatch(error.message, /\n/);
  return true;
};

describe("the data folder", () => {
  let given: Given;
  beforeEach(async () => {
    given = await givenStore();
  });
  afterEach(() => given.end());

  const mode = async (name: string) =>
    ((await Deno.stat(`${given.dataDir}${name}`)).mode! & 0o777).toString(8);
  const database = () => `${given.dataDir}/postledger.db`;
  const change = (sql: string) => {
    const db = new DatabaseSync(database());
    db.exec(sql);
    db.close();
  };
  const opening = () => givenStore({ dataDir: given.dataDir });

  it("is closed to others", async () => {
    const dataDir = `${given.dataDir}/made/here`;
    const other = await givenStore({ dataDir });
    assert.equal(await mode("/made/here"), "700");
    assert.equal(await mode("/made/here/postledger.db"), "600");
    assert.equal(await mode("/made/here/postledger.db-wal"), "600");
    assert.equal(await mode("/made/here/checkpoint.key"), "600");
    assert.equal(await mode("/made/here/serve.lock"), "600");
    const writer = other.bodies.create();
    await writer.write(new Uint8Array(300_000));
    const { sha256 } = await writer.finish();
    assert.equal(await mode("/made/here/bodies"), "700");
    assert.equal(await mode(`/made/here/bodies/${sha256.slice(0, 2)}/${sha256}`), "600");
    await other.close();
  });

  it("is held by one queue at a time", async () => {
    await assert.rejects(opening(), refused(new RegExp(`in use by .*process ${Deno.pid}`)));
    assert.deepEqual(given.store.health(), { ok: true });
    await given.store.append([{ stream: "a", expectedVersion: 0, facts: [enqueued()] }]);
    given = await given.reopen();
    assert.equal(given.store.head(), 1);
  });

  it("has a database with our mark, in WAL, with every migration", () => {
    const db = new DatabaseSync(database(), { readOnly: true });
    const pragma = (name: string) => Object.values(db.prepare(`PRAGMA ${name}`).get()!)[0];
    assert.equal(pragma("application_id"), 0x504c4447);
    assert.equal(pragma("user_version"), NEWEST_SCHEMA);
    assert.equal(pragma("journal_mode"), "wal");
    assert.throws(() => db.exec("DELETE FROM events"), /readonly/);
    db.close();
  });

  it("has a database that lets nobody rewrite an event", async () => {
    await given.store.append([{ stream: "a", expectedVersion: 0, facts: [enqueued()] }]);
    assert.throws(() => change("UPDATE events SET time = ''"), /never rewritten/);
    assert.throws(() => change("DELETE FROM events"), /never dropped/);
  });

  for (
    const [name, sql, what] of [
      ["of a newer version", `PRAGMA user_version = ${NEWEST_SCHEMA + 1}`, /newer Postledger/],
      ["of another program", "PRAGMA application_id = 77", /not a Postledger database/],
    ] as const
  ) {
    it(`refuses a database ${name}, and leaves it as it was`, async () => {
      await given.close();
      change(sql);
      const before = await Deno.readFile(database());
      await assert.rejects(opening(), refused(what));
      assert.throws(() => openReader(given.dataDir), refused(what));
      assert.deepEqual(await Deno.readFile(database()), before);
    });
  }

  it("refuses what is no database, with its name", async () => {
    await given.close();
    await Deno.writeTextFile(database(), "this is a letter, not a ledger. ".repeat(200));
    await assert.rejects(opening(), refused(/postledger\.db: file is not a database/));
  });

  it("refuses a database that was cut short, and damages nothing further", async () => {
    for (let i = 0; i < 50; i++) {
      await given.store.append([{ stream: `m${i}`, expectedVersion: 0, facts: [enqueued()] }]);
    }
    await given.close();
    const { size } = await Deno.stat(database());
    await Deno.truncate(database(), size >> 1);
    const before = await Deno.readFile(database());
    await assert.rejects(
      opening(),
      refused(/postledger\.db: is cut short: \d+ of its \d+ pages are missing/),
    );
    assert.deepEqual(await Deno.readFile(database()), before);
  });

  it("refuses to begin anew where a database was lost", async () => {
    await given.close();
    await Deno.truncate(database());
    await assert.rejects(opening(), refused(/is empty, but .* there was one/));
    await Deno.remove(database());
    await assert.rejects(opening(), refused(/is missing, but .* there was one/));
  });

  it("refuses a key that others can read, and says how to mend it", async () => {
    await given.close();
    const key = `${given.dataDir}/checkpoint.key`;
    await Deno.chmod(key, 0o640);
    await assert.rejects(opening(), refused(/mode 640.*chmod 600/));
    await Deno.chmod(key, 0o600);
    await Deno.writeTextFile(key, "-----BEGIN NONSENSE-----");
    await assert.rejects(opening(), refused(/not an Ed25519 key/));
  });

  it("refuses to go on without the key of its checkpoints", async () => {
    await given.store.append([{ stream: "a", expectedVersion: 0, facts: [enqueued()] }]);
    await given.close();
    await Deno.remove(`${given.dataDir}/checkpoint.key`);
    await assert.rejects(opening(), refused(/checkpoint\.key is missing.*backup/));
  });

  it("refuses a key that did not sign the log", async () => {
    await given.store.append([{ stream: "a", expectedVersion: 0, facts: [enqueued()] }]);
    await given.close();
    const other = await givenStore();
    await other.close();
    await Deno.copyFile(`${other.dataDir}/checkpoint.key`, `${given.dataDir}/checkpoint.key`);
    await other.end();
    await assert.rejects(opening(), refused(/did not sign checkpoint 1/));
  });

  it("is not lost with its process, whenever that ends", async () => {
    await given.store.append([{ stream: "a", expectedVersion: 0, facts: [enqueued()] }]);
    // What a process that is killed leaves behind: no close, no checkpoint of the WAL.
    const copy = await Deno.makeTempDir();
    for (const name of ["postledger.db", "postledger.db-wal", "checkpoint.key"]) {
      await Deno.copyFile(`${given.dataDir}/${name}`, `${copy}/${name}`);
    }
    const other = await givenStore({ dataDir: copy });
    assert.deepEqual(await other.store.readStream("a"), await given.store.readStream("a"));
    await other.end();
  });

  it("gives a reader everything, with and without a queue running on it", async () => {
    assert.throws(() => openReader(`${given.dataDir}/none`), refused(/no queue in/));
    const body = smallBody("hello");
    const facts = [enqueued({ body: body.sha256 })];
    await given.store.append([{ stream: "a", expectedVersion: 0, facts }], [body]);
    const reader = openReader(given.dataDir);
    assert.equal((await reader.readStream("a")).length, 1);
    assert.equal((await reader.view.get("a"))?.state, "queued");
    const octets = await octetsOf((await reader.bodies.open(body.sha256)).chunks());
    assert.equal(new TextDecoder().decode(octets), "hello");

    await given.store.append([{ stream: "a", expectedVersion: 1, facts: [started(1), delivered] }]);
    assert.equal((await reader.readAll(1, 10)).length, 2);
    assert.equal((await reader.view.depth()).delivered, 1);
    reader.close();

    await given.close();
    const later = openReader(given.dataDir);
    assert.equal((await later.raw.stream("a")).length, 3);
    assert.equal((await later.raw.checkpoints(0, 10)).length, 1);
    assert.equal((await later.publicKey()).asymmetricKeyType, "ed25519");
    later.close();
  });
});

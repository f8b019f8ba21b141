import { after, afterEach, before, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { backUp, BackupError } from "../../events/backup.ts";
import { examine } from "../../events/doctor.ts";
import type { DoctorFinding } from "../../events/doctor/finding.ts";
import { paxRecord } from "../../events/tar.ts";
import { cancelled, enqueued, type Given, givenStore, octetsOf, smallBody } from "./given.ts";
import { flip } from "./damage.ts";

describe("a backup", () => {
  let scratch: string;
  let given: Given;
  before(async () => {
    scratch = await Deno.makeTempDir({ prefix: "postledger-backup-" });
  });
  after(() => Deno.remove(scratch, { recursive: true }));
  beforeEach(async () => {
    given = await givenStore();
  });
  afterEach(() => given.end());

  const large = async (letter: number): Promise<string> => {
    const writer = given.bodies.create();
    await writer.write(new Uint8Array(300_000).fill(letter));
    const body = await writer.finish();
    const stream = `large${letter}`;
    const facts = [enqueued({ body: body.sha256 })];
    await given.store.append([{ stream, expectedVersion: 0, facts }], [body]);
    return body.sha256;
  };

  /** What tar(1) makes of it: the header fields and contents that POSIX says where to find. */
  const unpack = async (file: string): Promise<string> => {
    const dataDir = await Deno.makeTempDir({ dir: scratch });
    await Deno.chmod(dataDir, 0o700);
    const archive = await Deno.readFile(file);
    const text = (from: number, to: number) =>
      new TextDecoder().decode(archive.subarray(from, to)).replace(/[\0 ].*$/s, "");
    for (let at = 0; archive[at] !== 0;) {
      const header = archive.slice(at, at + 512);
      header.fill(32, 148, 156);
      assert.equal(header.reduce((a, b) => a + b, 0), parseInt(text(at + 148, at + 156), 8));
      const path = `${dataDir}/${text(at, at + 100)}`;
      const mode = parseInt(text(at + 100, at + 108), 8);
      const size = parseInt(text(at + 124, at + 136), 8);
      if (text(at + 156, at + 157) === "5") await Deno.mkdir(path, { mode });
      else {
        await Deno.writeFile(path, archive.subarray(at + 512, at + 512 + size), { mode });
        await Deno.chmod(path, mode);
      }
      at += 512 + Math.ceil(size / 512) * 512;
    }
    return dataDir;
  };

  const diagnose = async (dataDir: string): Promise<DoctorFinding[]> => {
    const found: DoctorFinding[] = [];
    const report = (finding: DoctorFinding) => void (finding.note || found.push(finding));
    const others = { secret: ["api-token"], open: [] };
    await examine(dataDir, { beginFold: () => () => {}, others, report });
    return found;
  };

  it("of a queue that runs is one that the doctor finds nothing in", async () => {
    const sha256 = await large(65);
    const small = smallBody("hello");
    const facts = [enqueued({ body: small.sha256 })];
    await given.store.append([{ stream: "small", expectedVersion: 0, facts }], [small]);
    await Deno.writeTextFile(`${given.dataDir}/api-token`, "secret");
    const file = `${scratch}/one.tar`;
    const done = await backUp(given.dataDir, file, { also: ["api-token", "none"] });
    assert.deepEqual({ ...done, octets: 0 }, { events: 2, files: 1, octets: 0 });
    assert.equal((await Deno.stat(file)).size, done.octets);
    assert.equal((await Deno.stat(file)).mode! & 0o777, 0o600);
    const left = (await Array.fromAsync(Deno.readDir(given.dataDir))).map(({ name }) => name);
    assert.ok(!left.some((name) => name.startsWith("backup-")), left.join());

    const dataDir = await unpack(file);
    assert.deepEqual(await diagnose(dataDir), []);
    assert.equal(await Deno.readTextFile(`${dataDir}/api-token`), "secret");
    const restored = await givenStore({ dataDir });
    assert.deepEqual(await restored.store.readAll(0, 9), await given.store.readAll(0, 9));
    const octets = await octetsOf((await restored.bodies.open(sha256)).chunks());
    assert.equal(octets.length, 300_000);
    await restored.close();
  });

  it("holds every body that its database needs, however fast they come and go", async () => {
    let stop = false;
    let delivered = 0;
    const load = (async () => {
      for (let n = 0; !stop; n = (n + 1) % 1_000) {
        const writer = given.bodies.create();
        await writer.write(new Uint8Array(300_000).fill(n % 256, 0, 8));
        const body = await writer.finish();
        const stream = `m${delivered}`;
        const facts = [enqueued({ body: body.sha256 })];
        await given.store.append([{ stream, expectedVersion: 0, facts }], [body]);
        if (delivered % 3 > 0) {
          await given.store.append([{ stream, expectedVersion: 1, facts: [cancelled] }]);
        }
        delivered += 1;
      }
    })();
    for (let n = 0; n < 4; n++) {
      const file = `${scratch}/load${n}.tar`;
      await backUp(given.dataDir, file);
      assert.deepEqual(await diagnose(await unpack(file)), []);
      await Deno.remove(file);
    }
    stop = true;
    await load;
    assert.ok(delivered > 8, `${delivered} messages meanwhile`);
  });

  it("replaces nothing unasked, and leaves nothing behind when it fails", async () => {
    const file = `${scratch}/kept.tar`;
    await Deno.writeTextFile(file, "mine");
    await assert.rejects(backUp(given.dataDir, file), /is there already; --force/);
    assert.equal(await Deno.readTextFile(file), "mine");
    await backUp(given.dataDir, file, { force: true });
    assert.notEqual(await Deno.readTextFile(file), "mine");
    await assert.rejects(backUp(`${scratch}/none`, `${scratch}/x.tar`), BackupError);

    const sha256 = await large(66);
    const path = `${given.dataDir}/bodies/${sha256.slice(0, 2)}/${sha256}`;
    await flip(path, 1_000);
    await assert.rejects(backUp(given.dataDir, `${scratch}/y.tar`), /is damaged/);
    await Deno.remove(path);
    await assert.rejects(backUp(given.dataDir, `${scratch}/y.tar`), /needed and has no file/);
    const names = (await Array.fromAsync(Deno.readDir(scratch))).map(({ name }) => name);
    assert.ok(!names.some((name) => name.includes("y.tar")), names.join());
  });

  it("of a database that is damaged is not made", async () => {
    await given.store.append([{ stream: "a", expectedVersion: 0, facts: [enqueued()] }]);
    await given.close();
    const db = new DatabaseSync(`${given.dataDir}/postledger.db`);
    db.exec("CREATE TABLE extra (a)");
    db.close();
    await assert.rejects(backUp(given.dataDir, `${scratch}/z.tar`), /not sound: table extra/);
  });

  it("has sizes that the old header has no room for in a header of their own", () => {
    assert.equal(new TextDecoder().decode(paxRecord("size", "8589934592")), "19 size=8589934592\n");
    assert.equal(new TextDecoder().decode(paxRecord("a", "12")), "7 a=12\n");
  });
});

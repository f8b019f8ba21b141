import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import type { DoctorFinding } from "../../../events/doctor/finding.ts";
import { run as doctor } from "../../../src/cli/doctor.ts";
import { appendForeign, contents, flip, tamper } from "../../events/damage.ts";
import { enqueued, type Given, smallBody } from "../../events/given.ts";
import { DELIVERED, givenQueue, HELD, HOSTILE, type Ran, ran } from "./given_queue.ts";

describe("doctor", () => {
  let given: Given;
  let large: string;
  beforeEach(async () => {
    given = await givenQueue();
    const writer = given.bodies.create();
    await writer.write(new Uint8Array(300_000).fill(65));
    const body = await writer.finish();
    large = `${given.dataDir}/bodies/${body.sha256.slice(0, 2)}/${body.sha256}`;
    const facts = [enqueued({ body: body.sha256 })];
    await given.store.append([{ stream: LARGE, expectedVersion: 0, facts }], [body]);
    await given.close();
  });
  afterEach(() => given.end());

  const LARGE = "01KGA000000000000000000004";
  const examine = (...args: string[]): Promise<Ran> =>
    ran(doctor, [...args, "--data", given.dataDir]);
  const findings = async (...args: string[]): Promise<DoctorFinding[]> => {
    const { code, stdout, stderr } = await examine("--json", ...args);
    assert.equal(stderr, "");
    const { ok, findings } = JSON.parse(stdout);
    assert.equal(code, ok ? 0 : 1);
    return findings;
  };
  const only = async (): Promise<DoctorFinding> => {
    const all = await findings();
    assert.equal(all.length, 1, JSON.stringify(all, undefined, 2));
    return all[0]!;
  };
  const change = (sql: string) => tamper(given.dataDir, sql);
  const database = () => `${given.dataDir}/postledger.db`;

  it("finds nothing in a folder that is well, and changes nothing", async () => {
    const before = await contents(given.dataDir);
    const { code, stdout } = await examine();
    assert.equal(stdout, "ok: 18 events of 4 streams, 1 checkpoints\n");
    assert.equal(code, 0);
    assert.equal((await examine("--repair")).code, 0);
    assert.deepEqual(await contents(given.dataDir), before);
  });

  it("refuses a folder that a server runs on, or that has no queue", async () => {
    given = await given.reopen();
    const inUse = await examine();
    assert.equal(inUse.code, 1);
    assert.match(inUse.stderr, /in use by another queue \(process \d+\)/);
    const none = await ran(doctor, ["--data", `${given.dataDir}/none`]);
    assert.equal(none.code, 1);
    assert.match(none.stderr, /there is no queue in /);
    assert.equal((await examine("--mend")).code, 2);
  });

  it("finds a changed event, says which, and cannot repair it", async () => {
    change(
      `UPDATE events SET data = replace(data, 'relay', 'delay') WHERE stream = '${DELIVERED}'`,
    );
    const found = await only();
    assert.equal(found.kind, "stream");
    assert.match(found.where, new RegExp(`message ${DELIVERED}, version 8, position 8`));
    assert.match(found.what, /hash does not cover the content/);
    assert.equal(found.repair, undefined);
    const before = await contents(given.dataDir);
    assert.equal((await examine("--repair")).code, 1);
    assert.deepEqual(await contents(given.dataDir), before);
  });

  it("finds a stream that was dropped whole", async () => {
    change(
      `DELETE FROM events WHERE stream = '${HELD}'; DELETE FROM queue WHERE stream = '${HELD}'`,
    );
    const all = await findings();
    assert.ok(all.some(({ what }) => /positions 16 to 17 are missing/.test(what)));
    assert.ok(all.some(({ kind, what }) => kind === "log" && /root does not match/.test(what)));
  });

  it("finds an event of an unknown type, a newer schema, and one that cannot follow", async () => {
    appendForeign(given.dataDir, HOSTILE, { type: "Sung", schema: 1, data: "{}" });
    appendForeign(given.dataDir, HELD, { type: "Held", schema: 9, data: "{}" });
    const data = '{"attempt":1,"next":"2026-01-31T09:37:30.000Z"}';
    appendForeign(given.dataDir, DELIVERED, { type: "AttemptStarted", schema: 1, data });
    const all = await findings();
    const said = all.filter(({ kind }) => kind === "stream").map(({ what }) => what).join("\n");
    assert.match(said, /"Sung" is not in the catalogue/);
    assert.match(said, /Held has schema 9, this version knows up to 1/);
    assert.match(said, /AttemptStarted cannot follow: the message is delivered/);
    assert.equal(all.length, 3, "rows of broken streams are not judged");
  });

  it("repairs rows, counters and use counts from the log, and no event", async () => {
    change(`
      UPDATE queue SET state = 'delivered', due = NULL, attempts = 7 WHERE stream = '${HOSTILE}';
      DELETE FROM queue WHERE stream = '${HELD}';
      UPDATE counts SET n = 40 WHERE value = 'queued';
      UPDATE bodies SET uses = 9`);
    const all = await findings();
    const kinds = Object.groupBy(all, ({ kind }) => kind);
    assert.match(kinds.projection![0]!.what, /state is "delivered", not "queued"; attempts is 7/);
    assert.match(kinds.projection![1]!.what, /is missing/);
    assert.ok(kinds.counter!.some(({ what }) => /counted as 40/.test(what)));
    assert.ok(kinds.counter!.some(({ what }) => /needed by 9 messages, it is by 1/.test(what)));
    assert.ok(all.every(({ repair, remedy }) => repair ?? remedy));
    const { code, stdout } = await examine("--repair");
    assert.equal(code, 0, stdout);
    const again = await given.reopen();
    assert.equal((await again.view.get(HOSTILE))!.state, "queued");
    assert.equal((await again.view.get(HELD))!.last_error, "looked odd");
    assert.deepEqual((await again.view.depth()).queued, 2);
    await again.close();
  });

  it("drops what nothing needs, unless a message that cannot be read may need it", async () => {
    const { sha256 } = smallBody("nobody");
    change(
      `INSERT INTO bodies VALUES ('${sha256}', 6, 1, 'nobody')`.replace(
        "'nobody')",
        "x'6e6f626f6479')",
      ),
    );
    await Deno.writeTextFile(`${given.dataDir}/bodies/tmp-left`, "half");
    await Deno.mkdir(`${given.dataDir}/bodies/ab`, { recursive: true });
    await Deno.writeTextFile(`${given.dataDir}/bodies/ab/${"ab".repeat(32)}`, "unknown");
    const all = await findings();
    assert.deepEqual(all.map(({ kind }) => kind), ["orphan", "orphan", "orphan"]);
    assert.equal((await examine("--repair")).code, 0);

    change(`INSERT INTO bodies VALUES ('${sha256}', 6, 1, x'6e6f626f6479')`);
    appendForeign(given.dataDir, HELD, { type: "Sung", schema: 1, data: "{}" });
    const kept = (await findings("--repair")).find(({ kind }) => kind === "orphan");
    assert.match(kept!.remedy!, /may need it/);
  });

  it("finds content that is missing, too short, or damaged", async () => {
    const octets = await Deno.readFile(large);
    await Deno.truncate(large, 1_000);
    assert.match((await only()).what, /has 1000 octets, not 300000/);
    octets[7]! ^= 1;
    await Deno.writeFile(large, octets);
    const found = await only();
    assert.match(found.what, /does not have the hash that it is named for/);
    assert.match(found.where, new RegExp(`message ${LARGE}`));
    await Deno.remove(large);
    assert.match((await only()).what, /there is no file/);
    change(`UPDATE bodies SET octets = x'00' WHERE octets IS NOT NULL`);
    assert.equal((await findings()).filter(({ kind }) => kind === "body").length, 3);
    assert.equal((await examine("--repair")).code, 1);
  });

  it("finds secrets that others can read, and takes the right away", async () => {
    await Deno.chmod(`${given.dataDir}/checkpoint.key`, 0o644);
    await Deno.chmod(given.dataDir, 0o755);
    await Deno.remove(`${given.dataDir}/checkpoint.pub`);
    await Deno.mkdir(`${given.dataDir}/backup-00`);
    const all = await findings();
    assert.ok(all.some(({ where, what }) => where.endsWith(".key") && /mode 644/.test(what)));
    assert.ok(all.some(({ where }) => where.endsWith("/backup-00")));
    const { code, stdout } = await examine("--repair");
    assert.equal(code, 0, stdout);
    assert.equal((await Deno.stat(given.dataDir)).mode! & 0o777, 0o700);
    await (await given.reopen()).close();
  });

  it("finds indexes that disagree with their table, and makes them anew", async () => {
    // As an index looks that was not kept in step: its entries are those of another order.
    const octets = await Deno.readFile(database());
    const text = new TextDecoder("latin1").decode(octets);
    const entry = `example.org${HOSTILE}`; // domain and stream, one behind the other
    assert.ok(text.includes(entry));
    await flip(database(), text.indexOf(entry) + 8);
    assert.ok((await findings()).some(({ repair }) => repair === "make the indexes anew"));
    const { code, stdout } = await examine("--repair");
    assert.equal(code, 0, stdout);
  });

  it("says so when the database cannot be read, or is not as it was made", async () => {
    const whole = await Deno.readFile(database());
    change("CREATE TABLE extra (a); DROP INDEX queue_domain");
    const all = await findings();
    assert.deepEqual(all.map(({ kind, what }) => `${kind}: ${what}`), [
      "schema: index queue_domain is missing",
      "schema: table extra is not ours",
    ]);
    await Deno.writeFile(database(), whole);
    await flip(database(), 4096, 4096 + 64);
    assert.equal((await findings())[0]!.kind, "database");
    await Deno.writeFile(database(), whole.subarray(0, whole.length - 8192));
    assert.match((await only()).what, /is cut short: 2 of its \d+ pages/);
    await Deno.truncate(database(), 0);
    assert.match((await only()).what, /is empty/);
  });

  it("shows findings in lines that a terminal can be trusted with", async () => {
    change(`UPDATE queue SET last_error = char(27) || '[2J' WHERE stream = '${HELD}'`);
    const { code, stdout } = await examine();
    assert.equal(code, 1);
    // deno-lint-ignore no-control-regex
    assert.doesNotMatch(stdout, /[\x00-\x09\x0b-\x1f]/);
    assert.match(stdout, /^projection: queue, row 01KGA0+3: differs from its events: last_error/);
    assert.match(stdout, /means .*\n {4}repair {2}--repair can: write the row/);
  });
});

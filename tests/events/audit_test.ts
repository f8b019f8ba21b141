import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { DatabaseSync } from "node:sqlite";
import fc from "fast-check";
import type { Fact } from "../../events/catalogue.ts";
import { exportCsv } from "../../events/audit/csv.ts";
import { exportJsonLines, parseJsonLines } from "../../events/audit/jsonl.ts";
import { trail, type TrailEntry, type TrailFilter } from "../../events/audit/trail.ts";
import { verifyExport, verifyLog } from "../../events/audit/verify.ts";
import { eventHash, GENESIS } from "../../events/chain.ts";
import { CHECKPOINT_EVENTS } from "../../events/checkpoints.ts";
import { MerkleTree } from "../../events/merkle.ts";
import { replay } from "../../events/replay.ts";
import type { RawEvent } from "../../events/engine.ts";
import {
  cancelled,
  delivered,
  enqueued,
  failed,
  type Given,
  givenStore,
  sha256,
  started,
} from "./given.ts";

async function* each<T>(items: Iterable<T>): AsyncGenerator<T> {
  yield* items;
}

/** Three messages, and a checkpoint in the middle and at the end. */
async function threeMessages(given: Given): Promise<void> {
  const { store, clock } = given;
  const append = (stream: string, expectedVersion: number, ...facts: Fact[]) =>
    store.append([{ stream, expectedVersion, facts }]);
  await append("m1", 0, enqueued({ rcptTo: "one@example.net" }));
  await append("m2", 0, enqueued({ rcptTo: "two@example.net" }));
  await append("m1", 1, started(1), failed(false, "greylisted, try later"));
  await clock.advance(60_000);
  await append("m3", 0, enqueued({ mailFrom: "=cmd|' /C calc'!A0", rcptTo: "three@example.net" }));
  await append("m2", 1, started(1), delivered);
  await append("m1", 3, started(2), delivered);
  await append("m3", 1, { ...cancelled, data: { who: "@ann", why: 'a "reason",\nwith lines' } });
  await given.store.close();
}

describe("the Merkle tree", () => {
  // RFC 6962, section 2.1, written out as it stands there.
  const hash = (leaves: readonly string[]): Uint8Array => {
    const bytes = (...parts: Uint8Array[]) => Uint8Array.from(parts.flatMap((part) => [...part]));
    const digest = (octets: Uint8Array) => Uint8Array.fromHex(sha256(octets));
    if (leaves.length === 0) return digest(new Uint8Array());
    if (leaves.length === 1) {
      return digest(bytes(Uint8Array.of(0), Uint8Array.fromHex(leaves[0]!)));
    }
    let k = 1;
    while (2 * k < leaves.length) k *= 2;
    return digest(bytes(Uint8Array.of(1), hash(leaves.slice(0, k)), hash(leaves.slice(k))));
  };

  it("is that of RFC 6962, whatever the pieces it is grown by", () => {
    for (let n = 0; n <= 33; n++) {
      const leaves = Array.from({ length: n }, (_, i) => sha256(Uint8Array.of(i)));
      const tree = MerkleTree.EMPTY.add(leaves.slice(0, n >> 1)).add(leaves.slice(n >> 1));
      assert.equal(tree.root(), hash(leaves).toHex(), `${n} leaves`);
      assert.equal(tree.size, n);
    }
  });
});

describe("checkpoints", () => {
  let given: Given;
  beforeEach(async () => {
    given = await givenStore();
  });
  afterEach(() => given.end());
  const append = (stream: string) =>
    given.store.append([{ stream, expectedVersion: 0, facts: [enqueued()] }]);
  const spans = async () =>
    (await given.raw.checkpoints(0, 100)).map(({ number, from, to, count }) => [
      number,
      from,
      to,
      count,
    ]);

  it("come a minute after the first event, and no timer runs when nothing is new", async () => {
    assert.equal(given.clock.pending, 0);
    await append("a");
    await given.clock.advance(59_999);
    await append("b");
    assert.deepEqual(await spans(), []);
    await given.clock.advance(1);
    assert.deepEqual(await spans(), [[1, 1, 2, 2]]);
    assert.equal(given.clock.pending, 0);
  });

  it("come at the latest with so many events, and at close", async () => {
    const n = CHECKPOINT_EVENTS + 10;
    await Promise.all(Array.from({ length: n }, (_, i) => append(`m${i}`)));
    const [first, ...more] = await spans();
    assert.ok(first![3]! >= CHECKPOINT_EVENTS && first![3]! < CHECKPOINT_EVENTS + 1000);
    assert.deepEqual(more, []);
    given = await given.reopen();
    assert.equal((await spans()).at(-1)![2], n);
    assert.equal((await verifyLog(trail(given.raw), given.publicKey)).uncovered, 0);
  });

  it("cover what a crash left uncovered", async () => {
    await append("a");
    const copy = await Deno.makeTempDir();
    for (const name of ["postledger.db", "postledger.db-wal", "checkpoint.key", "checkpoint.pub"]) {
      await Deno.copyFile(`${given.dataDir}/${name}`, `${copy}/${name}`);
    }
    await Deno.chmod(`${copy}/checkpoint.key`, 0o600);
    const other = await givenStore({ dataDir: copy });
    assert.equal(other.store.head(), 1);
    await other.clock.advance(60_000);
    assert.deepEqual((await other.raw.checkpoints(0, 9)).map(({ to }) => to), [1]);
    await other.end();
  });
});

describe("verifying", () => {
  let given: Given;
  let entries: TrailEntry[];
  beforeEach(async () => {
    given = await givenStore();
    await threeMessages(given);
    given = await given.reopen();
    entries = await Array.fromAsync(trail(given.raw));
  });
  afterEach(() => given.end());

  const verify = (changed: Iterable<TrailEntry>) => verifyLog(each(changed), given.publicKey);
  const eventAt = (i: number) => (entries[i] as { event: RawEvent }).event;
  const eventIndexes = () => entries.flatMap((entry, i) => "event" in entry ? [i] : []);

  it("finds nothing wrong with what was written", async () => {
    const verdict = await verify(entries);
    assert.deepEqual(verdict.findings, []);
    assert.ok(verdict.ok);
    assert.deepEqual([verdict.events, verdict.checkpoints, verdict.uncovered], [10, 2, 0]);
  });

  it("finds and names any event that is changed", async () => {
    const members = ["position", "stream", "version", "type", "schema", "time", "data"] as const;
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...eventIndexes()),
        fc.constantFrom(...members, "prev" as const, "hash" as const),
        fc.nat(),
        async (i, member, at) => {
          const event = eventAt(i);
          const value = event[member];
          const other = typeof value === "number" ? value + 1 + at % 3 : flipped(value, at);
          const changed = entries.with(i, { event: { ...event, [member]: other } });
          const { findings } = await verify(changed);
          const position = member === "position" ? other : event.position;
          assert.ok(findings.some((finding) => finding.position === position), member);
        },
      ),
      { numRuns: 200 },
    );
  });

  it("finds and names any event that is dropped, or changes place with another", async () => {
    for (const i of eventIndexes()) {
      const dropped = await verify(entries.toSpliced(i, 1));
      assert.ok(!dropped.ok, `${i}`);
      const { position } = eventAt(i);
      const named = dropped.findings.map(({ what }) => what).join("\n");
      assert.match(named, new RegExp(`position ${position} is missing|end at ${position - 1}`));
      for (const j of eventIndexes().filter((j) => j > i)) {
        const swapped = entries.with(i, entries[j]!).with(j, entries[i]!);
        const { findings } = await verify(swapped);
        assert.ok(findings.some((finding) => finding.position === position), `${i} and ${j}`);
      }
    }
  });

  it("notices a stream that is dropped whole, although all is numbered and hashed anew", async () => {
    const heads = new Map<string, string>();
    let position = 0;
    const forged = entries.flatMap((entry): TrailEntry[] => {
      if (!("event" in entry)) return [entry];
      if (entry.event.stream === "m2") return [];
      const { hash: _, ...rest } = entry.event;
      const event = { ...rest, position: ++position, prev: heads.get(rest.stream) ?? GENESIS };
      const hash = eventHash(event);
      heads.set(event.stream, hash);
      return [{ event: { ...event, hash } }];
    });
    const { findings } = await verify(forged);
    assert.ok(findings.length > 0);
    assert.ok(findings.every(({ checkpoint }) => checkpoint !== undefined));
    assert.ok(findings.some(({ what }) => /covers \d+ events .* there are/.test(what)));
    assert.ok(findings.some(({ what }) => /root does not match/.test(what)));
  });

  it("finds checkpoints that are changed, dropped, or signed by another", async () => {
    const places = entries.flatMap((entry, i) => "checkpoint" in entry ? [i] : []);
    for (const i of places) {
      const { checkpoint } = entries[i] as Extract<TrailEntry, { checkpoint: unknown }>;
      for (const member of Object.keys(checkpoint) as (keyof typeof checkpoint)[]) {
        const value = checkpoint[member];
        const other = typeof value === "number" ? value + 1 : flipped(value, 5);
        const { ok } = await verify(
          entries.with(i, { checkpoint: { ...checkpoint, [member]: other } }),
        );
        assert.ok(!ok, member);
      }
    }
    assert.ok(!(await verify(entries.toSpliced(places[0]!, 1))).ok);
    const { publicKey } = generateKeyPairSync("ed25519");
    const { findings } = await verifyLog(each(entries), publicKey);
    assert.deepEqual(findings.map(({ checkpoint, what }) => [checkpoint, what]), [
      [1, "signature does not verify with the public key"],
      [2, "signature does not verify with the public key"],
    ]);
  });

  it("finds and names what was changed in the database itself", async () => {
    const path = `${given.dataDir}/postledger.db`;
    for (
      const [sql, position] of [
        ["UPDATE events SET data = replace(data, 'two@', 'owt@') WHERE position = 2", 2],
        ["UPDATE events SET type = 'Cancelled' WHERE position = 9", 9],
        ["DELETE FROM events WHERE position = 7", 7],
      ] as const
    ) {
      const db = new DatabaseSync(path);
      db.exec("DROP TRIGGER IF EXISTS events_are_not_changed");
      db.exec("DROP TRIGGER IF EXISTS events_are_not_dropped");
      db.exec(sql);
      db.close();
      const { findings } = await verifyLog(trail(given.raw), given.publicKey);
      const named = findings.some((finding) =>
        finding.position === position || finding.what === `position ${position} is missing`
      );
      assert.ok(named, sql);
    }
  });

  it("says what it could not verify", async () => {
    const { ok, notes } = await verifyLog(each(entries), undefined);
    assert.ok(ok);
    assert.match(notes.join(), /no public key/);
  });
});

describe("exports", () => {
  let given: Given;
  beforeEach(async () => {
    given = await givenStore();
    await threeMessages(given);
    given = await given.reopen();
  });
  afterEach(() => given.end());

  const exported = async (filter: TrailFilter = {}) =>
    (await Array.fromAsync(exportJsonLines(given.raw, filter))).join("");
  const verify = (text: string, chunk = 1000) => {
    const octets = new TextEncoder().encode(text);
    const chunks = Array.from(
      { length: Math.ceil(octets.length / chunk) },
      (_, i) => octets.subarray(i * chunk, (i + 1) * chunk),
    );
    return verifyExport(parseJsonLines(each(chunks)), given.publicKey);
  };

  it("verify far from their log", async () => {
    const text = await exported();
    for (const chunk of [1, 7, 100_000]) {
      const verdict = await verify(text, chunk);
      assert.deepEqual(verdict.findings, []);
      assert.deepEqual([verdict.events, verdict.checkpoints], [10, 2]);
    }
    const lines = text.trimEnd().split("\n").map((line) => JSON.parse(line));
    assert.deepEqual(lines[0], { export: { format: 1, filter: {} } });
    assert.equal(lines[1].data.rcptTo, "one@example.net");
  });

  it("show every octet that is changed", async () => {
    const text = await exported();
    await fc.assert(
      fc.asyncProperty(fc.nat(text.length - 1), async (at) => {
        const other = text[at] === "0" ? "1" : "0";
        assert.ok(!(await verify(text.slice(0, at) + other + text.slice(at + 1))).ok);
      }),
      { numRuns: 150 },
    );
  });

  it("survive any line that does not belong", async () => {
    const text = await exported();
    for (const bad of ["{}", "[]", "null", "7", "{", '{"checkpoint":1}', '{"export":{}}', ""]) {
      const { findings } = await verify(text.replace("\n", `\n${bad}\n`));
      assert.equal(findings[0]?.line, 2, bad);
      assert.doesNotMatch(findings[0].what, /\n/);
    }
    assert.match((await verify("")).findings[0]!.what, /empty/);
    assert.match((await verify(text.slice(text.indexOf("\n") + 1))).findings[0]!.what, /header/);
  });

  it("hold what is asked for, and verify as far as they go", async () => {
    const one = await verify(await exported({ message: "m1" }));
    assert.deepEqual([one.ok, one.events, one.checkpoints], [true, 5, 2]);
    assert.match(one.notes.join(), /filtered export/);

    const [, , , , fifth] = await given.store.readAll(0, 10);
    const late = await exported({ since: fifth!.time });
    const since = await verify(late);
    assert.deepEqual([since.ok, since.events, since.checkpoints], [true, 6, 1]);
    assert.match(since.notes.join(), /2 streams do not begin/);
    assert.ok(!(await verify(late.replace("three@", "trois@"))).ok);

    const until = await verify(await exported({ until: fifth!.time }));
    assert.deepEqual([until.ok, until.events], [true, 4]);
    const none = await verify(await exported({ message: "none" }));
    assert.deepEqual([none.ok, none.events, none.checkpoints], [true, 0, 0]);
  });

  it("as CSV are safe to open and have a row per event", async () => {
    const csv = (await Array.fromAsync(exportCsv(given.raw))).join("");
    const rows = parseCsv(csv);
    const [header, ...events] = rows;
    assert.equal(events.length, 10);
    for (const row of rows) {
      assert.equal(row.length, header!.length);
      for (const cell of row) assert.doesNotMatch(cell, /^[=+\-@\t\r]/);
    }
    const cells = (i: number) =>
      Object.fromEntries(header!.map((name, k) => [name, events[i]![k]]));
    assert.equal(cells(3)["attempt"], "1");
    assert.equal(cells(3)["text"], "temporary: greylisted, try later");
    assert.equal(cells(3)["recipient"], "one@example.net");
    assert.equal(cells(4)["sender"], "'=cmd|' /C calc'!A0");
    assert.equal(cells(8)["attempt"], "2");
    assert.equal(cells(8)["code"], "250");
    assert.equal(cells(9)["who"], "'@ann");
    assert.equal(cells(9)["text"], 'a "reason",\nwith lines');
  });

  it("as CSV know the attempt of an event whose beginning is filtered out", async () => {
    const events = await given.store.readAll(0, 10);
    const csv = await Array.fromAsync(exportCsv(given.raw, { since: events[4]!.time }));
    const [header, ...rows] = parseCsv(csv.join(""));
    const last = rows.find((row) => row[1] === "m1" && row[3] === "Delivered");
    assert.equal(last?.[header!.indexOf("attempt")], "2");
    assert.equal(last?.[header!.indexOf("recipient")], "one@example.net");
  });
});

describe("replay", () => {
  it("shows the state after each event, up to a version or a time", async () => {
    const given = await givenStore();
    await threeMessages(given);
    const reopened = await given.reopen();
    const events = await reopened.store.readStream("m1");
    const evolve = (types: readonly string[], { type }: { readonly type: string }) => [
      ...types,
      type,
    ];
    const steps = (end?: Parameters<typeof replay>[3]) =>
      [...replay<readonly string[]>(events, [], evolve, end)].map(({ state }) => state.length);
    assert.deepEqual(steps(), [1, 2, 3, 4, 5]);
    assert.deepEqual(steps({ version: 2 }), [1, 2]);
    assert.deepEqual(steps({ time: events[2]!.time }), [1, 2, 3]);
    assert.deepEqual(steps({ version: 0 }), []);
    await reopened.end();
  });
});

/** The text with one character replaced by another. */
function flipped(text: string, at: number): string {
  const i = at % text.length;
  return text.slice(0, i) + (text[i] === "0" ? "1" : "0") + text.slice(i + 1);
}

/** RFC 4180. */
function parseCsv(text: string): string[][] {
  const rows: string[][] = [[]];
  const cell = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)/gy;
  for (let found = cell.exec(text); found; found = cell.exec(text)) {
    rows.at(-1)!.push(found[1]?.replaceAll('""', '"') ?? found[2] ?? "");
    if (found[3] === "\r\n") rows.push([]);
    if (cell.lastIndex === text.length) break;
  }
  return rows.slice(0, -1);
}

import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { archivePath, DirectoryArchiveFiles, SpanningLog } from "../../events/archive.ts";
import { parseJsonLines } from "../../events/audit/jsonl.ts";
import { trail } from "../../events/audit/trail.ts";
import { verifyExport, verifyLog } from "../../events/audit/verify.ts";
import { backUp } from "../../events/backup.ts";
import type { Fact } from "../../events/catalogue.ts";
import { databasePath } from "../../events/data_folder.ts";
import { examine } from "../../events/doctor.ts";
import type { DoctorFinding } from "../../events/doctor/finding.ts";
import { openReader } from "../../events/open.ts";
import { idempotencyId, idempotencyProjection } from "../../events/projections/idempotency.ts";
import { webhookStream } from "../../events/projections/webhooks.ts";
import { delivered, enqueued, failed, type Given, givenStore, started } from "./given.ts";

const DAY = 86_400_000;
const KEEP = 90 * DAY;
const A = "01KGA0000000000000000000A1";
const B = "01KGA0000000000000000000B2";
const C = "01KGA0000000000000000000C3";
const WAITING = "01KGA0000000000000000000D4";

describe("retention", () => {
  let given: Given;
  beforeEach(async () => {
    given = await givenStore();
  });
  afterEach(() => given.end());

  const append = (stream: string, expectedVersion: number, ...facts: Fact[]) =>
    given.store.append([{ stream, expectedVersion, facts }]);

  /** Time goes on until it is done: the pauses between its steps are the clock's. */
  async function finish<T>(work: Promise<T>): Promise<T> {
    let done = false;
    const over = () => void (done = true);
    work.then(over, over);
    while (!done) await given.clock.advance(1);
    return await work;
  }
  const run = (keep = KEEP, signal = new AbortController().signal) =>
    finish(given.retention.run(keep, signal));

  /** Three messages that are finished, one that waits, and checkpoints behind all of them. */
  async function messages(): Promise<void> {
    await append(
      A,
      0,
      enqueued({ submission: "s1", idempotency: { key: "k", request: "0".repeat(64) } }),
    );
    await append(B, 0, enqueued({ rcptTo: "b@example.net" }));
    await append(WAITING, 0, enqueued({ rcptTo: "w@example.net" }));
    await append(A, 1, started(1), delivered);
    await append(C, 0, enqueued({ rcptTo: "c@example.net" }));
    await append(B, 1, started(1), failed(true));
    await append(C, 1, started(1), delivered);
    await given.clock.advance(60_000); // a checkpoint over these
    await append(WAITING, 1, started(1), failed(false));
    await given.clock.advance(60_000); // and the last one, which stays
  }
  const later = () => given.clock.advance(KEEP + 2 * DAY);

  async function verdict() {
    const reader = openReader(given.dataDir);
    try {
      return await verifyLog(trail(reader.raw), await reader.publicKey(), reader.damaged);
    } finally {
      reader.close();
    }
  }
  async function findings(): Promise<DoctorFinding[]> {
    await given.close();
    const found: DoctorFinding[] = [];
    await examine(given.dataDir, {
      beginFold: () => () => {},
      others: { secret: [], open: [] },
      report: (finding) => void (finding.note || found.push(finding)),
    });
    // The messages of these tests have no content.
    return found.filter(({ kind }) => kind !== "space" && kind !== "body");
  }
  const fileName = async () => {
    const names = await Array.fromAsync(Deno.readDir(archivePath(given.dataDir)));
    return names.map(({ name }) => name).sort();
  };

  it("moves what was finished for long enough into a file, and leaves the rest", async () => {
    await messages();
    assert.deepEqual(await run(), { streams: 0, events: 0, files: 0 }, "all of it is young");
    await later();
    assert.deepEqual(await run(), { streams: 3, events: 9, files: 1 });
    assert.deepEqual(await fileName(), ["2026-01-31-000001.jsonl.gz"]);
    for (const id of [A, B, C]) {
      assert.deepEqual(await given.store.readStream(id), []);
      assert.equal(await given.view.get(id), undefined);
    }
    assert.equal((await given.store.readStream(WAITING)).length, 3);
    const { delivered: gone, queued } = await given.view.depth();
    assert.deepEqual([gone, queued], [0, 1]);
    assert.deepEqual(await run(), { streams: 0, events: 0, files: 0 }, "once is enough");
  });

  it("keeps every event: the trail spans store and archive, and verifies", async () => {
    await messages();
    const all = async () => structuredClone(await Array.fromAsync(trail(given.raw)));
    const before = await all();
    await later();
    await run();
    const after = await all();
    assert.deepEqual(after.slice(0, before.length), before);
    const types = after.slice(before.length).map((e) => "event" in e ? e.event.type : "checkpoint");
    assert.deepEqual(types.filter((type) => type !== "checkpoint"), [
      "StreamsArchived",
      "StreamsPruned",
    ]);
    const { ok, findings } = await verdict();
    assert.deepEqual([ok, findings], [true, []]);
  });

  it("shows an archived message as it was", async () => {
    await messages();
    const before = await given.store.readStream(B);
    await later();
    await run();
    const reader = openReader(given.dataDir);
    try {
      assert.deepEqual(await reader.readStream(B), before);
      assert.deepEqual(await reader.readStream("01KGA0000000000000000000B9"), []);
      for (const archive of [reader.archive, given.archive]) {
        assert.deepEqual(await archive.find(B), {
          file: "2026-01-31-000001.jsonl.gz",
          events: before,
        });
        assert.equal(await archive.find("01KGA0000000000000000000B9"), undefined);
      }
    } finally {
      reader.close();
    }
  });

  it("writes files that verify by themselves", async () => {
    await messages();
    await later();
    await run();
    const path = `${archivePath(given.dataDir)}/${(await fileName())[0]}`;
    const text = (await Deno.open(path)).readable.pipeThrough(new DecompressionStream("gzip"));
    const { ok, events } = await verifyExport(parseJsonLines(text), given.publicKey);
    assert.deepEqual([ok, events], [true, 9]);
  });

  it("leaves a folder in which the doctor finds nothing, and which opens again", async () => {
    await messages();
    await later();
    await run();
    assert.deepEqual(await findings(), []);
    given = await given.reopen();
    assert.deepEqual(given.broken, []);
    assert.equal((await given.raw.stream(A)).length, 3);
  });

  it("goes on where a kill left it: written and not recorded", async () => {
    await messages();
    await later();
    const files = new DirectoryArchiveFiles(archivePath(given.dataDir));
    const lines = ["half", "way"].map((line) => `${line}\n`).values();
    await files.write(
      "2026-01-30-000001.jsonl.gz",
      (async function* () {
        yield* lines;
      })(),
    );
    await Deno.writeTextFile(`${archivePath(given.dataDir)}/2026-01-31-000001.jsonl.gz.part`, "x");
    assert.equal((await run()).streams, 3);
    assert.deepEqual(await fileName(), ["2026-01-31-000001.jsonl.gz"]);
    assert.equal((await verdict()).ok, true);
  });

  it("goes on where a kill left it: recorded and not pruned, pruned in part", async () => {
    await messages();
    await later();
    const stop = new AbortController();
    given.store.subscribe((events) => {
      if (events.some(({ type }) => type === "StreamsArchived")) stop.abort();
    });
    await run(KEEP, stop.signal);
    assert.equal((await given.store.readStream(A)).length, 3, "not pruned yet");
    assert.equal((await verdict()).ok, true, "an event in both places comes once");
    await given.store.prune([{ stream: B, version: 3 }]);
    assert.equal((await verdict()).ok, true);
    given = await given.reopen();
    assert.deepEqual(await run(), { streams: 0, events: 0, files: 0 });
    assert.deepEqual(await given.store.readStream(A), []);
    const { ok, events } = await verdict();
    assert.equal(ok, true);
    assert.equal(
      events,
      (await Array.fromAsync(trail(given.raw))).filter((e) => "event" in e).length,
    );
  });

  it("replaces no file of the archive", async () => {
    await messages();
    await later();
    await run();
    const [name] = await fileName();
    const path = `${archivePath(given.dataDir)}/${name}`;
    const before = await Deno.readFile(path);
    const files = new DirectoryArchiveFiles(archivePath(given.dataDir));
    await assert.rejects(files.write(name!, (async function* () {})()), /is there already/);
    assert.deepEqual(await Deno.readFile(path), before);
  });

  it("does not prune on the word of a file that is damaged", async () => {
    await messages();
    await later();
    const stop = new AbortController();
    given.store.subscribe((events) => {
      if (events.some(({ type }) => type === "StreamsArchived")) stop.abort();
    });
    await run(KEEP, stop.signal);
    const path = `${archivePath(given.dataDir)}/${(await fileName())[0]}`;
    const octets = await Deno.readFile(path);
    octets[octets.length >> 1]! ^= 1;
    await Deno.writeFile(path, octets);
    await assert.rejects(run(), /archive 2026-01-31-000001\.jsonl\.gz/);
    assert.equal((await given.store.readStream(A)).length, 3);
  });

  it("finds a file that is missing, and one that was changed", async () => {
    await messages();
    await later();
    await run();
    const path = `${archivePath(given.dataDir)}/${(await fileName())[0]}`;
    const octets = await Deno.readFile(path);
    await Deno.remove(path);
    const missing = await verdict();
    assert.equal(missing.ok, false);
    assert.match(
      missing.findings.map(({ what }) => what).join("\n"),
      /000001\.jsonl\.gz: is missing/,
    );
    octets[octets.length - 20]! ^= 0x40;
    await Deno.writeFile(path, octets);
    assert.match(
      (await verdict()).findings.map(({ what }) => what).join("\n"),
      /000001\.jsonl\.gz: is (damaged|not the file)/,
    );
    assert.ok((await findings()).some(({ kind }) => kind === "archive"));
  });

  it("leaves what has grown since it was written", async () => {
    await messages();
    assert.equal(
      await given.store.prune([{ stream: A, version: 2 }, { stream: B, version: 3 }]),
      1,
    );
    assert.equal((await given.store.readStream(A)).length, 3);
    assert.deepEqual(await given.store.readStream(B), []);
  });

  it("keeps a message whose report is still to be made", async () => {
    await messages();
    const db = new DatabaseSync(databasePath(given.dataDir));
    db.exec(`UPDATE queue SET report_due = 1 WHERE stream = '${A}'`);
    db.close();
    await later();
    assert.equal((await run()).streams, 2);
    assert.equal((await given.store.readStream(A)).length, 3);
  });

  it("keeps what a webhook still has to be told", async () => {
    await messages();
    await later();
    const endOf = async (stream: string) => (await given.store.readStream(stream)).at(-1)!.position;
    const [a, b] = [await endOf(A), await endOf(B)];
    const upTo = (position: number) =>
      finish(given.retention.run(KEEP, new AbortController().signal, () => position));
    assert.equal((await upTo(a - 1)).streams, 0);
    assert.equal((await upTo(b)).streams, 2, "A and B");
    assert.equal((await given.store.readStream(C)).length, 3);
    assert.equal((await upTo(Infinity)).streams, 1);
  });

  it("is the only way by which events leave", async () => {
    await messages();
    const db = new DatabaseSync(databasePath(given.dataDir));
    try {
      const gone = () => db.prepare("DELETE FROM events WHERE stream = ?").run(A);
      assert.throws(gone, /never dropped/);
    } finally {
      db.close();
    }
  });

  it("forgets an idempotency key with its last message", async () => {
    await messages();
    const row = () => given.row(idempotencyProjection, idempotencyId(null, "k"));
    assert.equal(row()?.submission, "s1");
    await later();
    await run();
    assert.equal(row(), undefined);
  });

  it("archives the days of a webhook but for the one that its position is from", async () => {
    const advance = (upTo: number) => {
      const stream = webhookStream("hook", given.clock.now());
      const data = { endpoint: "hook", upTo, told: upTo, givenUp: 0 };
      return append(stream, 0, { type: "WebhookAdvanced", data });
    };
    await advance(1);
    await given.clock.advance(DAY);
    await advance(2);
    await messages();
    await later();
    assert.deepEqual((await run()).streams, 4);
    const left = await given.store.readAll(0, 100);
    const streams = new Set(left.map(({ stream }) => stream));
    assert.deepEqual([...streams].filter((name) => name.startsWith("webhook")), [
      "webhook hook 2026-02-01",
    ]);
  });

  it("is in a backup", async () => {
    await messages();
    await later();
    await run();
    const to = await Deno.makeTempDir({ prefix: "postledger-backup-" });
    try {
      await backUp(given.dataDir, `${to}/all.tar`);
      const text = new TextDecoder("latin1").decode(await Deno.readFile(`${to}/all.tar`));
      assert.ok(text.includes("archive/2026-01-31-000001.jsonl.gz"));
    } finally {
      await Deno.remove(to, { recursive: true });
    }
  });

  it("loses nothing when there is no room for the archive", async () => {
    await messages();
    await later();
    await Deno.writeTextFile(archivePath(given.dataDir), "where the folder ought to be");
    await assert.rejects(run());
    assert.equal((await given.store.readStream(A)).length, 3);
    await Deno.remove(archivePath(given.dataDir));
    assert.equal((await run()).streams, 3);
  });

  it("lets two readers go through the log at the same time", async () => {
    await messages();
    await later();
    await run();
    const files = new DirectoryArchiveFiles(archivePath(given.dataDir));
    const log = new SpanningLog(given.raw, files);
    const all = await log.events(0, 1_000);
    const step = async () => {
      const found: number[] = [];
      for (let after = 0;;) {
        const page = await log.events(after, 2);
        found.push(...page.map(({ position }) => position));
        if (page.length < 2) return found;
        after = page.at(-1)!.position;
      }
    };
    for (const found of await Promise.all([step(), step(), step()])) {
      assert.deepEqual(found, all.map(({ position }) => position));
    }
  });
});

import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import { ArchiveDamaged, type ArchiveReader } from "../../events/archive.ts";
import { ArchiveLookup, LookupBusy } from "../../events/archive_lookup.ts";
import { eventLine, exportHeader } from "../../events/audit/jsonl.ts";
import { canonicalJson, eventHash, GENESIS } from "../../events/chain.ts";
import { messageOf } from "../../events/decode.ts";
import type { RawEvent } from "../../events/engine.ts";
import { UnreadableStream } from "../../events/store.ts";
import { delivered, enqueued, started } from "./given.ts";

const A = "01KGA0000000000000000000A1";
const B = "01KGA0000000000000000000B2";

/** The events of a stream, whole, beginning at a position. */
function streamOf(stream: string, position: number): RawEvent[] {
  let prev = GENESIS;
  return [enqueued({ messageId: `<${B}@é.example>` }), started(1), delivered].map((fact, i) => {
    const unhashed = {
      position: position + i * 2,
      stream,
      version: i + 1,
      type: fact.type,
      schema: 1,
      time: "2026-01-31T09:30:00.000Z",
      data: canonicalJson(fact.data),
      prev,
    };
    prev = eventHash(unhashed);
    return { ...unhashed, hash: prev };
  });
}

const events = [...streamOf(A, 1), ...streamOf(B, 2)].sort((a, b) => a.position - b.position);
const text = exportHeader({}) + events.map((event) => `${eventLine(event)}\n`).join("");

/** A file in pieces that end where they happen to. */
class Files implements ArchiveReader {
  reads = 0;
  open = 0;
  most = 0;
  /** Is asked before each piece. */
  gate: () => Promise<void> = () => Promise.resolve();
  constructor(readonly content: string, readonly size = 50) {}

  async *read(name: string): AsyncGenerator<Uint8Array> {
    this.reads += 1;
    this.most = Math.max(this.most, ++this.open);
    try {
      const octets = new TextEncoder().encode(this.content);
      for (let at = 0; at < octets.length; at += this.size) {
        await this.gate();
        yield octets.subarray(at, at + this.size);
      }
      if (name === "damaged") throw new ArchiveDamaged(name, "is not the file that was written");
    } finally {
      this.open -= 1;
    }
  }
}
const lookup = (files: ArchiveReader, names = ["2", "1"], limits = { atOnce: 2, waiting: 2 }) =>
  new ArchiveLookup(
    { filesOf: () => Promise.resolve(names.map((file) => ({ file, sha256: "" }))) },
    files,
    limits,
  );

describe("looking into the archive", () => {
  it("gives a stream whole, however the file comes in pieces", async () => {
    await fc.assert(fc.asyncProperty(fc.integer({ min: 1, max: text.length }), async (size) => {
      const found = await lookup(new Files(text, size)).find(B);
      assert.equal(found?.file, "2");
      assert.deepEqual(found?.events.map(({ type, hash }) => [type, hash]), [
        ...streamOf(B, 2).map(({ type, hash }) => [type, hash]),
      ]);
    }));
  });

  it("reads no file that cannot hold it, and says when none does", async () => {
    const files = new Files(text);
    assert.equal(await lookup(files, []).find(A), undefined);
    assert.equal(files.reads, 0);
    assert.equal(await lookup(files).find("01KGA0000000000000000000C3"), undefined);
    assert.equal(files.reads, 2);
  });

  it("believes no file that is damaged, nor a stream that was changed", async () => {
    await assert.rejects(lookup(new Files(text), ["damaged"]).find(A), ArchiveDamaged);
    const endless = new Files("x".repeat(17 * 1024 * 1024), 1024 * 1024);
    await assert.rejects(lookup(endless).find(A), /archive 2: has a line of more than/);
    const changed = text.replace('"attempt":1', '"attempt":2');
    await assert.rejects(lookup(new Files(changed)).find(A), UnreadableStream);
    const cut = text.replace(`"stream":"${A}"`, `"stream":"${A}`);
    await assert.rejects(lookup(new Files(cut)).find(B).then(() => lookup(new Files(cut)).find(A)));
  });

  it("reads a few files at a time, lets some wait, and turns others away", async () => {
    const files = new Files(text);
    const { promise: opened, resolve: open } = Promise.withResolvers<void>();
    files.gate = () => opened;
    const archive = lookup(files);
    const looking = [A, B, A, B].map((id) => archive.find(id));
    await new Promise((resolve) => setImmediate(resolve));
    await assert.rejects(archive.find(A), LookupBusy);
    open();
    for (const found of await Promise.all(looking)) assert.equal(found?.events.length, 3);
    assert.deepEqual([files.most, files.open], [2, 0]);
    assert.ok(await archive.find(A), "and goes on");
  });

  it("ends when nobody waits for the answer any more, reading or in line", async () => {
    const files = new Files(text, 10);
    const gone = new AbortController();
    let pieces = 0;
    files.gate = () => {
      if (++pieces === 3) gone.abort(new Error("gone"));
      return Promise.resolve();
    };
    const archive = lookup(files, ["1"], { atOnce: 1, waiting: 2 });
    const results = await Promise.allSettled([
      archive.find(A, gone.signal),
      archive.find(B, gone.signal),
      archive.find(B),
    ]);
    const said = results.map((one) =>
      one.status === "fulfilled" ? one.value?.file : messageOf(one.reason)
    );
    assert.deepEqual(said, ["gone", "gone", "1"]);
    assert.equal(files.open, 0);
    assert.ok(pieces < 2 * text.length / 10, "the first was not read to its end");
    await assert.rejects(archive.find(A, gone.signal), /gone/);
  });
});

import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { Bodies, INLINE_LIMIT } from "../../events/bodies.ts";
import type { BodyFile, BodyFiles } from "../../events/engine.ts";
import { BodyMissing, type StagedBody, StoreUnavailable } from "../../events/store.ts";
import { cancelled, enqueued, type Given, givenStore, octetsOf, sha256 } from "./given.ts";

const octets = (size: number, seed = 1): Uint8Array =>
  Uint8Array.from({ length: size }, (_, i) => (i * 31 + seed) & 0xff);

describe("bodies", () => {
  let given: Given;
  let n: number;
  beforeEach(async () => {
    given = await givenStore();
    n = 0;
  });
  afterEach(() => given.end());

  const write = async (content: Uint8Array): Promise<StagedBody> => {
    const writer = given.bodies.create();
    for (let at = 0; at < content.length; at += 50_000) {
      await writer.write(content.subarray(at, at + 50_000));
    }
    return await writer.finish();
  };
  const enqueue = async (body: StagedBody): Promise<string> => {
    const stream = `m${++n}`;
    const facts = [enqueued({ body: body.sha256, size: body.size })];
    await given.store.append([{ stream, expectedVersion: 0, facts }], [body]);
    return stream;
  };
  const cancel = async (stream: string) => {
    await given.store.append([{ stream, expectedVersion: 1, facts: [cancelled] }]);
    await given.bodies.settled();
  };
  const files = async (): Promise<string[]> => {
    const found: string[] = [];
    const walk = async (dir: string) => {
      for await (const { name, isDirectory } of Deno.readDir(dir)) {
        if (isDirectory) await walk(`${dir}/${name}`);
        else found.push(name);
      }
    };
    await walk(`${given.dataDir}/bodies`).catch(() => {});
    return found.sort();
  };
  const content = async (sha: string) => {
    const reader = await given.bodies.open(sha);
    const whole = await octetsOf(reader.chunks());
    assert.equal(reader.size, whole.length);
    return whole;
  };

  for (const size of [0, 1, INLINE_LIMIT, INLINE_LIMIT + 1, 1_000_000]) {
    it(`gives ${size} octets back as they came`, async () => {
      const body = await write(octets(size));
      assert.equal(body.sha256, sha256(octets(size)));
      assert.equal(body.size, size);
      const large = size > INLINE_LIMIT;
      assert.equal(body.inline === undefined, large);
      assert.deepEqual(await files(), large ? [body.sha256] : []);
      await enqueue(body);
      assert.deepEqual(await content(body.sha256), octets(size));
      for await (const chunk of (await given.bodies.open(body.sha256)).chunks()) {
        assert.ok(chunk.length <= 64 * 1024);
      }
    });
  }

  for (const size of [1000, 300_000]) {
    it(`keeps ${size} octets until the last message that needs them is over`, async () => {
      const first = await enqueue(await write(octets(size)));
      const body = await write(octets(size));
      const second = await enqueue(body);
      await cancel(first);
      assert.deepEqual(await content(body.sha256), octets(size));
      await cancel(second);
      await assert.rejects(given.bodies.open(body.sha256), BodyMissing);
      assert.deepEqual(await files(), []);
    });
  }

  it("keeps a file that is staged while the last message that had it ends", async () => {
    const first = await enqueue(await write(octets(300_000)));
    const again = await write(octets(300_000));
    await cancel(first);
    assert.deepEqual(await files(), [again.sha256]);
    const second = await enqueue(again);
    assert.deepEqual(await content(again.sha256), octets(300_000));
    await cancel(second);
    assert.deepEqual(await files(), []);
  });

  it("removes what is discarded, before and after it is finished", async () => {
    const unfinished = given.bodies.create();
    await unfinished.write(octets(300_000));
    assert.equal((await files()).length, 1);
    await unfinished.discard();
    assert.deepEqual(await files(), []);

    const finished = given.bodies.create();
    await finished.write(octets(300_000));
    await finished.finish();
    await finished.discard();
    await finished.discard();
    assert.deepEqual(await files(), []);
  });

  it("keeps the file when it is discarded after its append, or while another needs it", async () => {
    const writer = given.bodies.create();
    await writer.write(octets(300_000));
    const body = await writer.finish();
    const other = given.bodies.create();
    await other.write(octets(300_000));
    await other.finish();
    await other.discard();
    assert.deepEqual(await files(), [body.sha256]);
    await enqueue(body);
    await writer.discard();
    assert.deepEqual(await content(body.sha256), octets(300_000));
  });

  it("removes the file of a message that came and went in one transaction", async () => {
    const body = await write(octets(300_000));
    const facts = [enqueued({ body: body.sha256 }), cancelled];
    await given.store.append([{ stream: "m", expectedVersion: 0, facts }], [body]);
    await given.bodies.settled();
    assert.deepEqual(await files(), []);
  });

  it("closes the file when reading ends early", async () => {
    const body = await write(octets(300_000));
    await enqueue(body);
    for await (const chunk of (await given.bodies.open(body.sha256)).chunks()) {
      assert.equal(chunk[0], octets(1)[0]);
      break;
    }
  });

  it("sweeps at start what no message needs", async () => {
    const needed = await write(octets(300_000, 1));
    await enqueue(needed);
    const orphan = await write(octets(300_000, 2));
    const cut = given.bodies.create();
    await cut.write(octets(300_000, 3));
    await Deno.writeTextFile(`${given.dataDir}/bodies/note`, "not ours");
    assert.equal((await files()).length, 4);
    assert.ok((await files()).includes(orphan.sha256));
    given = await given.reopen();
    assert.deepEqual(await files(), [needed.sha256, "note"].sort());
    assert.deepEqual(await content(needed.sha256), octets(300_000, 1));
    await cut.discard();
  });

  it("says which body is missing, also when only its file is gone", async () => {
    await assert.rejects(given.bodies.open("ab".repeat(32)), BodyMissing);
    const body = await write(octets(300_000));
    await enqueue(body);
    await Deno.remove(`${given.dataDir}/bodies/${body.sha256.slice(0, 2)}/${body.sha256}`);
    await assert.rejects(given.bodies.open(body.sha256), (error) => {
      assert.ok(error instanceof BodyMissing);
      assert.equal(error.sha256, body.sha256);
      return true;
    });
  });
});

describe("bodies on a disk that fails", () => {
  /** Files of which one operation fails. */
  const failing = (operation: "create" | "write" | "keep") => {
    let discarded = 0;
    const fail = (here: string) =>
      here === operation
        ? Promise.reject(new Error("No space left on device (os error 28)"))
        : Promise.resolve();
    const file: BodyFile = {
      write: () => fail("write"),
      keep: () => fail("keep"),
      discard: () => {
        discarded += 1;
        return Promise.resolve();
      },
    };
    const files: BodyFiles = {
      create: async () => {
        await fail("create");
        return file;
      },
      open: () => Promise.resolve(undefined),
      remove: () => Promise.resolve(),
      async *sweep() {},
    };
    return { files, discarded: () => discarded };
  };

  for (const operation of ["create", "write", "keep"] as const) {
    it(`is unavailable and leaves nothing behind when "${operation}" fails`, async () => {
      const { files, discarded } = failing(operation);
      const writer = new Bodies({ body: () => undefined }, files).create();
      await assert.rejects(async () => {
        await writer.write(octets(300_000));
        await writer.finish();
      }, (error) => {
        assert.ok(error instanceof StoreUnavailable);
        assert.match(error.message, /No space left/);
        return true;
      });
      assert.equal(discarded(), operation === "create" ? 0 : 1);
      await assert.rejects(writer.write(octets(1)), StoreUnavailable);
    });
  }
});

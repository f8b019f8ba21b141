/** Messages that have left the store: found by id, over HTTP and from the command line. */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { archivePath } from "../../../events/archive.ts";
import { LookupBusy } from "../../../events/archive_lookup.ts";
import { run as runQueue } from "../../../src/cli/queue.ts";
import { ran, UNKNOWN } from "../cli/given_queue.ts";
import { answered, HttpHarness, problem } from "./harness.ts";

describe("a message that was archived", () => {
  let http: HttpHarness;
  let id: string;
  let file: string;
  let waiting: string;
  before(async () => {
    http = await HttpHarness.create();
    id = await http.message("gone@example.net");
    waiting = await http.message("waits@example.net");
    await answered(await http.post(`/messages/${id}/drop`, { reason: "not wanted" }), 200);
    [file] = await http.archive() as [string];
    assert.equal(await http.opened.view.get(id), undefined);
  });
  after(() => http.remove());

  const queue = (...args: string[]) => ran(runQueue, [...args, "--data", http.dataDir]);

  it("is shown with its history, and where it is", async () => {
    const shown = await answered(await http.fetch("GET", `/messages/${id}`), 200);
    assert.deepEqual([shown.id, shown.state, shown.to, shown.archived], [
      id,
      "cancelled",
      "gone@example.net",
      file,
    ]);
    assert.deepEqual(
      shown.notes.map(({ type, data }: { type: string; data: { why: string } }) => [
        type,
        data.why,
      ]),
      [["Cancelled", "not wanted"]],
    );
    const still = await answered(await http.fetch("GET", `/messages/${waiting}`), 200);
    assert.deepEqual([still.state, still.archived], ["queued", null]);
  });

  it("has its events", async () => {
    const { events, archived } = await answered(
      await http.fetch("GET", `/messages/${id}/events`),
      200,
    );
    assert.deepEqual([events.map(({ type }: { type: string }) => type), archived], [
      ["Enqueued", "Cancelled"],
      file,
    ]);
    const still = await answered(await http.fetch("GET", `/messages/${waiting}/events`), 200);
    assert.equal(still.archived, null);
  });

  it("is not listed", async () => {
    const { messages } = await answered(await http.fetch("GET", "/messages"), 200);
    assert.deepEqual(messages.map(({ id }: { id: string }) => id), [waiting]);
  });

  it("is nobody's who may not know of it, and another id is none", async () => {
    const token = http.token(["read", "operate"], "shop");
    const get = await http.fetch("GET", `/messages/${id}`, { token });
    assert.equal((await problem(get, 404)).detail, "there is no message with this id");
    const post = await http.post(`/messages/${id}/drop`, {}, {}, token);
    await problem(post, 404);
    const bulk = { act: "drop", filter: { ids: [id] } };
    const { results } = await answered(await http.post("/queue/act", bulk, {}, token), 200);
    assert.match(results[0].why, /no such message/);
    for (const other of [UNKNOWN, "nonsense"]) {
      await problem(await http.fetch("GET", `/messages/${other}`), 404);
      await problem(await http.fetch("GET", `/messages/${other}/events`), 404);
    }
  });

  it("takes no acts, and they say why", async () => {
    for (const act of ["hold", "release", "kick", "drop"]) {
      const { detail } = await problem(await http.post(`/messages/${id}/${act}`, {}), 409);
      assert.equal(
        detail,
        `the message is cancelled, and was archived in ${file}: nothing more can be done with it`,
      );
    }
    const { code, stdout, stderr } = await queue("hold", id, UNKNOWN);
    assert.deepEqual([code, stdout], [1, "0 messages held\n"]);
    assert.match(stderr, new RegExp(`^${id}: the message is cancelled, and was archived in `, "m"));
    assert.match(stderr, new RegExp(`^${UNKNOWN}: there is no such message`, "m"));
  });

  it("is shown by `queue show`, and named by `queue list` as not there", async () => {
    const { code, stdout } = await queue("show", id.toLowerCase());
    assert.equal(code, 0);
    assert.match(stdout, new RegExp(`^${id}  cancelled\n`));
    assert.match(stdout, new RegExp(`\narchived +in archive/${file}\n`));
    assert.equal(JSON.parse((await queue("show", id, "--json")).stdout).archived, file);
    assert.equal(JSON.parse((await queue("show", waiting, "--json")).stdout).archived, null);
    const listed = await queue("list", id);
    assert.equal(listed.code, 1);
    assert.match(listed.stderr, /1 of the ids are not there; "queue show ID" looks into the/);
    assert.match((await queue("show", UNKNOWN)).stderr, /there is no message/);
  });

  it("is asked for again later when many look already", async () => {
    const { archive } = http.opened;
    const find = archive.find.bind(archive);
    archive.find = () => Promise.reject(new LookupBusy());
    try {
      const response = await http.fetch("GET", `/messages/${id}`);
      assert.equal(response.headers.get("retry-after"), "5");
      await problem(response, 503);
    } finally {
      archive.find = find;
    }
  });

  it("is looked for no longer when the client has gone", async () => {
    const { archive } = http.opened;
    const find = archive.find.bind(archive);
    const { promise: asked, resolve: begun } = Promise.withResolvers<AbortSignal>();
    archive.find = (_stream, signal) => {
      begun(signal!);
      return new Promise((_, reject) => {
        signal!.addEventListener("abort", () => reject(signal!.reason));
      });
    };
    try {
      const client = new AbortController();
      const answer = http.fetch("GET", `/messages/${id}`, { signal: client.signal });
      const signal = await asked;
      const gone = new Promise((resolve) => signal.addEventListener("abort", resolve));
      client.abort();
      await assert.rejects(answer);
      await gone;
    } finally {
      archive.find = find;
    }
    assert.deepEqual(http.errors, [], "nothing to be told of");
  });

  it("is not believed when its file is damaged", async () => {
    const path = `${archivePath(http.dataDir)}/${file}`;
    const octets = await Deno.readFile(path);
    await Deno.remove(path);
    try {
      const { detail } = await problem(await http.fetch("GET", `/messages/${id}`), 500);
      assert.match(detail ?? "", new RegExp(`archive ${file}: is missing; .audit verify. shows`));
      const { code, stderr } = await queue("show", id);
      assert.equal(code, 1);
      assert.match(stderr, /is missing; "audit verify" shows more/);
      assert.match((await queue("drop", id)).stderr, /archive .*: is missing/);
    } finally {
      await Deno.writeFile(path, octets);
    }
  });
});

/** Acts of operators from the command line, through the API of a running queue. */
import { after, before, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { run } from "../../../src/cli/queue.ts";
import { run as runToken } from "../../../src/cli/token.ts";
import { answered, HttpHarness, problem } from "../http/harness.ts";
import { ran, UNKNOWN } from "./given_queue.ts";

describe("queue acts", () => {
  let http: HttpHarness;
  before(async () => {
    http = await HttpHarness.create();
  });
  const user = Deno.env.get("SUDO_USER");
  after(async () => {
    if (user === undefined) Deno.env.delete("SUDO_USER");
    await http.remove();
  });

  const queue = (...args: string[]) => ran(run, [...args, "--data", http.dataDir]);
  const states = async (...ids: string[]) => {
    const rows = await Promise.all(ids.map((id) => http.opened.view.get(id)));
    return rows.map((row) => row?.state);
  };
  beforeEach(() => Deno.env.set("SUDO_USER", "ann"));

  it("hold, release, kick and drop change what they name, and the log says who and why", async () => {
    const id = await http.message();
    const held = await queue("hold", id.toLowerCase(), "--reason", "looks odd");
    assert.deepEqual(held, { code: 0, stdout: "1 message held\n", stderr: "" });
    assert.deepEqual(await states(id), ["held"]);
    const event = (await http.opened.store.readStream(id)).at(-1);
    assert.deepEqual(event?.data, { who: "ann (operator)", why: "looks odd" });
    assert.equal((await queue("release", id)).stdout, "1 message released\n");
    assert.equal((await queue("kick", id)).stdout, "1 message due now\n");
    assert.equal((await queue("transport", "relay", id)).stdout, "1 message assigned\n");
    assert.equal((await http.opened.view.get(id))?.override, "relay");
    assert.equal((await queue("transport", "none", id)).stdout, "1 message assigned\n");
    assert.equal((await http.opened.view.get(id))?.override, null);
    assert.equal((await queue("drop", id)).stdout, "1 message dropped\n");
    assert.deepEqual(await states(id), ["cancelled"]);
  });

  it("says of each message why it was not done, and exits 1", async () => {
    const id = await http.message();
    const { code, stdout, stderr } = await queue("release", id, UNKNOWN);
    assert.equal(code, 1);
    assert.equal(stdout, "0 messages released\n");
    assert.match(stderr, new RegExp(`${id}: the message is queued, it must be held\n`));
    assert.match(stderr, new RegExp(`${UNKNOWN}: there is no such message`));
    const json = JSON.parse((await queue("release", id, "--json")).stdout);
    assert.deepEqual(json.refused.map(({ id }: { id: string }) => id), [id]);
    assert.match((await queue("transport", "nowhere", id)).stderr, /there are direct, relay/);
  });

  it("acts on what a filter selects, and on everything only with --all", async () => {
    const [one, two, other] = [
      await http.message("a@bulk.example"),
      await http.message("b@bulk.example"),
      await http.message("c@else.example"),
    ];
    const dry = await queue("hold", "--to-domain", "bulk.example", "--dry-run");
    assert.equal(dry.stdout, "2 messages would be held; nothing was done.\n");
    assert.deepEqual(await states(one, two), ["queued", "queued"]);
    assert.equal((await queue("hold", "--to-domain", "bulk.example")).code, 0);
    assert.deepEqual(await states(one, two, other), ["held", "held", "queued"]);
    for (const more of [[], ["--dry-run"]]) {
      const again = await queue("hold", "--to-domain", "bulk.example", ...more);
      assert.deepEqual(
        [again.code, again.stdout],
        [0, "No message matches; nothing was done.\n"],
        "what is held already counts",
      );
    }
    const nothing = await queue("drop", "--from", "nobody@example.com");
    assert.deepEqual(nothing, {
      code: 0,
      stdout: "No message matches; nothing was done.\n",
      stderr: "",
    });
    const everything = await queue("drop");
    assert.equal(everything.code, 2);
    assert.match(everything.stderr, /say --all/);
    const bad = await queue("hold", "--older-than", "soon");
    assert.equal(bad.code, 1);
    assert.match(bad.stderr, /older-than: is not a duration/);
    assert.equal((await queue("drop", "--all")).code, 0);
    assert.deepEqual(await states(one, two, other), ["cancelled", "cancelled", "cancelled"]);
  });

  it("goes through a long queue a page at a time", async () => {
    const body = { sha256: "0".repeat(64), size: 1, inline: new Uint8Array(1) };
    const { store } = http.opened;
    const first = await http.message("p@many.example");
    const [event] = await store.readStream(first);
    assert(event?.type === "Enqueued");
    const data = { ...event.data, body: body.sha256 };
    const streams = Array.from(
      { length: 1_204 },
      (_, n) => `01ZZ${String(n).padStart(22, "0")}`,
    );
    await store.append(
      streams.map((stream) => ({
        stream,
        expectedVersion: 0,
        facts: [{ type: "Enqueued", data }],
      })),
      [body],
    );
    const before = await queue("hold", "--to-domain", "many.example", "--json");
    assert.deepEqual(JSON.parse(before.stdout), {
      dryRun: false,
      matched: 1_205,
      done: 1_205,
      refused: [],
    });
    assert.equal((await queue("drop", "--all")).stdout, "1205 messages dropped\n");
  });

  it("holds new mail by rules, until they are removed", async () => {
    const made = await queue(
      "hold-new",
      "--to-domain",
      "Wild.example",
      "--reason",
      "storm",
      "--json",
    );
    const rule = JSON.parse(made.stdout);
    const [held, free] = [
      await http.message("x@wild.example"),
      await http.message("x@tame.example"),
    ];
    assert.deepEqual(await states(held, free), ["held", "queued"]);
    const events = await http.opened.store.readStream(held);
    assert.deepEqual(events.map(({ type }) => type), ["Enqueued", "Held"]);
    assert.deepEqual(events[1]!.data, {
      who: "ann (operator)",
      why: `hold rule ${rule.id}: storm`,
    });
    assert.match((await queue("hold-rules")).stdout, /new mail to the domain Wild\.example/);
    await http.close();
    await http.open();
    assert.deepEqual(await states(await http.message("y@wild.example")), ["held"]);
    assert.match((await queue("hold-rules", "remove", rule.id)).stdout, /what it held stays held/);
    assert.equal((await queue("hold-rules")).stdout, "There are no hold rules.\n");
    assert.deepEqual(await states(await http.message("z@wild.example")), ["queued"]);
    assert.equal((await queue("hold-rules", "remove", rule.id)).code, 1);
    assert.equal((await queue("hold-new")).code, 2);
    assert.match((await queue("hold-new", "--to", "x")).stderr, /filter\/to: is not an address/);
    await queue("drop", "--all");
  });

  it("drains: no new mail, until the queue is resumed, also after a restart", async () => {
    const id = await http.message();
    const waited = await queue("drain", "--wait", "1ms", "--reason", "new disk");
    assert.equal(waited.code, 1);
    assert.match(waited.stdout, /still to go out: 0 being tried, 1 queued, 0 held/);
    const refused = await http.raw("from=ann@example.com&to=bob@example.net", "X: y\r\n\r\n");
    assert.match((await problem(refused, 503)).detail, /no new mail is taken/);
    const { who, why } = http.admission.state.paused!;
    assert.deepEqual([who, why], ["ann (operator)", "new disk"]);
    await http.close();
    await http.open();
    assert.notEqual(http.admission.state.paused, undefined);
    await queue("drop", id);
    const empty = await queue("drain", "--wait", "1s");
    assert.equal(empty.code, 0, empty.stderr);
    assert.match(empty.stdout, /nothing is due: 0 being tried, 0 queued/);
    assert.equal((await queue("resume")).stdout, "new mail is taken again\n");
    assert.equal((await queue("resume")).code, 1);
    await queue("drop", await http.message());
  });

  it("says in one line that no queue runs, or that it has no address", async () => {
    const folder = await Deno.makeTempDir();
    try {
      const alone = await ran(run, ["kick", "--all", "--data", folder]);
      assert.equal(alone.code, 1);
      assert.match(alone.stderr, /^postledger: queue kick: no queue is running on .*\n$/);
      // What a crash left behind: the address of something else, and nobody who holds the lock.
      await Deno.writeTextFile(`${folder}/serve.lock`, "1\n");
      await Deno.writeTextFile(`${folder}/api-address`, http.base);
      await Deno.writeTextFile(`${folder}/api-token`, "x".repeat(40));
      assert.match(
        (await ran(run, ["kick", "--all", "--data", folder])).stderr,
        /no queue is running/,
      );
      await Deno.remove(`${http.dataDir}/api-address`);
      assert.match((await queue("kick", "--all")).stderr, /has no HTTP listener/);
    } finally {
      await Deno.remove(folder, { recursive: true });
      await http.close();
      await http.open();
    }
  });

  it("token: made, listed and revoked, and a running queue follows", async () => {
    const tokens = (...args: string[]) => ran(runToken, [...args, "--data", http.dataDir]);
    const made = await tokens("add", "shop", "--scopes", "submit,read", "--account", "alice");
    assert.equal(made.code, 0, made.stderr);
    const token = made.stdout.trim();
    const { mode } = await Deno.stat(`${http.dataDir}/tokens.json`);
    assert.equal(mode! & 0o777, 0o600);
    assert(!(await Deno.readTextFile(`${http.dataDir}/tokens.json`)).includes(token));
    assert.match((await tokens("list")).stdout, /shop +alice +submit,read/);
    const own = await answered(await http.fetch("GET", "/messages", { token }), 200);
    assert.deepEqual(own.messages, []);
    const another = await http.message();
    await problem(await http.fetch("GET", `/messages/${another}`, { token }), 404);
    await problem(await http.post("/queue/act", { act: "drop", all: true }, {}, token), 403);
    assert.equal((await tokens("add", "shop", "--scopes", "read")).code, 1);
    assert.equal((await tokens("add", "x", "--scopes", "everything")).code, 2);
    assert.equal((await tokens("add", "a b", "--scopes", "read")).code, 2);
    assert.equal((await tokens("revoke", "shop")).code, 0);
    assert.equal((await tokens("revoke", "shop")).code, 1);
    await problem(await http.fetch("GET", "/messages", { token }), 401);
    await Deno.chmod(`${http.dataDir}/tokens.json`, 0o644);
    assert.match((await tokens("list")).stderr, /open to others/);
  });
});

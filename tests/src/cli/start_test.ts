import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { NEWEST_SCHEMA } from "../../../events/migrations.ts";
import { openReader } from "../../../events/open.ts";
import { Receiver } from "../../../src/cli/demo/receiver.ts";
import { run as doctor } from "../../../src/cli/doctor.ts";
import { appendForeign, contents, flip, tamper } from "../../events/damage.ts";
import { enqueued, type Given, givenStore, ManualClock, smallBody } from "../../events/given.ts";
import { ran } from "./given_queue.ts";

const ROOT = new URL("../../../", import.meta.url).pathname;
const CHANGED = "01KGA000000000000000000001";
const SUNG = "01KGA000000000000000000002";
const LOST = "01KGA000000000000000000003";
const SOUND = "01KGA000000000000000000004";

/** The real process on folders that came to harm; what it checks in detail: trust_test.ts. */
describe("serve, started on a folder that came to harm", () => {
  let given: Given;
  let receiver: Receiver;
  let large: string;
  beforeEach(async () => {
    receiver = new Receiver("mx.example.net", () => "250 2.1.5 Ok");
    const clock = new ManualClock();
    await clock.advance(Date.now() - clock.now());
    given = await givenStore({ clock });
    const due = new Date(clock.now()).toISOString();
    for (const stream of [CHANGED, SUNG, SOUND]) {
      const body = smallBody(`Subject: ${stream}\r\n\r\n`);
      const facts = [enqueued({ body: body.sha256, rcptTo: `${stream}@example.net`, due })];
      await given.store.append([{ stream, expectedVersion: 0, facts }], [body]);
    }
    const writer = given.bodies.create();
    await writer.write(new TextEncoder().encode("line\r\n".repeat(60_000)));
    const body = await writer.finish();
    large = `${given.dataDir}/bodies/${body.sha256.slice(0, 2)}/${body.sha256}`;
    const facts = [enqueued({ body: body.sha256, rcptTo: "lost@example.net", due })];
    await given.store.append([{ stream: LOST, expectedVersion: 0, facts }], [body]);
    await given.close();
    await Deno.writeTextFile(
      `${given.dataDir}.toml`,
      `hostname = "queue.example.com"
[listen.local]
protocol = "smtp"
address = "127.0.0.1:0"
[[routes]]
transport = "next"
[transports.next]
type = "smtp"
host = "127.0.0.1"
port = ${receiver.port}
`,
    );
  });
  afterEach(async () => {
    receiver.close();
    await given.end();
    await Deno.remove(`${given.dataDir}.toml`);
  });

  const spawn = () =>
    new Deno.Command("deno", {
      args: [
        ..."run --no-check --no-prompt --unstable-net --allow-read --allow-write --allow-net"
          .split(" "),
        ..."--allow-env --allow-sys=hostname src/cli/serve.ts".split(" "),
        ...["--config", `${given.dataDir}.toml`, "--data", given.dataDir],
      ],
      cwd: ROOT,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();

  const refused = async (what: RegExp): Promise<void> => {
    const before = await contents(given.dataDir);
    const { code, stderr } = await spawn().output();
    const said = new TextDecoder().decode(stderr);
    assert.equal(code, 1, said);
    assert.match(said, /^postledger: serve: [^\n]*\n$/);
    assert.match(said, what);
    assert.deepEqual(await contents(given.dataDir), before);
    assert.deepEqual(receiver.received, []);
  };

  it("says in one line what is wrong with the database, and changes nothing", async () => {
    const path = `${given.dataDir}/postledger.db`;
    const whole = await Deno.readFile(path);
    await flip(path, 4096, 4200);
    await refused(/postledger\.db: .*(Tree|malformed).*doctor --data/);
    await Deno.writeFile(path, whole);
    tamper(given.dataDir, `PRAGMA user_version = ${NEWEST_SCHEMA + 1}`);
    await refused(/postledger\.db has schema \d+.*start that version instead/);
  });

  it("sets aside what is broken, holds what lost its content, and delivers the others", async () => {
    tamper(
      given.dataDir,
      `UPDATE events SET data = replace(data, '${CHANGED}@', 'thief@') WHERE stream = '${CHANGED}'`,
    );
    appendForeign(given.dataDir, SUNG, { type: "Sung", schema: 1, data: "{}" });
    await Deno.remove(large);
    const server = spawn();
    let said = "";
    const reading = (async () => {
      for await (const chunk of server.stderr.pipeThrough(new TextDecoderStream())) said += chunk;
    })();
    await server.stdout.cancel();
    const reader = openReader(given.dataDir);
    try {
      const state = async (stream: string) => (await reader.view.get(stream))?.state;
      const wanted = [[CHANGED, "held"], [SUNG, "held"], [LOST, "held"], [SOUND, "delivered"]];
      const deadline = performance.now() + 15_000;
      const settled = async () => {
        for (const [stream, end] of wanted) if (await state(stream!) !== end) return false;
        return true;
      };
      while (!await settled()) {
        assert.ok(performance.now() < deadline, said);
        await new Promise((resolve) => setTimeout(resolve, 30));
      }
      assert.deepEqual(receiver.received, [`${SOUND}@example.net`]);
      assert.match(said, new RegExp(`quarantined.*${CHANGED}, version 1: hash does not cover`));
      assert.match(said, new RegExp(`quarantined.*${SUNG}, version 2: event type`));
      assert.ok(said.includes(`file=${large} why="is missing"`), said);
      const lost = (await reader.readStream(LOST)).at(-1)!;
      assert.ok(lost.type === "Held");
      assert.match(lost.data.why, /^the content cannot be read: body [0-9a-f]{64} is not in/);
    } finally {
      reader.close();
      server.kill("SIGTERM");
      await Promise.all([server.status, reading]);
    }
    // The doctor names the same, and finds nothing else amiss after it all.
    const { stdout } = await ran(doctor, ["--json", "--data", given.dataDir]);
    const all = JSON.parse(stdout).findings as { kind: string; where: string; note?: boolean }[];
    const found = all.filter(({ note }) => !note);
    assert.deepEqual(all.filter(({ note }) => note), [], "a file that the doctor does not know");
    assert.deepEqual(found.filter(({ kind }) => kind !== "log").map(({ kind }) => kind), [
      "stream",
      "stream",
      "body",
    ]);
  });
});

import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";

/** Listens like systemd does and starts a manager of its own: the socket needs --unstable-net. */
const PROGRAM = (manager: string) => `
import { ServiceManager } from ${JSON.stringify(manager)};
const [path, watchdog] = Deno.args;
const systemd = Deno.listenDatagram({ transport: "unixpacket", path });
const timers = [];
const clock = {
  now: () => 0,
  monotonic: () => 0,
  timer: (ms, run) => { timers.push({ ms, run }); return () => { timers.length = 0; }; },
};
const env = new Map([["NOTIFY_SOCKET", path]]);
if (watchdog) env.set("WATCHDOG_USEC", watchdog);
const next = async () => new TextDecoder().decode((await systemd.receive())[0]);
const said = [];
const manager = new ServiceManager(clock, env);
manager.ready();
said.push(await next());
if (watchdog) {
  said.push(await next());
  for (let beat = 0; beat < 2; beat++) {
    const { ms, run } = timers.shift();
    said.push(ms);
    run();
    said.push(await next());
  }
}
manager.stopping();
said.push(await next(), timers.length);
console.log(JSON.stringify(said));
systemd.close();
`;

const MODULE = new URL("../../src/service_manager.ts", import.meta.url).href;
const ROOT = new URL("../../", import.meta.url).pathname;

describe("the service manager", () => {
  let dir: string;
  before(async () => {
    dir = await Deno.makeTempDir({ prefix: "postledger-notify-test-" });
    await Deno.writeTextFile(`${dir}/program.ts`, PROGRAM(MODULE));
  });
  after(() => Deno.remove(dir, { recursive: true }));

  const run = async (args: string[], permissions: string[]) => {
    const output = await new Deno.Command("deno", {
      args: ["run", "--no-check", "--no-prompt", ...permissions, `${dir}/program.ts`, ...args],
      cwd: ROOT,
      env: { TMPDIR: dir },
      signal: AbortSignal.timeout(20_000),
    }).output();
    const stderr = new TextDecoder().decode(output.stderr);
    assert.equal(output.code, 0, stderr);
    return JSON.parse(new TextDecoder().decode(output.stdout));
  };
  const PERMISSIONS = [
    "--unstable-net",
    "--allow-net",
    "--allow-read",
    "--allow-write",
    "--allow-env",
  ];

  it("is told over its socket: ready, alive at half the watchdog's time, stopping", async () => {
    assert.deepEqual(await run([`${dir}/a.sock`, "3000000"], PERMISSIONS), [
      "READY=1",
      "WATCHDOG=1",
      1_500,
      "WATCHDOG=1",
      1_500,
      "WATCHDOG=1",
      "STOPPING=1",
      0,
    ]);
    const left = (await Array.fromAsync(Deno.readDir(dir))).map(({ name }) => name);
    assert.ok(!left.some((name) => name.startsWith("postledger-notify-")), left.join());
  });

  it("gets no signs of life where the unit asks for none", async () => {
    assert.deepEqual(await run([`${dir}/b.sock`], PERMISSIONS), ["READY=1", "STOPPING=1", 0]);
  });
});

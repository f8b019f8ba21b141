/**
 * Data folders on disks that do not let themselves be written: read-only, full, or somebody else's.
 * The real server, as root and as nobody; needs root for the mounts.
 */
import { after, afterEach, before, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { contents } from "../events/damage.ts";
import { enqueued, givenStore, smallBody } from "../events/given.ts";
import { run } from "./postfix.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
const NOBODY = 65534;

describe("serve, started on a disk that it cannot write to", () => {
  let scratch: string;
  let mount: string;
  let data: string;
  let denoDir: string;
  let program: string;

  before(async () => {
    scratch = await Deno.makeTempDir({ prefix: "postledger-disks-" });
    // The packages alone, where nobody can read them, too.
    const info = await new Deno.Command("deno", { args: ["info", "--json"], cwd: ROOT }).output();
    const { npmCache } = JSON.parse(new TextDecoder().decode(info.stdout));
    denoDir = `${scratch}/deno`;
    await Deno.mkdir(denoDir);
    await run("cp", ["-r", npmCache, `${denoDir}/npm`]);
    await run("chown", ["-R", `${NOBODY}:${NOBODY}`, denoDir]);
    // The checkout may lie where nobody may not look.
    program = `${scratch}/program`;
    await Deno.mkdir(program);
    const parts = ["deno.json", "deno.lock", "actors", "events", "src"];
    await run("cp", ["-r", ...parts.map((part) => `${ROOT}${part}`), program]);
    await Deno.chmod(scratch, 0o755);
  });
  after(() => Deno.remove(scratch, { recursive: true }));

  beforeEach(async () => {
    mount = await Deno.makeTempDir({ dir: scratch });
    await run("mount", ["-t", "tmpfs", "-o", "size=2m,mode=0755", "tmpfs", mount]);
    data = `${mount}/data`;
    const given = await givenStore({ dataDir: data });
    const body = smallBody("Subject: hello\r\n\r\n");
    const facts = [enqueued({ body: body.sha256 })];
    await given.store.append([{ stream: "a", expectedVersion: 0, facts }], [body]);
    await given.close();
  });
  afterEach(async () => {
    await run("umount", ["-l", mount]);
  });

  const serve = async (uid: number) => {
    const { code, stderr } = await new Deno.Command("deno", {
      args: [
        ..."run --no-check --no-prompt --cached-only --unstable-net --allow-read --allow-write"
          .split(" "),
        ..."--allow-net --allow-env --allow-sys=hostname src/cli/serve.ts --data".split(" "),
        data,
      ],
      cwd: program,
      uid,
      gid: uid,
      env: { DENO_DIR: denoDir, HOME: denoDir, DENO_NO_UPDATE_CHECK: "1" },
      stdin: "null",
      signal: AbortSignal.timeout(30_000),
    }).output();
    return { code, said: new TextDecoder().decode(stderr) };
  };
  const refused = async (uid: number, what: RegExp): Promise<void> => {
    const before = await contents(data);
    const { code, said } = await serve(uid);
    assert.equal(code, 1, said);
    assert.match(said, /^postledger: serve: [^\n]*\n$/);
    assert.ok(said.includes(data), said);
    assert.match(said, what);
    assert.deepEqual(await contents(data), before);
  };

  it("says so when the disk is read-only", async () => {
    await run("mount", ["-o", "remount,ro", mount]);
    await refused(0, /read-only file system/i);
  });

  it("says so when the disk is full", async () => {
    const filler = await Deno.open(`${mount}/filler`, { write: true, create: true });
    await assert.rejects(async () => {
      for (;;) await filler.write(new Uint8Array(4096));
    }, /no space/i);
    filler.close();
    await refused(0, /disk is full|no space/i);
  });

  it("says so when the folder is somebody else's", async () => {
    await Deno.chown(mount, NOBODY, NOBODY);
    await refused(NOBODY, /permission denied/i);
  });

  it("says so when only the database is somebody else's, or cannot be written", async () => {
    await run("chown", ["-R", `${NOBODY}:${NOBODY}`, data]);
    await Deno.chmod(`${data}/postledger.db`, 0o400);
    await refused(NOBODY, /postledger\.db.*(readonly|read-only|permission denied)/i);
    await Deno.chown(`${data}/postledger.db`, 0, 0);
    await Deno.chmod(`${data}/postledger.db`, 0o600);
    await refused(NOBODY, /postledger\.db.*(permission denied|unable to open)/i);
  });
});

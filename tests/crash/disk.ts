/**
 * A disk that fails under load: full (a small tmpfs and a file that fills it), or with fsync
 * answering EIO (injected with strace). Both times new mail must be turned away with 452, nothing
 * acknowledged may be lost, and the service must come back by itself, in the same process. On the
 * full disk the server is killed and started as well: it must wait for room, and not give up.
 */
import { run } from "../peers/postfix.ts";
import { sleep, until } from "../peers/wait.ts";
import { type Verdict, withViolations } from "./verdict.ts";
import { beginTrial, type Trial } from "./trial.ts";

const TMPFS_SIZE = "256m";

/** Milliseconds until the trouble must be noticed, and until service must be back. */
const NOTICED = 20_000;
const BACK = 20_000;

/** @throws Error when not root, or when the server does not do what it must */
export async function fillDisk(random: () => number): Promise<Verdict> {
  const mount = await Deno.makeTempDir({ prefix: "postledger-disk-" });
  await run("mount", ["-t", "tmpfs", "-o", `size=${TMPFS_SIZE},mode=0700`, "tmpfs", mount]);
  try {
    const data = `${mount}/data`;
    await Deno.mkdir(data, { mode: 0o700 });
    const filler = `${mount}/filler`;
    return await underTrouble(random, data, {
      begin: () => fill(filler),
      end: () => Deno.remove(filler),
      outlastsProcess: true,
    });
  } finally {
    await run("umount", ["-l", mount]);
    await Deno.remove(mount);
  }
}

/** @throws Error when strace is missing or may not trace, or the server does not do what it must */
export async function failFsync(random: () => number): Promise<Verdict> {
  let strace: Deno.ChildProcess | undefined;
  return await underTrouble(random, undefined, {
    begin: async (pid) => {
      const calls = "fsync,fdatasync,sync_file_range";
      // deno-fmt-ignore
      strace = new Deno.Command("strace", {
        args: [
          "-f", "-qq", "-p", String(pid), "-o", "/dev/null",
          "-e", `trace=${calls}`, "-e", `inject=${calls}:error=EIO`,
        ],
        stdin: "null",
        stderr: "null",
      }).spawn();
      await until("strace to be attached", 5_000, async () => {
        const status = await run("cat", [`/proc/${pid}/status`]);
        return /^TracerPid:\s+[1-9]/m.test(status);
      });
    },
    end: async () => {
      strace?.kill("SIGTERM"); // lets go of the process
      await strace?.status;
    },
  });
}

interface Trouble {
  /** It is still there for a process that starts anew. */
  readonly outlastsProcess?: boolean;
  begin(pid: number): Promise<void>;
  end(): Promise<void>;
}

async function underTrouble(
  random: () => number,
  data: string | undefined,
  trouble: Trouble,
): Promise<Verdict> {
  const trial = await beginTrial({ random, ...(data === undefined ? {} : { data }) });
  let troubled = false;
  try {
    await trial.spawn();
    await trial.server.ready();
    let { pid } = trial.server;
    const stopLoad = trial.load().stop;
    await sleep(1_500);
    troubled = true;
    await trouble.begin(pid);
    await until("/readyz to say that the store fails", NOTICED, () => readiness(trial, 503));
    await stopLoad();
    await refusesMail(trial);
    if (trouble.outlastsProcess) {
      await trial.kill();
      await trial.spawn();
      pid = trial.server.pid;
      await trial.server.ready();
      await refusesMail(trial);
    }
    const others = [...trial.refused.keys()].filter((code) => code !== 452);
    await trouble.end();
    troubled = false;
    await trial.server.ready();
    await until("mail to be taken again", BACK, () => trial.probe());
    await until("/readyz to be well again", BACK, () => readiness(trial, 200));
    const stopSecond = trial.load().stop;
    await sleep(1_500);
    await stopSecond();
    const samePid = trial.server.running && trial.server.pid === pid;
    return withViolations(await trial.reckon(), [
      ...(samePid ? [] : ["the process did not survive"]),
      ...others.map((code) => `mail was answered ${code} while the disk failed, not 452`),
    ]);
  } finally {
    if (troubled) await trouble.end();
    await trial.close();
  }
}

/** Waits until a probe is answered 452; one that is acknowledged meanwhile must last. */
async function refusesMail(trial: Trial): Promise<void> {
  const before = trial.refused.get(452) ?? 0;
  await until("new mail to be answered 452", NOTICED, async () => {
    await trial.probe();
    return (trial.refused.get(452) ?? 0) > before;
  });
}

const readiness = async (trial: Trial, status: number): Promise<boolean> =>
  (await trial.server.get("/readyz")).status === status;

/** Fills the disk to its last block. */
async function fill(path: string): Promise<void> {
  const file = await Deno.open(path, { write: true, create: true });
  try {
    for (const size of [1 << 20, 4_096, 1]) {
      const octets = new Uint8Array(size);
      try {
        while (true) await file.write(octets);
      } catch (error) {
        if (!(error instanceof Error) || !/no space|os error 28/i.test(error.message)) throw error;
      }
    }
  } finally {
    file.close();
  }
}

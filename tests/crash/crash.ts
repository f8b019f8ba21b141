/**
 * `deno task test:crash`: the real server, a real disk and real sockets under SIGKILL, and with a
 * disk that fails, with everything in play that a queue has: retries, reports, bounces, webhooks, an
 * operator, a destination that is down, an archive. Exits 1 when anything acknowledged was lost,
 * anything was received, told or done more often than the log explains, or when the log does not
 * verify. Every wait in it has a deadline of its own.
 */
import { seeded } from "../load/random.ts";
import { failFsync, fillDisk } from "./disk.ts";
import { killOverAndOver } from "./kills.ts";
import { print, type Verdict } from "./verdict.ts";

const HELP = `deno task test:crash [--kills N] [--seed S] [--disk-full] [--fsync]

  --kills N     kills the server N times under load (default 200)
  --seed S      seed of kill times and faults; printed at the start, random by default
  --disk-full   instead of kills: a data folder on a small tmpfs that fills up (needs root)
  --fsync       instead of kills: fsync that fails (needs strace and the right to trace)

Several scenarios may be named at once: --kills 30 --disk-full --fsync runs all three.
`;

interface Options {
  readonly kills: number;
  readonly seed: number;
  readonly diskFull: boolean;
  readonly fsync: boolean;
}

function parse(args: readonly string[]): Options {
  let kills: number | undefined;
  let seed = Math.floor(Math.random() * 2 ** 32);
  let diskFull = false;
  let fsync = false;
  const rest = [...args];
  for (let arg = rest.shift(); arg !== undefined; arg = rest.shift()) {
    if (arg === "--disk-full") diskFull = true;
    else if (arg === "--fsync") fsync = true;
    else if (arg === "--kills") kills = whole(arg, rest.shift(), 0, 100_000);
    else if (arg === "--seed") seed = whole(arg, rest.shift(), 0, 2 ** 32 - 1);
    else throw new Error(`unknown option ${arg}; --help lists them`);
  }
  return { kills: kills ?? (diskFull || fsync ? 0 : 200), seed, diskFull, fsync };
}

function whole(option: string, value: string | undefined, least: number, most: number): number {
  const number = Number(value);
  if (value === undefined || !Number.isInteger(number) || number < least || number > most) {
    throw new Error(`${option} takes a whole number from ${least} to ${most}`);
  }
  return number;
}

async function main(args: readonly string[]): Promise<number> {
  if (args.includes("--help")) {
    console.log(HELP);
    return 0;
  }
  let options: Options;
  try {
    options = parse(args);
  } catch (error) {
    console.error(`test:crash: ${error instanceof Error ? error.message : error}`);
    return 2;
  }
  const { kills, seed, diskFull, fsync } = options;
  console.log(`seed ${seed}`);
  const scenarios: [string, () => Promise<Verdict>][] = [];
  if (kills > 0) {
    scenarios.push([`${kills} kills`, () =>
      killOverAndOver({
        kills,
        random: seeded(seed),
        onKill: (n) => {
          if (n % 10 === 0) console.log(`  ${n} of ${kills} kills`);
        },
      })]);
  }
  if (diskFull) scenarios.push(["disk full", () => fillDisk(seeded(seed))]);
  if (fsync) scenarios.push(["fsync failing", () => failFsync(seeded(seed))]);

  let failures = 0;
  for (const [name, scenario] of scenarios) {
    const began = performance.now();
    try {
      const verdict = await scenario();
      if (!print(name, verdict, (performance.now() - began) / 1_000)) failures++;
    } catch (error) {
      failures++;
      console.log(`${name}: ${error instanceof Error ? error.message : error}`);
    }
  }
  if (failures > 0) {
    console.log(`seed ${seed}: ${failures} of ${scenarios.length} scenarios failed`);
  }
  return failures === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main(Deno.args));

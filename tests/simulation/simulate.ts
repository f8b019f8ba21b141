/**
 * `deno task simulate`: runs simulated worlds, one per seed, until one breaks an invariant.
 *
 *   --seeds N     how many (default 1000)
 *   --seconds T   how long at most
 *   --start S     the first seed (default: at random, and printed)
 *   --seed S      only this one, with its trace: how a failure is replayed
 *   --sweep       that one again and again, killed once, at every moment in turn
 */
import { parseArgs } from "node:util";
import { type Report, World } from "./world.ts";

const HELP =
  `deno task simulate [--seeds N] [--seconds T] [--start SEED] [--seed SEED [--sweep]] [--json]

Runs the queue over virtual time, network, DNS and disk, one world per seed: with senders, hosts,
operators, hold rules, webhooks, suppression and the archive, under kills, full and failing disks,
outages and clocks that are set. Checks what must always hold. Stops at the first seed that breaks
it, and says how to replay it.

  --seeds N     worlds to run (default 1000)
  --seconds T   stop after this long
  --start SEED  first seed (default: drawn at random)
  --seed SEED   run this one alone and print its trace
  --sweep       with --seed: run it once for every moment at which a kill can be told from
                another, killed at that moment alone
  --json        print the totals as JSON
`;

/** Lines of the trace that are printed of a world that failed. */
const TRACE_SHOWN = 60;

interface Totals {
  worlds: number;
  days: number;
  messages: number;
  events: number;
  steps: number;
  kills: number;
  duplicates: number;
  /** Worlds with an archive, its files, events in them, and processes that ended in its making. */
  archiving: number;
  archives: number;
  archived: number;
  interrupted: number;
}

const SUMS = [
  "days",
  "messages",
  "events",
  "steps",
  "kills",
  "duplicates",
  "archives",
  "archived",
  "interrupted",
] as const;

function whole(text: string | undefined, otherwise: number, name: string): number {
  if (text === undefined) return otherwise;
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 0) return value;
  console.error(`simulate: --${name} takes a whole number, not "${text}"`);
  Deno.exit(2);
}

function failure(report: Report): string {
  return [
    ...report.trace.slice(-TRACE_SHOWN),
    "",
    `seed ${report.seed}: ${report.violation?.stack ?? report.violation}`,
    `replay: deno task simulate --seed ${report.seed}`,
  ].join("\n");
}

function add(totals: Totals, report: Report): void {
  totals.worlds++;
  if (report.archives > 0) totals.archiving++;
  for (const key of SUMS) totals[key] += report[key];
}

async function replay(seed: number): Promise<number> {
  const report = await new World(seed).run();
  const { violation, trace, ...rest } = report;
  console.log(trace.join("\n"));
  console.log(rest);
  if (violation) console.log(failure(report));
  return violation ? 1 : 0;
}

async function sweep(seed: number): Promise<number> {
  const { boundaries } = await new World(seed, {}, 0).run();
  for (let killAt = 0; killAt <= boundaries; killAt++) {
    const report = await new World(seed, {}, killAt).run();
    if (!report.violation) continue;
    console.log(failure(report));
    console.log(`the process was killed at moment ${killAt} of ${boundaries}: add --sweep`);
    return 1;
  }
  console.log(`seed ${seed}: killed at each of ${boundaries} moments, and nothing was lost`);
  return 0;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      seeds: { type: "string" },
      seconds: { type: "string" },
      start: { type: "string" },
      seed: { type: "string" },
      sweep: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  if (values.seed !== undefined) {
    const seed = whole(values.seed, 0, "seed");
    return values.sweep ? await sweep(seed) : await replay(seed);
  }
  const seeds = whole(values.seeds, 1_000, "seeds");
  const seconds = whole(values.seconds, Number.MAX_SAFE_INTEGER, "seconds");
  const first = whole(values.start, crypto.getRandomValues(new Uint32Array(1))[0]!, "start");
  if (!values.json) console.log(`seeds from ${first} on`);
  const totals: Totals = {
    worlds: 0,
    days: 0,
    messages: 0,
    events: 0,
    steps: 0,
    kills: 0,
    duplicates: 0,
    archiving: 0,
    archives: 0,
    archived: 0,
    interrupted: 0,
  };
  const begun = performance.now();
  const elapsed = () => (performance.now() - begun) / 1_000;
  for (let seed = first; seed < first + seeds && elapsed() < seconds; seed++) {
    const report = await new World(seed).run();
    add(totals, report);
    if (!report.violation) continue;
    console.log(failure(report));
    return 1;
  }
  const took = elapsed();
  const rates = {
    seconds: Math.round(took),
    seedsPerSecond: Number((totals.worlds / took).toFixed(1)),
    queueDaysPerSecond: Number((totals.days / took).toFixed(1)),
  };
  const result = { first, ...totals, days: Math.round(totals.days), ...rates };
  console.log(values.json ? JSON.stringify(result) : result);
  return 0;
}

try {
  Deno.exit(await main());
} catch (cause) {
  console.error(`simulate: ${cause instanceof Error ? cause.message : cause}; see --help`);
  Deno.exit(2);
}

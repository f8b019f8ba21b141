/**
 * `deno task bench`: how many messages a second go through, SMTP in to SMTP out, with every
 * guarantee on: acknowledged after the fsync, the full set of events, hash chain and views.
 *
 * 20 parallel clients open a new connection for each message of 4 KiB; the clock runs from the
 * first connect to the last receipt at the sink. Where Postfix is installed (and this is root), a
 * private instance does the same work in the same run, in turns with Postledger, and the ratio is
 * printed. Postfix runs with its own defaults but for `in_flow_delay = 0`, which is in its favour:
 * with the default it holds clients back as soon as mail comes in faster than it goes out.
 *
 * Generator and sink run in this process, on the same cores as what is measured; how fast they
 * are on their own is measured first, as the ceiling that no result here can exceed.
 */
import { type Histogram } from "../load/metrics.ts";
import type { Machine } from "./machine.ts";
import { type Choices, measure, type Report, type Round } from "./measure.ts";

const HELP = `deno task bench [--messages N] [--rounds N] [--clients N] [--json] [--no-postfix]

  --messages N    messages per round (default 10000)
  --rounds N      rounds per server, in turns (default 2)
  --clients N     parallel clients (default 20)
  --json          prints one JSON document instead of tables
  --no-postfix    leaves Postfix out, also where it is installed
`;

interface Options extends Choices {
  readonly json: boolean;
}

const describe = (machine: Machine): string =>
  `${machine.cores} × ${machine.cpu}, ${machine.memoryGiB} GiB, ${machine.kernel}, ` +
  `Deno ${machine.deno}, ${machine.fileSystem}, fsync ${machine.fsync.toFixed(2)} ms, ` +
  `load before ${machine.load.toFixed(1)}`;

const ROW_HEAD = [
  "server".padEnd(16),
  "messages".padStart(9),
  "intake s".padStart(9),
  "total s".padStart(8),
  "msg/s".padStart(7),
  "p50 ms".padStart(7),
  "p99 ms".padStart(7),
  "conns out".padStart(10),
  "load CPU s".padStart(11),
  "server CPU ms/msg".padStart(18),
].join(" ");

function row(round: Round): string {
  const each = round.serverCpu === undefined ? "" : (round.serverCpu * 1000) / round.messages;
  return [
    round.server.padEnd(16),
    String(round.messages).padStart(9),
    round.intake.toFixed(2).padStart(9),
    round.seconds.toFixed(2).padStart(8),
    round.rate.toFixed(0).padStart(7),
    round.p50.toFixed(1).padStart(7),
    round.p99.toFixed(1).padStart(7),
    String(round.connections).padStart(10),
    round.loadCpu.toFixed(2).padStart(11),
    (each === "" ? "" : each.toFixed(2)).padStart(18),
  ].join(" ");
}

function print(report: Report): void {
  console.log(`\nPostledger: ${report.postledger.toFixed(0)} messages/s`);
  if (report.postfixRate === null || report.ratio === null) {
    console.log("Postfix: not measured (not installed, not root, or --no-postfix)");
  } else {
    console.log(`Postfix ${report.postfix}: ${report.postfixRate.toFixed(0)} messages/s`);
    console.log(`ratio: ${report.ratio.toFixed(2)}`);
  }
  const { commitEvents, commitSeconds } = report;
  console.log(
    `commits: ${commitEvents.count}, ${mean(commitEvents).toFixed(1)} events and ` +
      `${(mean(commitSeconds) * 1000).toFixed(2)} ms each on average`,
  );
  for (const { upTo, count } of commitEvents.buckets) {
    if (count > 0) console.log(`  up to ${upTo.padStart(5)} events: ${count}`);
  }
}

const mean = ({ sum, count }: Histogram): number => count === 0 ? 0 : sum / count;

function parse(args: readonly string[]): Options {
  const options = { messages: 10_000, rounds: 2, clients: 20, json: false, postfix: true };
  const rest = [...args];
  for (let arg = rest.shift(); arg !== undefined; arg = rest.shift()) {
    if (arg === "--json") options.json = true;
    else if (arg === "--no-postfix") options.postfix = false;
    else if (arg === "--messages" || arg === "--rounds" || arg === "--clients") {
      const value = rest.shift();
      const number = Number(value);
      if (!Number.isInteger(number) || number < 1 || number > 1_000_000) {
        throw new Error(`${arg} takes a whole number from 1 to 1000000, not ${value ?? "nothing"}`);
      }
      options[arg.slice(2) as "messages" | "rounds" | "clients"] = number;
    } else throw new Error(`unknown option ${arg}; --help lists them`);
  }
  return options;
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
    console.error(`bench: ${error instanceof Error ? error.message : error}`);
    return 2;
  }
  try {
    const say = options.json ? () => {} : console.log;
    const report = await measure(options, {
      machine: (machine) => say(describe(machine)),
      ceiling: (rate) => {
        say(`generator straight into sink: ${rate.toFixed(0)} messages/s\n`);
        say(ROW_HEAD);
      },
      round: (round) => say(row(round)),
    });
    if (options.json) console.log(JSON.stringify(report, null, 2));
    else print(report);
    return 0;
  } catch (error) {
    console.error(`bench: ${error instanceof Error ? error.message : error}`);
    return 1;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));

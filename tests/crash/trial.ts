/**
 * One trial: a server, a sink with faults and a load over both, which the scenarios treat badly;
 * and the reckoning at the end, which is the same for all of them.
 */
import { samples } from "../load/metrics.ts";
import { counter, generate, type LoadResult } from "../load/generator.ts";
import { type Sink, type SinkFaults, startSink } from "../load/sink.ts";
import { everythingTo, Server } from "../peers/serve.ts";
import { until } from "../peers/wait.ts";
import { compare, type Findings, readBooks } from "./books.ts";

/** Some of everything that a receiving server can do to an attempt. */
export const FAULTS: SinkFaults = {
  refuse: 0.05,
  refuseData: 0.02,
  hangUpBefore: 0.02,
  hangUpAfter: 0.02,
};

/** Enough to be always busy, few enough that the queue keeps up. */
const STEADY: Load = { clients: 8, rate: 150 };
/** What is finished goes into the archive while the server is treated badly. */
const KEEP = "1s";
/** How long the queue may take to drain at the end, milliseconds. */
const DRAIN = 120_000;

export interface Load {
  readonly clients: number;
  /** Messages a second; as many as go through by default. */
  readonly rate?: number;
}

export interface Trial {
  readonly server: Server;
  readonly sink: Sink;
  readonly acknowledged: ReadonlySet<string>;
  /** Replies other than the expected, by code. */
  readonly refused: ReadonlyMap<number, number>;
  /**
   * Starts a load, a steady one by default; several may run at once.
   * @returns ends it, and adds what it knows to `acknowledged` and `refused`
   */
  load(load?: Load): () => Promise<void>;
  /** One message; resolves with whether it was acknowledged. */
  probe(): Promise<boolean>;
  /** Lets the queue drain, stops the server and compares everything. */
  reckon(): Promise<Findings>;
  close(): Promise<void>;
}

/** @param data an empty folder for the server; by default one of its own */
export async function beginTrial(random: () => number, data?: string): Promise<Trial> {
  const sink = startSink({ random, faults: FAULTS });
  const server = await Server.prepare({
    routing: `${everythingTo(sink.port)}\n[retention]\nkeep = "${KEEP}"\n`,
    ...(data === undefined ? {} : { data }),
  });
  const acknowledged = new Set<string>();
  const refused = new Map<number, number>();
  const ids = counter();
  const running = new Set<() => Promise<void>>();

  const note = (result: LoadResult) => {
    for (const id of result.acknowledged) acknowledged.add(id);
    for (const [code, n] of result.refused) refused.set(code, (refused.get(code) ?? 0) + n);
    return result;
  };

  return {
    server,
    sink,
    acknowledged,
    refused,
    load: (load = STEADY) => {
      const end = new AbortController();
      const result = generate({ ...load, port: server.smtpPort, ids, signal: end.signal });
      const stop = async () => {
        end.abort();
        running.delete(stop);
        note(await result);
      };
      running.add(stop);
      return stop;
    },
    probe: async () => {
      const result = note(
        await generate({ port: server.smtpPort, clients: 1, count: 1, ids }),
      );
      return result.acknowledged.length === 1;
    },
    reckon: async () => {
      sink.setFaults({});
      await drained(server);
      const exit = await server.stop();
      const books = await readBooks(server);
      const findings = compare(acknowledged, sink.received, books);
      const violations = [...findings.violations];
      if (exit.code !== 0) {
        violations.push(
          `the server exited ${exit.code} (${exit.signal ?? "no signal"}) on SIGTERM`,
        );
      }
      // Chain and checkpoints; then the database, projections against a rebuild, and bodies.
      for (const [task, ...args] of [["audit", "verify"], ["doctor"]] as const) {
        const { code, stdout, stderr } = await server.command(task, ...args);
        if (code !== 0) violations.push(`${task} exited ${code}: ${stdout}${stderr}`);
      }
      return { ...findings, archived: await filesIn(`${server.data}/archive`), violations };
    },
    close: async () => {
      for (const stop of [...running]) await stop();
      await server.remove();
      await sink.close();
    },
  };
}

async function filesIn(folder: string): Promise<number> {
  try {
    return (await Array.fromAsync(Deno.readDir(folder))).length;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}

/** Waits until nothing is queued or being tried; what is lost is not waited for. */
async function drained(server: Server): Promise<void> {
  await until("the queue to drain", DRAIN, async () => {
    const depth = samples((await server.get("/metrics")).text, "postledger_queue_depth");
    return ["queued", "attempting"].every((state) => !depth.get(`{state="${state}"}`));
  }).catch(() => {
    // what is left is compared message by message
  });
}

/** Prints the findings of a scenario; true when nothing is wrong. */
export function print(scenario: string, findings: Findings): boolean {
  const { violations, ...numbers } = findings;
  const line = Object.entries(numbers).map(([name, value]) => `${name} ${value}`).join(", ");
  console.log(`${scenario}: ${line}`);
  for (const violation of violations.slice(0, 20)) console.log(`  VIOLATION ${violation}`);
  if (violations.length > 20) console.log(`  … and ${violations.length - 20} more`);
  return violations.length === 0;
}

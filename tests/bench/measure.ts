/**
 * The measurement of `deno task bench`: the same load through each server in turns.
 */
import process from "node:process";
import { counter, generate, type LoadResult } from "../load/generator.ts";
import { type Histogram, histogram } from "../load/metrics.ts";
import { type Sink, startSink } from "../load/sink.ts";
import { postfixVersion, startPostfix } from "../peers/postfix.ts";
import { everythingTo, Server } from "../peers/serve.ts";
import { until } from "../peers/wait.ts";
import { describeMachine, type Machine, percentile } from "./machine.ts";

const SIZE = 4_096;
const WARM_UP = 1_000;
/** A round that has not ended after this many milliseconds is given up. */
const ROUND_LIMIT = 90_000;

export interface Choices {
  /** Messages per round. */
  readonly messages: number;
  /** Rounds per server. */
  readonly rounds: number;
  readonly clients: number;
  /** Measure Postfix too, where it can be. */
  readonly postfix: boolean;
}

/** Called as the measurement goes on. */
export interface Progress {
  machine(machine: Machine): void;
  ceiling(rate: number): void;
  round(round: Round): void;
}

export interface Round {
  readonly server: string;
  readonly messages: number;
  /** Seconds from the first connect to the last acknowledgement, and to the last receipt. */
  readonly intake: number;
  readonly seconds: number;
  /** Messages a second, end to end. */
  readonly rate: number;
  /** Milliseconds of a client's whole transaction, connect to 250. */
  readonly p50: number;
  readonly p99: number;
  /** Connections that the sink saw. */
  readonly connections: number;
  /** Processor seconds of the load tools; of the server where it is one process. */
  readonly loadCpu: number;
  readonly serverCpu?: number;
}

export interface Report {
  readonly machine: Machine;
  readonly clients: number;
  readonly size: number;
  /** Messages a second from the generator straight into the sink. */
  readonly ceiling: number;
  readonly postfix: string | null;
  readonly rounds: readonly Round[];
  readonly postledger: number;
  readonly postfixRate: number | null;
  readonly ratio: number | null;
  /** Of Postledger, over the whole run: events per commit, and seconds per commit. */
  readonly commitEvents: Histogram;
  readonly commitSeconds: Histogram;
}

/** A server under test: where it listens, where it sends to. */
interface Subject {
  readonly name: string;
  readonly port: number;
  readonly sink: Sink;
  cpu?(): Promise<number>;
}

/** Ids never repeat in a run: each receipt belongs to its own round. */
const ids = counter();

async function load(subject: Subject, messages: number, clients: number): Promise<Round> {
  const { sink, port } = subject;
  const before = sink.total();
  const connections = sink.connections();
  const serverBefore = await subject.cpu?.();
  const loadBefore = loadCpu();
  const result: LoadResult = await generate({
    port,
    clients,
    count: messages,
    ids,
    size: SIZE,
    seconds: ROUND_LIMIT / 1000,
  });
  const { acknowledged, refused, broken, unknown } = result;
  if (acknowledged.length !== messages) {
    const codes = [...refused].map(([code, n]) => `${n} × ${code}`).join(", ");
    throw new Error(
      `${subject.name}: ${acknowledged.length} of ${messages} were acknowledged ` +
        `(replies: ${codes || "none"}; broken connections: ${broken}; unknown: ${unknown.length})`,
    );
  }
  await until(
    `${messages} messages from ${subject.name}`,
    ROUND_LIMIT,
    () => sink.total() - before >= messages,
  );
  for (const id of acknowledged) {
    const times = sink.received.get(id);
    if (times !== 1) throw new Error(`${subject.name}: ${id} came ${times ?? 0} times`);
  }
  const serverAfter = await subject.cpu?.();
  const seconds = (sink.lastAt() - result.began) / 1000;
  return {
    server: subject.name,
    messages,
    intake: (result.ended - result.began) / 1000,
    seconds,
    rate: messages / seconds,
    p50: percentile(result.took, 50),
    p99: percentile(result.took, 99),
    connections: sink.connections() - connections,
    loadCpu: loadCpu() - loadBefore,
    ...(serverBefore === undefined || serverAfter === undefined
      ? {}
      : { serverCpu: serverAfter - serverBefore }),
  };
}

/** Processor seconds of this process. */
function loadCpu(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** @throws Error when a message is not taken, is lost, or comes twice, with any of the servers */
export async function measure(options: Choices, progress: Progress): Promise<Report> {
  const closers: (() => Promise<void>)[] = [];
  try {
    const machine = await describeMachine(Deno.env.get("TMPDIR") ?? "/tmp");
    progress.machine(machine);

    const direct = startSink();
    closers.push(() => direct.close());
    const self: Subject = { name: "generator into sink", port: direct.port, sink: direct };
    await load(self, WARM_UP, options.clients);
    const ceiling = (await load(self, 5_000, options.clients)).rate;
    progress.ceiling(ceiling);

    const sink = startSink();
    closers.push(() => sink.close());
    const server = await Server.prepare({ routing: everythingTo(sink.port) });
    closers.push(() => server.remove());
    await server.start();
    const subjects: Subject[] = [
      { name: "Postledger", port: server.smtpPort, sink, cpu: () => server.cpuSeconds() },
    ];

    let version: string | undefined;
    if (options.postfix && Deno.uid() === 0) version = await postfixVersion();
    if (version !== undefined) {
      const postfixSink = startSink();
      closers.push(() => postfixSink.close());
      const postfix = await startPostfix({
        relay: postfixSink.port,
        main: { in_flow_delay: "0s" },
      });
      closers.push(() => postfix.stop());
      subjects.push({ name: `Postfix ${version}`, port: postfix.port, sink: postfixSink });
    }

    for (const subject of subjects) await load(subject, WARM_UP, options.clients);
    const rounds: Round[] = [];
    for (let n = 0; n < options.rounds; n++) {
      for (const subject of subjects) {
        const round = await load(subject, options.messages, options.clients);
        rounds.push(round);
        progress.round(round);
      }
    }
    const { text: metrics } = await server.get("/metrics");
    const commitEvents = histogram(metrics, "postledger_commit_events");
    const commitSeconds = histogram(metrics, "postledger_commit_seconds");
    const exit = await server.stop();
    if (exit.code !== 0) throw new Error(`the server exited ${exit.code} after SIGTERM`);

    const rateOf = (name: string) => {
      const own = rounds.filter((round) => round.server === name);
      const seconds = own.reduce((sum, round) => sum + round.seconds, 0);
      return own.reduce((sum, round) => sum + round.messages, 0) / seconds;
    };
    const postledger = rateOf("Postledger");
    const postfixRate = version === undefined ? null : rateOf(`Postfix ${version}`);
    return {
      machine,
      clients: options.clients,
      size: SIZE,
      ceiling,
      postfix: version ?? null,
      rounds,
      postledger,
      postfixRate,
      ratio: postfixRate === null ? null : postledger / postfixRate,
      commitEvents,
      commitSeconds,
    };
  } finally {
    for (const close of closers.reverse()) await close();
  }
}

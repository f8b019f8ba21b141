/**
 * One trial: a server; sinks, a webhook endpoint and an operator with faults of their own; and a
 * load over all of it, which the scenarios treat badly. And the reckoning at the end, which is the
 * same for all of them.
 */
import { samples } from "../load/metrics.ts";
import { counter, generate, type LoadOptions, type LoadResult } from "../load/generator.ts";
import { type SinkFaults, startSink } from "../load/sink.ts";
import { everythingTo, Server } from "../peers/serve.ts";
import { until } from "../peers/wait.ts";
import { ActBooks, compareActs } from "./acts.ts";
import { Books, compare } from "./books.ts";
import { Bounces } from "./bounces.ts";
import { type HookFaults, startHook } from "./hook.ts";
import { readLog } from "./log.ts";
import { envelopeOf, LAME, LAME_TRANSPORT, NOBODY, recipientsOf } from "./mail.ts";
import { Operator } from "./operator.ts";
import { Outages } from "./outages.ts";
import { checkReports } from "./reports.ts";
import { compareTold, HookBooks } from "./told.ts";
import { ARCHIVED_FROM, type Verdict } from "./verdict.ts";

/** Some of everything that a receiving server can do to an attempt. */
const FAULTS: SinkFaults = {
  refuse: 0.05,
  refuseData: 0.02,
  hangUpBefore: 0.02,
  hangUpAfter: 0.02,
};
/** The other destination, for as long as some processes live: well, gone, or neither. */
const LAMENESS: readonly SinkFaults[] = [FAULTS, { turnAway: 1 }, { turnAway: 0.7 }];
const LAME_FOR = 4;

/** The webhook endpoint, for as long as a process lives: mostly well, or of no use. */
const SELDOM: HookFaults = { refuse: 0.002, cut: 0.002 };
const OF_NO_USE: HookFaults = { refuse: 0.5, hang: 0.2, cut: 0.3 };
const MOODS: readonly HookFaults[] = [SELDOM, SELDOM, { ...SELDOM, hang: 0.005 }, OF_NO_USE];

/** Enough to be always busy, few enough that the queue keeps up. */
const STEADY: Load = { clients: 8, rate: 150 };
/** What is finished goes into the archive while the server is treated badly. */
const KEEP = "1s";
/** How long the queue, and then the webhooks, may take to come to rest at the end, milliseconds. */
const REST = 120_000;

/** The endpoints, with what each is told of. */
const ENDPOINTS: ReadonlyMap<string, readonly string[]> = new Map([
  ["everything", ["delivered", "delayed", "failed", "suppressed"]],
  ["failures", ["failed", "suppressed"]],
]);

const secretOf = (endpoint: string) => `the secret of ${endpoint}`;

const config = (sink: number, lame: number, hook: number): string =>
  `
[[routes]]
to_domain = ["${LAME}"]
transport = "${LAME_TRANSPORT}"
${everythingTo(sink)}
[transports.${LAME_TRANSPORT}]
type = "smtp"
host = "127.0.0.1"
port = ${lame}

[retention]
keep = "${KEEP}"
` + [...ENDPOINTS].map(([name, kinds]) => `
[webhooks.${name}]
url = "http://127.0.0.1:${hook}/${name}"
secret = "${secretOf(name)}"
events = ${JSON.stringify(kinds)}
`).join("");

export interface Load {
  readonly clients: number;
  /** Messages a second; as many as go through by default. */
  readonly rate?: number;
  /** It ends by itself after so many. */
  readonly count?: number;
}

export interface RunningLoad {
  /** Ends it; what it was told is kept. */
  stop(): Promise<void>;
  /** Resolves when it has ended by itself. */
  readonly done: Promise<void>;
}

export interface TrialOptions {
  readonly random: () => number;
  /** An empty folder for the server; by default one of its own. */
  readonly data?: string;
  /**
   * The server is killed over and over: whatever surrounds it may be of no use for as long as a
   * process lives, and the operator turns mail away now and then.
   */
  readonly rough?: boolean;
}

export interface Trial {
  readonly server: Server;
  /** Replies other than the expected to loads and probes, by code. */
  readonly refused: ReadonlyMap<number, number>;
  /**
   * Starts a process, and does not wait for it. A long one goes on while webhooks are not taken,
   * every second time; around the last one all is well.
   */
  spawn(which?: "long" | "last"): Promise<void>;
  /** Waits until one more file of the archive is being written, or for so many milliseconds. */
  archiving(ms: number): Promise<void>;
  /** SIGKILL; waits for the end, and for what the process has sent. */
  kill(): Promise<void>;
  /** Starts a load, a steady one by default; several may run at once. */
  load(load?: Load): RunningLoad;
  /** One message; resolves with whether it was acknowledged. */
  probe(): Promise<boolean>;
  /** Lets everything come to rest, stops the server and compares everything. */
  reckon(): Promise<Verdict>;
  close(): Promise<void>;
}

export async function beginTrial({ random, data, rough = false }: TrialOptions): Promise<Trial> {
  const sink = startSink({ random, faults: FAULTS, nobodyAt: NOBODY });
  const lame = startSink({ random, faults: FAULTS });
  const secrets = new Map([...ENDPOINTS.keys()].map((name) => [name, secretOf(name)]));
  const hook = startHook(secrets, random);
  hook.setFaults(SELDOM);
  const server = await Server.prepare({
    routing: config(sink.port, lame.port, hook.port),
    ...(data === undefined ? {} : { data }),
  });
  const archive = archiveOf(server);
  const lives: number[] = [];
  let long = 0;
  const acknowledged = new Set<string>();
  const refused = new Map<number, number>();
  const ids = counter();
  const running = new Set<() => Promise<void>>();

  const note = ({ acknowledged: of }: LoadResult) => {
    for (const id of of) for (const recipient of recipientsOf(id)) acknowledged.add(recipient);
  };
  const send = async (options: Omit<LoadOptions, "port" | "ids">): Promise<LoadResult> =>
    await generate({ envelope: envelopeOf, ...options, port: server.smtpPort, ids });
  const noteAll = (result: LoadResult) => {
    note(result);
    for (const [code, n] of result.refused) refused.set(code, (refused.get(code) ?? 0) + n);
    return result;
  };
  const operator = new Operator({
    server,
    random,
    pauses: rough,
    received: (id) => sink.received.has(id),
    send: async (domain, to) => {
      const envelope = (id: string) => ({
        from: `<operator.${id}@load.example>`,
        to: [`<${to ?? `${id}@${domain}`}>`],
      });
      const [id] = (await send({ clients: 1, count: 1, envelope })).acknowledged;
      if (id !== undefined) acknowledged.add(id);
      return id;
    },
  });

  return {
    server,
    refused,
    spawn: async (which) => {
      const oneOf = <T>(all: readonly T[]) => all[Math.floor(random() * all.length)]!;
      if (rough) {
        const lameness = LAMENESS[Math.floor(lives.length / LAME_FOR) % LAMENESS.length]!;
        lame.setFaults(which === "last" ? FAULTS : lameness);
        if (which === "last") hook.setFaults({});
        else if (which === "long") hook.setFaults(++long % 2 === 1 ? OF_NO_USE : SELDOM);
        else hook.setFaults(oneOf(MOODS));
      }
      lives.push(Date.now());
      await server.spawn();
      if (lives.length === 1) operator.start();
    },
    archiving: async (ms) => {
      const before = (await filesIn(archive)).length;
      const more = async () => (await filesIn(archive)).length > before;
      await until("a file of the archive", ms, more).catch(() => {
        // there is nothing to archive
      });
    },
    kill: async () => {
      await server.kill();
      await hook.settle();
    },
    load: (load = STEADY) => {
      const end = new AbortController();
      const done = send({ ...load, signal: end.signal }).then((result) => void noteAll(result));
      const stop = async () => {
        end.abort();
        running.delete(stop);
        await done;
      };
      running.add(stop);
      return { stop, done };
    },
    probe: async () => {
      const { acknowledged } = noteAll(await send({ clients: 1, count: 1 }));
      return acknowledged.length === 1;
    },
    reckon: async () => {
      sink.setFaults({});
      lame.setFaults({});
      hook.setFaults({});
      await operator.rest();
      await atRest(server, rough);
      const stopped = Date.now();
      const exit = await server.stop();

      const books = new Books();
      const hookBooks = new HookBooks(books.byStream);
      const actBooks = new ActBooks();
      const bounces = new Bounces();
      const outages = new Outages(books.byStream, lives);
      const readers = [books, hookBooks, actBooks, bounces, outages].map(({ read }) => read);
      const events = await readLog(server, readers);

      const received = sum(sink.received, lame.received);
      const told = { posts: hook.posts, endpoints: ENDPOINTS, lives };
      const ofServer: string[] = [];
      if (exit.code !== 0) {
        ofServer.push(`the server exited ${exit.code} (${exit.signal ?? "no signal"}) on SIGTERM`);
      }
      // Chain and checkpoints; then the database, projections against a rebuild, and bodies.
      for (const [task, ...args] of [["audit", "verify"], ["doctor"]] as const) {
        const { code, stdout, stderr } = await server.command(task, ...args);
        if (code !== 0) ofServer.push(`${task} exited ${code}: ${stdout}${stderr}`);
      }
      return {
        mail: compare(acknowledged, received, books.byId),
        reports: checkReports(books, stopped),
        suppression: bounces.findings(books.byId),
        destinations: outages.findings(),
        webhooks: compareTold(hookBooks, told),
        operators: compareActs(operator.acts, actBooks, operator.ruled, books.byId),
        retention: {
          events,
          archived: (await filesIn(archive)).filter(isWhole).length,
          violations: [],
        },
        others: { violations: [...ofServer, ...hook.violations, ...operator.violations] },
      };
    },
    close: async () => {
      for (const stop of [...running]) await stop();
      await operator.close();
      await server.remove();
      for (const one of [sink, lame, hook]) await one.close();
    },
  };
}

function sum(...all: readonly ReadonlyMap<string, number>[]): Map<string, number> {
  const total = new Map<string, number>();
  for (const [id, times] of all.flatMap((one) => [...one])) {
    total.set(id, (total.get(id) ?? 0) + times);
  }
  return total;
}

const archiveOf = ({ data }: Server): string => `${data}/archive`;

async function filesIn(folder: string): Promise<string[]> {
  try {
    return (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** The others are being written, or were when the process was killed. */
const isWhole = (file: string): boolean => file.endsWith(".jsonl.gz");

/**
 * Waits until nothing is in the queue and webhooks are told; what is lost is not waited for.
 * @param archives also until something is archived, if there is enough to
 */
async function atRest(server: Server, archives: boolean): Promise<void> {
  const rest = async () => {
    const depth = samples((await server.get("/metrics")).text, "postledger_queue_depth");
    if (["queued", "attempting", "held"].some((state) => depth.get(`{state="${state}"}`))) {
      return false;
    }
    const { webhooks } = JSON.parse((await server.get("/api/v1/webhooks")).text);
    const states = webhooks as { behind: number; position: number }[];
    if (states.some(({ behind }) => behind > 0)) return false;
    const enough = states.some(({ position }) => position >= ARCHIVED_FROM);
    return !archives || !enough || (await filesIn(archiveOf(server))).some(isWhole);
  };
  await until("everything to come to rest", REST, rest).catch(() => {
    // what is left is compared message by message
  });
}

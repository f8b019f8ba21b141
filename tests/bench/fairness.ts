/**
 * `deno task bench:fairness [--backlog N] [--dead N]`: what slow and dead destinations cost others.
 *
 * - A backlog for one slow destination lies in the queue. While it is worked off, fresh messages to
 *   another destination come in over SMTP; how long each takes from the 250 to its receipt is
 *   measured, on real sockets and a real disk.
 * - Messages for a destination that refuses every connection, for an hour of virtual time: how many
 *   attempts are burnt and how many connections made, without and with finding out that it is down.
 *
 * Exits 1 when a fresh message took a second or longer.
 */
import { parseArgs } from "node:util";
import { QueueSubmitter } from "../../actors/submitter.ts";
import { openStore } from "../../events/open.ts";
import { loadConfig } from "../../src/config/load.ts";
import { Queue } from "../../src/main.ts";
import { systemClock, systemRandom, ulids } from "../../src/system.ts";
import { MINUTE } from "../actors/given.ts";
import { QueueHarness } from "../actors/queue_harness.ts";
import { generate } from "../load/generator.ts";
import { startSink } from "../load/sink.ts";
import { sleep } from "../peers/wait.ts";
import { percentile } from "./machine.ts";

const FRESH = 20;
/** Milliseconds that the slow destination takes for a message. */
const SLOW = 500;
const PARALLEL = 500;

/** Fills a data folder with messages to one domain, as if they had come in before a restart. */
async function fill(dataDir: string, messages: number): Promise<void> {
  const opened = await openStore({ dataDir, clock: systemClock });
  const { store, bodies } = opened;
  const submitter = new QueueSubmitter({
    clock: systemClock,
    ids: ulids(systemClock, systemRandom),
    store,
  });
  const content = new TextEncoder().encode(`Subject: one of many\r\n\r\n${"x".repeat(900)}\r\n`);
  let left = messages;
  const client = async () => {
    while (left-- > 0) {
      const id = submitter.newSubmissionId();
      const writer = bodies.create();
      await writer.write(new TextEncoder().encode(`Message-ID: <${id}@shop.example>\r\n`));
      await writer.write(content);
      await submitter.submit({
        id,
        account: null,
        mailFrom: "shop@shop.example",
        recipients: [{ rcptTo: `r${left}@slow.example`, dsn: {} }],
        body: await writer.finish(),
        messageId: `<${id}@shop.example>`,
        has8bit: false,
        smtputf8: false,
        requireTLS: false,
        source: { kind: "smtp" },
      });
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, client));
  await opened.close();
}

async function fresh(backlog: number): Promise<boolean> {
  const folder = await Deno.makeTempDir({ prefix: "postledger-fairness-" });
  const slow = startSink({ delay: SLOW });
  const arrived = new Map<string, number>();
  const fast = startSink({ onMessage: (id) => void arrived.set(id, performance.now()) });
  try {
    const begun = performance.now();
    await fill(`${folder}/data`, backlog);
    console.log(`${backlog} messages queued to slow.example (${seconds(begun)})`);
    const relay = (name: string, port: number) =>
      `[transports.${name}]\ntype = "smtp"\nhost = "127.0.0.1"\nport = ${port}\ntls = "none"\n`;
    const file = `${folder}/postledger.toml`;
    await Deno.writeTextFile(
      file,
      `hostname = "queue.example"\n[listen.in]\nprotocol = "smtp"\naddress = "127.0.0.1:0"\n` +
        relay("slow", slow.port) + relay("fast", fast.port) +
        `[[routes]]\nto_domain = ["slow.example"]\ntransport = "slow"\n` +
        `[[routes]]\ntransport = "fast"\n`,
    );
    const config = loadConfig({ file, env: new Map() });
    const log = { info() {}, warn: console.error, error: console.error };
    const queue = await Queue.open(config, { clock: systemClock, random: systemRandom, log });
    await queue.start((cause) => console.error(cause));
    const { port } = queue.addresses.find(({ protocol }) => protocol === "smtp")!;
    const took: number[] = [];
    let next = 0;
    for (let n = 0; n < FRESH; n++) {
      await sleep(200);
      const sent = await generate({ port, clients: 1, count: 1, ids: () => ++next });
      const [id] = sent.acknowledged;
      if (id === undefined) throw new Error("a fresh message was not taken");
      const latest = performance.now() + 10_000;
      while (!arrived.has(id) && performance.now() < latest) await sleep(2);
      took.push((arrived.get(id) ?? Infinity) - sent.ended);
    }
    const worst = Math.max(...took);
    console.log(
      `${FRESH} fresh messages to another destination meanwhile: 250 to receipt ` +
        `p50 ${percentile(took, 0.5).toFixed(1)} ms, worst ${worst.toFixed(1)} ms; ` +
        `${slow.total()} of the backlog delivered by then`,
    );
    await queue.stop();
    return worst < 1_000;
  } finally {
    await Promise.all([slow.close(), fast.close()]);
    await Deno.remove(folder, { recursive: true });
  }
}

/** Attempts, which are connections too: the destination has one address, which refuses. */
async function dead(messages: number, detected: boolean): Promise<void> {
  const queue = await QueueHarness.create();
  try {
    const begun = performance.now();
    let connections = 0;
    queue.limits = { concurrency: 20, ...(detected ? {} : { unreachableBeforeDown: Infinity }) };
    queue.script = () => {
      connections++;
      return Promise.resolve({
        kind: "failed",
        permanent: false,
        result: "error",
        enhanced: "4.4.1",
        reason: "connection refused",
      });
    };
    let left = messages;
    const client = async () => {
      while (left-- > 0) await queue.submit(`r${left}@dead.example`);
    };
    await Promise.all(Array.from({ length: PARALLEL }, client));
    await queue.supervisor.start();
    for (let at = 0; at <= 60 * MINUTE; at += MINUTE / 2) {
      // Time stands still while anything is being done.
      for (let idle = 0; idle < 3;) {
        await sleep(2);
        idle = queue.supervisor.running === 0 ? idle + 1 : 0;
      }
      await queue.clock.advance(MINUTE / 2);
    }
    const rows = await queue.opened.view.list({}, { limit: messages });
    const burnt = rows.reduce((total, { attempts }) => total + attempts, 0);
    const untouched = rows.filter(({ attempts }) => attempts === 0).length;
    console.log(
      `${
        detected ? "with" : "without"
      } detection: ${burnt} attempts, ${connections} connections, ` +
        `${untouched} of ${messages} messages with no attempt spent (${seconds(begun)})`,
    );
  } finally {
    await queue.remove();
  }
}

const seconds = (begun: number): string => `${((performance.now() - begun) / 1_000).toFixed(1)} s`;

const { values } = parseArgs({
  options: {
    backlog: { type: "string", default: "100000" },
    dead: { type: "string", default: "10000" },
  },
});
const fair = await fresh(Number(values.backlog));
console.log(`a dead destination with ${values.dead} messages, an hour:`);
await dead(Number(values.dead), false);
await dead(Number(values.dead), true);
if (!fair) Deno.exit(1);

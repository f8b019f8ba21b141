/**
 * `deno task demo`: a queue at work, in one process, in a quarter of a minute.
 *
 * It starts the real queue with a scratch data folder, and receiving servers of its own on
 * loopback: one that is fine, one that greylists, one that refuses, one that is down. It submits a
 * handful of messages over SMTP, prints every event as it becomes a fact, replays one message,
 * verifies the trail, and leaves nothing behind. Retries run a thousand times faster than in life:
 * 7m30s is 450 ms, and three attempts are enough.
 */
import { fold } from "../../actors/message.ts";
import type { StoredEvent } from "../../events/catalogue.ts";
import { loadConfig } from "../config/load.ts";
import { SocketDialer } from "../delivery/dialer.ts";
import { Queue } from "../main.ts";
import { ClientSession } from "../smtp/client.ts";
import { systemClock, systemRandom } from "../system.ts";
import { run as audit } from "./audit.ts";
import { type Command, CommandError, processTerminal, runCommand } from "./command.ts";
import { Receiver } from "./demo/receiver.ts";
import { eventLine } from "./event_line.ts";
import { run as replay } from "./replay.ts";
import { table, type Terminal, visible } from "./terminal.ts";

const SENDER = "alice@shop.example";
const MESSAGES: readonly (readonly [to: string, subject: string])[] = [
  ["bob@fine.example", "Your invoice"],
  ["carol@fine.example", "Your parcel is on its way"],
  ["dave@greylist.example", "Password reset"],
  ["nobody@refuses.example", "Newsletter"],
  ["erin@down.example", "Are you there?"],
];
/** Longest that all of it may take, milliseconds. */
const PATIENCE = 60_000;

const demo: Command = {
  usage: {
    name: "demo",
    synopsis: "",
    about: "Shows a queue at work against servers of its own, and leaves nothing behind.",
    options: {},
    maxArguments: 0,
  },
  async run(_parsed, terminal) {
    const folder = await Deno.makeTempDir({ prefix: "postledger-demo-" });
    const receivers = {
      fine: new Receiver("mx.fine.example", () => "250 2.1.5 Ok"),
      greylist: new Receiver(
        "mx.greylist.example",
        (_, times) => times < 3 ? "451 4.7.1 Greylisted, try again later" : "250 2.1.5 Ok",
      ),
      refuses: new Receiver("mx.refuses.example", (to) => `550 5.1.1 <${to}>: no such user here`),
    };
    try {
      await show(folder, receivers, terminal);
      return 0;
    } finally {
      for (const receiver of Object.values(receivers)) receiver.close();
      await Deno.remove(folder, { recursive: true });
    }
  },
};

async function show(
  folder: string,
  receivers: Readonly<Record<string, Receiver>>,
  terminal: Terminal,
): Promise<void> {
  const file = `${folder}/postledger.toml`;
  await Deno.writeTextFile(file, configFor(folder, receivers));
  const heading = (text: string) => terminal.out(`\n── ${text}\n`);
  const problems: string[] = [];
  const queue = await Queue.open(loadConfig({ file, env: Deno.env }), {
    clock: systemClock,
    random: systemRandom,
    log: { info: () => {}, warn: () => {}, error: (message) => problems.push(message) },
  });
  const streams = new Map<string, StoredEvent[]>();
  const done = Promise.withResolvers<void>();
  const begun = systemClock.monotonic();
  queue.subscribe((events) => {
    for (const event of events) {
      const before = streams.get(event.stream) ?? [];
      const first = before[0] ?? event;
      // Destinations have streams of their own; they are shown, and are no messages.
      if (first.type === "Enqueued") streams.set(event.stream, [...before, event]);
      const to = first.type === "Enqueued" ? first.data.rcptTo : event.stream;
      const at = ((systemClock.monotonic() - begun) / 1_000).toFixed(2).padStart(5);
      terminal.out(
        `${at}s  ${to.padEnd(28)}${event.type.padEnd(21)}${visible(eventLine(event))}\n`,
      );
    }
    // Four messages to others and two reports to the sender, who is at fine.example.
    const ends = [...streams.values()].map((stream) => fold(stream)?.status);
    const open = ends.filter((status) => status === "queued" || status === "attempting");
    if (streams.size >= MESSAGES.length && open.length === 0) done.resolve();
  });
  try {
    await queue.start((cause) => done.reject(cause));
    const listener = queue.addresses.find(({ protocol }) => protocol === "smtp")!;
    heading("five messages come in over SMTP; their events, as they are written");
    for (const [to, subject] of MESSAGES) await submit(listener, to, subject);
    const cancel = systemClock.timer(PATIENCE, () => {
      done.reject(new CommandError(`not all messages came to an end within ${PATIENCE / 1_000} s`));
    });
    await done.promise.finally(cancel);

    heading("how each of them ended (the null sender <> sends reports of failure)");
    terminal.out(table(
      [{ title: "FROM" }, { title: "TO" }, { title: "ATTEMPTS", align: "right" }, { title: "END" }],
      [...streams.values()].map((stream) => {
        const message = fold(stream)!;
        const { mailFrom, rcptTo } = message.enqueued;
        return [mailFrom || "<>", rcptTo, String(message.attempts), message.status];
      }),
    ));
  } finally {
    await queue.stop();
  }
  const greylisted = [...streams].find(([, [first]]) =>
    first?.type === "Enqueued" && first.data.rcptTo.startsWith("dave@")
  );
  heading(`deno task replay ${greylisted![0]}`);
  await replay([greylisted![0], "--data", `${folder}/data`], terminal);
  heading("deno task audit verify");
  await audit(["verify", "--data", `${folder}/data`], terminal);
  if (problems.length > 0) throw new CommandError(problems.join("; "));
}

function configFor(folder: string, receivers: Readonly<Record<string, Receiver>>): string {
  const port = (name: string) => receivers[name]?.port ?? closedPort();
  const names = ["fine", "greylist", "refuses", "down"];
  // Mail to the sender's own domain is reports: they go to the server that is fine.
  const routes = names.map((name) =>
    `[[routes]]\nto_domain = ["${name}.example"${name === "fine" ? ', "shop.example"' : ""}]\n` +
    `transport = "${name}"\n[transports.${name}]\ntype = "smtp"\nhost = "127.0.0.1"\n` +
    `port = ${port(name)}\n`
  );
  return `hostname = "queue.shop.example"
data_dir = "${folder}/data"
[listen.local]
protocol = "smtp"
address = "127.0.0.1:0"
[queue]
retry = ["450ms", "900ms", "1800ms"]
max_attempts = 3
delay_notice_after = 2
${routes.join("")}`;
}

/** A port that nobody listens on. */
function closedPort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  listener.close();
  return listener.addr.port;
}

async function submit(
  { address, port }: { readonly address: string; readonly port: number },
  rcptTo: string,
  subject: string,
): Promise<void> {
  const { signal } = new AbortController();
  const connection = await new SocketDialer().connect({ address, port }, signal);
  const session = new ClientSession(connection, {
    clock: systemClock,
    hostname: "laptop.shop.example",
    tls: { mode: "none" },
  });
  const content = new TextEncoder().encode(
    `From: Alice <${SENDER}>\r\nTo: <${rcptTo}>\r\nSubject: ${subject}\r\n\r\nHello!\r\n`,
  );
  await session.greet(signal);
  const { recipients: [verdict] } = await session.send({
    mailFrom: SENDER,
    recipients: [{ rcptTo, dsn: {} }],
    size: content.length,
    has8bit: false,
    smtputf8: false,
    requireTLS: false,
    body: () =>
      Promise.resolve({
        size: content.length,
        chunks: async function* () {
          yield await content;
        },
      }),
  }, signal);
  await session.quit();
  if (verdict?.result !== "ok") throw new CommandError(`${rcptTo} was not accepted`);
}

if (import.meta.main) Deno.exit(await runCommand(demo, Deno.args, processTerminal));

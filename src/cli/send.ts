/**
 * `deno task send`, and /usr/sbin/sendmail (packaging/sendmail): takes a message on standard input
 * and hands it over to the queue, as programs expect it of sendmail(1).
 *
 * It has the rights of whoever calls it, and no more: the message goes by SMTP to a listener of the
 * queue, or to a server elsewhere with its login (send/settings.ts). What is not taken there is
 * reported, and saved as dead.letter; the exit code says why (sysexits.h).
 */
import { Buffer } from "node:buffer";
import type { Clock } from "../../actors/ports.ts";
import type { Environment } from "../config/environment.ts";
import { ConfigError } from "../config/problems.ts";
import { SocketDialer } from "../delivery/dialer.ts";
import type { Dialer } from "../ports.ts";
import { BadAddress, formatMailbox, isAscii, parseMailbox } from "../smtp/address.ts";
import { systemClock } from "../system.ts";
import { processTerminal } from "./command.ts";
import { addressesIn, BadList, qualify } from "./send/addresses.ts";
import { type DeadLetterPlaces, saveDeadLetter } from "./send/dead_letter.ts";
import {
  EX_CONFIG,
  EX_DATAERR,
  EX_IOERR,
  EX_NOUSER,
  EX_OK,
  EX_SOFTWARE,
  EX_UNAVAILABLE,
  EX_USAGE,
} from "./send/exit_codes.ts";
import { handOver, type NotTaken } from "./send/handover.ts";
import { MessageInput } from "./send/input.ts";
import { prepare } from "./send/message.ts";
import { BadUsage, readOptions, type SendOptions } from "./send/options.ts";
import { type Person, personOf } from "./send/person.ts";
import { proxy } from "./send/proxy.ts";
import { loadSettings, type SendSettings } from "./send/settings.ts";
import { type Terminal, visible } from "./terminal.ts";

const HELP = `sendmail [options] [recipient ...] < message

  -t            take recipients from To, Cc and Bcc, too
  -i, -oi       a line with a dot alone does not end the message
  -f ADDRESS    envelope sender (also -r)
  -F NAME       full name for a From field, where the message has none
  -N WHEN       notify: never, or some of success,failure,delay
  -R WHAT       return in a report: full or hdrs
  -V ID         envelope id for reports
  -C FILE       config (default: $POSTLEDGER_SENDMAIL, /etc/postledger/sendmail.toml)
  -bs           speak SMTP on standard input and output
  -v            show the dialogue

Other options of sendmail(1) are taken and mean nothing. Exit codes are those of sysexits.h.
`;

export interface SendWorld {
  readonly clock: Clock;
  readonly dialer: Dialer;
  readonly env: Environment;
  readonly hostname: () => string;
  readonly person: () => Person;
  readonly places: DeadLetterPlaces;
  readonly stdin: AsyncIterable<Uint8Array>;
  readonly stdout: (octets: Uint8Array) => Promise<void>;
  readonly terminal: Terminal;
  /** The name that the program was called by. */
  readonly calledAs?: string | undefined;
}

/** @returns the exit code. Never throws. */
export async function send(args: readonly string[], world: SendWorld): Promise<number> {
  const { terminal } = world;
  const say = (text: string) => terminal.err(`sendmail: ${visible(text)}\n`);
  if (args.includes("--help")) {
    terminal.out(HELP);
    return EX_OK;
  }
  try {
    const options = readOptions(args, world.calledAs);
    switch (options.mode) {
      case "aliases": // there are none: nothing is delivered here
        return EX_OK;
      case "queue":
        say('"deno task queue list" shows the queue, to those who may read its data folder');
        return EX_UNAVAILABLE;
      case "smtp":
        return await proxy(settingsOf(options, world).server, world, say);
      case "deliver":
        return await new Sending(options, world, say).run();
    }
  } catch (error) {
    if (error instanceof BadUsage) {
      say(error.message);
      return EX_USAGE;
    }
    if (error instanceof ConfigError) {
      for (const line of error.lines) say(line);
      return EX_CONFIG;
    }
    say(error instanceof Error ? error.stack ?? error.message : String(error));
    return EX_SOFTWARE;
  }
}

const settingsOf = ({ config }: SendOptions, { env, hostname }: SendWorld): SendSettings =>
  loadSettings(config, env, hostname);

/** Larger than what any config lets in: how much is held before the config is known to be bad. */
const WITHOUT_CONFIG = 50 * 2 ** 20;

/** One message on its way from standard input. */
class Sending {
  #sender = "";
  #recipients: readonly string[] = [];

  constructor(
    readonly options: SendOptions,
    readonly world: SendWorld,
    readonly say: (text: string) => void,
  ) {}

  async run(): Promise<number> {
    const { options, world } = this;
    if (options.recipients.length === 0 && !options.fromHeader) {
      throw new BadUsage("there is no recipient; name one, or take them from the header with -t");
    }
    this.#sender = options.sender ?? world.person().login;
    this.#recipients = options.recipients;
    let settings: SendSettings | ConfigError;
    try {
      settings = settingsOf(options, world);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      settings = error;
    }
    const most = settings instanceof ConfigError ? WITHOUT_CONFIG : settings.maxSize;
    const input = new MessageInput(options.ignoreDots, most);
    const chunks = world.stdin[Symbol.asyncIterator]();
    try {
      for (let next = await chunks.next(); !next.done; next = await chunks.next()) {
        if (input.push(next.value)) break;
      }
    } catch (error) {
      const why = `standard input cannot be read: ${messageOf(error)}`;
      return await this.#giveUp(EX_IOERR, why, input.end());
    }
    if (input.tooLarge) {
      const why = `the message has more than ${most} octets`;
      return await this.#giveUp(EX_UNAVAILABLE, why, input.drain(), rest(input, chunks));
    }
    const message = input.end();
    if (settings instanceof ConfigError) {
      return await this.#giveUp(EX_CONFIG, settings.lines.join("; "), message);
    }
    try {
      return await this.#deliver(message, settings);
    } catch (error) {
      const known = error instanceof BadList || error instanceof BadAddress;
      const exit = known ? EX_DATAERR : EX_SOFTWARE;
      return await this.#giveUp(exit, messageOf(error), message);
    }
  }

  async #deliver(message: Buffer, { domain, hostname, server }: SendSettings): Promise<number> {
    const { options: { sender, fullName, fromHeader, dsn, verbose, recipients }, world } = this;
    const { clock, dialer, terminal } = world;
    const person = world.person();
    const mailFrom = senderOf(sender ?? person.login, domain);
    this.#sender = mailFrom;
    const { content, named, has8bit } = prepare(message, {
      address: mailFrom || qualify(person.login, domain),
      name: fullName ?? (sender === undefined ? person.fullName : undefined),
      domain,
      now: clock.now(),
      id: crypto.randomUUID(),
    }, fromHeader);
    const { taken, bad } = recipientsOf([
      ...recipients.flatMap((list) => addressesIn(list).map(({ spec }) => qualify(spec, domain))),
      ...named,
    ]);
    this.#recipients = [...taken, ...bad.map(({ rcptTo }) => rcptTo)];
    if (this.#recipients.length === 0) {
      return await this.#giveUp(EX_USAGE, "the message names no recipient", message);
    }
    const failed = [...bad];
    if (taken.length > 0) {
      failed.push(
        ...await handOver(
          {
            mailFrom,
            recipients: taken.map((rcptTo) => ({ rcptTo, dsn })),
            content,
            has8bit,
            // A header that is not ASCII needs it by the letter; programs write such, and servers
            // that know no SMTPUTF8 have always passed it on.
            smtputf8: ![mailFrom, ...taken].every(isAscii),
          },
          server,
          {
            clock,
            dialer,
            hostname,
            ...(verbose ? { verbose: (line) => terminal.err(`${visible(line)}\n`) } : {}),
          },
        ),
      );
    }
    const [first] = failed;
    if (!first) return EX_OK;
    this.#recipients = failed.map(({ rcptTo }) => rcptTo);
    const reasons = new Set(failed.map(({ why }) => why));
    const why = reasons.size === 1
      ? `${this.#recipients.join(", ")}: ${first.why}`
      : failed.map((one) => `${one.rcptTo}: ${one.why}`).join("; ");
    return await this.#giveUp(first.exit, why, message);
  }

  /** Says why, and saves the message. */
  async #giveUp(
    exit: number,
    why: string,
    message: Buffer,
    more?: AsyncIterable<Buffer>,
  ): Promise<number> {
    const { world, say } = this;
    say(why);
    if (message.length === 0) return exit;
    try {
      const file = await saveDeadLetter({
        mailFrom: this.#sender,
        recipients: this.#recipients,
        why,
        now: world.clock.now(),
        message,
        ...(more ? { more } : {}),
      }, world.places);
      say(`the message is saved in ${file}`);
    } catch (error) {
      for (const line of messageOf(error).split("\n")) say(line);
      say("the message is NOT saved");
    }
    return exit;
  }
}

/** What is still to be read of a message that is too large. */
async function* rest(
  input: MessageInput,
  chunks: AsyncIterator<Uint8Array>,
): AsyncGenerator<Buffer> {
  for (let next = await chunks.next(); !next.done; next = await chunks.next()) {
    input.push(next.value);
    yield input.drain();
    if (input.ended) return;
  }
  yield input.end();
}

/** @throws BadAddress */
function senderOf(given: string, domain: string): string {
  const bare = given.trim().replace(/^<(.*)>$/, "$1");
  return bare === "" ? "" : formatMailbox(parseMailbox(qualify(bare, domain)));
}

/** The addresses, each once, and what is none. */
function recipientsOf(
  specs: readonly string[],
): { readonly taken: string[]; readonly bad: NotTaken[] } {
  const taken = new Set<string>();
  const bad: NotTaken[] = [];
  for (const spec of specs) {
    try {
      taken.add(formatMailbox(parseMailbox(spec)));
    } catch (error) {
      if (!(error instanceof BadAddress)) throw error;
      bad.push({ rcptTo: spec, why: `is not an address: ${error.message}`, exit: EX_NOUSER });
    }
  }
  return { taken: [...taken], bad };
}

const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);

function passwd(): string {
  try {
    return Deno.readTextFileSync("/etc/passwd");
  } catch {
    return ""; // the environment knows the name, too
  }
}

function workingFolder(): string | undefined {
  try {
    return Deno.cwd();
  } catch {
    return undefined; // it has been removed
  }
}

if (import.meta.main) {
  const exit = await send(Deno.args, {
    clock: systemClock,
    dialer: new SocketDialer(),
    env: Deno.env,
    hostname: () => Deno.hostname(),
    person: () => personOf(Deno.uid(), passwd(), Deno.env),
    places: { home: Deno.env.get("HOME"), cwd: workingFolder(), shared: "/var/tmp" },
    stdin: Deno.stdin.readable,
    stdout: async (octets) => {
      for (let at = 0; at < octets.length;) at += await Deno.stdout.write(octets.subarray(at));
    },
    terminal: processTerminal,
    calledAs: Deno.env.get("POSTLEDGER_CALLED_AS"),
  });
  Deno.exit(exit);
}

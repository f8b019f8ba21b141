/**
 * `deno task quickstart`: keys, certificates, an account, a config that `serve` takes as it is, and
 * the DNS records to publish. Run again, it changes nothing and prints the records again.
 */
import { randomBytes } from "node:crypto";
import { isIP, isIPv6 } from "node:net";
import { resolve } from "node:path";
import { hostName } from "../dns/names.ts";
import { type Outcome, quickstart, type Wishes } from "../quickstart/quickstart.ts";
import { BadAddress, formatMailbox, isAscii, parseMailbox } from "../smtp/address.ts";
import { type CredentialCost, DEFAULT_COST } from "../smtp/sasl/credentials.ts";
import { systemClock } from "../system.ts";
import {
  type Command,
  JSON_OPTION,
  type Parsed,
  processTerminal,
  runCommand,
  UsageError,
  wholeNumber,
} from "./command.ts";
import { ADDRESS_OPTION, publicAddressesOf } from "./dnscheck.ts";
import { json, type Terminal, visible } from "./terminal.ts";

const DEFAULT_FOLDER = "./postledger";

/** Options for ports, and what they are without being given. */
const PORTS = {
  "submission-port": { value: "PORT", about: "for mail clients with STARTTLS (default: 587)" },
  "submissions-port": { value: "PORT", about: "for mail clients with TLS at once (default: 465)" },
  "local-port": { value: "PORT", about: "SMTP for programs on this machine (default: 2525)" },
  "web-port": { value: "PORT", about: "HTTP for programs on this machine (default: 8025)" },
} as const;

interface Machine {
  interfaces(): readonly string[];
  readonly cost: CredentialCost;
}

const realMachine: Machine = {
  interfaces: () => Deno.networkInterfaces().map(({ address }) => address),
  cost: DEFAULT_COST,
};

const command = (machine: Machine): Command => ({
  usage: {
    name: "quickstart",
    synopsis: "ADDRESS [options]",
    about:
      "Makes keys, an account for ADDRESS and a config, and prints the DNS records to publish.",
    maxArguments: 1,
    options: {
      dir: { value: "DIR", about: `where all of it goes (default: ${DEFAULT_FOLDER})` },
      hostname: { value: "NAME", about: "the name of this host (default: mail. and the domain)" },
      mx: { value: "NAME", about: "the host that takes mail for the domain (default: this one)" },
      ...ADDRESS_OPTION,
      listen: { value: "IP", about: "where mail clients come in (default: every address)" },
      ...PORTS,
      ...JSON_OPTION,
    },
  },
  async run(parsed, terminal) {
    const interfaces = () => machine.interfaces();
    const outcome = await quickstart({
      interfaces,
      clock: systemClock,
      now: () => terminal.now(),
      random: (length) => new Uint8Array(randomBytes(length)),
      cost: machine.cost,
      env: Deno.env,
    }, wishesOf(parsed, interfaces));
    terminal.out(parsed.has("json") ? json(outcome) : text(outcome));
    return 0;
  },
});

function wishesOf(parsed: Parsed, interfaces: () => readonly string[]): Wishes {
  const { address, domain } = mailboxOf(parsed.positionals[0]);
  const name = (option: string): string | undefined => {
    const given = parsed.value(option);
    const host = given === undefined ? undefined : hostName(given);
    if (given !== undefined && host === undefined) {
      throw new UsageError(`--${option}: "${given}" is not a host name`);
    }
    return host;
  };
  const port = (option: keyof typeof PORTS, fallback: number) =>
    wholeNumber(parsed, option, { fallback, least: 1, most: 65_535 });
  const listen = parsed.value("listen") ?? anyAddress(interfaces());
  if (isIP(listen) === 0) throw new UsageError(`--listen: "${listen}" is not an IP address`);
  const mx = name("mx");
  return {
    folder: resolve(parsed.value("dir") ?? DEFAULT_FOLDER),
    address,
    domain,
    hostname: name("hostname") ?? `mail.${domain}`,
    ...(mx === undefined ? {} : { mx }),
    listen,
    ...portsOf(port),
    publicAddresses: publicAddressesOf(parsed),
  };
}

function portsOf(port: (option: keyof typeof PORTS, fallback: number) => number) {
  const ports = {
    submissionPort: port("submission-port", 587),
    submissionsPort: port("submissions-port", 465),
    localPort: port("local-port", 2525),
    webPort: port("web-port", 8025),
  };
  if (new Set(Object.values(ports)).size < 4) {
    throw new UsageError("two listeners have the same port; give each its own");
  }
  return ports;
}

function mailboxOf(
  text: string | undefined,
): { readonly address: string; readonly domain: string } {
  if (text === undefined) throw new UsageError("the address is missing: alice@example.com");
  try {
    const { localPart, domain } = parseMailbox(text);
    const name = hostName(domain);
    if (name === undefined || !name.includes(".")) {
      throw new BadAddress("its domain is none that others could answer to");
    }
    if (!isAscii(localPart) || /[\s"\\]/.test(localPart)) {
      throw new BadAddress("as the name of an account it has to be ASCII without quotes");
    }
    return { address: formatMailbox({ localPart, domain: name }), domain: name };
  } catch (error) {
    if (!(error instanceof BadAddress)) throw error;
    throw new UsageError(`"${text}" is not an address to set up: ${error.message}`);
  }
}

/** Every address of this machine: IPv6 takes IPv4 in, where the machine has it. */
const anyAddress = (interfaces: readonly string[]): string =>
  interfaces.some((address) => isIPv6(address)) ? "::" : "0.0.0.0";

function text({ config, made, kept, account, add, records }: Outcome): string {
  const list = (label: string, items: readonly string[]) =>
    items.map((item, n) => `${(n === 0 ? label : "").padEnd(6)}${visible(item)}\n`).join("");
  const login = account.password === undefined
    ? `; the password of account ${visible(account.name)} stays as it is ` +
      `("deno task account password" gives another)\n`
    : `; login: ${visible(account.name)}\n; password: ${account.password}\n` +
      `; It is not shown again.\n`;
  const comment = (lines: string) => lines.replace(/^(?=.)/gm, "; ");
  const sections = records.map(({ title, lines }) =>
    `\n; ${title}\n${lines.map((line) => `${visible(line)}\n`).join("")}`
  );
  return comment(list("made", made)) + comment(list("kept", kept)) + login +
    (add === undefined
      ? ""
      : `\n; The config was kept. Put this in, or mail is not signed:\n${comment(add)}`) +
    `\n; Records to publish. Then: deno task dnscheck, deno task serve --config ${
      visible(config)
    }\n` +
    sections.join("");
}

export const run = (
  args: readonly string[],
  terminal: Terminal,
  machine: Machine = realMachine,
): Promise<number> => runCommand(command(machine), args, terminal);

if (import.meta.main) Deno.exit(await run(Deno.args, processTerminal));

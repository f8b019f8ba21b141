/**
 * `deno task route`: which route a message would match and which transport that means, with every
 * criterion of every route that it is held against. Reads the config and nothing else.
 */
import type { RoutingFacts, TransportChoice } from "../../actors/ports.ts";
import { loadConfig } from "../config/load.ts";
import { hostName } from "../dns/names.ts";
import type { TransportConfig } from "../config/types.ts";
import { parseSize } from "../config/scalars.ts";
import {
  chooseRoute,
  explainRoutes,
  type Known,
  type RouteResult,
  type RoutingConfig,
} from "../delivery/routes.ts";
import { formatEndpoint } from "../delivery/socks_dialer.ts";
import { BadAddress, formatMailbox, parseMailbox } from "../smtp/address.ts";
import {
  type Command,
  JSON_OPTION,
  type Parsed,
  processTerminal,
  runCommand,
  UsageError,
  wholeNumber,
} from "./command.ts";
import { because } from "./message_story.ts";
import { address, json, type Terminal, visible } from "./terminal.ts";

export const route: Command = {
  usage: {
    name: "route",
    synopsis: "--from ADDRESS --to ADDRESS [options]",
    about: "Shows which route a message matches and which transport it takes.",
    maxArguments: 0,
    options: {
      from: { value: "ADDRESS", about: "the sender; <> for the null reverse-path" },
      to: { value: "ADDRESS", about: "the recipient" },
      account: { value: "NAME", about: "the account that submitted it" },
      attempts: { value: "N", about: "attempts made so far (default: 0)" },
      size: { value: "SIZE", about: "size of the message: 65536, 10MiB (default: 0)" },
      mx: { value: "HOST[,HOST]", about: "MX hosts of the recipient's domain, for to_mx" },
      header: { value: "NAME:VALUE", about: "a field of the message's header, for header" },
      config: { value: "FILE", about: "the config file" },
      ...JSON_OPTION,
    },
  },
  run(parsed, terminal) {
    const attempts = wholeNumber(parsed, "attempts", { fallback: 0, most: 1_000_000 });
    const facts: RoutingFacts = {
      account: parsed.value("account") ?? null,
      mailFrom: mailbox(parsed, "from"),
      rcptTo: mailbox(parsed, "to"),
      size: sizeOf(parsed),
      attempt: attempts + 1,
    };
    const file = parsed.value("config");
    const config = loadConfig({ ...(file === undefined ? {} : { file }), env: Deno.env });
    for (const warning of config.warnings ?? []) terminal.err(`postledger: ${visible(warning)}\n`);
    const known = knownFrom(parsed);
    if (facts.account !== null && !config.routes.accounts.has(facts.account)) {
      terminal.err(`postledger: route: account ${visible(facts.account)} has no routes\n`);
    }
    const choice = chooseRoute(config, facts, known);
    const routes = explainRoutes(config, facts, known);
    const transport = config.transports.get(choice.transport);
    if (parsed.has("json")) {
      const { transport: name, because } = choice;
      terminal.out(
        json({ transport: transport ?? { name }, because, routes }),
      );
    } else {
      terminal.out(`${routeLines(routes).join("")}${verdict(config, facts, choice)}`);
    }
    return 0;
  },
};

function mailbox(parsed: Parsed, option: "from" | "to"): string {
  const text = parsed.value(option);
  if (text === undefined) throw new UsageError(`--${option} is missing`);
  if (option === "from" && (text === "" || text === "<>")) return "";
  try {
    return formatMailbox(parseMailbox(text));
  } catch (error) {
    if (error instanceof BadAddress) throw new UsageError(`--${option}: ${error.message}`);
    throw error;
  }
}

function sizeOf(parsed: Parsed): number {
  const text = parsed.value("size");
  const size = text === undefined ? 0 : parseSize(text);
  if (size === undefined) {
    throw new UsageError(`--size: "${text}" is not a size like 65536 or 10MiB`);
  }
  return size;
}

/** What the command cannot look up itself; where it is not given, criteria for it do not match. */
function knownFrom(parsed: Parsed): Known {
  const mx = parsed.value("mx");
  const header = parsed.value("header");
  const hosts = mx?.split(",").map((text) => {
    const name = hostName(text.trim());
    if (name === undefined) throw new UsageError(`--mx: "${text}" is not the name of a host`);
    return name;
  });
  const [, name, value] = header === undefined ? [] : /^([^:\s]+)\s*:(.*)$/s.exec(header) ?? [];
  if (header !== undefined && name === undefined) {
    throw new UsageError(`--header: "${header}" is not a field; write it like "List-Id: value"`);
  }
  return {
    mx: hosts ? { value: hosts } : { unknown: "not looked up here; --mx says what it is" },
    header: name === undefined
      ? { unknown: "there is no message here; --header gives a field of it" }
      : { value: new Map([[name.toLowerCase(), [value!.trim()]]]) },
  };
}

function routeLines(routes: readonly RouteResult[]): string[] {
  const winner = routes.find(({ matched }) => matched);
  return routes.flatMap((result) => {
    const { path, transport, criteria, matched } = result;
    const outcome = !matched
      ? "does not match"
      : result === winner
      ? "matches first, and is taken"
      : "matches, after another";
    return [
      `${visible(path)} to ${visible(transport)}: ${outcome}\n`,
      ...(criteria.length === 0 ? ["    yes  no criteria: takes every message\n"] : []),
      ...criteria.map(({ criterion, wanted, found, matched, unknown }) => {
        const judged = unknown === undefined
          ? `${matched ? "yes" : "no "}  ${criterion} ${wanted}: it is ${found || "none"}`
          : `?    ${criterion} ${wanted}: ${unknown}`;
        const line = judged;
        return `    ${visible(line)}\n`;
      }),
    ];
  });
}

function verdict(config: RoutingConfig, facts: RoutingFacts, choice: TransportChoice): string {
  const { mailFrom, rcptTo, attempt } = facts;
  const message = `${address(mailFrom)} to ${rcptTo}, attempt ${attempt}`;
  const transport = describe(choice.transport, config.transports.get(choice.transport));
  return `${visible(message)}: ${visible(transport)}, because: ${visible(because(choice))}\n`;
}

/** "relay, smtp to relay.example.net:25 (opportunistic TLS)". */
export function describe(name: string, transport: TransportConfig | undefined): string {
  if (!transport) return `${name}, which is not in the config`;
  switch (transport.type) {
    case "direct":
      return `${name}, direct delivery to port ${transport.port}`;
    case "socks": {
      const { proxy, port, remoteIps, remoteHostname } = transport;
      const seen = [...remoteHostname === undefined ? [] : [remoteHostname], ...remoteIps];
      const as = seen.length > 0 ? `, seen as ${seen.join(" ")}` : "";
      return `${name}, direct delivery to port ${port} through SOCKS5 proxy ` +
        `${formatEndpoint(proxy)}${as}`;
    }
    default: {
      const { type, host, port, tls, auth } = transport;
      const login = auth ? `, login as ${auth.username}` : "";
      return `${name}, ${type} to ${host}:${port} (TLS ${tls}${login})`;
    }
  }
}

export const run = (args: readonly string[], terminal: Terminal): Promise<number> =>
  runCommand(route, args, terminal);

if (import.meta.main) Deno.exit(await run(Deno.args, processTerminal));

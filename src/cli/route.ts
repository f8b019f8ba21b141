/**
 * `deno task route`: which route a message would match and which transport that means, with every
 * criterion of every route that it is held against. Reads the config and nothing else.
 */
import type { RoutingFacts, TransportChoice } from "../../actors/ports.ts";
import { loadConfig } from "../config/load.ts";
import type { TransportConfig } from "../config/types.ts";
import {
  chooseRoute,
  explainRoutes,
  type RouteResult,
  type RoutingConfig,
} from "../delivery/routes.ts";
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
      size: 0, // no criterion asks for it
      attempt: attempts + 1,
    };
    const file = parsed.value("config");
    const config = loadConfig({ ...(file === undefined ? {} : { file }), env: Deno.env });
    if (facts.account !== null && !config.routes.accounts.has(facts.account)) {
      terminal.err(`postledger: route: account ${visible(facts.account)} has no routes\n`);
    }
    const choice = chooseRoute(config, facts);
    const routes = explainRoutes(config, facts);
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
      ...criteria.map(({ criterion, wanted, found, matched }) => {
        const line = `${matched ? "yes" : "no "}  ${criterion} ${wanted}: it is ${found || "none"}`;
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
  switch (transport?.type) {
    case undefined:
      return `${name}, which is not in the config`;
    case "direct":
      return `${name}, direct delivery to port ${transport.port}`;
    case "smtp":
      return `${name}, smtp to ${transport.host}:${transport.port} (TLS ${transport.tls})`;
  }
}

export const run = (args: readonly string[], terminal: Terminal): Promise<number> =>
  runCommand(route, args, terminal);

if (import.meta.main) Deno.exit(await run(Deno.args, processTerminal));

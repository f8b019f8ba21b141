/**
 * `deno task resolve`: everything that a delivery to a domain would find out (MX, DNSSEC, MTA-STS,
 * TLSA, a TLS handshake with each host), and what would follow. Sends nothing.
 */
import { loadConfig } from "../config/load.ts";
import type { Config } from "../config/types.ts";
import { SocketDialer } from "../delivery/dialer.ts";
import {
  type AddressSurvey,
  type HostSurvey,
  type Survey,
  surveyDomain,
} from "../delivery/survey.ts";
import { StubResolver } from "../dns/resolver.ts";
import { formatServer } from "../dns/servers.ts";
import { systemClock, systemRandom } from "../system.ts";
import { allowsLoopback } from "../tls/duties.ts";
import { MtaStsPolicies } from "../tls/mta_sts.ts";
import { PassingPolicies } from "../tls/mta_sts_cache.ts";
import { HttpsPolicyFetcher } from "../tls/mta_sts_fetch.ts";
import {
  type Command,
  CommandError,
  JSON_OPTION,
  processTerminal,
  runCommand,
  UsageError,
  wholeNumber,
} from "./command.ts";
import { nextHop } from "./message_story.ts";
import { destinationFields, gathered, proofOf } from "./security_story.ts";
import { json, type Terminal, visible } from "./terminal.ts";

/** Seconds for one reply, and for one connection, when nothing else is said. */
const PATIENCE = 15;

export const resolve: Command = {
  usage: {
    name: "resolve",
    synopsis: "DOMAIN [options]",
    about: "Shows where mail for a domain would go and how it would be secured; sends nothing.",
    maxArguments: 1,
    options: {
      transport: {
        value: "NAME",
        about: 'the transport of type "direct" to take port and addresses from (default: direct)',
      },
      timeout: { value: "SECONDS", about: `wait for a connection or reply (default: ${PATIENCE})` },
      requiretls: { about: "as for a message with REQUIRETLS" },
      "tls-optional": { about: "as for a message with the field TLS-Required: No" },
      config: { value: "FILE", about: "the config file" },
      ...JSON_OPTION,
    },
  },
  async run(parsed, terminal) {
    const [domain] = parsed.positionals;
    if (domain === undefined) throw new UsageError("a domain is missing");
    const seconds = wholeNumber(parsed, "timeout", { fallback: PATIENCE, most: 600 });
    const file = parsed.value("config");
    const config = loadConfig({ ...(file === undefined ? {} : { file }), env: Deno.env });
    const transport = directTransport(config, parsed.value("transport") ?? "direct");
    const patience = seconds * 1_000;
    const { trustAd } = config.dns;
    const servers = config.dns.servers.map(({ address, port }) => formatServer({ address, port }));
    const resolver = new StubResolver({
      clock: systemClock,
      ...(servers.length > 0 ? { servers } : {}),
      trustAd,
    });
    const { ca } = config.tls;
    const timeouts = { greeting: patience, ehlo: patience, tls: patience };
    const survey = await surveyDomain(
      {
        clock: systemClock,
        random: systemRandom,
        resolver,
        dialer: new SocketDialer(),
        hostname: config.hostname,
        mtaSts: policiesOf(config, resolver),
        ...(ca ? { ca } : {}),
        timeouts,
      },
      domain.slice(domain.lastIndexOf("@") + 1),
      {
        port: transport.port,
        family: transport.ipFamily,
        allowLoopback: transport.allowLoopback,
        needs: { requireTLS: parsed.has("requiretls"), tlsOptional: parsed.has("tls-optional") },
        connect: patience,
      },
      new AbortController().signal,
    );
    terminal.out(parsed.has("json") ? json(survey) : surveyText(survey));
    return survey.deliverable ? 0 : 1;
  },
};

/** Policies as they are published now: what a running queue has cached is not looked at. */
function policiesOf(config: Config, resolver: StubResolver): MtaStsPolicies {
  const fetcher = new HttpsPolicyFetcher({
    clock: systemClock,
    resolver,
    ca: () => config.tls.ca,
    allowLoopback: () => allowsLoopback(config),
  });
  const cache = new PassingPolicies(systemClock.now);
  return new MtaStsPolicies({ clock: systemClock, resolver, fetcher, cache, log: SILENT });
}

/** What goes wrong with a policy stands in what is printed. */
const SILENT = { warn: () => {} };

function directTransport(config: Config, name: string) {
  const transport = config.transports.get(name);
  if (!transport) throw new CommandError(`the config has no transport "${visible(name)}"`);
  if (transport.type !== "direct") {
    throw new CommandError(`transport "${visible(name)}" is of type ${transport.type}, not direct`);
  }
  return transport;
}

const LABEL = 10;

/** The survey as a table: a row per fact, hosts set apart. */
export function surveyText(survey: Survey): string {
  const { destination, failure, hosts, deliverable } = survey;
  const rows: string[] = [];
  const row = (label: string, text: string | undefined) => {
    if (text !== undefined) rows.push(`${label.padEnd(LABEL)}${visible(text)}`);
  };
  row("domain", survey.domain);
  if (destination) {
    row("next hop", nextHop(destination));
    for (const [label, text] of destinationFields(destination)) row(label, text);
  }
  row("failure", failure);
  for (const host of hosts) {
    rows.push("");
    hostRows(host, row);
  }
  rows.push("");
  row("verdict", deliverable ? "mail would be delivered" : "mail would not be delivered");
  return rows.map((line) => `${line}\n`).join("");
}

function hostRows(
  { host, preference, gathered: facts, failure, addresses }: HostSurvey,
  row: (label: string, text: string | undefined) => void,
): void {
  const [first, ...more] = facts ? gathered(facts) : [host];
  row("host", `${preference} ${first}`);
  for (const line of more) row("", line);
  if (failure !== undefined && facts === undefined) row("failure", failure);
  for (const address of addresses) row(address.verdict, addressText(address));
}

function addressText(survey: AddressSurvey): string {
  const { address, verdict, tls, tlsMode, error } = survey;
  const parts = [
    `[${address}]`,
    tls ? `${tls.protocol} ${tls.cipher} (${tlsMode}, ${proofOf(survey)})` : `no TLS (${tlsMode})`,
    error,
    verdict === "plain" ? "mail would go in plain text" : undefined,
  ];
  return parts.filter((part) => part !== undefined).join(", ");
}

export const run = (args: readonly string[], terminal: Terminal): Promise<number> =>
  runCommand(resolve, args, terminal);

if (import.meta.main) Deno.exit(await run(Deno.args, processTerminal));

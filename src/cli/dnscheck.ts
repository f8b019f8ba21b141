/**
 * `deno task dnscheck`: what the DNS of a sending domain should say and does: SPF, DKIM, DMARC, MX,
 * MTA-STS, TLSRPT, TLSA and reverse DNS, and the records that make right what is not.
 *
 *   0  nothing is wrong, though there may be warnings    1  something is    2  asked in a wrong way
 */
import { isIP } from "node:net";
import { checkDomain } from "../dnscheck/check.ts";
import type { Finding } from "../dnscheck/finding.ts";
import { type Subject, subjectOf } from "../dnscheck/subject.ts";
import { loadConfig } from "../config/load.ts";
import type { Config } from "../config/types.ts";
import { hostName } from "../dns/names.ts";
import { StubResolver } from "../dns/resolver.ts";
import { formatServer } from "../dns/servers.ts";
import type { Resolver } from "../ports.ts";
import { systemClock } from "../system.ts";
import { HttpsPolicyFetcher, type PolicyFetcher } from "../tls/mta_sts_fetch.ts";
import {
  type Command,
  JSON_OPTION,
  type Parsed,
  processTerminal,
  runCommand,
  UsageError,
} from "./command.ts";
import { json, table, type Terminal, visible } from "./terminal.ts";

/** Milliseconds for the policy of MTA-STS. */
const POLICY_PATIENCE = 15_000;

/** What the command asks the machine and the network for. */
export interface Surroundings {
  /** The addresses of this machine's interfaces. */
  interfaces(): readonly string[];
  policies(resolver: Resolver): PolicyFetcher;
}

export const realSurroundings: Surroundings = {
  interfaces: () => Deno.networkInterfaces().map(({ address }) => address),
  policies: (resolver) =>
    new HttpsPolicyFetcher({ clock: systemClock, resolver }, { deadline: POLICY_PATIENCE }),
};

/** Addresses that receivers see, for machines that cannot know them. */
export const ADDRESS_OPTION = {
  address: {
    value: "LIST",
    about: "the addresses that receivers see, instead of those of this machine (behind NAT); " +
      "several with commas between",
  },
} as const;

/** @throws UsageError */
export function publicAddressesOf(parsed: Parsed): string[] {
  const addresses = parsed.value("address")?.split(",").map((text) => text.trim()) ?? [];
  for (const address of addresses) {
    if (isIP(address) === 0) {
      throw new UsageError(`--address: "${address}" is not an IP address`);
    }
  }
  return addresses;
}

const dnscheck = (surroundings: Surroundings): Command => ({
  usage: {
    name: "dnscheck",
    synopsis: "DOMAIN [options]",
    about: "Checks what the DNS says of a domain that sends mail, and prints what to publish.",
    maxArguments: 1,
    options: {
      ...ADDRESS_OPTION,
      config: { value: "FILE", about: "the config file" },
      ...JSON_OPTION,
    },
  },
  async run(parsed, terminal) {
    const domain = domainOf(parsed);
    const file = parsed.value("config");
    const config = loadConfig({ ...(file === undefined ? {} : { file }), env: Deno.env });
    const subject = subjectOf(config, domain, {
      interfaces: () => surroundings.interfaces(),
      publicAddresses: publicAddressesOf(parsed),
    });
    const resolver = resolverOf(config);
    const findings = await checkDomain({
      clock: systemClock,
      resolver,
      policies: surroundings.policies(resolver),
      signal: new AbortController().signal,
    }, subject);
    terminal.out(parsed.has("json") ? json(report(subject, findings)) : text(subject, findings));
    return findings.some(({ level }) => level === "error") ? 1 : 0;
  },
});

function domainOf(parsed: Parsed): string {
  const [text] = parsed.positionals;
  if (text === undefined) throw new UsageError("a domain is missing");
  const domain = hostName(text.slice(text.lastIndexOf("@") + 1));
  if (domain !== undefined) return domain;
  throw new UsageError(`"${text}" is not a domain name; write it like "example.com"`);
}

function resolverOf({ dns }: Config): Resolver {
  const servers = dns.servers.map(({ address, port }) => formatServer({ address, port }));
  return new StubResolver({
    clock: systemClock,
    ...(servers.length > 0 ? { servers } : {}),
    trustAd: dns.trustAd,
  });
}

const count = (findings: readonly Finding[], level: Finding["level"]): number =>
  findings.filter((finding) => finding.level === level).length;

const report = ({ domain, hostname, addresses }: Subject, findings: readonly Finding[]) => ({
  domain,
  hostname,
  addresses,
  errors: count(findings, "error"),
  warnings: count(findings, "warning"),
  findings,
});

const COLUMNS = [
  { title: "" },
  { title: "CHECK" },
  { title: "DNSSEC" },
  { title: "NAME", most: 60 },
  { title: "FOUND" },
];
const LEVEL = { ok: "ok", warning: "warning", error: "ERROR" } as const;
const DNSSEC = { "secure": "secure", "not-authentic": "no" } as const;

function text({ domain }: Subject, findings: readonly Finding[]): string {
  const rows = findings.map(({ level, check, dnssec, name, found }) => [
    LEVEL[level],
    check,
    dnssec ? DNSSEC[dnssec] : "",
    name,
    found,
  ]);
  const publish = new Set(findings.flatMap((finding) => finding.publish));
  const errors = count(findings, "error");
  const warnings = count(findings, "warning");
  const lines = [...publish].map((line) => `${visible(line)}\n`).join("");
  return table(COLUMNS, rows) +
    (lines === "" ? "" : `\nto publish:\n\n${lines}`) +
    `\n${domain}: ${plural(errors, "error")}, ${plural(warnings, "warning")}\n`;
}

const plural = (n: number, what: string): string =>
  `${n === 0 ? "no" : n} ${what}${n === 1 ? "" : "s"}`;

export const run = (
  args: readonly string[],
  terminal: Terminal,
  surroundings: Surroundings = realSurroundings,
): Promise<number> => runCommand(dnscheck(surroundings), args, terminal);

if (import.meta.main) Deno.exit(await run(Deno.args, processTerminal));

/**
 * Where mail for a domain goes: the MX hosts of the domain, the domain itself, or an address
 * literal (RFC 5321, sections 4.1.3 and 5.1; null MX: RFC 7505).
 *
 *   1. "[192.0.2.1]" and "[IPv6:2001:db8::1]" name their host; nothing is asked.
 *   2. The MX question is asked, and CNAMEs of the domain are followed.
 *   3. A single MX "." means that the domain takes no mail: permanent.
 *   4. MX hosts are ordered by preference, at random within one; what is no host name is left out.
 *   5. Without MX records the domain, at the end of its CNAMEs, is its own host.
 *
 * Two DNSSEC verdicts are kept (RFC 7672, section 2.2.1), because a secure name may be an alias of
 * an insecure one: for the domain itself, and for all answers up to the end of its CNAMEs.
 */
import { isIPv4, isIPv6 } from "node:net";
import { domainToUnicode } from "node:url";
import type { Random } from "../../actors/ports.ts";
import type { EventData } from "../../events/catalogue.ts";
import { type Answer, DnsError, type Resolver } from "../ports.ts";
import { hostName } from "./names.ts";

/** CNAMEs that are followed from the domain. */
export const MAX_DOMAIN_CNAMES = 16;

/** Hosts that are kept of an MX set, best preference first; nobody tries more in one attempt. */
export const MAX_HOSTS = 32;

type Resolved = EventData<"DestinationsResolved">;

export type Destination =
  | {
    readonly kind: "hosts";
    /** The domain as A-labels, or the address literal with its brackets. */
    readonly nextHop: string;
    readonly expanded: string;
    readonly dnssec: Resolved["dnssec"];
    readonly by: "mx" | "implicit" | "literal";
    /** In the order in which to try them. For a literal `host` is the bare address. */
    readonly hosts: Resolved["hosts"];
    /** The domain with its labels in Unicode, where it has such. */
    readonly unicode?: string;
    /** MX records that name no host, and so were left out. */
    readonly ignored?: readonly string[];
  }
  /** The domain cannot take mail. `code` is the enhanced status code (RFC 3463). */
  | { readonly kind: "permanent"; readonly code: string; readonly reason: string }
  /** The DNS gave no answer to rely on. */
  | {
    readonly kind: "temporary";
    readonly code: string;
    readonly reason: string;
    readonly cause: DnsError["kind"];
  };

/**
 * Finds the hosts for mail to `domain`, the part of the recipient's address after the "@".
 * DNS failures are a result, also when `signal` aborts (cause "canceled"); nothing is thrown for them.
 */
export async function resolveDestination(
  resolver: Resolver,
  domain: string,
  random: Random,
  signal?: AbortSignal,
): Promise<Destination> {
  if (domain.startsWith("[")) return literal(domain);
  const nextHop = hostName(domain);
  if (nextHop === undefined) {
    return permanent("5.1.2", `"${printable(domain)}" is not a domain name`);
  }
  try {
    return await lookup(resolver, nextHop, random, signal);
  } catch (error) {
    if (!(error instanceof DnsError)) throw error;
    const { message: reason, kind: cause } = error;
    return { kind: "temporary", code: cause === "malformed" ? "4.4.0" : "4.4.3", reason, cause };
  }
}

const permanent = (code: string, reason: string): Destination => ({
  kind: "permanent",
  code,
  reason,
});

/** Domains come from envelopes: what is shown of a bad one is short and harmless. */
const printable = (text: string): string =>
  text.slice(0, 100).replaceAll(/[^\p{L}\p{N}\p{P}\p{S} ]/gu, "?");

/** Address literals of RFC 5321, section 4.1.3. General-address-literals have no transport here. */
function literal(domain: string): Destination {
  const inner = /^\[(?:(ipv6):)?([0-9a-f:.]+)\]$/i.exec(domain);
  const [, tag, address] = inner ?? [];
  if (address === undefined || !(tag ? isIPv6(address) : isIPv4(address))) {
    return permanent("5.1.2", `"${printable(domain)}" is not an address literal`);
  }
  const nextHop = domain.toLowerCase();
  return {
    kind: "hosts",
    nextHop,
    expanded: nextHop,
    dnssec: { nextHop: "unchecked", expanded: "unchecked" },
    by: "literal",
    hosts: [{ host: address.toLowerCase(), preference: 0 }],
  };
}

async function lookup(
  resolver: Resolver,
  nextHop: string,
  random: Random,
  signal: AbortSignal | undefined,
): Promise<Destination> {
  const chain = [nextHop];
  let authentic = true;
  let answer: Answer<"MX">;
  // A resolver follows CNAMEs on its own; where it stopped short, the rest is asked for here.
  for (;;) {
    const asked = chain.at(-1) ?? nextHop;
    answer = await resolver.query(asked, "MX", signal);
    authentic &&= answer.authentic;
    for (const name of answer.cnames) {
      if (chain.includes(name)) {
        throw new DnsError("malformed", `the CNAMEs of ${nextHop} loop at ${name}`);
      }
      chain.push(name);
    }
    if (chain.length > MAX_DOMAIN_CNAMES + 1) {
      throw new DnsError("malformed", `${nextHop} has more than ${MAX_DOMAIN_CNAMES} CNAMEs`);
    }
    if (answer.status !== "nodata" || answer.cnames.length === 0) break;
  }
  const expanded = chain.at(-1) ?? nextHop;
  const through = expanded === nextHop ? nextHop : `${nextHop} (an alias of ${expanded})`;
  if (answer.status === "nxdomain") {
    return permanent("5.1.2", `the domain ${through} does not exist`);
  }
  const dnssec = await verdicts(resolver, nextHop, chain.length > 1, authentic, signal);
  const unicode = domainToUnicode(nextHop);
  const shown = unicode === nextHop || unicode === "" ? {} : { unicode };
  const found = { kind: "hosts", nextHop, expanded, dnssec, ...shown } as const;
  if (answer.status === "nodata") {
    return { ...found, by: "implicit", hosts: [{ host: expanded, preference: 0 }] };
  }
  if (answer.records.length === 1 && isRoot(answer.records[0]?.exchange)) {
    return permanent("5.1.10", `the domain ${through} takes no mail (null MX)`);
  }
  const hosts = order(answer.records, random);
  if (hosts.length === 0) {
    return permanent("5.4.4", `no MX record of ${through} names a valid host`);
  }
  const ignored = answer.records.flatMap(({ exchange, preference }) =>
    hostName(exchange) === undefined ? [`${preference} ${printable(exchange)}`] : []
  );
  const left = ignored.length > 0 ? { ignored: ignored.slice(0, MAX_HOSTS) } : {};
  return { ...found, by: "mx", hosts, ...left };
}

/**
 * The verdict on the chain as a whole does not tell whether its first link was authentic: where it
 * was not all secure, the link is asked for by itself.
 */
async function verdicts(
  resolver: Resolver,
  nextHop: string,
  alias: boolean,
  authentic: boolean,
  signal: AbortSignal | undefined,
): Promise<Resolved["dnssec"]> {
  const status = (secure: boolean) => secure ? "secure" as const : "insecure" as const;
  const first = !authentic && alias
    ? (await resolver.query(nextHop, "CNAME", signal)).authentic
    : authentic;
  return { nextHop: status(first), expanded: status(authentic) };
}

const isRoot = (exchange: string | undefined): boolean => exchange === "." || exchange === "";

/** Best preference first, shuffled within one (RFC 5321, section 5.1); each host once. */
function order(
  records: Answer<"MX">["records"],
  random: Random,
): Resolved["hosts"] {
  const best = new Map<string, number>();
  for (const { exchange, preference } of records) {
    const host = hostName(exchange);
    if (host === undefined) continue;
    best.set(host, Math.min(preference, best.get(host) ?? Infinity));
  }
  // Sorted first, so that the order in which records arrived has no part in it.
  return [...best]
    .sort(([a], [b]) => a < b ? -1 : 1)
    .map(([host, preference]) => ({ host, preference, lot: random.next() }))
    .sort((a, b) => a.preference - b.preference || a.lot - b.lot)
    .slice(0, MAX_HOSTS)
    .map(({ host, preference }) => ({ host, preference }));
}

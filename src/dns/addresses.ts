/**
 * The addresses of a host: CNAMEs, A and AAAA (RFC 5321, section 5.1; RFC 8305 for asking both
 * families at once), what is authentic of it (RFC 7672, section 2.2.2), and which make sense to dial.
 */
import { BlockList, isIPv4, isIPv6 } from "node:net";
import { type Answer, DnsError, type Resolver } from "../ports.ts";
import { hostName } from "./names.ts";

/** CNAMEs that are followed from a host. */
export const MAX_HOST_CNAMES = 10;

/** Addresses that are kept per family; an attempt never gets through more. */
export const MAX_ADDRESSES = 16;

export interface AddressOptions {
  /** Families to ask for; `any` (the default) puts IPv6 first. */
  readonly family?: "any" | "ipv4" | "ipv6";
  /**
   * Whether addresses of this very machine count. Off by default: a public MX record that points
   * at 127.0.0.1 must not make the queue talk to itself. On for hosts that the operator named.
   */
  readonly allowLoopback?: boolean;
  readonly signal?: AbortSignal;
}

export interface HostAddresses {
  /** IPv6 first, then IPv4; empty when `failure` says why. */
  readonly addresses: readonly string[];
  /** The name at the end of the CNAMEs of the host; the host itself where there are none. */
  readonly expanded: string;
  /** All answers that led to the addresses were authentic, CNAMEs included. */
  readonly authentic: boolean;
  /** The answers for the name of the host itself were authentic, wherever its CNAMEs lead. */
  readonly hostAuthentic: boolean;
  /** There are addresses of both families to dial. */
  readonly dualStack: boolean;
  /** What went wrong with one family while the other has addresses. */
  readonly error?: string;
  /** Why there are no addresses. */
  readonly failure?: {
    /** `temporary`: no answer to rely on. `nonexistent`: there are none, or none to dial. */
    readonly kind: "temporary" | "nonexistent";
    /** Enhanced status code (RFC 3463). */
    readonly code: string;
    readonly reason: string;
    /** For `temporary`. */
    readonly cause?: DnsError["kind"];
  };
}

const nowhere = new BlockList();
nowhere.addSubnet("0.0.0.0", 8, "ipv4"); // this network
nowhere.addSubnet("169.254.0.0", 16, "ipv4"); // link-local: no host of the Internet
nowhere.addSubnet("224.0.0.0", 3, "ipv4"); // multicast, reserved, broadcast
nowhere.addSubnet("fe80::", 10, "ipv6"); // link-local: means nothing without a zone
nowhere.addSubnet("ff00::", 8, "ipv6"); // multicast

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

/** Why an address is not dialled, or undefined. */
export function undialable(address: string, allowLoopback = false): string | undefined {
  const v4 = embeddedIPv4(address);
  const plain = v4 ?? address;
  if (v4 === undefined && !isIPv6(plain)) return "not an IP address";
  if (address.includes("%")) return "an address with a zone";
  const family = v4 === undefined ? "ipv6" : "ipv4";
  if (loopback.check(plain, family)) return allowLoopback ? undefined : "a loopback address";
  return nowhere.check(plain, family) ? "not an address of a host" : undefined;
}

/** The IPv4 address that is one, or is carried in ::/96 or ::ffff:0:0/96 (but for ::1 and ::). */
function embeddedIPv4(address: string): string | undefined {
  if (isIPv4(address)) return address;
  if (!isIPv6(address) || address.includes("%")) return undefined;
  const canonical = new URL(`http://[${address}]/`).hostname.slice(1, -1);
  const hex = /^::(?:ffff:)?(?:([0-9a-f]{1,4}):)?([0-9a-f]{1,4})?$/.exec(canonical);
  if (!hex || canonical === "::1") return undefined;
  const value = [parseInt(hex[1] ?? "0", 16), parseInt(hex[2] ?? "0", 16)];
  return value.flatMap((n) => [n >> 8, n & 255]).join(".");
}

type Lookup = { readonly answer: Answer<"A" | "AAAA"> } | { readonly error: DnsError };

/**
 * Finds the addresses of `host`, a name or an IP address. Never throws for what the DNS does:
 * see `failure`. One family that fails does not spoil the other.
 */
export async function resolveAddresses(
  resolver: Resolver,
  host: string,
  options: AddressOptions = {},
): Promise<HostAddresses> {
  const { family = "any", allowLoopback = false, signal } = options;
  if (isIPv4(host) || isIPv6(host)) return fromAddress(host, allowLoopback);
  const name = hostName(host);
  if (name === undefined) return failed(host, "nonexistent", "5.1.2", `"${host}" is no host name`);

  const ask = async (type: "A" | "AAAA"): Promise<Lookup> => {
    try {
      const answer = await resolver.query(name, type, signal);
      if (answer.cnames.length <= MAX_HOST_CNAMES) return { answer };
      const message = `${name} has more than ${MAX_HOST_CNAMES} CNAMEs`;
      return { error: new DnsError("malformed", message) };
    } catch (error) {
      if (error instanceof DnsError) return { error };
      throw error;
    }
  };
  const types = family === "any"
    ? ["AAAA", "A"] as const
    : [family === "ipv6" ? "AAAA" as const : "A" as const];
  const lookups = await Promise.all(types.map(ask));

  const answers = lookups.flatMap((lookup) => "answer" in lookup ? [lookup.answer] : []);
  const errors = lookups.flatMap((lookup) => "error" in lookup ? [lookup.error] : []);
  const error = [...new Set(errors.map((e) => e.message))].join("; ");
  const found = answers.map((answer) => [...new Set(answer.records)].slice(0, MAX_ADDRESSES));
  const dropped: string[] = [];
  const usable = found.map((records) =>
    records.filter((address) => {
      const why = undialable(address, allowLoopback);
      if (why !== undefined) dropped.push(`${address} is ${why}`);
      return why === undefined;
    })
  );
  const addresses = usable.flat();
  const cnames = answers.find((answer) => answer.records.length > 0)?.cnames ??
    answers[0]?.cnames ?? [];
  const authentic = answers.length > 0 && answers.every((answer) => answer.authentic);
  const known = {
    expanded: cnames.at(-1) ?? name,
    authentic,
    dualStack: usable.length === 2 && usable.every((list) => list.length > 0),
    ...(error ? { error } : {}),
  };
  if (addresses.length > 0) {
    const alias = authentic || cnames.length === 0
      ? { answer: { authentic } }
      : await aliasAnswer(resolver, name, signal);
    if ("answer" in alias) {
      return { addresses, ...known, hostAuthentic: alias.answer.authentic };
    }
    // To go on as if insecure would let whoever suppresses this answer suppress DANE.
    return failed(name, "temporary", "4.4.3", alias.error.message, alias.error.kind);
  }

  const [first] = errors;
  if (first && dropped.length === 0) {
    const reason = `no address of ${name}: ${error}`;
    return failed(known.expanded, "temporary", "4.4.3", reason, first.kind);
  }
  const reason = dropped.length > 0
    ? `${name} has no address to dial: ${dropped.slice(0, 4).join(", ")}`
    : answers.some((answer) => answer.status === "nxdomain")
    ? `the host ${known.expanded} does not exist`
    : `the host ${known.expanded} has no ${family === "any" ? "IP" : family} address`;
  return failed(known.expanded, "nonexistent", "5.4.4", reason);
}

/** Where the whole chain is not authentic its first link may be: RFC 7672, section 2.2.2. */
async function aliasAnswer(
  resolver: Resolver,
  name: string,
  signal: AbortSignal | undefined,
): Promise<{ readonly answer: Answer<"CNAME"> } | { readonly error: DnsError }> {
  try {
    return { answer: await resolver.query(name, "CNAME", signal) };
  } catch (error) {
    if (error instanceof DnsError) return { error };
    throw error;
  }
}

function fromAddress(address: string, allowLoopback: boolean): HostAddresses {
  const why = undialable(address, allowLoopback);
  if (why !== undefined) {
    return failed(address, "nonexistent", "5.4.4", `${address} is not dialled: it is ${why}`);
  }
  const unchecked = { authentic: false, hostAuthentic: false, dualStack: false };
  return { addresses: [address], expanded: address, ...unchecked };
}

function failed(
  expanded: string,
  kind: "temporary" | "nonexistent",
  code: string,
  reason: string,
  cause?: DnsError["kind"],
): HostAddresses {
  const unchecked = { authentic: false, hostAuthentic: false, dualStack: false };
  const failure = { kind, code, reason, ...(cause ? { cause } : {}) };
  return { addresses: [], expanded, ...unchecked, failure };
}

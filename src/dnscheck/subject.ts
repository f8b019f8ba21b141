/**
 * What is checked: a sending domain, the addresses and names that its mail leaves with, the keys
 * that sign it, and our listeners, all of it read from the config.
 */
import { BlockList, isIPv4, isIPv6 } from "node:net";
import { matchesDomain } from "../config/domain_pattern.ts";
import { type Config, DIRECT, type RouteConfig, type TransportConfig } from "../config/types.ts";
import type { DkimKey } from "../dkim/keys.ts";
import { spkiDigest } from "../tls/host_key.ts";
import { canonicalAddress } from "./zone.ts";

/** An address that mail for others leaves from, as they see it. */
export interface SendingAddress {
  readonly address: string;
  /** Our name in EHLO from there. */
  readonly hostname: string;
  /** Transports that send from it. */
  readonly transports: readonly string[];
}

export interface SigningKey {
  readonly selector: string;
  readonly key: DkimKey;
}

/** A listener with TLS that clients can reach by our host name. */
export interface TlsListener {
  readonly name: string;
  readonly port: number;
  /** SHA-256 over the SubjectPublicKeyInfo of its key. */
  readonly spki: Uint8Array;
}

export interface Subject {
  /** Lower-case A-labels. */
  readonly domain: string;
  readonly hostname: string;
  readonly addresses: readonly SendingAddress[];
  /** What cannot be known: a sentence each. */
  readonly unknowable: readonly string[];
  /** What the operator should know and cannot be wrong: a sentence each. */
  readonly notes: readonly string[];
  readonly keys: readonly SigningKey[];
  readonly listeners: readonly TlsListener[];
}

export interface SubjectOptions {
  /** The addresses of this machine's interfaces. */
  readonly interfaces: () => readonly string[];
  /** The addresses that receivers see instead of those of the interfaces: behind NAT. */
  readonly publicAddresses?: readonly string[];
}

/**
 * @throws BadHostKey when the key of a listener cannot be read
 */
export function subjectOf(config: Config, domain: string, options: SubjectOptions): Subject {
  const ways = new Ways(config.hostname, options);
  for (const transport of transportsFor(config, domain)) ways.add(transport);
  return {
    domain,
    hostname: config.hostname,
    ...ways.result(),
    keys: config.dkim.get(domain) ?? [],
    listeners: config.listeners.flatMap((listener) => {
      if (listener.protocol === "http" || !listener.certificate) return [];
      const { name, listen: { port }, certificate } = listener;
      return [{ name, port, spki: spkiDigest(certificate.keyFile) }];
    }),
  };
}

/** The transports that mail from a domain can take: those of every route that it may match. */
export function transportsFor(config: Config, domain: string): TransportConfig[] {
  const { accounts, domains, global } = config.routes;
  const mayMatch = ({ fromDomain }: RouteConfig) =>
    fromDomain?.some((pattern) => matchesDomain(pattern, domain)) ?? true;
  const shared = [...domains.get(domain) ?? [], ...global].filter(mayMatch);
  const names = new Set<string>();
  for (const routes of accounts.values()) {
    for (const route of routes.filter(mayMatch)) names.add(route.transport);
  }
  // What stands behind a route that takes everything is never reached.
  const last = shared.findIndex(takesAll);
  for (const route of last < 0 ? shared : shared.slice(0, last + 1)) names.add(route.transport);
  if (last < 0) names.add(DIRECT);
  return [...names].sort().flatMap((name) => config.transports.get(name) ?? []);
}

const takesAll = (route: RouteConfig): boolean =>
  route.toDomain === undefined && route.toMx === undefined && route.header === undefined &&
  route.sizeOver === undefined && (route.minimumAttempts ?? 0) === 0;

const FAMILIES = ["ipv4", "ipv6"] as const;

/** Gathers the addresses of transports. */
class Ways {
  readonly #addresses = new Map<string, { hostname: string; transports: string[] }>();
  readonly #unknowable = new Set<string>();
  readonly #notes = new Set<string>();
  #machine: ReturnType<typeof machineAddresses> | undefined;

  constructor(
    private readonly hostname: string,
    private readonly options: SubjectOptions,
  ) {}

  add(transport: TransportConfig): void {
    switch (transport.type) {
      case "direct":
        return this.#addDirect(transport.name, transport.ipFamily, transport.localAddresses ?? {});
      case "socks": {
        const { name, remoteIps, remoteHostname = this.hostname } = transport;
        for (const address of remoteIps) this.#address(address, remoteHostname, name);
        if (remoteIps.length === 0) {
          this.#unknowable.add(
            `transport ${name}: its config names no remote_ips, so what receivers see is not known`,
          );
        }
        return;
      }
      default:
        this.#notes.add(
          `transport ${transport.name}: mail leaves from the addresses of ${transport.host}; what ` +
            `SPF needs for them cannot be known here: its operator says (often an "include:")`,
        );
    }
  }

  #addDirect(
    name: string,
    family: "any" | "ipv4" | "ipv6",
    local: { readonly ipv4?: string; readonly ipv6?: string },
  ): void {
    this.#machine ??= machineAddresses(this.options);
    for (const one of FAMILIES) {
      if (family !== "any" && family !== one) continue;
      const chosen = local[one];
      const found = chosen === undefined
        ? this.#machine[one]
        : isPublic(chosen)
        ? { public: [chosen], hidden: [] }
        : { public: this.#machine.given[one], hidden: [chosen] };
      for (const address of found.public) this.#address(address, this.hostname, name);
      if (found.public.length === 0 && found.hidden.length > 0) {
        this.#unknowable.add(
          `transport ${name} sends from ${found.hidden.join(", ")}, which no receiver sees: ` +
            `what NAT makes of it cannot be known here; give it with --address`,
        );
      }
    }
  }

  #address(text: string, hostname: string, transport: string): void {
    const address = canonicalAddress(text);
    const key = `${address} ${hostname}`;
    const entry = this.#addresses.get(key) ?? { hostname, transports: [] };
    if (!entry.transports.includes(transport)) entry.transports.push(transport);
    this.#addresses.set(key, entry);
  }

  result(): Pick<Subject, "addresses" | "unknowable" | "notes"> {
    return {
      addresses: [...this.#addresses].map(([key, entry]) => ({
        address: key.slice(0, key.indexOf(" ")),
        ...entry,
      })),
      unknowable: [...this.#unknowable],
      notes: [...this.#notes],
    };
  }
}

function machineAddresses({ interfaces, publicAddresses = [] }: SubjectOptions) {
  const given = byFamily(publicAddresses);
  const own = byFamily(interfaces().filter((address) => !isOwnMachine(address)));
  const sides = (one: "ipv4" | "ipv6") =>
    publicAddresses.length > 0
      ? { public: given[one], hidden: [] }
      : { public: own[one].filter(isPublic), hidden: own[one].filter((a) => !isPublic(a)) };
  return { ipv4: sides("ipv4"), ipv6: sides("ipv6"), given };
}

const byFamily = (addresses: readonly string[]) => ({
  ipv4: addresses.filter((address) => isIPv4(address)),
  ipv6: addresses.filter((address) => isIPv6(address) && !address.includes("%")),
});

const machine = new BlockList();
machine.addSubnet("127.0.0.0", 8, "ipv4");
machine.addAddress("::1", "ipv6");
machine.addSubnet("169.254.0.0", 16, "ipv4"); // link-local: never reaches a receiver
machine.addSubnet("fe80::", 10, "ipv6");

const hidden = new BlockList();
hidden.addSubnet("0.0.0.0", 8, "ipv4");
hidden.addSubnet("10.0.0.0", 8, "ipv4"); // RFC 1918
hidden.addSubnet("172.16.0.0", 12, "ipv4");
hidden.addSubnet("192.168.0.0", 16, "ipv4");
hidden.addSubnet("100.64.0.0", 10, "ipv4"); // RFC 6598
hidden.addSubnet("127.0.0.0", 8, "ipv4");
hidden.addSubnet("169.254.0.0", 16, "ipv4");
hidden.addSubnet("fc00::", 7, "ipv6"); // RFC 4193
hidden.addSubnet("fe80::", 10, "ipv6");
hidden.addAddress("::1", "ipv6");
hidden.addAddress("::", "ipv6");

const familyOf = (address: string) => isIPv4(address) ? "ipv4" : "ipv6";
const isOwnMachine = (address: string): boolean => machine.check(address, familyOf(address));
/** Whether receivers can see it as the address of a client. */
export const isPublic = (address: string): boolean => !hidden.check(address, familyOf(address));

/**
 * Destinations by their keys: which one a message burdens, and what that one may be burdened with.
 *
 *   transport:NAME    a smarthost, whatever the domain of the recipient
 *   mx:PATTERN        all domains whose best MX host an entry of the configuration names
 *   DOMAIN            the domain of the recipient
 *
 * The best MX host of a domain is learnt from deliveries, never asked for: until the first attempt
 * at a domain it is a destination of its own. At most so many messages as fit into its first window
 * go by another limit than the one that is meant.
 */
import type { DestinationPolicy } from "../../actors/destination.ts";
import type { RetryPolicies } from "../../actors/retry.ts";
import type { StoredEvent } from "../../events/catalogue.ts";
import { retryPolicy } from "../config/destinations.ts";
import { formatDomainPattern, matchesDomain } from "../config/domain_pattern.ts";
import { canonicalDomain } from "../config/domain_pattern.ts";
import type { Config, DestinationConfig } from "../config/types.ts";

/** Domains whose MX hosts are remembered. */
const MAX_LEARNT = 10_000;
/** Keys whose entries are remembered. */
const MAX_FOUND = 10_000;

type Settings = Pick<Config, "destinations" | "queue" | "accountQueues">;

const TRANSPORT = "transport:";
const MX = "mx:";

export class Destinations {
  #settings: Settings;
  /** Best MX host by domain, the latest learnt at the end. */
  readonly #learnt = new Map<string, string>();
  readonly #found = new Map<string, DestinationConfig | undefined>();
  #byMx: boolean;

  constructor(settings: Settings) {
    this.#settings = settings;
    this.#byMx = settings.destinations.some(({ mx }) => mx !== undefined);
  }

  use(settings: Settings): void {
    this.#settings = settings;
    this.#byMx = settings.destinations.some(({ mx }) => mx !== undefined);
    this.#found.clear();
  }

  /** The key of a domain to which mail goes directly. */
  keyOf(domain: string): string {
    if (!this.#byMx) return domain;
    const host = this.#learnt.get(domain);
    if (host === undefined) return domain;
    for (const { match, mx } of this.#settings.destinations) {
      if (match?.some((pattern) => matchesDomain(pattern, domain))) return domain;
      if (mx?.some((pattern) => matchesDomain(pattern, host))) {
        return `${MX}${formatDomainPattern(mx[0]!)}`;
      }
    }
    return domain;
  }

  /** Learns the best MX host of domains from what deliveries found. */
  readonly learn = (events: readonly StoredEvent[]): void => {
    if (!this.#byMx) return;
    for (const event of events) {
      if (event.type !== "DestinationsResolved" || event.data.by === "configured") continue;
      const { nextHop, hosts: [best] } = event.data;
      if (!best) continue;
      const domain = canonicalDomain(nextHop);
      this.#learnt.delete(domain);
      this.#learnt.set(domain, best.host.toLowerCase());
      if (this.#learnt.size > MAX_LEARNT) this.#learnt.delete(this.#learnt.keys().next().value!);
    }
  };

  /** What a destination may be burdened with. */
  readonly limits = (key: string): DestinationPolicy => {
    const { concurrency, perMinute, perHour } = this.#entry(key) ?? {};
    return {
      concurrency: concurrency ?? this.#settings.queue.destinationConcurrency,
      ...(perMinute === undefined ? {} : { perMinute }),
      ...(perHour === undefined ? {} : { perHour }),
    };
  };

  /** Messages over one session; undefined where the configuration does not say. */
  perConnection(key: string): number | undefined {
    return this.#entry(key)?.messagesPerConnection;
  }

  /** When messages are tried again. */
  readonly retry: RetryPolicies = ({ account, destination }) => {
    const { queue, accountQueues } = this.#settings;
    const byAccount = account === null ? undefined : accountQueues.get(account);
    const byDestination = this.#entry(destination)?.retry;
    if (!byAccount && !byDestination) return queue.retry;
    return retryPolicy(queue.retry, byAccount, byDestination);
  };

  /** Every lifetime that `retry` may give, milliseconds. */
  readonly lifetimes = (): readonly number[] => {
    const { queue, accountQueues, destinations } = this.#settings;
    const set = [...accountQueues.values(), ...destinations.map(({ retry }) => retry)];
    const lifetimes = set.map(({ lifetime }) => lifetime).filter((ms) => ms !== undefined);
    return [queue.retry.lifetime, ...lifetimes];
  };

  #entry(key: string): DestinationConfig | undefined {
    const { destinations } = this.#settings;
    if (destinations.length === 0) return undefined;
    if (this.#found.has(key)) return this.#found.get(key);
    const entry = destinations.find((one) => isMeant(one, key));
    if (this.#found.size >= MAX_FOUND) this.#found.clear();
    this.#found.set(key, entry);
    return entry;
  }
}

function isMeant({ match, mx, transport }: DestinationConfig, key: string): boolean {
  if (key.startsWith(TRANSPORT)) return transport === key.slice(TRANSPORT.length);
  if (key.startsWith(MX)) {
    return mx !== undefined && formatDomainPattern(mx[0]!) === key.slice(MX.length);
  }
  return match?.some((pattern) => matchesDomain(pattern, key)) ?? false;
}

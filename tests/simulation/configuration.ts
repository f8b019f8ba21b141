/** The configurations that operators of the virtual world choose from. */
import type { RetryPolicy } from "../../actors/retry.ts";
import type { Limits } from "../../actors/schedule.ts";
import { parseDomainPattern } from "../../src/config/domain_pattern.ts";
import type { DestinationConfig, RouteConfig, TransportConfig } from "../../src/config/types.ts";
import type { Destinations } from "../../src/delivery/destinations.ts";
import type { DeliverySettings } from "../../src/delivery/transports.ts";
import type { RoutingConfig } from "../../src/delivery/routes.ts";
import { DAY, HOUR, MINUTE } from "./clock.ts";
import type { Dice } from "./random.ts";

export interface Configuration {
  readonly policy: RetryPolicy;
  /** Mail for this domain goes over the smarthost. */
  readonly relayed: string | undefined;
  /** After this many attempts all mail does. */
  readonly relayedAfter: number | undefined;
  /** How the smarthost is spoken to; undefined: it is not configured any more. */
  readonly relayTls: "none" | "opportunistic" | "required" | "verified" | undefined;
  readonly concurrency: number;
  readonly destinationConcurrency: number;
  /** Messages started per minute at one destination. */
  readonly perMinute: number | undefined;
  /** Limits of single destinations. */
  readonly destinations: readonly DestinationConfig[];
}

export const HOSTNAME = "queue.example";

const POLICIES: readonly RetryPolicy[] = [
  {
    waits: [7.5, 15, 30, 60, 120, 240, 480, 960].map((minutes) => minutes * MINUTE),
    maxAttempts: 8,
    delayNoticeAfter: 5,
    lifetime: 5 * DAY,
  },
  { waits: [MINUTE, 5 * MINUTE], maxAttempts: 4, delayNoticeAfter: 2, lifetime: 12 * HOUR },
  { waits: [HOUR], maxAttempts: 2, delayNoticeAfter: 1, lifetime: DAY },
];

export function configure(dice: Dice): Configuration {
  return {
    policy: dice.pick(POLICIES),
    relayed: dice.pick([undefined, undefined, "mx.example", "implicit.example"]),
    relayedAfter: dice.pick([undefined, undefined, 2]),
    relayTls: dice.pick(
      ["none", "opportunistic", "opportunistic", "required", "verified", undefined] as const,
    ),
    concurrency: dice.pick([1, 4, 100]),
    destinationConcurrency: dice.pick([1, 2, 20]),
    perMinute: dice.pick([undefined, undefined, undefined, 30]),
    destinations: dice.pick(DESTINATIONS),
  };
}

const DESTINATIONS: readonly (readonly DestinationConfig[])[] = [
  [],
  [],
  [
    {
      mx: [{ domain: "mx.example", below: true }, { domain: "single.example", below: true }],
      concurrency: 1,
      messagesPerConnection: 2,
      retry: { waits: [2 * MINUTE], maxAttempts: 20, lifetime: 6 * HOUR },
    },
    { match: [{ domain: "implicit.example", below: false }], perHour: 60, retry: {} },
    { transport: "relay", perMinute: 10, retry: { waits: [MINUTE] } },
  ],
];

/** The table of destinations, as of a configuration. */
export function destinationSettings(configuration: Configuration) {
  const { policy: retry, concurrency, destinationConcurrency, destinations } = configuration;
  const queue = { retry, concurrency, destinationConcurrency };
  return { queue, destinations, accountQueues: new Map() };
}

export function limits(configuration: Configuration, destinations: Destinations): Limits {
  const { concurrency, perMinute } = configuration;
  const rate = perMinute === undefined ? {} : { perMinute };
  return { concurrency, policy: (key) => ({ ...rate, ...destinations.limits(key) }) };
}

/** As the configuration file would have been read. */
export function settings(configuration: Configuration): RoutingConfig & DeliverySettings {
  const { relayed, relayedAfter, relayTls } = configuration;
  const transports: TransportConfig[] = [
    { type: "direct", name: "direct", port: 25, ipFamily: "any", allowLoopback: false },
  ];
  if (relayTls !== undefined) {
    transports.push({
      type: "smtp",
      name: "relay",
      host: "relay.example",
      port: 25,
      tls: relayTls,
      ipFamily: "any",
    });
  }
  const global: RouteConfig[] = [];
  const route = { path: `routes[${global.length}]`, transport: "relay" };
  const pattern = relayed === undefined ? undefined : parseDomainPattern(relayed);
  if (pattern) global.push({ ...route, toDomain: [pattern] });
  if (relayedAfter !== undefined) global.push({ ...route, minimumAttempts: relayedAfter });
  return {
    hostname: HOSTNAME,
    routes: { accounts: new Map(), domains: new Map(), global },
    transports: new Map(transports.map((transport) => [transport.name, transport])),
  };
}

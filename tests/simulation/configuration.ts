/** The configurations that operators of the virtual world choose from. */
import type { RetryPolicy } from "../../actors/retry.ts";
import type { Limits } from "../../actors/schedule.ts";
import { parseDomainPattern } from "../../src/config/domain_pattern.ts";
import type { RouteConfig, TransportConfig } from "../../src/config/types.ts";
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
  /** Attempts started per minute at one destination. */
  readonly perMinute: number | undefined;
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
  };
}

export function limits(configuration: Configuration): Limits {
  const { concurrency, destinationConcurrency, perMinute } = configuration;
  const policy = {
    concurrency: destinationConcurrency,
    ...(perMinute === undefined ? {} : { perMinute }),
  };
  return { concurrency, policy: () => policy };
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

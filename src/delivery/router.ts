/**
 * The Router port: routes of the configuration in force, and the asking that some of them need.
 *
 * Most configurations have no route that needs to ask, and then nothing is awaited. Where one has,
 * DNS or the header of the message is asked only when that route is reached, before the attempt
 * starts: nothing is dialled for it but a resolver.
 */
import type {
  BodyStore,
  Log,
  Random,
  Router,
  RoutingFacts,
  TransportChoice,
} from "../../actors/ports.ts";
import { canonicalDomainOf } from "../config/domain_pattern.ts";
import type { RouteTable } from "../config/types.ts";
import { resolveDestination } from "../dns/destinations.ts";
import type { Resolver } from "../ports.ts";
import { readFields } from "./header_fields.ts";
import { chooseRoute, decideRoute, type Found, type Known, type RoutingConfig } from "./routes.ts";

export interface RouterPorts {
  readonly resolver: Resolver;
  readonly random: Random;
  readonly bodies: Pick<BodyStore, "open">;
  readonly log: Log;
  /** Which domains are one destination; absent: each is its own. */
  readonly destinations?: { keyOf(domain: string): string };
}

/** Domains whose MX hosts are remembered, for guesses. */
const MAX_REMEMBERED = 10_000;

/** The router of a running queue. A reload of the configuration makes a new one. */
export class ConfiguredRouter implements Router {
  readonly #config: RoutingConfig;
  readonly #ports: RouterPorts;
  /** Names of the fields that any route asks for, in lower case. */
  readonly #fields: ReadonlySet<string>;
  readonly #mx = new Map<string, Found<readonly string[]>>();

  constructor(config: RoutingConfig, ports: RouterPorts) {
    this.#config = config;
    this.#ports = ports;
    this.#fields = fieldNames(config.routes);
  }

  choose(
    facts: RoutingFacts,
    signal?: AbortSignal,
  ): TransportChoice | Promise<TransportChoice> {
    const decided = decideRoute(this.#config, facts, {});
    return "ask" in decided ? this.#ask(facts, signal) : decided;
  }

  /** With what earlier questions have found out; a criterion that was never asked is not met. */
  expect(facts: RoutingFacts): TransportChoice {
    const mx = this.#mx.size > 0 ? this.#mx.get(canonicalDomainOf(facts.rcptTo)) : undefined;
    return chooseRoute(this.#config, facts, mx ? { mx } : {});
  }

  /**
   * Direct delivery burdens the recipient's domain, or all domains behind the same MX hosts where
   * the configuration says so; a smarthost takes the mail of every domain and is one destination.
   */
  destination(choice: TransportChoice, rcptTo: string): string {
    if (choice.type !== "direct" && choice.type !== "socks") return `transport:${choice.transport}`;
    const domain = canonicalDomainOf(rcptTo);
    return this.#ports.destinations?.keyOf(domain) ?? domain;
  }

  async #ask(facts: RoutingFacts, signal?: AbortSignal): Promise<TransportChoice> {
    let known: Known = {};
    for (;;) {
      const decided = decideRoute(this.#config, facts, known);
      if (!("ask" in decided)) {
        for (const reason of decided.undecided ?? []) {
          this.#ports.log.warn("a route could not be judged, and is passed over", { reason });
        }
        return decided;
      }
      known = decided.ask === "mx"
        ? { ...known, mx: await this.#mxOf(facts.rcptTo, signal) }
        : { ...known, header: await this.#headerOf(facts.body) };
    }
  }

  async #mxOf(rcptTo: string, signal?: AbortSignal): Promise<Found<readonly string[]>> {
    const { resolver, random } = this.#ports;
    const domain = rcptTo.slice(rcptTo.lastIndexOf("@") + 1);
    const found = await resolveDestination(resolver, domain, random, signal);
    if (found.kind === "temporary") return { unknown: found.reason };
    const hosts = found.kind === "hosts" ? found.hosts.map(({ host }) => host) : [];
    const key = canonicalDomainOf(rcptTo);
    this.#mx.delete(key);
    this.#mx.set(key, { value: hosts });
    if (this.#mx.size > MAX_REMEMBERED) this.#mx.delete(this.#mx.keys().next().value!);
    return { value: hosts };
  }

  async #headerOf(body: string | undefined): Promise<NonNullable<Known["header"]>> {
    if (body === undefined) return { unknown: "the message is not at hand" };
    try {
      return { value: await readFields(await this.#ports.bodies.open(body), this.#fields) };
    } catch (error) {
      return { unknown: error instanceof Error ? error.message : String(error) };
    }
  }
}

function fieldNames({ accounts, domains, global }: RouteTable): ReadonlySet<string> {
  const lists = [...accounts.values(), ...domains.values(), global];
  return new Set(
    lists.flat().flatMap(({ header }) => header ? [header.name.toLowerCase()] : []),
  );
}

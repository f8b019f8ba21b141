/**
 * Router and resolver of the configuration in force: what holds one of these need not know that the
 * configuration is replaced while the queue runs.
 */
import type { Clock, Router } from "../actors/ports.ts";
import type { Config } from "./config/types.ts";
import { ConfiguredRouter, type RouterPorts } from "./delivery/router.ts";
import { StubResolver } from "./dns/resolver.ts";
import { formatServer } from "./dns/servers.ts";
import type { Resolver } from "./ports.ts";

/** The router of the configuration in force. */
export class CurrentRouter implements Router {
  readonly #ports: RouterPorts;
  #current: ConfiguredRouter;
  constructor(config: Config, ports: RouterPorts) {
    this.#ports = ports;
    this.#current = new ConfiguredRouter(config, ports);
  }
  use(config: Config): void {
    this.#current = new ConfiguredRouter(config, this.#ports);
  }
  choose(...facts: Parameters<Router["choose"]>) {
    return this.#current.choose(...facts);
  }
  expect(...facts: Parameters<Router["expect"]>) {
    return this.#current.expect(...facts);
  }
  destination(...of: Parameters<Router["destination"]>) {
    return this.#current.destination(...of);
  }
}

/** The resolver of the configuration in force; its cache goes with it. */
export class CurrentResolver implements Resolver {
  readonly #clock: Clock;
  #current: StubResolver;
  constructor(config: Config, clock: Clock) {
    this.#clock = clock;
    this.#current = this.#make(config);
  }
  /** Builds the resolver of a new configuration; the function returned puts it in force. */
  prepare(config: Config): () => void {
    const next = this.#make(config);
    return () => {
      this.#current = next;
    };
  }
  query: Resolver["query"] = (name, type, signal) => this.#current.query(name, type, signal);

  #make({ dns }: Config): StubResolver {
    const servers = dns.servers.map(({ address, port }) => formatServer({ address, port }));
    return new StubResolver({
      clock: this.#clock,
      trustAd: dns.trustAd,
      ...(servers.length > 0 ? { servers } : {}),
    });
  }
}

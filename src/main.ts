/**
 * Wires the queue: the real world behind the ports, the store, the actors, and the doors through
 * which mail comes in and is looked at. `serve` runs it as a process, `demo` beside its own peers.
 *
 *   store, bodies, view      events/open.ts
 *   delivery, router, report src/delivery, src/dsn
 *   supervisor               actors/supervisor.ts
 *   listeners                src/smtp/server.ts, src/http/server.ts
 *
 * The configuration can be replaced while it runs. Routes, transports, retries and limits apply to
 * the next attempt; listeners are opened anew where they changed; the data folder stays.
 */
import type { Clock, Delivery, Log, Random, Router } from "../actors/ports.ts";
import { QueueSubmitter } from "../actors/submitter.ts";
import type { Branch, Part } from "../actors/supervision.ts";
import { Supervisor } from "../actors/supervisor.ts";
import type { StoredEvent } from "../events/catalogue.ts";
import { type OpenStore, openStore } from "../events/open.ts";
import type { Config, HttpListenerConfig, SmtpListenerConfig } from "./config/types.ts";
import { SocketDialer } from "./delivery/dialer.ts";
import { ConfiguredRouter } from "./delivery/routes.ts";
import { Transports } from "./delivery/transports.ts";
import { formatServer } from "./dns/servers.ts";
import { StubResolver } from "./dns/resolver.ts";
import { DsnComposer } from "./dsn/compose.ts";
import { openToken } from "./http/api_token.ts";
import { Metrics } from "./http/metrics.ts";
import { HttpServer, type Readiness } from "./http/server.ts";
import type { Resolver } from "./ports.ts";
import { SmtpServer } from "./smtp/server.ts";
import type { SmtpStats } from "./smtp/server/stats.ts";
import { Sessions } from "./smtp/sessions.ts";
import { ulids } from "./system.ts";
import { doorsBranch, supervisionTree } from "./tree.ts";

/** Milliseconds that running attempts and sessions have to end when the queue stops. */
export const STOP_GRACE = 30_000;

export interface World {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Where a listener listens, as it is. */
export interface Bound {
  readonly name: string;
  readonly protocol: string;
  readonly address: string;
  readonly port: number;
}

export class Queue {
  readonly #world: World;
  readonly #opened: OpenStore;
  readonly #router: CurrentRouter;
  readonly #resolver: CurrentResolver;
  readonly #transports: Transports;
  readonly #sessions: Sessions;
  readonly #metrics: Metrics;
  readonly #token: string;
  readonly #submitter: QueueSubmitter;
  readonly #reporter: DsnComposer;
  readonly #bound = new Map<string, Bound>();
  readonly #smtp = new Map<string, SmtpServer>();
  #config: Config;
  #supervisor: Supervisor | undefined;
  readonly #doors: Doors;
  readonly #tree: Branch;
  #stopping = false;

  /**
   * Opens the data folder and builds everything; nothing runs yet.
   * @throws DataFolderError, BadTokenFile, or an Error with one line saying what stands in the way
   */
  static async open(config: Config, world: World): Promise<Queue> {
    const { clock, log } = world;
    const metrics = new Metrics();
    const opened = await openStore({
      dataDir: config.dataDir,
      clock,
      onCommit: metrics.onCommit,
      onListenerError: (error) =>
        log.error("a listener of the log threw", { error: String(error) }),
      onUnreadable: (broken) => log.error("an event cannot be read", { reason: broken.message }),
    });
    try {
      return new Queue(config, world, opened, metrics);
    } catch (cause) {
      await opened.close();
      throw cause;
    }
  }

  private constructor(config: Config, world: World, opened: OpenStore, metrics: Metrics) {
    const { clock, random, log } = world;
    const { store, bodies, view } = opened;
    this.#config = config;
    this.#world = world;
    this.#opened = opened;
    this.#metrics = metrics;
    this.#token = openToken(config.dataDir);
    this.#router = new CurrentRouter(config);
    this.#resolver = new CurrentResolver(config, clock);
    this.#sessions = new Sessions(clock);
    this.#transports = new Transports({
      clock,
      random,
      dialer: new SocketDialer(),
      resolver: this.#resolver,
      bodies,
      sessions: this.#sessions,
    }, config);
    const ids = ulids(clock, random);
    this.#reporter = new DsnComposer({ hostname: config.hostname, bodies, clock, ids });
    this.#submitter = new QueueSubmitter({
      clock,
      ids,
      store,
      unavailable: () => this.#supervisor?.storeFailed(),
    });
    metrics.observe({ store, queue: view });
    this.#gauges();
    const queue = this.#queuePart(ids);
    this.#doors = new Doors(() => doorsBranch(this.#listeners(), { clock, log }));
    this.#tree = supervisionTree(queue, this.#doors, { clock, log });
  }

  /** Where the listeners listen. */
  get addresses(): Bound[] {
    return [...this.#bound.values()];
  }

  /** Calls `listener` with every batch of events that has become durable. */
  subscribe(listener: (events: readonly StoredEvent[]) => void): () => void {
    return this.#opened.store.subscribe(listener);
  }

  /**
   * Finishes what a crash left open, starts deliveries, then opens the listeners.
   * @param failed is told once when the tree gives up; the process should then end
   * @throws Error when a listener cannot be opened; everything is closed again then
   */
  async start(failed: (cause: unknown) => void): Promise<void> {
    try {
      await this.#tree.start(failed);
    } catch (cause) {
      await this.#opened.close();
      throw cause;
    }
  }

  /** Stops accepting, lets running attempts end, flushes, closes the store. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#tree.stop();
    await this.#sessions.close();
    await this.#opened.close();
  }

  /**
   * Puts a new configuration in force.
   * @throws Error when it cannot be; the one before stays in force then
   */
  async reload(config: Config): Promise<void> {
    const fixed = (["dataDir", "hostname"] as const).filter((key) =>
      config[key] !== this.#config[key]
    );
    if (fixed.length > 0) {
      const names = { dataDir: "data_dir", hostname: "hostname" };
      const keys = fixed.map((key) => names[key]).join(" and ");
      throw new Error(`config: ${keys} cannot change while the queue runs: restart it`);
    }
    const resolver = this.#resolver.prepare(config);
    const before = this.#config;
    this.#config = config;
    if (JSON.stringify(config.listeners) !== JSON.stringify(before.listeners)) {
      try {
        await this.#doors.reopen();
      } catch (cause) {
        this.#config = before;
        await this.#doors.reopen();
        throw cause;
      }
    }
    resolver();
    this.#router.use(config);
    this.#transports.reload(config);
    if (this.#supervisor) this.#supervisor.limits = config.queue;
  }

  #queuePart(ids: ReturnType<typeof ulids>): Part {
    const { clock, random, log } = this.#world;
    const { store, view } = this.#opened;
    return {
      name: "queue",
      start: async (failed) => {
        const delivery: Delivery = this.#transports;
        const supervisor = new Supervisor(
          {
            clock,
            random,
            ids,
            log,
            store,
            view,
            router: this.#router,
            delivery,
            reporter: this.#reporter,
            policy: () => this.#config.queue.retry,
          },
          this.#config.queue,
          failed,
        );
        this.#supervisor = supervisor;
        await supervisor.start();
      },
      // Restarted because it failed, it need not wait for what it was doing.
      stop: async () => await this.#supervisor?.stop(this.#stopping ? STOP_GRACE : 0),
    };
  }

  #listeners(): Part[] {
    return this.#config.listeners.map((listener) =>
      listener.protocol === "http" ? this.#httpDoor(listener) : this.#smtpDoor(listener)
    );
  }

  #smtpDoor(config: SmtpListenerConfig): Part {
    const { clock, log } = this.#world;
    const { bodies } = this.#opened;
    const name = `smtp ${config.name}`;
    return {
      name,
      start: async () => {
        const { limits, certificate } = config;
        const server = new SmtpServer({ submitter: this.#submitter, bodies, clock, log }, {
          name: config.name,
          hostname: this.#config.hostname,
          address: config.listen.address,
          port: config.listen.port,
          protocol: config.protocol,
          ...(certificate
            ? {
              tls: {
                cert: await Deno.readTextFile(certificate.certFile),
                key: await Deno.readTextFile(certificate.keyFile),
              },
            }
            : {}),
          limits: {
            messageSize: limits.maxSize,
            recipients: limits.maxRecipients,
            connections: limits.maxConnections,
            connectionsPerAddress: limits.maxConnectionsPerAddress,
            unproductive: limits.maxIdleCommands,
            idle: limits.idleTimeout,
          },
        });
        const at = await server.listen();
        this.#smtp.set(name, server);
        this.#bound.set(name, { name: config.name, protocol: config.protocol, ...at });
      },
      stop: async () => {
        const server = this.#smtp.get(name);
        this.#smtp.delete(name);
        this.#bound.delete(name);
        await server?.close(STOP_GRACE);
      },
    };
  }

  #httpDoor(config: HttpListenerConfig): Part {
    const { clock, log } = this.#world;
    const { store, view } = this.#opened;
    const name = `http ${config.name}`;
    let server: HttpServer | undefined;
    return {
      name,
      start: () => {
        server = new HttpServer(config.listen, {
          queue: view,
          store,
          now: () => clock.now(),
          readiness: () => this.#readiness(),
          metrics: () => this.#metrics.text(),
          token: this.#token,
          log,
        });
        const at = server.listen();
        this.#bound.set(name, { name: config.name, protocol: config.protocol, ...at });
        return Promise.resolve();
      },
      stop: async () => {
        this.#bound.delete(name);
        await server?.close();
      },
    };
  }

  #readiness(): Readiness {
    if (this.#stopping) return { ok: false, why: "shutting down" };
    const health = this.#opened.store.health();
    return health.ok
      ? { ok: true }
      : { ok: false, why: `the store takes no writes: ${health.why}` };
  }

  #gauges(): void {
    const sum = (pick: (stats: SmtpStats) => number) => () =>
      [...this.#smtp.values()].reduce((total, server) => total + pick(server.stats()), 0);
    this.#metrics.gauge(
      "postledger_smtp_connections",
      "SMTP clients connected now.",
      sum((stats) => stats.connections),
    );
    this.#metrics.gauge(
      "postledger_attempts_running",
      "Delivery attempts running now.",
      () => this.#supervisor?.running ?? 0,
    );
    this.#metrics.gauge(
      "postledger_sessions_idle",
      "SMTP sessions to other servers kept for reuse.",
      () => this.#sessions.size,
    );
  }
}

/** The listeners of the configuration in force, as one part of the tree. */
class Doors implements Part {
  readonly name = "doors";
  #branch: Branch | undefined;
  #failed: (cause: unknown) => void = () => {};

  constructor(private readonly make: () => Branch) {}

  async start(failed: (cause: unknown) => void): Promise<void> {
    this.#failed = failed;
    this.#branch = this.make();
    await this.#branch.start(failed);
  }

  async stop(): Promise<void> {
    await this.#branch?.stop();
    this.#branch = undefined;
  }

  async reopen(): Promise<void> {
    await this.stop();
    await this.start(this.#failed);
  }
}

/** The router of the configuration in force. */
class CurrentRouter implements Router {
  #current: ConfiguredRouter;
  constructor(config: Config) {
    this.#current = new ConfiguredRouter(config);
  }
  use(config: Config): void {
    this.#current = new ConfiguredRouter(config);
  }
  choose(...facts: Parameters<Router["choose"]>) {
    return this.#current.choose(...facts);
  }
  destination(...of: Parameters<Router["destination"]>) {
    return this.#current.destination(...of);
  }
}

/** The resolver of the configuration in force; its cache goes with it. */
class CurrentResolver implements Resolver {
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

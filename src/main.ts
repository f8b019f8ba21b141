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
import { Admission } from "../actors/admission.ts";
import type { Clock, Delivery, Ids, Log, Random } from "../actors/ports.ts";
import type { Command, Message } from "../actors/message.ts";
import { QueueSubmitter } from "../actors/submitter.ts";
import { quarantine } from "../actors/message_actor.ts";
import type { Branch, Part } from "../actors/supervision.ts";
import type { Limits } from "../actors/schedule.ts";
import { Supervisor } from "../actors/supervisor.ts";
import type { StoredEvent } from "../events/catalogue.ts";
import { type OpenStore, openStore } from "../events/open.ts";
import { idempotencyId, idempotencyProjection } from "../events/projections/idempotency.ts";
import { StoreUnavailable } from "../events/store.ts";
import { Allowance } from "./accounts/allowance.ts";
import { AccountDirectory } from "./accounts/directory.ts";
import { AccountGate } from "./accounts/gate.ts";
import { openLoginSecret } from "./accounts/secret.ts";
import type { Config, HttpListenerConfig, SmtpListenerConfig } from "./config/types.ts";
import { Destinations } from "./delivery/destinations.ts";
import { SocketDialer } from "./delivery/dialer.ts";
import { DkimSigner } from "./dkim/signer.ts";
import { Transports } from "./delivery/transports.ts";
import { DsnComposer } from "./dsn/compose.ts";
import { Errands } from "./errands.ts";
import { AddressFile } from "./http/address_file.ts";
import { openToken } from "./http/api_token.ts";
import { destinationGauges } from "./http/destinations.ts";
import { Metrics } from "./http/metrics.ts";
import { HttpServer, type Readiness } from "./http/server.ts";
import { type Authenticate, authenticator } from "./http/tokens.ts";
import { CurrentResolver, CurrentRouter } from "./in_force.ts";
import { SmtpServer } from "./smtp/server.ts";
import { CertificateFiles } from "./smtp/server/certificate.ts";
import type { SmtpStats } from "./smtp/server/stats.ts";
import { Sessions } from "./smtp/sessions.ts";
import { ulids } from "./system.ts";
import { TlsDuties } from "./tls/duties.ts";
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
  readonly #destinations: Destinations;
  readonly #resolver: CurrentResolver;
  readonly #transports: Transports;
  readonly #sessions: Sessions;
  readonly #tls: TlsDuties;
  readonly #metrics: Metrics;
  readonly #authenticate: Authenticate;
  readonly #addressFile: AddressFile;
  readonly #admission: Admission;
  readonly #ids: Ids;
  readonly #accounts: AccountDirectory;
  readonly #gate: AccountGate;
  readonly #submitter: QueueSubmitter;
  readonly #errands: Errands;
  readonly #reporter: DsnComposer;
  readonly #signer: DkimSigner;
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
      commitThread: true,
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
    const { dataDir } = config;
    this.#authenticate = authenticator(
      openToken(dataDir),
      dataDir,
      (why) => log.error("API tokens cannot be used", { why }),
    );
    this.#addressFile = new AddressFile(dataDir, log);
    this.#admission = new Admission(store);
    this.#accounts = new AccountDirectory(config.dataDir, config.accounts, { clock, log });
    this.#gate = new AccountGate({
      clock,
      log,
      accounts: this.#accounts,
      allowance: new Allowance(clock, (...since) => view.submitted(...since)),
      secret: openLoginSecret(config.dataDir),
    });
    this.#resolver = new CurrentResolver(config, clock);
    const destinations = new Destinations(config);
    this.#destinations = destinations;
    this.#router = new CurrentRouter(config, {
      resolver: this.#resolver,
      random,
      bodies,
      log,
      destinations,
    });
    store.subscribe(destinations.learn);
    this.#sessions = new Sessions(clock);
    const ids = ulids(clock, random);
    this.#ids = ids;
    this.#signer = new DkimSigner(clock, config.dkim);
    const [signer, resolver] = [this.#signer, this.#resolver];
    const beside = { clock, random, ids, log, resolver, store, bodies, signer };
    const duties = this.#tls = new TlsDuties({ ...beside, rows: opened }, config);
    this.#transports = new Transports({
      clock,
      random,
      dialer: new SocketDialer(),
      resolver,
      bodies,
      sessions: this.#sessions,
      mtaSts: duties.mtaSts,
      tlsReports: () => duties.reports,
      perConnection: (choice, rcptTo) =>
        destinations.perConnection(this.#router.destination(choice, rcptTo)),
      get ca() {
        return duties.ca;
      },
    }, config);
    this.#reporter = new DsnComposer({ hostname: config.hostname, bodies, clock, ids, signer });
    this.#errands = new Errands(config, { clock, random, log, opened });
    this.#submitter = new QueueSubmitter({
      clock,
      ids,
      store,
      unavailable: () => this.#supervisor?.storeFailed(),
      admission: this.#admission,
      suppressions: this.#errands.suppressions,
    });
    metrics.observe({ store, queue: view });
    this.#gauges();
    const queue = this.#queuePart(ids);
    this.#doors = new Doors(() => doorsBranch(this.#listeners(), { clock, log }));
    this.#tree = supervisionTree(queue, this.#doors, { clock, log }, [
      ...duties.chores(),
      ...this.#errands.parts(),
    ]);
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
      await this.#admission.load();
      const { paused } = this.#admission.state;
      if (paused) {
        this.#world.log.warn("no new mail is taken; `queue resume` ends that", { ...paused });
      }
      await this.#setBrokenAside();
      await this.#tree.start(failed);
    } catch (cause) {
      await this.#opened.close();
      throw cause;
    }
  }

  /** What the store found broken when it was opened is said, and tried by nobody. */
  async #setBrokenAside(): Promise<void> {
    const { log } = this.#world;
    const { store, view, broken, lostBodies } = this.#opened;
    for (const one of broken) {
      const row = await view.get(one.stream);
      const waits = row?.state === "queued" || row?.state === "attempting";
      // On a disk that takes no writes it is met again when it is due.
      if (waits) await quarantine({ store, log }, one.stream, one).catch(unlessUnavailable);
      else log.error("a message has a broken history", { reason: one.message });
    }
    for (const { sha256, path, why } of lostBodies) {
      log.error("the content of a message is lost; it is held when it is due", {
        body: sha256,
        file: path,
        why,
      });
    }
  }

  /** Stops accepting, lets running attempts end, flushes, closes the store. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#tls.stop();
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
    this.#accounts.use(config.accounts);
    const before = this.#config;
    this.#config = config;
    if (JSON.stringify(config.listeners) !== JSON.stringify(before.listeners)) {
      try {
        await this.#doors.reopen();
      } catch (cause) {
        this.#config = before;
        this.#accounts.use(before.accounts);
        await this.#doors.reopen();
        throw cause;
      }
    }
    resolver();
    this.#signer.use(config.dkim);
    this.#router.use(config);
    this.#tls.use(config);
    this.#destinations.use(config);
    this.#transports.reload(config);
    await this.#errands.use(config);
    if (this.#supervisor) this.#supervisor.limits = this.#limits();
  }

  /**
   * Carries out an operator's command on a message.
   * @throws CommandRefused when it does not fit the message's state
   * @throws StoreUnavailable when it could not be recorded, or the queue is being restarted
   */
  async act(stream: string, command: Command): Promise<Message> {
    if (!this.#supervisor) throw new StoreUnavailable("the queue is not running yet");
    return await this.#supervisor.act(stream, command);
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
            policy: this.#destinations.retry,
          },
          this.#limits(),
          failed,
        );
        this.#supervisor = supervisor;
        await supervisor.start();
      },
      // Restarted because it failed, it need not wait for what it was doing.
      stop: async () => await this.#supervisor?.stop(this.#stopping ? STOP_GRACE : 0),
    };
  }

  #limits(): Limits {
    const { concurrency } = this.#config.queue;
    return { concurrency, policy: this.#destinations.limits };
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
        const { limits, certificate, auth } = config;
        const gate = auth === "required" ? this.#gate : undefined;
        if (gate && this.#accounts.size === 0) {
          log.warn("mail takes a login here, and there is no account; add one", {
            listener: config.name,
            command: "deno task account add NAME --address ADDRESS",
          });
        }
        const ports = {
          submitter: this.#submitter,
          bodies,
          clock,
          log,
          signer: this.#signer,
          ...(gate && { gate }),
        };
        const server = new SmtpServer(ports, {
          name: config.name,
          hostname: this.#config.hostname,
          address: config.listen.address,
          port: config.listen.port,
          protocol: config.protocol,
          ...(certificate ? { tls: new CertificateFiles(certificate, { clock, log }) } : {}),
          limits: {
            messageSize: limits.maxSize,
            recipients: limits.maxRecipients,
            connections: limits.maxConnections,
            connectionsPerAddress: limits.maxConnectionsPerAddress,
            unproductive: limits.maxIdleCommands,
            idle: limits.idleTimeout,
            hold: limits.maxHold,
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
    const { store, view, bodies, row } = this.#opened;
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
          authenticate: this.#authenticate,
          submitter: this.#submitter,
          bodies,
          signer: this.#signer,
          clock,
          hostname: this.#config.hostname,
          listener: config.name,
          accounts: { get: (account) => this.#accounts.get(account), gate: this.#gate },
          idempotent: (account, key) => row(idempotencyProjection, idempotencyId(account, key)),
          act: (stream, command) => this.act(stream, command),
          transports: () => [...this.#config.transports.keys()],
          destinations: () => this.#supervisor?.destinations() ?? [],
          admission: this.#admission,
          suppressions: this.#errands.suppressions,
          webhooks: this.#errands.webhooks,
          newId: () => this.#ids.next(),
          log,
        });
        const at = server.listen();
        this.#bound.set(name, { name: config.name, protocol: config.protocol, ...at });
        this.#addressFile.listening(name, at);
        return Promise.resolve();
      },
      stop: async () => {
        this.#bound.delete(name);
        this.#addressFile.closed(name);
        await server?.close();
      },
    };
  }

  #readiness(): Readiness {
    if (this.#stopping) return { ok: false, why: "shutting down" };
    if (this.#admission.state.paused) return { ok: false, why: "no new mail is taken for now" };
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
    this.#metrics.totalsBy(
      "postledger_logins_total",
      "Logins by mechanism and by how they ended.",
      ["mechanism", "result"],
      () => this.#gate.logins(),
    );
    this.#metrics.totals(
      "postledger_limited_total",
      "Messages and recipients turned away, by the limit of the account that was reached.",
      "limit",
      () => this.#gate.limited(),
    );
    this.#metrics.totals(
      "postledger_mta_sts_fetches_total",
      "MTA-STS policies fetched, by how that ended.",
      "result",
      () => this.#tls.mtaSts.results,
    );
    this.#metrics.totals(
      "postledger_tls_reports_total",
      "TLS reports handed over, by way, and those that could not be.",
      "result",
      () => this.#tls.reporter.results,
    );
    this.#metrics.gauge(
      "postledger_attempts_running",
      "Delivery attempts running now.",
      () => this.#supervisor?.running ?? 0,
    );
    this.#errands.observe(this.#metrics);
    destinationGauges(this.#metrics, () => this.#supervisor?.destinations() ?? []);
    this.#metrics.gauge(
      "postledger_sessions_idle",
      "SMTP sessions to other servers kept for reuse.",
      () => this.#sessions.size,
    );
  }
}

function unlessUnavailable(cause: unknown): void {
  if (!(cause instanceof StoreUnavailable)) throw cause;
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

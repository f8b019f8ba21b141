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
import { quarantine } from "../actors/quarantine.ts";
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
import type { Config, HttpListenerConfig } from "./config/types.ts";
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
import type { HttpPorts, Readiness } from "./http/server.ts";
import { type Authenticate, authenticator } from "./http/tokens.ts";
import { CurrentResolver, CurrentRouter } from "./in_force.ts";
import { Sessions } from "./smtp/sessions.ts";
import { ulids } from "./system.ts";
import { TlsDuties } from "./tls/duties.ts";
import { type Bound, Doors, STOP_GRACE } from "./doors.ts";
import { supervisionTree } from "./tree.ts";

export interface World {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
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
  readonly #admission: Admission;
  readonly #ids: Ids;
  readonly #accounts: AccountDirectory;
  readonly #gate: AccountGate;
  readonly #submitter: QueueSubmitter;
  readonly #errands: Errands;
  readonly #reporter: DsnComposer;
  readonly #signer: DkimSigner;
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
    this.#doors = new Doors(() => this.#config, {
      submitter: this.#submitter,
      bodies,
      clock,
      log,
      signer: this.#signer,
      gate: this.#gate,
      accounts: this.#accounts,
      addressFile: new AddressFile(dataDir, log),
      http: (listener) => this.#http(listener),
    });
    this.#tree = supervisionTree(queue, this.#doors, { clock, log }, [
      ...duties.chores(),
      ...this.#errands.parts(),
    ]);
  }

  /** Where the listeners listen. */
  get addresses(): Bound[] {
    return this.#doors.addresses;
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
      log.error("a message has a broken history", { reason: one.message });
      // On a disk that takes no writes it is met again when it is due.
      await quarantine({ store, view, log }, one.stream, one).catch(unlessUnavailable);
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
            lifetimes: this.#destinations.lifetimes,
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

  /** What an HTTP listener answers from. */
  #http(config: HttpListenerConfig): HttpPorts {
    const { clock, log } = this.#world;
    const { store, view, bodies, row, archive } = this.#opened;
    return {
      queue: view,
      store,
      archive,
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
    this.#metrics.gauge(
      "postledger_smtp_connections",
      "SMTP clients connected now.",
      () => this.#doors.connections,
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

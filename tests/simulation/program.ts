/**
 * The program under test, wired over the ports of one process: what src/main.ts does with the
 * real world, done with the virtual one. Everything here that is not a port is the real code,
 * but for the bugs that a world puts in between on purpose.
 */
import type {
  BodyStore,
  Clock,
  Delivery,
  EventStore,
  Log,
  RoutingFacts,
  Submitter,
} from "../../actors/ports.ts";
import { QueueSubmitter } from "../../actors/submitter.ts";
import type { Part } from "../../actors/supervision.ts";
import { Supervisor } from "../../actors/supervisor.ts";
import type { WebhookSender } from "../../actors/webhook_endpoint.ts";
import { Webhooks } from "../../actors/webhooks.ts";
import { Bodies } from "../../events/bodies.ts";
import { sha256 } from "../../events/chain.ts";
import type { StorageEngine } from "../../events/engine.ts";
import { EventLog } from "../../events/log.ts";
import { rawLog } from "../../events/raw_log.ts";
import { Retention, type RetentionPorts } from "../../events/retention.ts";
import type { Projection, Row } from "../../events/projection.ts";
import { archiveProjection } from "../../events/projections/archive.ts";
import { queueProjection, type QueueView } from "../../events/projections/queue.ts";
import {
  suppressionProjection,
  type SuppressionView,
} from "../../events/projections/suppression.ts";
import { type WebhookRow, webhooksProjection } from "../../events/projections/webhooks.ts";
import { ConfiguredRouter } from "../../src/delivery/router.ts";
import { Destinations } from "../../src/delivery/destinations.ts";
import { Transports } from "../../src/delivery/transports.ts";
import { DsnComposer } from "../../src/dsn/compose.ts";
import { retentionChore } from "../../src/retention_chore.ts";
import { Sessions } from "../../src/smtp/sessions.ts";
import { ulids } from "../../src/system.ts";
import { supervisionTree } from "../../src/tree.ts";
import { VirtualArchiveFiles, VirtualRetentionView } from "./archive.ts";
import {
  type Configuration,
  destinationSettings,
  HOSTNAME,
  limits,
  settings,
} from "./configuration.ts";
import { Door } from "./door.ts";
import { type Disk, VirtualBodyFiles, VirtualEngine } from "./disk.ts";
import type { Process } from "./process.ts";
import { VirtualQueueView } from "./queue_view.ts";
import { type Reception, reception } from "./reception.ts";
import type { World } from "./world.ts";

export interface Program {
  readonly process: Process;
  readonly bodies: BodyStore;
  readonly submitter: Submitter;
  readonly door: Door;
  /** Where operators use it. */
  readonly reception: Reception | undefined;
  readonly webhooks: Webhooks;
  /** Where a message would go, and how long it may wait for that, milliseconds. */
  waitsFor(facts: RoutingFacts): { readonly destination: string; readonly lifetime: number };
  /** The one that runs now: the tree may have started another. */
  supervisor(): Supervisor;
  reload(configuration: Configuration): void;
  /** An orderly stop, as on SIGTERM. */
  stop(): Promise<void>;
}

/** Deliberate bugs, put between the real parts. */
export interface Sabotage {
  readonly engine?: (engine: StorageEngine, process: Process) => StorageEngine;
  readonly store?: (store: EventStore, process: Process) => EventStore;
  /** The clock of the supervisor. */
  readonly clock?: (clock: Clock) => Clock;
  readonly view?: (view: QueueView) => QueueView;
  readonly delivery?: (delivery: Delivery) => Delivery;
  readonly hooks?: (sender: WebhookSender) => WebhookSender;
  readonly list?: (view: SuppressionView) => SuppressionView;
  readonly retention?: (ports: RetentionPorts, disk: Disk) => RetentionPorts;
}

const STOP_GRACE = 30_000;

/** Of what is in play. */
function projections({ hooks, desk, archives }: World): Projection<Row>[] {
  const all = [
    queueProjection,
    ...(hooks.endpoints.length > 0 ? [webhooksProjection] : []),
    ...(desk.staffed ? [suppressionProjection] : []),
    ...(archives.keep === undefined ? [] : [archiveProjection]),
  ];
  return all as unknown as Projection<Row>[];
}

/**
 * Starts the program on the disk as it is.
 * @param failed is told when the supervision tree gives up
 */
export async function start(
  process: Process,
  world: World,
  failed: (cause: unknown) => void,
): Promise<Program> {
  const { sabotage } = world;
  const dice = world.dice.fork(`process ${process.incarnation}`);
  const real = new VirtualEngine(world.disk, process);
  const engine = sabotage.engine?.(real, process) ?? real;
  const bodies = new Bodies(engine, new VirtualBodyFiles(world.disk, process));
  const log = await EventLog.open({
    engine,
    bodies,
    projections: projections(world),
    clock: process,
    schedule: (flush) => void process.timer(0, flush),
    signer: { sign: (text) => sha256(text) },
    maxEvents: dice.pick([3, 1_000]),
    onListenerError: (error) => world.violated(error),
    onUnreadable: ({ stream }) => world.note(`${stream} cannot be read`),
  });
  await bodies.sweep();
  const store = sabotage.store?.(log, process) ?? log;
  const plainView = new VirtualQueueView(world.disk, process);
  const view = sabotage.view?.(plainView) ?? plainView;

  let configuration = world.configuration;
  const lines = tracing(world, process);
  const resolver = world.dns.resolver(process);
  const destinations = new Destinations(destinationSettings(configuration));
  store.subscribe(destinations.learn);
  const asked = { resolver, random: dice, bodies, log: lines, destinations };
  let router = new ConfiguredRouter(settings(configuration), asked);
  const sessions = new Sessions(process);
  const transports = new Transports({
    clock: process,
    random: dice,
    dialer: world.network.dialer(process),
    resolver,
    bodies,
    sessions,
    perConnection: (choice, rcptTo) =>
      destinations.perConnection(router.destination(choice, rcptTo)),
  }, settings(configuration));
  const delivery = world.mishaps.delivery(sabotage.delivery?.(transports) ?? transports);
  const ids = ulids(process, dice);

  let supervisor: Supervisor | undefined;
  let stopping = false;
  const queue: Part = {
    name: "queue",
    start: async (failed) => {
      supervisor = new Supervisor(
        {
          clock: sabotage.clock?.(process) ?? process,
          random: dice,
          ids,
          log: lines,
          store,
          view: world.mishaps.view(view),
          router: {
            choose: (facts, signal) => router.choose(facts, signal),
            expect: (facts) => router.expect(facts),
            destination: (choice, rcptTo) => router.destination(choice, rcptTo),
          },
          delivery,
          reporter: world.mishaps.reporter(
            new DsnComposer({ hostname: HOSTNAME, bodies, clock: process, ids }),
          ),
          policy: destinations.retry,
          lifetimes: destinations.lifetimes,
        },
        limits(configuration, destinations),
        failed,
      );
      await supervisor.start();
    },
    stop: async () => await supervisor?.stop(stopping ? STOP_GRACE : 0),
  };
  const rules = world.desk.staffed
    ? await reception(process, world, { store, queue: view, log: lines, list: sabotage.list })
    : undefined;
  const submitter = world.newMail.watched(
    new QueueSubmitter({
      clock: process,
      ids,
      store,
      unavailable: () => supervisor?.storeFailed(),
      ...rules,
    }),
    () => log.health().ok,
  );
  const door = new Door(process, dice.fork("door"), {
    submitter,
    bodies,
    log: lines,
    connected: (peer) => world.newMail.list.begins(peer),
  });
  const doors: Part = {
    name: "doors",
    start: () => Promise.resolve(),
    stop: async () => await door.close(stopping ? STOP_GRACE : 0),
  };
  const sender = world.hooks.sender(process);
  const webhooks = new Webhooks(world.hooks.endpoints, {
    clock: process,
    random: dice.fork("webhooks"),
    log: lines,
    store,
    row: (endpoint) =>
      world.disk.table(webhooksProjection.name).rows.get(endpoint) as WebhookRow | undefined,
    sender: sabotage.hooks?.(sender) ?? sender,
  });
  const hooks: Part = {
    name: "webhooks",
    start: () => webhooks.start(),
    stop: () => webhooks.stop(),
  };
  const chores: Part[] = rules ? [rules.part, hooks] : [hooks];
  const { keep } = world.archives;
  if (keep !== undefined) {
    const ports: RetentionPorts = {
      clock: process,
      log,
      raw: rawLog(engine),
      view: new VirtualRetentionView(world.disk, process),
      files: new VirtualArchiveFiles(world.disk, process),
    };
    const retention = new Retention(sabotage.retention?.(ports, world.disk) ?? ports);
    const told = () => webhooks.toldUpTo;
    chores.push(retentionChore(retention, () => keep, told, { clock: process, log: lines }));
  }
  const tree = supervisionTree(queue, doors, { clock: process, log: lines }, chores);
  await tree.start(failed);
  return {
    process,
    bodies,
    waitsFor: (facts) => {
      const destination = router.destination(router.expect(facts), facts.rcptTo);
      const { lifetime } = destinations.retry({ account: facts.account, destination });
      return { destination, lifetime };
    },
    supervisor: () => supervisor!,
    submitter,
    door,
    reception: rules,
    webhooks,
    reload: (next) => {
      configuration = next;
      router = new ConfiguredRouter(settings(next), asked);
      destinations.use(destinationSettings(next));
      transports.reload(settings(next));
      if (supervisor) supervisor.limits = limits(next, destinations);
    },
    stop: async () => {
      stopping = true;
      await tree.stop();
      await sessions.close();
      await log.close();
      await bodies.settled();
    },
  };
}

function tracing(world: World, process: Process): Log {
  const line = (message: string, fields: Record<string, unknown> = {}) => {
    if (!process.alive) return;
    if (message === "a fault in an SMTP session") world.violated(new Error(String(fields["why"])));
    world.note(`log: ${message} ${JSON.stringify({ ...fields, stack: undefined })}`);
  };
  return { info: line, warn: line, error: line };
}

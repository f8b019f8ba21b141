/**
 * The program under test, wired over the ports of one process: what src/main.ts does with the
 * real world, done with the virtual one. Everything here that is not a port is the real code.
 */
import type { BodyStore, Delivery, EventStore, Log } from "../../actors/ports.ts";
import { QueueSubmitter } from "../../actors/submitter.ts";
import { Supervisor } from "../../actors/supervisor.ts";
import { Bodies } from "../../events/bodies.ts";
import { sha256 } from "../../events/chain.ts";
import { EventLog } from "../../events/log.ts";
import { parseDomainPattern } from "../../src/config/domain_pattern.ts";
import type { TransportConfig } from "../../src/config/types.ts";
import { ConfiguredRouter, type RoutingConfig } from "../../src/delivery/routes.ts";
import { Transports } from "../../src/delivery/transports.ts";
import { Sessions } from "../../src/smtp/sessions.ts";
import { ulids } from "../../src/system.ts";
import { VirtualBodyFiles, VirtualEngine } from "./disk.ts";
import type { Process } from "./process.ts";
import { VirtualQueueView } from "./queue_view.ts";
import { PlainReporter } from "./reporter.ts";
import type { Configuration, World } from "./world.ts";

export interface Program {
  readonly process: Process;
  readonly bodies: BodyStore;
  readonly submitter: QueueSubmitter;
  readonly supervisor: Supervisor;
  reload(configuration: Configuration): void;
  /** An orderly stop, as on SIGTERM. */
  stop(): Promise<void>;
}

/** Deliberate bugs, put between the real parts by the tests of the simulation. */
export interface Sabotage {
  readonly store?: (store: EventStore, process: Process) => EventStore;
  readonly delivery?: (delivery: Delivery) => Delivery;
}

const HOSTNAME = "queue.example";
const STOP_GRACE = 30_000;

/** Starts the program on the disk as it is. */
export async function start(process: Process, world: World): Promise<Program> {
  const dice = world.dice.fork(`process ${process.incarnation}`);
  const engine = new VirtualEngine(world.disk, process);
  const bodies = new Bodies(engine, new VirtualBodyFiles(world.disk, process));
  const log = await EventLog.open({
    engine,
    bodies,
    clock: process,
    schedule: (flush) => void process.timer(0, flush),
    signer: { sign: (text) => sha256(text) },
    onListenerError: (error) => world.violated(error),
    onUnreadable: (error) => world.violated(error),
  });
  await bodies.sweep();

  let configuration = world.configuration;
  let router = new ConfiguredRouter(routing(configuration));
  const store = world.sabotage.store?.(log, process) ?? log;
  const sessions = new Sessions(process);
  const transports = new Transports({
    clock: process,
    random: dice,
    dialer: world.network.dialer(process),
    resolver: world.dns.resolver(process),
    bodies,
    sessions,
  }, { hostname: HOSTNAME, transports: routing(configuration).transports });
  const ids = ulids(process, dice);
  const supervisor = new Supervisor(
    {
      clock: process,
      random: dice,
      ids,
      log: tracing(world, process),
      store,
      view: new VirtualQueueView(world.disk, process),
      router: {
        choose: (facts) => router.choose(facts),
        destination: (choice, rcptTo) => router.destination(choice, rcptTo),
      },
      delivery: world.sabotage.delivery?.(transports) ?? transports,
      reporter: new PlainReporter(bodies),
      policy: () => configuration.policy,
    },
    configuration,
    (cause) => world.violated(cause),
  );
  await supervisor.start();
  return {
    process,
    bodies,
    supervisor,
    submitter: new QueueSubmitter({ clock: process, ids, store }),
    reload: (next) => {
      configuration = next;
      router = new ConfiguredRouter(routing(next));
      transports.reload({ hostname: HOSTNAME, transports: routing(next).transports });
      supervisor.limits = next;
    },
    stop: async () => {
      await supervisor.stop(STOP_GRACE);
      await sessions.close();
      await log.close();
      await bodies.settled();
    },
  };
}

const TRANSPORTS: readonly TransportConfig[] = [
  { type: "direct", name: "direct", port: 25, ipFamily: "any", allowLoopback: false },
  { type: "smtp", name: "relay", host: "relay.example", port: 25, tls: "opportunistic" },
];

function routing({ relayed }: Configuration): RoutingConfig {
  const global = relayed === undefined ? [] : [{
    path: "routes[0]",
    toDomain: [parseDomainPattern(relayed)!],
    transport: "relay",
  }];
  return {
    routes: { accounts: new Map(), domains: new Map(), global },
    transports: new Map(TRANSPORTS.map((transport) => [transport.name, transport])),
  };
}

function tracing(world: World, process: Process): Log {
  const line = (message: string, fields: Record<string, unknown> = {}) => {
    if (process.alive) {
      world.note(`log: ${message} ${JSON.stringify({ ...fields, stack: undefined })}`);
    }
  };
  return { info: line, warn: line, error: line };
}

/**
 * One simulated world: a queue, the places it sends to, and all that happens to it, from one seed.
 *
 * A run has two parts. In the window messages are submitted, operators act, and everything that
 * can go wrong does. After it all faults end but for hosts that stay as they are, and the world
 * goes on until every message has come to an end. Invariants are checked all along.
 */
import { Archives } from "./archives.ts";
import { DAY, HOUR, MINUTE, VirtualTime } from "./clock.ts";
import { type Configuration, configure } from "./configuration.ts";
import { Desk } from "./desk.ts";
import { Disk } from "./disk.ts";
import { Dns } from "./dns.ts";
import { Faults } from "./faults.ts";
import { Hooks } from "./hooks.ts";
import { Invariants, Violation } from "./invariants.ts";
import { Landscape } from "./landscape.ts";
import { Mishaps } from "./mishaps.ts";
import { Network } from "./network.ts";
import { NewMailBooks } from "./new_mail.ts";
import { Operators } from "./operators.ts";
import { Process } from "./process.ts";
import { Promptness } from "./promptness.ts";
import { type Program, type Sabotage, start } from "./program.ts";
import { Dice } from "./random.ts";
import { Senders } from "./senders.ts";
import { latin1 } from "./smtp_host.ts";
import { Trace } from "./trace.ts";

/** What a run came to. */
export interface Report {
  readonly seed: number;
  readonly violation?: Error;
  /** The last lines of what happened. */
  readonly trace: readonly string[];
  /** Over all lines of the trace: equal for equal runs. */
  readonly traceHash: string;
  /** Over the hashes of all events in the log. */
  readonly logHash: string;
  readonly steps: number;
  readonly events: number;
  readonly messages: number;
  readonly kills: number;
  /** Moments at which a kill made a difference. */
  readonly boundaries: number;
  /** Those of them in the midst of archiving. */
  readonly archiving: readonly number[];
  readonly days: number;
  /** Messages that were received more than once, all explained. */
  readonly duplicates: number;
  /** Files of the archive, the events in them, and ends of the process in the midst of that. */
  readonly archives: number;
  readonly archived: number;
  readonly interrupted: number;
}

const EPOCH = Date.parse("2026-03-01T00:00:00.000Z");
/** Time in which everything must come to an end when all works again. */
const PATIENCE = 30 * DAY;
/** After the last message has come to an end: time for what follows it. */
const EPILOGUE = 5 * MINUTE;
/** A world that takes more steps than this goes round in circles. */
const STEPS = 2_000_000;

export class World {
  readonly dice: Dice;
  readonly time: VirtualTime;
  readonly disk: Disk;
  readonly network: Network;
  readonly dns: Dns;
  readonly invariants: Invariants;
  readonly mishaps: Mishaps;
  readonly hooks: Hooks;
  readonly desk: Desk;
  readonly newMail: NewMailBooks;
  readonly archives: Archives;
  /** Milliseconds in which things happen. */
  readonly window: number;
  /** The program, while it runs and has come up. */
  program: Program | undefined;
  configuration: Configuration;
  readonly #trace = new Trace();
  readonly #faults: Faults;
  readonly #operators: Operators;
  #process: Process | undefined;
  #incarnations = 0;
  #kills = 0;
  #stops = 0;
  #steps = 0;
  #violation: Error | undefined;

  /**
   * @param sabotage bugs to put in
   * @param killAt the one boundary at which the process is killed, instead of some by chance; 0 for
   *   none at all
   */
  constructor(
    readonly seed: number,
    readonly sabotage: Sabotage = {},
    readonly killAt?: number,
  ) {
    this.dice = new Dice(seed);
    this.time = new VirtualTime(EPOCH + this.dice.int(0, DAY));
    this.window = this.dice.pick([10 * MINUTE, 3 * HOUR, 12 * HOUR, 2 * DAY]);
    this.disk = new Disk(this.dice.fork("disk"), {
      durable: (transaction) => {
        this.note(`durable: ${transaction.events.map(({ type }) => type).join(" ")}`);
        this.watch(() => this.invariants.durable(transaction));
        this.#operators.meddle();
        this.desk.meddle();
      },
      misused: (how) => this.violated(new Violation(`the engine was misused: ${how}`)),
    });
    this.hooks = new Hooks(this);
    this.newMail = new NewMailBooks(this);
    this.archives = new Archives(this);
    this.invariants = new Invariants(this.disk, this.hooks, this.archives, this.newMail);
    this.dns = new Dns(this.dice.fork("dns"));
    this.network = new Network(this.time, this.dice.fork("network"), {
      dialled: (_, { address }) => this.watch(() => this.invariants.dialled(address)),
      wrote: (_process, _target, octets) => this.#wrote(octets),
    });
    const landscape = new Landscape(this.network, this.dns, this.time, this.dice.fork("hosts"), {
      received: (receipt) => {
        this.note(`${receipt.host} received ${receipt.rcptTo}`);
        this.watch(() => this.invariants.received(receipt));
      },
      refused: (_, rcptTo) => this.newMail.list.refused(rcptTo),
      dialogue: (host, line) => this.note(`${host} ${line}`),
      misbehaved: (host, what) => this.violated(new Violation(`SMTP with ${host}: ${what}`)),
    });
    this.mishaps = new Mishaps(this.dice.fork("mishaps"));
    this.configuration = configure(this.dice);
    this.#faults = new Faults(this, landscape);
    this.#operators = new Operators(this);
    const senders = new Senders(this);
    this.desk = new Desk(this, () => senders.soon());
    this.time.after(0, () => this.#boot());
    this.time.after(this.window, () => this.#calm());
  }

  async run(): Promise<Report> {
    const unhandled = (event: PromiseRejectionEvent) => {
      event.preventDefault();
      this.violated(event.reason);
    };
    globalThis.addEventListener("unhandledrejection", unhandled);
    const deadline = this.window + PATIENCE;
    const epilogue = EPILOGUE + this.archives.patience;
    let endAt = Infinity;
    while (!this.#violation) {
      const next = this.time.next();
      // The last events are to be under a checkpoint as well.
      const covered = (this.disk.checkpoints.at(-1)?.to ?? 0) === this.disk.events.length;
      if (next === undefined || (next > endAt && this.archives.settled && covered)) break;
      if (next > Math.min(deadline, endAt + 2 * HOUR) || this.#steps++ > STEPS) break;
      await this.time.step();
      const done = next > this.window && this.invariants.unfinished.size === 0 &&
        this.hooks.settled && this.desk.settled;
      endAt = done ? Math.min(endAt, next + epilogue) : Infinity;
    }
    if (!this.#violation) this.watch(() => this.invariants.end());
    if (!this.#violation) await this.archives.verify().catch((cause) => this.violated(cause));
    this.#process?.die();
    globalThis.removeEventListener("unhandledrejection", unhandled);
    return this.#report();
  }

  /** A line of the trace. */
  note(text: string): void {
    this.#trace.add(this.time.monotonic(), this.#incarnations, text);
  }

  /** Runs a check; what it throws ends the run. */
  watch(check: () => void): void {
    try {
      check();
    } catch (cause) {
      this.violated(cause);
    }
  }

  violated(cause: unknown): void {
    this.#violation ??= cause instanceof Error ? cause : new Error(String(cause));
  }

  /** The operator edits the configuration and has it read. */
  reload(): void {
    this.configuration = configure(this.dice);
    this.note("the configuration is reloaded");
    this.program?.reload(this.configuration);
  }

  /** The operator restarts the service in good order. */
  restart(): void {
    const program = this.program;
    if (!program) return;
    this.note("orderly stop");
    this.program = undefined;
    program.stop().then(() => {
      if (!program.process.alive) return;
      this.note("stopped");
      this.#stops++;
      program.process.die();
    }, (cause) => this.violated(cause));
  }

  #boot(): void {
    this.invariants.incarnation = ++this.#incarnations;
    const process = new Process(
      this.#incarnations,
      this.time,
      (dying, where) => this.#faults.boundary(dying, where),
    );
    this.#process = process;
    process.onDeath(() => {
      this.#kills++;
      this.program = undefined;
      this.archives.ended();
      this.time.after(this.dice.between(100, 60_000), () => this.#boot());
    });
    this.note("start");
    this.disk.hasFailed = false;
    if (this.#faults.rebuild()) {
      this.note("the projections are of another version");
      this.disk.tables.clear();
    }
    const [unfinished] = this.invariants.unfinished;
    if (unfinished !== undefined && this.#faults.breaks()) {
      this.note(`${unfinished} becomes unreadable`);
      this.invariants.breakStream(unfinished);
    }
    const failed = (cause: unknown) => {
      this.note(`gave up: ${cause instanceof Error ? cause.message : cause}`);
      process.die();
    };
    start(process, this, failed).then((program) => {
      if (!process.alive) return;
      this.program = program;
      this.note("ready");
    }, (cause) => {
      if (!process.alive) return;
      this.note(`start failed: ${cause instanceof Error ? cause.message : cause}`);
      const expected = this.disk.hasFailed || this.mishaps.glitchy;
      if (!expected) this.violated(cause);
      process.die();
    });
  }

  /** The window is over. */
  #calm(): void {
    this.note("faults end");
    this.#faults.end();
    this.mishaps.end();
    this.hooks.calm();
    new Promptness(this).begin();
    this.time.after(HOUR, () => this.desk.open(() => this.#operators.releaseAll()));
  }

  #wrote(octets: Uint8Array): void {
    for (const [, rcptTo] of latin1(octets).matchAll(/^RCPT TO:<([^>]*)>/gim)) {
      this.watch(() => this.invariants.envelope(rcptTo!));
    }
  }

  #report(): Report {
    const { streams } = this.invariants;
    const duplicates = [...streams.values()].filter(({ receipts }) => receipts.length > 1).length;
    return {
      seed: this.seed,
      ...(this.#violation ? { violation: this.#violation } : {}),
      trace: this.#trace.lines(),
      traceHash: this.#trace.hash(),
      logHash: this.disk.events.at(-1) ? hashOf(this.disk.events.map(({ hash }) => hash)) : "",
      steps: this.#steps,
      events: this.disk.events.length,
      messages: streams.size,
      kills: this.#kills - this.#stops,
      boundaries: this.#faults.boundaries,
      archiving: this.#faults.archiving,
      days: this.time.monotonic() / DAY,
      duplicates,
      archives: this.archives.files,
      archived: this.archives.events,
      interrupted: this.archives.interrupted,
    };
  }
}

function hashOf(hashes: readonly string[]): string {
  const trace = new Trace();
  for (const hash of hashes) trace.add(0, 0, hash);
  return trace.hash();
}

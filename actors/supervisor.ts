/**
 * The supervisor: starts the attempts that are due, keeps them apart, and ends them in order.
 *
 * What is due is found in three ways, and never by a timer or an object per waiting message:
 *
 *   - a message that was just enqueued is offered to the schedule as its event is committed
 *   - the queue projection is read in due order, a page at a time, from where reading stopped
 *   - one timer wakes the reading at the earliest due time there is
 *
 * Where a destination's line is full, reading goes on without it, and returns to the place where
 * it was turned away once the line is half empty.
 *
 * Whose time ends while it waits (expiry.ts), or who is sent elsewhere, leaves the line; so a turn
 * is taken by a message that can be tried.
 *
 * A store that does not take a write stops all starting: an attempt that cannot be recorded must
 * not be made. When the store is well again, attempts that it left open are finished and the queue
 * is read from its beginning.
 */
import type { Fact, StoredEvent } from "../events/catalogue.ts";
import { dayStream, DESTINATION_DAYS } from "../events/day_streams.ts";
import { domainOf } from "../events/projections/queue.ts";
import { StoreUnavailable, WrongVersion } from "../events/store.ts";
import type { Change } from "./destination.ts";
import { DueReader, lineOf } from "./due_reader.ts";
import { DueReports } from "./due_reports.ts";
import { experienceOf } from "./experience.ts";
import { Expiry } from "./expiry.ts";
import { describe } from "./fault.ts";
import { type Command, CommandRefused, decide, fold, type Message } from "./message.ts";
import { type Attempted, type Candidate, runAttempts } from "./attempts.ts";
import { finishInterrupted, type MessagePorts } from "./message_actor.ts";
import { factsOf, Patience } from "./patience.ts";
import { MAX_TOGETHER, type QueueRow, type RoutingFacts } from "./ports.ts";
import {
  type DestinationView,
  type Limits,
  Schedule,
  SCHEDULE_SIZE,
  type Waiting,
} from "./schedule.ts";

export interface SupervisorPorts extends MessagePorts {
  /** Every lifetime that `policy` may give a message, milliseconds. */
  readonly lifetimes: () => readonly number[];
}

/** A destination as views show it; times as in RFC 3339. */
export interface DestinationState extends Omit<DestinationView, "down" | "paced"> {
  readonly down?: { readonly since: string; readonly until: string; readonly why: string };
  readonly paced?: string;
}

/** An attempt that runs longer than this is aborted, milliseconds. */
export const ATTEMPT_DEADLINE = 3_600_000;

/** Open attempts that are ended at once. */
const PAGE = 500;
/** How often a failed store is looked after, milliseconds. */
const STORE_CHECK = 500;
/** A wait for a destination that is noted in the log of a message, milliseconds. */
const WORTH_TELLING = 1_000;
/** After the grace period of a stop: time to record what was aborted, milliseconds. */
const LAST_WORDS = 5_000;

interface Item extends Waiting {
  readonly submission: string;
  /** How many recipients the submission had: others of them may be in the same line. */
  readonly recipients: number;
  /** All events of the stream, where they are at hand. */
  readonly events?: readonly StoredEvent[];
}

export class Supervisor {
  readonly #ports: SupervisorPorts;
  readonly #schedule: Schedule<Item>;
  readonly #running = new Map<string, AbortController>();
  /** When messages are due that an operator acted on while an attempt held them; epoch ms. */
  readonly #actedOn = new Map<string, number>();
  readonly #reader: DueReader;
  readonly #reports: DueReports;
  readonly #expiry: Expiry;
  readonly #patience: Patience;
  #state: "new" | "open" | "blocked" | "stopping" = "new";
  #tickAt = Infinity;
  #cancelTick = () => {};
  #unsubscribe = () => {};
  #idle: (() => void)[] = [];
  /** Until the changes of destinations so far are noted in the log. */
  #told: Promise<void> = Promise.resolve();
  readonly #gone = new AbortController();

  readonly #failed: (cause: unknown) => void;

  /** @param failed is told of a fault of the supervisor itself, which then has to be restarted */
  constructor(ports: SupervisorPorts, limits: Limits, failed: (cause: unknown) => void) {
    this.#ports = ports;
    this.#schedule = new Schedule(limits);
    this.#failed = failed;
    const ended = (cause: unknown) => {
      if (cause instanceof StoreUnavailable) this.storeFailed();
      else failed(cause);
    };
    this.#reports = new DueReports(ports, ended);
    this.#reader = new DueReader(ports, {
      full: () => this.#schedule.full,
      offer: (row) => this.#offerRow(row),
      read: () => this.#pump(),
      failed: ended,
    });
    const gone = this.#gone.signal;
    this.#expiry = new Expiry(ports, {
      destinationOf: (facts) => {
        const key = this.#destinationOf(facts);
        const down = this.#schedule.down(key);
        return { key, ...(down ? { down: down.why } : {}) };
      },
      ended: (stream) => this.#leaveLine(stream),
      failed: ended,
      gone,
    });
    this.#patience = new Patience(ports, {
      anyDown: () => this.#state === "open" && this.#schedule.anyDown,
      downFor: (facts) => {
        const destination = this.#destinationOf(facts);
        const down = this.#schedule.down(destination);
        return down && { destination, why: down.why };
      },
      failed: ended,
      gone,
    });
  }

  /** Attempts running now. */
  get running(): number {
    return this.#running.size;
  }

  set limits(limits: Limits) {
    this.#schedule.setLimits(limits, this.#ports.clock.monotonic());
    // Routes and lifetimes may have changed with them.
    this.#schedule.dropAll();
    if (this.#state === "open") this.#reader.open();
    this.#expiry.askAgain();
    this.#pump();
  }

  /** Destinations with something to do, or something to remember. */
  destinations(): DestinationState[] {
    return [...this.#schedule.destinations()].map(({ down, paced, ...view }) => ({
      ...view,
      ...(paced === undefined ? {} : { paced: this.#wallTime(paced) }),
      ...(down
        ? {
          down: {
            since: this.#wallTime(down.since),
            until: this.#wallTime(down.until),
            why: down.why,
          },
        }
        : {}),
    }));
  }

  /**
   * Finishes what a crash left open, then starts what is due. On a disk that takes no writes that
   * waits until it does.
   */
  async start(): Promise<void> {
    if (this.#state !== "new") throw new Error("the supervisor was started before");
    const finished = await this.#finishOpenAttempts();
    if (this.#state !== "new") return; // stopped meanwhile
    this.#unsubscribe = this.#ports.store.subscribe((events) => this.#committed(events));
    this.#state = "open";
    if (finished) this.#openAll();
    else this.storeFailed();
    this.#patience.start();
  }

  /**
   * Starts nothing more, lets running attempts end for `grace` milliseconds, then aborts them.
   * Resolves when all have ended or nothing more can be recorded.
   */
  async stop(grace: number): Promise<void> {
    this.#state = "stopping";
    this.#unsubscribe();
    this.#closeAll();
    this.#cancelTick();
    this.#patience.stop();
    await this.#ended(grace);
    for (const abort of this.#running.values()) abort.abort();
    await this.#ended(LAST_WORDS);
    this.#gone.abort();
  }

  /**
   * Carries out an operator's command on a message.
   * @throws CommandRefused when it does not fit the message's state
   * @throws StoreUnavailable when it could not be recorded
   */
  async act(stream: string, command: Command): Promise<Message> {
    const { store } = this.#ports;
    for (let again = 0;; again++) {
      const events = await store.readStream(stream);
      const state = fold(events);
      const facts = decide(command, state);
      try {
        const appended = await store.append([
          { stream, expectedVersion: state?.version ?? 0, facts },
        ]);
        const message = fold([...events, ...appended])!;
        this.#leaveLine(stream);
        if (message.status === "queued") {
          this.#reader.expect({ due: message.due, stream });
          this.#expiry.expect(stream, message);
          // Reading passes over what is in an attempt; it is expected again when that has ended.
          if (this.#running.has(stream)) this.#actedOn.set(stream, message.due);
        }
        return message;
      } catch (cause) {
        if (cause instanceof StoreUnavailable) {
          // It may be on disk all the same: what is due is read anew when the store is well.
          this.#leaveLine(stream);
          this.storeFailed();
        }
        if (!(cause instanceof WrongVersion)) throw cause;
        if (again === 3) throw new CommandRefused(`${stream} is changing too fast, try again`);
      }
    }
  }

  /** The store did not take a write: starts nothing until it is well again. */
  storeFailed(): void {
    if (this.#state !== "open") return;
    this.#state = "blocked";
    this.#closeAll();
    this.#ports.log.warn("the store does not take writes; no attempt is started until it does");
    this.#lookAfterStore();
  }

  #openAll(): void {
    this.#reader.open();
    this.#reports.open();
    this.#expiry.open();
  }

  #closeAll(): void {
    this.#reader.close();
    this.#reports.close();
    this.#expiry.close();
  }

  #lookAfterStore(): void {
    this.#ports.clock.timer(STORE_CHECK, async () => {
      if (this.#state !== "blocked") return;
      if (!this.#ports.store.health().ok || !await this.#finishOpenAttempts()) {
        return this.#lookAfterStore();
      }
      if (this.#state !== "blocked") return;
      this.#ports.log.info("the store takes writes again");
      this.#state = "open";
      this.#openAll();
    });
  }

  /** Ends attempts that nobody runs; false when the store fails at it. */
  async #finishOpenAttempts(): Promise<boolean> {
    const { view, log } = this.#ports;
    // Those that could not be ended stay, and that is in the log.
    const seen = new Set<string>();
    try {
      for (;;) {
        const rows = await view.attempting(PAGE + this.#running.size + seen.size);
        const open = rows.filter(({ stream }) => !this.#running.has(stream) && !seen.has(stream));
        if (open.length === 0) return true;
        for (const { stream } of open) seen.add(stream);
        await Promise.all(open.map((row) => finishInterrupted(this.#ports, row.stream)));
      }
    } catch (cause) {
      log.error("open attempts not finished", { reason: describe(cause).message });
      return false;
    }
  }

  #committed(events: readonly StoredEvent[]): void {
    if (this.#state !== "open") return;
    this.#reports.committed(events);
    this.#expiry.committed(events);
    const now = this.#ports.clock.now();
    for (const [n, event] of events.entries()) {
      if (event.type !== "Enqueued" || heldAtOnce(event, events[n + 1])) continue;
      const { stream, data } = event;
      const due = Date.parse(data.due);
      if (due > now || this.#schedule.full) this.#reader.expect({ due, stream });
      else {
        const { priority = 0, submission, recipients = 1 } = data;
        this.#offer(
          { due, stream, priority, submission, recipients, events: [event] },
          { ...data, attempt: 1 },
        );
      }
    }
    this.#pump();
  }

  /** Puts a message in line; the name of the line when there was no room. */
  #offer(item: Omit<Item, "destination" | "owner">, facts: RoutingFacts): string | undefined {
    const destination = this.#destinationOf(facts);
    const owner = facts.account ?? `@${domainOf(facts.mailFrom)}`;
    const offered = { ...item, destination, owner };
    return this.#schedule.offer(offered, this.#ports.clock.monotonic())
      ? undefined
      : lineOf(offered);
  }

  #offerRow(row: QueueRow): string | undefined {
    if (this.#schedule.has(row.stream)) return undefined;
    const { due, stream, priority, submission, recipients } = row;
    return this.#offer({ due: due!, stream, priority, submission, recipients }, factsOf(row));
  }

  #destinationOf(facts: RoutingFacts): string {
    const { router } = this.#ports;
    try {
      return router.destination(router.expect(facts), facts.rcptTo);
    } catch {
      return ""; // meets the same fault in the actor, which says and records it
    }
  }

  #pump(): void {
    const { clock } = this.#ports;
    while (this.#state === "open") {
      const item = this.#schedule.next(clock.monotonic());
      if (!item) break;
      this.#run(item, this.#along(item));
    }
    this.#awaitTick();
  }

  /** The other recipients of a submission that wait in the same line: they go along with it. */
  #along(item: Item): Item[] {
    const { submission, recipients } = item;
    if (recipients === 1) return [];
    const same = (other: Item) => other.submission === submission;
    const now = this.#ports.clock.monotonic();
    return this.#schedule.takeAlong(item, same, MAX_TOGETHER, now);
  }

  /** Some destination waits for time to pass: one timer for the earliest of them. */
  #awaitTick(): void {
    const { clock } = this.#ports;
    const now = clock.monotonic();
    const at = this.#schedule.nextTick();
    if (at === undefined || at >= this.#tickAt || this.#state !== "open") return;
    this.#cancelTick();
    this.#tickAt = at;
    this.#cancelTick = clock.timer(Math.max(at - now, 0), () => {
      this.#tickAt = Infinity;
      this.#schedule.tick(clock.monotonic());
      this.#pump();
    });
  }

  /** One attempt, for an item and those that go along with it. */
  async #run(item: Item, along: readonly Item[]): Promise<void> {
    const { clock } = this.#ports;
    const abort = new AbortController();
    const cancel = clock.timer(ATTEMPT_DEADLINE, () => abort.abort());
    const items = [item, ...along];
    for (const { stream } of items) this.#running.set(stream, abort);
    let attempted: Attempted[] = [];
    try {
      const candidates = items.map((each) => this.#candidate(each));
      attempted = await runAttempts(this.#ports, candidates, abort.signal, this.#gone.signal);
      if (attempted.some(({ unrecorded }) => unrecorded)) this.storeFailed();
    } catch (cause) {
      this.#failed(cause); // an actor catches everything of its own
    }
    cancel();
    for (const { stream } of items) this.#running.delete(stream);
    const { experience, why } = experienceOf(attempted);
    const now = clock.monotonic();
    const { change, refill } = this.#schedule.ended(item, experience, why, now, along);
    if (change) this.#tell(item.destination, change);
    if (refill) this.#reader.refill(refill);
    for (const [n, { message }] of attempted.entries()) {
      if (message?.status !== "queued") continue;
      this.#reader.expect({ due: message.due, stream: items[n]!.stream });
      this.#expiry.expect(items[n]!.stream, message);
    }
    for (const { stream } of items) this.#expectActedOn(stream);
    if (this.#running.size === 0) { for (const ended of this.#idle.splice(0)) ended(); }
    this.#pump();
    if (this.#schedule.waiting < SCHEDULE_SIZE / 2) this.#reader.roomAgain();
  }

  /** An operator's act on a message that had ended while others of its attempt were under way. */
  #expectActedOn(stream: string): void {
    const due = this.#actedOn.get(stream);
    if (due === undefined) return;
    this.#actedOn.delete(stream);
    this.#reader.expect({ due, stream });
  }

  /** A message has ended without an attempt, or goes elsewhere: others take its place in line. */
  #leaveLine(stream: string): void {
    const refill = this.#schedule.drop(stream);
    if (refill) this.#reader.refill(refill);
    if (this.#schedule.waiting < SCHEDULE_SIZE / 2) this.#reader.roomAgain();
  }

  #candidate({ stream, events, due, destination }: Item): Candidate {
    const waited = this.#waited(destination, due);
    return { stream, ...(events ? { events } : {}), ...(waited ? { waited } : {}) };
  }

  /** Whether what has been due since a time waited for a destination that was down. */
  #waited(destination: string, due: number): Candidate["waited"] {
    const outage = this.#schedule.outage(destination);
    if (!outage) return undefined;
    const { clock } = this.#ports;
    const ahead = clock.now() - clock.monotonic();
    const since = Math.max(due, Math.round(outage.since + ahead));
    const until = Math.min(clock.now(), outage.until + ahead);
    if (until - since < WORTH_TELLING) return undefined;
    return { since: new Date(since).toISOString(), why: outage.why };
  }

  /** The wall time, as it stands now, of a monotonic one. */
  #wallTime(monotonic: number): string {
    const { clock } = this.#ports;
    return new Date(clock.now() + monotonic - clock.monotonic()).toISOString();
  }

  /** Notes in the log, on the destination's own stream, that it is down or up again. */
  #tell(destination: string, { kind, down }: Change): void {
    const { store, log } = this.#ports;
    const stream = dayStream(DESTINATION_DAYS, destination, store.dayTime());
    const since = this.#wallTime(down.since);
    const until = this.#wallTime(down.until);
    const { why } = down;
    const fact: Fact = kind === "down"
      ? {
        type: "DestinationDown",
        data: { destination, since, until, why },
      }
      : { type: "DestinationUp", data: { destination, since } };
    log.warn(`destination is ${kind}`, { destination, why });
    // One after the other: changes may follow each other faster than they are written.
    this.#told = this.#told.then(async () => {
      const expectedVersion = await store.version(stream);
      await store.append([{ stream, expectedVersion, facts: [fact] }]);
    }).catch((cause) => log.warn("not recorded", { destination, ...describe(cause) }));
  }

  #ended(within: number): Promise<void> {
    if (this.#running.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const cancel = this.#ports.clock.timer(within, resolve);
      this.#idle.push(() => {
        cancel();
        resolve();
      });
    });
  }
}

/** A hold rule held the message in the append that enqueued it. */
const heldAtOnce = ({ stream }: StoredEvent, next: StoredEvent | undefined): boolean =>
  next?.type === "Held" && next.stream === stream;

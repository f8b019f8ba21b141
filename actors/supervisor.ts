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
 * A store that does not take a write stops all starting: an attempt that cannot be recorded must
 * not be made. When the store is well again, attempts that it left open are finished and the queue
 * is read from its beginning.
 */
import type { StoredEvent } from "../events/catalogue.ts";
import { StoreUnavailable, WrongVersion } from "../events/store.ts";
import { before, type Place } from "./destination.ts";
import { type Command, CommandRefused, decide, fold, type Message } from "./message.ts";
import {
  describe,
  finishInterrupted,
  type MessagePorts,
  pause,
  runAttempt,
} from "./message_actor.ts";
import type { QueueView, RoutingFacts } from "./ports.ts";
import { type Limits, Schedule, SCHEDULE_SIZE, type Waiting } from "./schedule.ts";

export interface SupervisorPorts extends MessagePorts {
  readonly view: QueueView;
}

/** An attempt that runs longer than this is aborted, milliseconds. */
export const ATTEMPT_DEADLINE = 3_600_000;

/** Rows read at once. */
const PAGE = 500;
/** The wall clock may jump, so that the queue is looked at no later than this, milliseconds. */
const LONGEST_SLEEP = 30_000;
/** How often a failed store is looked after, milliseconds. */
const STORE_CHECK = 500;
/** After the grace period of a stop: time to record what was aborted, milliseconds. */
const LAST_WORDS = 5_000;

/** Sorts after every stream id. */
const LAST_STREAM = "\u{10ffff}";
const START: Place = { due: Number.MIN_SAFE_INTEGER, stream: "" };

interface Item extends Waiting {
  /** All events of the stream, where they are at hand. */
  readonly events?: readonly StoredEvent[];
}

interface Refill {
  readonly destination: string;
  readonly from: Place;
}

export class Supervisor {
  readonly #ports: SupervisorPorts;
  readonly #schedule: Schedule<Item>;
  readonly #running = new Map<string, AbortController>();
  /** Everything before this place is in the schedule, or was turned away and is remembered. */
  #cursor: Place = START;
  /** Places from which lines that were full have to be read again. */
  #refills: Refill[] = [];
  #reading = false;
  /** Something was asked for since the reading began. */
  #readAgain = false;
  /** Reading stopped because the schedule is full. */
  #paused = false;
  #state: "new" | "open" | "blocked" | "stopping" = "new";
  #wakeAt = Infinity;
  #cancelWake = () => {};
  #unsubscribe = () => {};
  #idle: (() => void)[] = [];
  readonly #gone = new AbortController();

  readonly #failed: (cause: unknown) => void;

  /** @param failed is told of a fault of the supervisor itself, which then has to be restarted */
  constructor(ports: SupervisorPorts, limits: Limits, failed: (cause: unknown) => void) {
    this.#ports = ports;
    this.#schedule = new Schedule(limits);
    this.#failed = failed;
  }

  /** Attempts running now. */
  get running(): number {
    return this.#running.size;
  }

  set limits(limits: Limits) {
    this.#schedule.limits = limits;
    this.#pump();
  }

  destinations(): Iterable<{ key: string; running: number; waiting: number }> {
    return this.#schedule.destinations();
  }

  /** Finishes what a crash left open, then starts what is due. */
  async start(): Promise<void> {
    if (this.#state !== "new") throw new Error("the supervisor was started before");
    while (!await this.#finishOpenAttempts()) {
      await pause(this.#ports.clock, STORE_CHECK, this.#gone.signal);
      if (this.#gone.signal.aborted) return;
    }
    this.#state = "open";
    this.#unsubscribe = this.#ports.store.subscribe((events) => this.#committed(events));
    this.#read();
  }

  /**
   * Starts nothing more, lets running attempts end for `grace` milliseconds, then aborts them.
   * Resolves when all have ended or nothing more can be recorded.
   */
  async stop(grace: number): Promise<void> {
    this.#state = "stopping";
    this.#unsubscribe();
    this.#cancelWake();
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
        if (message.status === "queued") this.#expect({ due: message.due, stream });
        return message;
      } catch (cause) {
        if (!(cause instanceof WrongVersion)) throw cause;
        if (again === 3) throw new CommandRefused(`${stream} is changing too fast, try again`);
      }
    }
  }

  /** The store did not take a write: starts nothing until it is well again. */
  storeFailed(): void {
    if (this.#state !== "open") return;
    this.#state = "blocked";
    this.#ports.log.warn("the store does not take writes; no attempt is started until it does");
    this.#lookAfterStore();
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
      this.#cursor = START;
      this.#refills = [];
      this.#read();
    });
  }

  /** Ends attempts that nobody runs; false when the store fails at it. */
  async #finishOpenAttempts(): Promise<boolean> {
    const { view, log } = this.#ports;
    try {
      for (let last = 0;;) {
        const rows = await view.attempting(PAGE + this.#running.size);
        const open = rows.filter((row) => !this.#running.has(row.stream));
        // No progress means that they could not be ended, and that is in the log.
        if (open.length === 0 || open.length === last) return true;
        last = open.length;
        await Promise.all(open.map((row) => finishInterrupted(this.#ports, row.stream)));
      }
    } catch (cause) {
      log.error("open attempts not finished", { reason: describe(cause).message });
      return false;
    }
  }

  #committed(events: readonly StoredEvent[]): void {
    if (this.#state !== "open") return;
    const now = this.#ports.clock.now();
    for (const [n, event] of events.entries()) {
      if (event.type !== "Enqueued" || heldAtOnce(event, events[n + 1])) continue;
      const { stream, data } = event;
      const due = Date.parse(data.due);
      if (due > now || this.#schedule.full) this.#expect({ due, stream });
      else this.#offer({ due, stream, events: [event] }, { ...data, attempt: 1 });
    }
    this.#pump();
  }

  /** A message is due at a place in the order that reading may have passed already. */
  #expect(place: Place): void {
    if (!before(this.#cursor, place)) this.#cursor = { due: place.due, stream: "" };
    this.#wake(place.due);
  }

  #wake(at: number): void {
    if (at >= this.#wakeAt || this.#state !== "open") return;
    this.#cancelWake();
    this.#wakeAt = at;
    const { clock } = this.#ports;
    const wait = Math.min(Math.max(at - clock.now(), 0), LONGEST_SLEEP);
    this.#cancelWake = clock.timer(wait, () => {
      this.#wakeAt = Infinity;
      this.#read();
    });
  }

  /** Puts a message in line; the key of its destination when there was no room. */
  #offer(item: Omit<Item, "destination">, facts: RoutingFacts): string | undefined {
    const { router } = this.#ports;
    let destination: string;
    try {
      destination = router.destination(router.choose(facts), facts.rcptTo);
    } catch {
      destination = ""; // meets the same fault in the actor, which says and records it
    }
    return this.#schedule.offer({ ...item, destination }) ? undefined : destination;
  }

  #pump(): void {
    while (this.#state === "open") {
      const item = this.#schedule.next();
      if (!item) return;
      this.#run(item);
    }
  }

  async #run(item: Item): Promise<void> {
    const { clock } = this.#ports;
    const abort = new AbortController();
    const cancel = clock.timer(ATTEMPT_DEADLINE, () => abort.abort());
    this.#running.set(item.stream, abort);
    let message: Message | undefined;
    try {
      message = await runAttempt(
        this.#ports,
        item.stream,
        item.events,
        abort.signal,
        this.#gone.signal,
      );
    } catch (cause) {
      if (cause instanceof StoreUnavailable) this.storeFailed();
      else this.#failed(cause); // an actor catches everything of its own
    }
    cancel();
    this.#running.delete(item.stream);
    this.#refill(item.destination, this.#schedule.ended(item));
    if (message?.status === "queued") this.#expect({ due: message.due, stream: item.stream });
    if (this.#running.size === 0) { for (const ended of this.#idle.splice(0)) ended(); }
    this.#pump();
    if (this.#paused && this.#schedule.waiting < SCHEDULE_SIZE / 2) this.#read();
  }

  #refill(destination: string, from: Place | undefined): void {
    if (!from) return;
    this.#refills.push({ destination, from });
    this.#read();
  }

  /** Reads the queue in due order into the schedule; one reading at a time. */
  async #read(): Promise<void> {
    this.#readAgain = true;
    if (this.#reading) return;
    this.#reading = true;
    try {
      while (this.#state === "open" && this.#readAgain) {
        this.#readAgain = false;
        await this.#readAll();
      }
    } catch (cause) {
      if (cause instanceof StoreUnavailable) this.storeFailed();
      else this.#failed(cause);
    } finally {
      this.#reading = false;
    }
  }

  async #readAll(): Promise<void> {
    const { view, clock } = this.#ports;
    for (let more = true; more || this.#refills.length > 0;) {
      this.#paused = this.#schedule.full;
      if (this.#paused || this.#state !== "open") return;
      const refill = this.#refills.pop();
      if (refill) await this.#readLine(refill);
      else more = await this.#readOn();
    }
    const due = await view.nextDue(clock.now());
    if (due !== undefined) this.#wake(due);
  }

  /** Reads a page from the cursor on; false when there is no more that is due. */
  async #readOn(): Promise<boolean> {
    const from = this.#cursor;
    const { rows } = await this.#offerPage(from);
    if (this.#cursor !== from) return true; // `#expect` has moved it back meanwhile: it stands
    this.#cursor = rows.at(-1) ?? from;
    return rows.length === PAGE;
  }

  /** Reads on where a full line turned messages away, until it is full again or nothing is due. */
  async #readLine({ destination, from }: Refill): Promise<void> {
    // What stands at the place itself was turned away: start just before it.
    let after: Place = { due: from.due - 1, stream: LAST_STREAM };
    for (;;) {
      const { rows, turnedAway } = await this.#offerPage(after);
      if (rows.length < PAGE || turnedAway.has(destination)) return;
      after = rows.at(-1)!;
      if (this.#state !== "open") return;
      if (this.#schedule.full) {
        this.#refills.push({ destination, from: after });
        return;
      }
    }
  }

  /** Offers the rows that are due after a place; says which destinations had no room for some. */
  async #offerPage(after: Place): Promise<{ rows: Place[]; turnedAway: Set<string> }> {
    const { view, clock } = this.#ports;
    const rows = await view.due(clock.now(), PAGE, after);
    const turnedAway = new Set<string>();
    for (const row of rows) {
      if (this.#schedule.has(row.stream)) continue;
      const refused = this.#offer({ due: row.due!, stream: row.stream }, {
        account: row.account,
        mailFrom: row.sender,
        rcptTo: row.recipient,
        size: row.size,
        attempt: row.attempts + 1,
        ...(row.override === null ? {} : { override: { transport: row.override, who: "" } }),
      });
      if (refused !== undefined) turnedAway.add(refused);
    }
    this.#pump();
    return { rows: rows.map((row) => ({ due: row.due!, stream: row.stream })), turnedAway };
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

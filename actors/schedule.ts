/**
 * The schedule: which message may start next, over all destinations and owners.
 *
 * A destination has a line per owner (account, else domain of the sender), so that one sender's
 * backlog does not stand before another's single message. The schedule turns among destinations,
 * and at a destination among its lines. It keeps the number of running attempts, and of messages
 * in memory, within bounds. It decides; the supervisor reads the queue and starts the attempts.
 *
 * `now` is monotonic time in milliseconds throughout; `due` is only an order here.
 */
import {
  type Change,
  Destination,
  type DestinationPolicy,
  type Down,
  type Experience,
  type Outage,
} from "./destination.ts";
import { Line, type Place, type Urgent } from "./line.ts";

export interface Limits {
  /** Attempts running at once, over all destinations. */
  readonly concurrency: number;
  /** What each destination may be burdened with, by its key. */
  policy(destination: string): DestinationPolicy;
}

/** A message in line. */
export interface Waiting extends Urgent {
  readonly destination: string;
  /** Whose line it stands in. */
  readonly owner: string;
}

/** A line that has to be read on, from a place in the due order. */
export interface Refill {
  readonly destination: string;
  readonly owner: string;
  readonly from: Place;
}

/** Messages in memory over all destinations; beyond that, reading the queue pauses. */
export const SCHEDULE_SIZE = 20_000;

/** Idle destinations are remembered (their windows above all) until there are this many. */
const STOPS_KEPT = 1_000;

interface Stop<Item extends Waiting> {
  readonly key: string;
  readonly destination: Destination;
  /** By owner; those with somebody in line come in turn, which is the order of the map. */
  readonly lines: Map<string, Line<Item>>;
  waiting: number;
}

/** A destination as views show it. */
export interface DestinationView {
  readonly key: string;
  readonly running: number;
  readonly waiting: number;
  readonly window: number;
  readonly down?: Down;
  /** Earliest time of the next start that keeps its rates; absent where it has none. */
  readonly paced?: number;
}

export class Schedule<Item extends Waiting> {
  running = 0;
  waiting = 0;
  #limits: Limits;
  #sweepAt = STOPS_KEPT;
  readonly #stops = new Map<string, Stop<Item>>();
  /** Stops where something may start, in turn. */
  readonly #turn = new Set<Stop<Item>>();
  /** Stops where something waits for time to pass: a probe, a pace. */
  readonly #timed = new Set<Stop<Item>>();
  /** Messages in line or running, by stream: what must not be offered twice. */
  readonly #known = new Map<string, Item>();

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  get full(): boolean {
    return this.waiting >= SCHEDULE_SIZE;
  }

  setLimits(limits: Limits, now: number): void {
    this.#limits = limits;
    for (const stop of this.#stops.values()) {
      stop.destination.policy = limits.policy(stop.key);
      this.#queueTurn(stop, now);
    }
  }

  has(stream: string): boolean {
    return this.#known.has(stream);
  }

  /** Puts a message in line; false when its line is full (it remembers where). */
  offer(item: Item, now: number): boolean {
    if (this.#known.has(item.stream)) return true;
    let stop = this.#stops.get(item.destination);
    if (!stop) {
      const { destination: key } = item;
      const destination = new Destination(this.#limits.policy(key));
      if (this.#stops.size >= this.#sweepAt) this.#sweep(now);
      stop = { key, destination, lines: new Map(), waiting: 0 };
      this.#stops.set(key, stop);
    }
    let line = stop.lines.get(item.owner);
    if (!line) stop.lines.set(item.owner, line = new Line());
    if (!line.offer(item)) return false;
    this.#known.set(item.stream, item);
    stop.waiting++;
    this.waiting++;
    this.#queueTurn(stop, now);
    return true;
  }

  /** Takes the next message that may start now; undefined when none may. */
  next(now: number): Item | undefined {
    if (this.running >= this.#limits.concurrency) return undefined;
    for (const stop of this.#turn) {
      this.#turn.delete(stop);
      if (stop.destination.startableAt() > now) {
        this.#queueTurn(stop, now);
        continue;
      }
      const item = this.#take(stop);
      if (!item) continue;
      stop.destination.started(now);
      this.running++;
      this.#queueTurn(stop, now);
      return item;
    }
    return undefined;
  }

  /**
   * Takes messages out of line that go along with one that was just started: those of its owner
   * that match, at most so many. They are one attempt with it, and end with it.
   */
  takeAlong(
    item: Item,
    matches: (other: Item) => boolean,
    most: number,
    now: number,
  ): Item[] {
    const stop = this.#stops.get(item.destination);
    const line = stop?.lines.get(item.owner);
    if (!stop || !line) return [];
    const room = Math.min(most, stop.destination.together) - 1;
    const taken = room > 0 ? line.takeMatching(matches, room) : [];
    if (taken.length === 0) return taken;
    stop.waiting -= taken.length;
    this.waiting -= taken.length;
    stop.destination.joined(taken.length);
    this.#queueTurn(stop, now);
    return taken;
  }

  /**
   * Takes a message out of line that has ended while it waited, so that it costs nobody's turn, or
   * that belongs elsewhere now. A line that has to be read on, since no attempt of its own will
   * say so.
   */
  drop(stream: string): Refill | undefined {
    const item = this.#known.get(stream);
    const stop = item && this.#stops.get(item.destination);
    const line = item && stop?.lines.get(item.owner);
    if (!stop || !line || line.takeMatching((other) => other === item, 1).length === 0) return;
    this.#known.delete(stream);
    stop.waiting--;
    this.waiting--;
    return this.#refill(stop, item.owner);
  }

  /** Empties all lines: where messages belong has changed, and they are offered again. */
  dropAll(): void {
    for (const stop of this.#stops.values()) {
      for (const line of stop.lines.values()) {
        for (const { stream } of line.takeMatching(() => true, Infinity)) {
          this.#known.delete(stream);
        }
      }
      stop.lines.clear();
      stop.waiting = 0;
    }
    this.waiting = 0;
  }

  /** Time has passed: stops that waited for it have their turn. */
  tick(now: number): void {
    for (const stop of [...this.#timed]) this.#queueTurn(stop, now);
  }

  /** The next time at which a stop that waits for time to pass may go on. */
  nextTick(): number | undefined {
    let next: number | undefined;
    for (const { destination } of this.#timed) {
      const at = destination.startableAt();
      if (at < Infinity) next = Math.min(next ?? at, at);
    }
    return next;
  }

  /** An attempt has ended: what it changed about the destination, and lines to be read on. */
  ended(
    item: Item,
    experience: Experience,
    why: string,
    now: number,
    along: readonly Item[] = [],
  ): { readonly change?: Change; readonly refill?: Refill } {
    this.#known.delete(item.stream);
    for (const { stream } of along) this.#known.delete(stream);
    this.running--;
    const stop = this.#stops.get(item.destination);
    if (!stop) return {};
    const change = stop.destination.ended(experience, why, now);
    const refill = this.#refill(stop, item.owner);
    this.#queueTurn(stop, now);
    return { ...(change ? { change } : {}), ...(refill ? { refill } : {}) };
  }

  /** Whether a destination is down, and since when and why. */
  down(destination: string): Down | undefined {
    return this.#stops.get(destination)?.destination.down;
  }

  /** The latest time for which a destination was down. */
  outage(destination: string): Outage | undefined {
    return this.#stops.get(destination)?.destination.outage;
  }

  get anyDown(): boolean {
    for (const { destination } of this.#stops.values()) if (destination.down) return true;
    return false;
  }

  *destinations(): IterableIterator<DestinationView> {
    for (const { key, destination, waiting } of this.#stops.values()) {
      const { running, window, down, paced, policy: { perMinute, perHour } } = destination;
      const rated = perMinute !== undefined || perHour !== undefined;
      yield {
        key,
        running,
        waiting,
        window,
        ...(down ? { down } : {}),
        ...(rated && paced > -Infinity ? { paced } : {}),
      };
    }
  }

  /** Forgets destinations with nothing to do; what is left may double before the next sweep. */
  #sweep(now: number): void {
    for (const [key, { lines, destination }] of this.#stops) {
      if (lines.size === 0 && destination.forgettable(now)) this.#stops.delete(key);
    }
    this.#sweepAt = Math.max(STOPS_KEPT, 2 * this.#stops.size);
  }

  /** The next item of the line whose turn it is. */
  #take(stop: Stop<Item>): Item | undefined {
    for (const [owner, line] of stop.lines) {
      const item = line.take();
      if (!item) continue;
      // To the end of the map: the other lines come first now.
      stop.lines.delete(owner);
      stop.lines.set(owner, line);
      stop.waiting--;
      this.waiting--;
      return item;
    }
    return undefined;
  }

  #refill(stop: Stop<Item>, owner: string): Refill | undefined {
    const line = stop.lines.get(owner);
    if (!line) return undefined;
    const from = line.refillFrom;
    if (from) line.refilling();
    if (line.idle) stop.lines.delete(owner);
    return from && { destination: stop.key, owner, from };
  }

  /** Puts a stop where it belongs: in turn, waiting for time, or for an attempt to end. */
  #queueTurn(stop: Stop<Item>, now: number): void {
    this.#timed.delete(stop);
    if (stop.waiting === 0) return;
    const at = stop.destination.startableAt();
    if (at <= now) this.#turn.add(stop);
    else if (at < Infinity) this.#timed.add(stop);
  }
}

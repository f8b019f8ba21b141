/**
 * The schedule: which message may start next, over all destinations.
 *
 * It holds the destinations that have something to do, turns among them so that a long line at
 * one does not hold up another, and keeps the overall number of running attempts and of messages
 * in memory within bounds. It decides; the supervisor reads the queue and starts the attempts.
 */
import { Destination, type Place } from "./destination.ts";

export interface Limits {
  /** Attempts running at once, over all destinations. */
  readonly concurrency: number;
  /** Attempts running at once per destination. */
  readonly destinationConcurrency: number;
}

/** A message in line. */
export interface Waiting extends Place {
  readonly destination: string;
}

/** Messages in memory over all destinations; beyond that, reading the queue pauses. */
export const SCHEDULE_SIZE = 20_000;

export class Schedule<Item extends Waiting> {
  running = 0;
  waiting = 0;
  #limits: Limits;
  readonly #destinations = new Map<string, Destination<Item>>();
  /** Destinations with something to start, in turn. */
  readonly #turn = new Set<Destination<Item>>();
  /** Streams in line or running: what must not be offered twice. */
  readonly #known = new Set<string>();

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  get full(): boolean {
    return this.waiting >= SCHEDULE_SIZE;
  }

  set limits(limits: Limits) {
    this.#limits = limits;
    for (const destination of this.#destinations.values()) {
      destination.limit = limits.destinationConcurrency;
      this.#queueTurn(destination);
    }
  }

  has(stream: string): boolean {
    return this.#known.has(stream);
  }

  /** Puts a message in line; false when its destination's line is full (it remembers where). */
  offer(item: Item): boolean {
    if (this.#known.has(item.stream)) return true;
    let destination = this.#destinations.get(item.destination);
    if (!destination) {
      destination = new Destination(item.destination, this.#limits.destinationConcurrency);
      this.#destinations.set(item.destination, destination);
    }
    if (!destination.offer(item)) return false;
    this.#known.add(item.stream);
    this.waiting++;
    this.#queueTurn(destination);
    return true;
  }

  /** Takes the next message that may start now; undefined when none may. */
  next(): Item | undefined {
    if (this.running >= this.#limits.concurrency) return undefined;
    for (const destination of this.#turn) {
      this.#turn.delete(destination);
      if (!destination.ready) continue;
      const item = destination.start();
      if (!item) continue;
      this.running++;
      this.waiting--;
      this.#queueTurn(destination);
      return item;
    }
    return undefined;
  }

  /** An attempt has ended. Returns where the destination's line has to be read on, if it has. */
  ended(item: Item): Place | undefined {
    this.#known.delete(item.stream);
    this.running--;
    const destination = this.#destinations.get(item.destination);
    if (!destination) return undefined;
    destination.ended();
    this.#queueTurn(destination);
    const from = destination.refillFrom;
    if (from) destination.refilling();
    else if (destination.idle) this.#destinations.delete(item.destination);
    return from;
  }

  /** Destinations in memory, for views and metrics. */
  *destinations(): IterableIterator<{ key: string; running: number; waiting: number }> {
    for (const { key, running, waiting } of this.#destinations.values()) {
      yield { key, running, waiting };
    }
  }

  #queueTurn(destination: Destination<Item>): void {
    if (destination.ready) this.#turn.add(destination);
  }
}

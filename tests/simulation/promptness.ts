/**
 * Promptness: when all faults are over, what is due is tried, and what has waited for too long is
 * given up on, within minutes; unless the state of its destination says why not. Without this a
 * wake-up that was lost would be seen only if it stayed lost until the end of the world.
 */
import { LAST_CHANCE, LAST_TURN } from "../../actors/expiry.ts";
import { factsOf } from "../../actors/patience.ts";
import type { QueueRow } from "../../events/projections/queue.ts";
import { HOUR, MINUTE } from "./clock.ts";
import { Violation } from "./invariants.ts";
import { POISON } from "./mishaps.ts";
import type { Program } from "./program.ts";
import type { World } from "./world.ts";

/** How often is looked, and how much later once more where something seems to be late. */
const LOOK = 10 * MINUTE;
const LOOK_AGAIN = MINUTE;
/** What is late by less than this is on its way. */
const BOUND = 2 * MINUTE;
/** A lifetime changes with what is learnt of a destination, which is noticed within an hour. */
const LIFETIME_BOUND = HOUR + BOUND;
/** Operators may interfere for an hour after the faults have ended. */
const CALM = HOUR + 10 * MINUTE;

export class Promptness {
  /** The program that was looked at, and since when, in monotonic milliseconds. */
  #program: Program | undefined;
  #since = 0;
  /** What seemed to be late, in which version. */
  #late = new Map<string, number>();
  /** The lifetime that each message has, and since when (wall time) it is known to have it. */
  readonly #lifetimes = new Map<string, { readonly lifetime: number; readonly since: number }>();

  constructor(readonly world: World) {}

  /** The faults are over. */
  begin(): void {
    this.world.time.after(CALM, () => this.#look());
  }

  #look(): void {
    this.world.watch(() => this.#check());
    this.world.time.after(this.#late.size > 0 ? LOOK_AGAIN : LOOK, () => this.#look());
  }

  #check(): void {
    const { program, time, invariants } = this.world;
    const before = this.#late;
    this.#late = new Map();
    if (program !== this.#program) {
      this.#program = program;
      this.#since = time.monotonic();
    }
    if (!program || time.monotonic() - this.#since < BOUND) return;
    for (const stream of invariants.unfinished) {
      const { row } = invariants.streams.get(stream)!;
      const why = this.#isLate(row, program);
      if (why === undefined) continue;
      if (before.get(stream) === row.version) throw new Violation(`late: ${stream} ${why}`);
      this.#late.set(stream, row.version);
    }
  }

  #isLate(row: QueueRow, program: Program): string | undefined {
    const now = this.world.time.now();
    const { state, due, expires, ages_from, report_due } = row;
    const over = (at: number | null) => at !== null && now - at > BOUND;
    const since = (at: number | null) => new Date(at!).toISOString();
    // No report can be made to a poisoned sender.
    const reportable = !row.sender.includes(POISON);
    if (over(report_due) && reportable) return `has a report due since ${since(report_due)}`;
    if (state !== "queued") return undefined;
    if (over(expires)) return `waits, and its deadline was ${since(expires)}`;
    const facts = factsOf(row);
    const { destination, lifetime } = program.waitsFor(facts);
    const end = ages_from + lifetime;
    const known = this.#knownSince(row.stream, lifetime);
    const up = this.world.time.monotonic() - this.#since;
    const overdue = now - Math.max(end, known) > LAST_TURN + LIFETIME_BOUND;
    if (up > LAST_CHANCE + BOUND && overdue) {
      return `waits, and its lifetime ended at ${since(end)}`;
    }
    // It may stand in line from before its domain was known to share its MX hosts with others.
    const lines = [destination, row.domain];
    if (!over(due) || !lines.every((key) => this.#mayStart(key, program))) return undefined;
    return `is due since ${since(due)}, and nothing keeps it from ${destination}`;
  }

  #knownSince(stream: string, lifetime: number): number {
    const known = this.#lifetimes.get(stream);
    if (known?.lifetime === lifetime) return known.since;
    const since = this.world.time.now();
    this.#lifetimes.set(stream, { lifetime, since });
    return since;
  }

  /** Whether an attempt at a destination could start now. */
  #mayStart(destination: string, program: Program): boolean {
    const { time, configuration } = this.world;
    const supervisor = program.supervisor();
    if (supervisor.running >= configuration.concurrency) return false;
    const state = supervisor.destinations().find(({ key }) => key === destination);
    if (!state) return true;
    const { running, window, down, paced } = state;
    const comes = (at: string | undefined) => at !== undefined && Date.parse(at) > time.now();
    return running < window && !comes(down?.until) && !comes(paced);
  }
}

/**
 * Replay: folds a stream step by step and shows the state after each event. It is given the events
 * and the fold, and touches nothing: no network, no clock, no write.
 */
import type { StoredEvent } from "./catalogue.ts";

export interface ReplayStep<S> {
  readonly event: StoredEvent;
  /** The state after the event. */
  readonly state: S;
}

/** Where a replay ends: after this version, or before the first event later than this time. */
export interface ReplayEnd {
  readonly version?: number;
  /** RFC 3339, UTC, milliseconds. */
  readonly time?: string;
}

/** Yields every event up to the end with the state after it. */
export function* replay<S>(
  events: Iterable<StoredEvent>,
  initial: S,
  evolve: (state: S, event: StoredEvent) => S,
  end: ReplayEnd = {},
): Generator<ReplayStep<S>> {
  let state = initial;
  for (const event of events) {
    if (end.version !== undefined && event.version > end.version) return;
    if (end.time !== undefined && event.time > end.time) return;
    state = evolve(state, event);
    yield { event, state };
  }
}

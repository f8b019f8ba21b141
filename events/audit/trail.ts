/**
 * The trail: events of the log in order, each checkpoint behind the last event that it covers.
 * Exports write it, and verifying reads it, from the log itself or from an export.
 */
import type { Checkpoint, RawEvent, RawLog } from "../engine.ts";

export type TrailEntry =
  | { readonly event: RawEvent }
  | { readonly checkpoint: Checkpoint };

/** What of the log is taken. Without any criterion: everything. */
export interface TrailFilter {
  /** Events at or after this time; RFC 3339, UTC, milliseconds. */
  readonly since?: string;
  /** Events before this time. */
  readonly until?: string;
  /** Events of this stream. */
  readonly message?: string;
}

export const isPartial = (filter: TrailFilter): boolean =>
  filter.since !== undefined || filter.until !== undefined || filter.message !== undefined;

const PAGE = 1000;

/**
 * Streams the trail, a bounded piece of the log at a time; no read is open between two pieces, so
 * a queue that runs on the log is not held up. With a filter, only checkpoints that cover one of
 * the events are in it.
 */
export async function* trail(log: RawLog, filter: TrailFilter = {}): AsyncGenerator<TrailEntry> {
  const partial = isPartial(filter);
  // The log may grow meanwhile: what comes later is not part of this trail.
  const newest = await log.newest();
  const checkpoints = upTo(
    newest.checkpoint,
    (after, n) => log.checkpoints(after, n),
    (c) => c.number,
  );
  const events = filter.message === undefined
    ? upTo(newest.position, (after, n) => log.events(after, n), (e) => e.position)
    : (await log.stream(filter.message)).filter((e) => e.position <= newest.position);
  let checkpoint = (await checkpoints.next()).value;
  let covered = 0;
  for await (const event of events) {
    while (checkpoint && checkpoint.to < event.position) {
      if (!partial || covered > 0) yield { checkpoint };
      covered = 0;
      checkpoint = (await checkpoints.next()).value;
    }
    if (filter.since !== undefined && event.time < filter.since) continue;
    if (filter.until !== undefined && event.time >= filter.until) continue;
    covered += 1;
    yield { event };
  }
  while (checkpoint && (!partial || covered > 0)) {
    yield { checkpoint };
    covered = 0;
    checkpoint = (await checkpoints.next()).value;
  }
}

async function* upTo<T>(
  last: number,
  read: (after: number, limit: number) => Promise<T[]>,
  place: (item: T) => number,
): AsyncGenerator<T, undefined> {
  for (let after = 0;;) {
    const page = await read(after, PAGE);
    for (const item of page) {
      if (place(item) > last) return undefined;
      yield item;
    }
    if (page.length < PAGE) return undefined;
    after = place(page.at(-1)!);
  }
}

/** What retention asks of the embedded database. Each call reads a bounded piece. */
import type { DatabaseSync } from "node:sqlite";
import type { RawEvent } from "./engine.ts";
import { FINAL_STATES } from "./projections/queue.ts";
import type { FinishedStream, RetentionView } from "./retention.ts";

const EVENT = "position, stream, version, type, schema, time, data, prev, hash";
const DAY = 86_400_000;

/** @param database the open handle; asked for each time, since it changes when the engine recovers */
export function sqliteRetentionView(database: () => DatabaseSync): RetentionView {
  const all = <T>(sql: string, ...values: (string | number)[]): T[] =>
    database().prepare(sql).all(...values) as T[];
  return {
    finished: (after, limit) => {
      // In the order of each state's index; the smallest names of all three together.
      const found = FINAL_STATES.flatMap((state) =>
        all<FinishedStream>(
          // One whose report is still to be made is not finished.
          `SELECT stream, created, iif(report_due IS NULL, finished, 9e15) AS finished
           FROM queue INDEXED BY queue_state
           WHERE state = ? AND stream > ? ORDER BY stream LIMIT ?`,
          state,
          after,
          limit,
        )
      );
      const byName = (a: FinishedStream, b: FinishedStream) => a.stream < b.stream ? -1 : 1;
      found.sort(byName);
      const page = found.slice(0, limit);
      if (page.length < limit) page.push(...webhookDays(all, after));
      return Promise.resolve(page);
    },
    positions: (stream) =>
      Promise.resolve(
        all<{ position: number }>(
          "SELECT position FROM events WHERE stream = ? ORDER BY version",
          stream,
        ).map(({ position }) => position),
      ),
    events: (positions) =>
      Promise.resolve(all<RawEvent>(
        `SELECT ${EVENT} FROM events WHERE position IN (SELECT value FROM json_each(?))
         ORDER BY position`,
        JSON.stringify(positions),
      )),
    lastCheckpointFrom: () => {
      const [last] = all<{ from_position: number }>(
        "SELECT from_position FROM checkpoints ORDER BY number DESC LIMIT 1",
      );
      return Promise.resolve(last?.from_position ?? 0);
    },
  };
}

/** The streams `webhook NAME DAY`: over with their day, but for the one that a position is from. */
function webhookDays(
  all: <T>(sql: string, ...values: (string | number)[]) => T[],
  after: string,
): FinishedStream[] {
  const found: FinishedStream[] = [];
  for (let last = after > "webhook " ? after : "webhook ";;) {
    const [next] = all<{ stream: string | null }>(
      `SELECT min(stream) AS stream FROM events WHERE stream > ? AND stream < 'webhook!'`,
      last,
    );
    if (!next?.stream) return found;
    last = next.stream;
    const created = Date.parse(last.slice(-10));
    const [current] = all("SELECT 1 FROM webhooks WHERE stream = ?", last);
    if (!current && !Number.isNaN(created)) {
      found.push({ stream: last, created, finished: created + DAY });
    }
  }
}

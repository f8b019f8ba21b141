/**
 * What retention asks of the embedded database, each call a bounded piece; and where that is which
 * has left it.
 */
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { dayOf, DESTINATION_DAYS } from "./day_streams.ts";
import { messageOf } from "./decode.ts";
import type { RawEvent } from "./engine.ts";
import type { DaysOf, Row } from "./projection.ts";
import { PROJECTIONS } from "./projections/all.ts";
import type { ArchiveView, KnownFile } from "./projections/archive.ts";
import { FINAL_STATES } from "./projections/queue.ts";
import type { FinishedStream, RetentionView } from "./retention.ts";
import { StoreUnavailable } from "./store.ts";

const EVENT = "position, stream, version, type, schema, time, data, prev, hash";
const DAY = 86_400_000;
/** Messages that are looked at for the oldest: names and times of arrival differ by little. */
const OLDEST = 1_000;

/** The kinds of streams of days, in the order of their names. */
const KINDS: readonly (Partial<DaysOf<Row>> & { readonly kind: string; table?: string })[] = [
  { kind: DESTINATION_DAYS },
  ...PROJECTIONS.flatMap(({ name, days }) => days ? [{ ...days, table: name }] : []),
].sort((a, b) => a.kind < b.kind ? -1 : 1);

/** Where archived streams can be. Files have few streams in common: those of a day that ended late. */
export function sqliteArchiveView(database: () => DatabaseSync): ArchiveView {
  const all = asking(database);
  return {
    filesOf: (stream) =>
      new Promise((resolve, reject) => {
        try {
          resolve(all<KnownFile>(
            `SELECT file, hash AS sha256 FROM archive WHERE last_stream >= ? AND first_stream <= ?
             ORDER BY file DESC`,
            stream,
            stream,
          ));
        } catch (cause) {
          const why = `what the archive holds cannot be read: ${messageOf(cause)}`;
          reject(new StoreUnavailable(why, { cause }));
        }
      }),
  };
}

type Ask = <T>(sql: string, ...values: (string | number)[]) => T[];

/** @param database the open handle; asked for each time, since it changes when the engine recovers */
export function sqliteRetentionView(database: () => DatabaseSync): RetentionView {
  const all = asking(database);
  return {
    finished: (after, limit) => {
      const page = messages(all, after, limit);
      if (page.length < limit) page.push(...days(all, after, limit - page.length));
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

/** Keeps statements: there are few texts, and some run for each of thousands of streams. */
function asking(database: () => DatabaseSync): Ask {
  const kept = new WeakMap<DatabaseSync, Map<string, StatementSync>>();
  return <T>(sql: string, ...values: (string | number)[]) => {
    const handle = database();
    let statements = kept.get(handle);
    if (!statements) kept.set(handle, statements = new Map());
    let statement = statements.get(sql);
    if (!statement) statements.set(sql, statement = handle.prepare(sql));
    return statement.all(...values) as T[];
  };
}

/** In the order of each state's index; the smallest names of all three together. */
function messages(all: Ask, after: string, limit: number): FinishedStream[] {
  const [open] = all<{ id: string | null }>("SELECT min(id) AS id FROM tls_reports");
  const reported = open?.id ? Date.parse(open.id.slice(0, 10)) : Infinity;
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
  return found.sort((a, b) => a.stream < b.stream ? -1 : 1).slice(0, limit)
    // One whose sessions are still to be reported is needed as well.
    .map((one) => one.finished < reported ? one : { ...one, finished: Infinity });
}

/** The streams of days behind a name, kind by kind. */
function days(all: Ask, after: string, limit: number): FinishedStream[] {
  const found: FinishedStream[] = [];
  const oldest = oldestMessage(all);
  for (const kind of KINDS) {
    const first = `${kind.kind} `;
    const behind = after > first ? after : first;
    const names = all<{ stream: string }>(NAMES, behind, `${kind.kind}!`, limit - found.length)
      .map(({ stream }) => stream);
    const needed = neededUntil(all, kind, names);
    for (const stream of names) {
      const created = dayOf(stream);
      const over = created + DAY - 1;
      const kept = Number.isNaN(created) || (kind.answersMessages === true && oldest <= over);
      const until = kept ? Infinity : Math.max(over, needed.get(stream) ?? -Infinity);
      const finished = until === Infinity ? until : Math.max(until, lastOf(all, stream));
      found.push({ stream, created, finished });
    }
    if (found.length >= limit) break;
  }
  return found;
}

/** From each name to the next one, by the index: not through the events between them. */
const NAMES = `
  WITH RECURSIVE names (stream) AS (
    SELECT min(stream) FROM events WHERE stream > ?1 AND stream < ?2
    UNION ALL
    SELECT (SELECT min(stream) FROM events WHERE stream > names.stream AND stream < ?2)
    FROM names WHERE names.stream IS NOT NULL
    LIMIT ?3
  )
  SELECT stream FROM names WHERE stream IS NOT NULL`;

/** When the last event of a stream happened: that of a report comes after the day it is about. */
function lastOf(all: Ask, stream: string): number {
  const [last] = all<{ time: string }>(
    "SELECT time FROM events WHERE stream = ? ORDER BY version DESC LIMIT 1",
    stream,
  );
  return last ? Date.parse(last.time) : Infinity;
}

/** Until when rows need streams, by name. */
function neededUntil(
  all: Ask,
  { table, from, until }: (typeof KINDS)[number],
  streams: readonly string[],
): Map<string, number> {
  const needed = new Map<string, number>();
  if (table === undefined || from === undefined || streams.length === 0) return needed;
  const rows = all<Row>(
    `SELECT * FROM "${table}" WHERE "${from}" IN (SELECT value FROM json_each(?))`,
    JSON.stringify(streams),
  );
  for (const row of rows) {
    const stream = String(row[from]);
    needed.set(stream, Math.max(needed.get(stream) ?? -Infinity, until?.(row) ?? Infinity));
  }
  return needed;
}

/** When the oldest message arrived that is in the store. */
function oldestMessage(all: Ask): number {
  const [row] = all<{ created: number | null }>(
    `SELECT min(created) AS created FROM (SELECT created FROM queue ORDER BY stream LIMIT ${OLDEST})`,
  );
  return row?.created ?? Infinity;
}

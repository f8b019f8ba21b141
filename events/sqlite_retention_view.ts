/** What retention asks of the embedded database. Each call reads a bounded piece. */
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { dayOf, DESTINATION_DAYS, seriesOf } from "./day_streams.ts";
import type { RawEvent } from "./engine.ts";
import type { DaysOf, Row } from "./projection.ts";
import { PROJECTIONS } from "./projections/all.ts";
import { FINAL_STATES } from "./projections/queue.ts";
import type { FinishedStream, RetentionView } from "./retention.ts";

const EVENT = "position, stream, version, type, schema, time, data, prev, hash";
const DAY = 86_400_000;
/** Messages that are looked at for the oldest: names and times of arrival differ by little. */
const OLDEST = 1_000;

/** The kinds of streams of days, in the order of their names. */
const KINDS: readonly (Partial<DaysOf<Row>> & { readonly kind: string; table?: string })[] = [
  { kind: DESTINATION_DAYS },
  ...PROJECTIONS.flatMap(({ name, days }) => days ? [{ ...days, table: name }] : []),
].sort((a, b) => a.kind < b.kind ? -1 : 1);

type Ask = <T>(sql: string, ...values: (string | number)[]) => T[];

/** @param database the open handle; asked for each time, since it changes when the engine recovers */
export function sqliteRetentionView(database: () => DatabaseSync): RetentionView {
  const all = asking(database);
  return {
    finished: (after, limit, before) => {
      const page = messages(all, after, limit);
      if (page.length < limit) page.push(...days(all, after, limit - page.length, before));
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

/** The streams of days behind a name; of each series up to the first that is kept. */
function days(all: Ask, after: string, limit: number, before: number): FinishedStream[] {
  const found: FinishedStream[] = [];
  const oldest = oldestMessage(all);
  for (const kind of KINDS) {
    const first = `${kind.kind} `;
    for (let last = after > first ? after : first; found.length < limit;) {
      const [next] = all<{ stream: string | null }>(
        "SELECT min(stream) AS stream FROM events WHERE stream > ? AND stream < ?",
        last,
        `${kind.kind}!`,
      );
      if (!next?.stream) break;
      const { stream } = next;
      const created = dayOf(stream);
      const finished = endOf(all, kind, stream, oldest);
      found.push({ stream, created, finished });
      last = finished < before ? stream : `${seriesOf(stream)}:`; // behind its digits
    }
  }
  return found;
}

/** When a stream of a day is needed no more; Infinity when that is not known. */
function endOf(
  all: Ask,
  { table, from, until, endsMessages }: (typeof KINDS)[number],
  stream: string,
  oldest: number,
): number {
  const day = dayOf(stream) + DAY - 1;
  if (Number.isNaN(day) || (endsMessages && oldest <= day)) return Infinity;
  const rows = table && from
    ? all<Row>(`SELECT * FROM "${table}" WHERE "${from}" = ?`, stream)
    : [];
  const needed = rows.map((row) => until?.(row) ?? Infinity);
  const [last] = all<{ time: string }>(
    "SELECT time FROM events WHERE stream = ? ORDER BY version DESC LIMIT 1",
    stream,
  );
  return Math.max(day, Date.parse(last!.time), ...needed);
}

/** When the oldest message arrived that is in the store. */
function oldestMessage(all: Ask): number {
  const [row] = all<{ created: number | null }>(
    `SELECT min(created) AS created FROM (SELECT created FROM queue ORDER BY stream LIMIT ${OLDEST})`,
  );
  return row?.created ?? Infinity;
}

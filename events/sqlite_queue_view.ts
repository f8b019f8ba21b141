/** The queue's views (QueueView) as queries over the projection's table in SQLite. */
import type { DatabaseSync, SQLInputValue, StatementSync } from "node:sqlite";
import { encodeTime } from "ulid";
import { messageOf } from "./decode.ts";
import {
  QUEUE_STATES,
  type QueueFilter,
  type QueueRow,
  type QueueSort,
  type QueueState,
  type QueueView,
  type SubmissionCount,
  type SubmissionCounts,
  type WaitLimit,
} from "./projections/queue.ts";
import { StoreUnavailable } from "./store.ts";

/** Streams sort by time of arrival, so they stand for `created` and need no index of their own. */
const ORDER: Record<QueueSort, (direction: string) => string> = {
  created: (d) => `stream ${d}`,
  due: (d) => `due IS NULL, due ${d}, stream ${d}`,
  size: (d) => `size ${d}, stream ${d}`,
  attempts: (d) => `attempts ${d}, stream ${d}`,
  domain: (d) => `domain ${d}, stream ${d}`,
};

/** What waits for its time. The index is named: the planner would prefer the one by state, and sort. */
export const SCHEDULE = "queue INDEXED BY queue_due WHERE state = 'queued'";

/** The same in the orders in which waits end. */
export const WAITING: Record<WaitLimit, string> = {
  expires: "queue INDEXED BY queue_expires WHERE state = 'queued' AND expires IS NOT NULL",
  ages_from: "queue INDEXED BY queue_ages_from WHERE state = 'queued'",
};

/**
 * Every method throws StoreUnavailable when the database cannot be read.
 */
export class SqliteQueueView implements QueueView, SubmissionCounts {
  /** Statements of the handle in use; a new handle has new ones. */
  #statements = new WeakMap<DatabaseSync, Map<string, StatementSync>>();

  constructor(private readonly source: { readonly db: DatabaseSync }) {}

  get(stream: string): Promise<QueueRow | undefined> {
    return this.#one<QueueRow>("SELECT * FROM queue WHERE stream = ?", stream);
  }

  due(
    now: number,
    limit: number,
    after?: { readonly due: number; readonly stream: string },
  ): Promise<QueueRow[]> {
    const upTo = `SELECT * FROM ${SCHEDULE} AND due <= ?`;
    const order = "ORDER BY due, stream LIMIT ?";
    return after
      ? this.#all(
        `${upTo} AND (due, stream) > (?, ?) ${order}`,
        now,
        after.due,
        after.stream,
        limit,
      )
      : this.#all(`${upTo} ${order}`, now, limit);
  }

  async nextDue(after: number): Promise<number | undefined> {
    const row = await this.#one<{ due: number | null }>(
      `SELECT min(due) AS due FROM ${SCHEDULE} AND due > ?`,
      after,
    );
    return row?.due ?? undefined;
  }

  waiting(
    by: WaitLimit,
    upTo: number,
    limit: number,
    after?: { readonly at: number; readonly stream: string },
  ): Promise<QueueRow[]> {
    const upToThen = `SELECT * FROM ${WAITING[by]} AND ${by} <= ?`;
    const order = `ORDER BY ${by}, stream LIMIT ?`;
    return after
      ? this.#all(
        `${upToThen} AND (${by}, stream) > (?, ?) ${order}`,
        upTo,
        after.at,
        after.stream,
        limit,
      )
      : this.#all(`${upToThen} ${order}`, upTo, limit);
  }

  async nextWaiting(by: WaitLimit, after: number): Promise<number | undefined> {
    const row = await this.#one<{ next: number | null }>(
      `SELECT min(${by}) AS next FROM ${WAITING[by]} AND ${by} > ?`,
      after,
    );
    return row?.next ?? undefined;
  }

  attempting(limit: number): Promise<QueueRow[]> {
    return this.#all(
      "SELECT * FROM queue WHERE state = 'attempting' ORDER BY stream LIMIT ?",
      limit,
    );
  }

  reports(limit: number): Promise<QueueRow[]> {
    return this.#all(
      `SELECT * FROM queue INDEXED BY queue_report WHERE report_due IS NOT NULL
       ORDER BY report_due, stream LIMIT ?`,
      limit,
    );
  }

  reportsOf(submission: string, about: "delay" | "end", limit: number): Promise<QueueRow[]> {
    return this.#all(
      `SELECT * FROM queue INDEXED BY queue_report_of
       WHERE report_due IS NOT NULL AND submission = ?
         AND finished IS ${about === "end" ? "NOT " : ""}NULL ORDER BY stream LIMIT ?`,
      submission,
      limit,
    );
  }

  list(filter: QueueFilter, page: Parameters<QueueView["list"]>[1]): Promise<QueueRow[]> {
    const { where, values } = conditions(filter);
    const order = ORDER[page.sort ?? "created"](page.descending ? "DESC" : "ASC");
    return this.#all(
      `SELECT * FROM queue ${where} ORDER BY ${order} LIMIT ? OFFSET ?`,
      ...values,
      page.limit,
      page.offset ?? 0,
    );
  }

  async count(filter: QueueFilter): Promise<number> {
    const { where, values } = conditions(filter);
    const row = await this.#one<{ n: number }>(
      `SELECT count(*) AS n FROM queue ${where}`,
      ...values,
    );
    return row?.n ?? 0;
  }

  async depth(): Promise<Record<QueueState, number>> {
    const rows = await this.#all<{ value: QueueState; n: number }>(
      "SELECT value, n FROM counts WHERE projection = 'queue'",
    );
    const depth = Object.fromEntries(QUEUE_STATES.map((state) => [state, 0]));
    for (const { value, n } of rows) depth[value] = n;
    return depth as Record<QueueState, number>;
  }

  submitted(account: string, since: number, bucket: number): Promise<SubmissionCount[]> {
    // Streams begin with their time of arrival, and there is an index over account and stream.
    return this.#all<SubmissionCount>(
      `SELECT created / ?1 * ?1 AS at, count(DISTINCT submission) AS messages,
         count(*) AS recipients
       FROM queue WHERE account = ?2 AND stream >= ?3 AND created >= ?4 GROUP BY at`,
      bucket,
      account,
      encodeTime(Math.max(0, since), 10),
      since,
    );
  }

  #all<T = QueueRow>(sql: string, ...values: SQLInputValue[]): Promise<T[]> {
    return this.#read(() => this.#statement(sql).all(...values) as unknown as T[]);
  }

  #one<T>(sql: string, ...values: SQLInputValue[]): Promise<T | undefined> {
    return this.#read(() => this.#statement(sql).get(...values) as T | undefined);
  }

  #read<T>(query: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      try {
        resolve(query());
      } catch (cause) {
        const why = `the queue cannot be read: ${messageOf(cause)}`;
        reject(new StoreUnavailable(why, { cause }));
      }
    });
  }

  /** The texts are few: they differ by which criteria a filter has, never by their values. */
  #statement(sql: string): StatementSync {
    const { db } = this.source;
    let known = this.#statements.get(db);
    if (!known) this.#statements.set(db, known = new Map());
    let statement = known.get(sql);
    if (!statement) known.set(sql, statement = db.prepare(sql));
    return statement;
  }
}

function conditions(filter: QueueFilter): { where: string; values: SQLInputValue[] } {
  const parts: string[] = [];
  const values: SQLInputValue[] = [];
  const add = (part: string, value: SQLInputValue | undefined) => {
    if (value === undefined) return;
    parts.push(part);
    values.push(value);
  };
  add(
    "stream IN (SELECT value FROM json_each(?))",
    filter.ids && JSON.stringify(filter.ids),
  );
  add("lower(sender) = lower(?)", filter.from);
  add("lower(recipient) = lower(?)", filter.to);
  add("domain = ?", filter.toDomain?.toLowerCase());
  add("account = ?", filter.account);
  add("state = ?", filter.state);
  // By the states themselves, since there is an index over them.
  if (filter.pending) parts.push("finished IS NULL");
  add("instr(lower(last_error), lower(?)) > 0", filter.error);
  add("created < ?", filter.before);
  add("stream > ?", filter.after);
  return { where: parts.length > 0 ? `WHERE ${parts.join(" AND ")}` : "", values };
}

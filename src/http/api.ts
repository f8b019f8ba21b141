/**
 * The read-only API: messages, one message with its history, and its events.
 *
 *   GET /messages              filter, sort and page through the queue
 *   GET /messages/ID           a message with every attempt (?transcripts=true: and dialogues)
 *   GET /messages/ID/events    its events as they stand in the log
 */
import { type Context, Hono } from "hono";
import type { StoredEvent } from "../../events/catalogue.ts";
import {
  QUEUE_SORTS,
  type QueueFilter,
  type QueueRow,
  type QueueSort,
  type QueueView,
} from "../../events/projections/queue.ts";
import { type EventStore, UnreadableStream } from "../../events/store.ts";
import { BadFilter, FILTER_OPTIONS, type FilterOption, readFilter } from "./message_filter.ts";
import { messageDetailJson, messageJson } from "./message_json.ts";
import { badRequest, notFound, RequestProblem } from "./problem.ts";

export interface ApiPorts {
  readonly queue: QueueView;
  readonly store: Pick<EventStore, "readStream">;
  readonly now: () => number;
}

const DEFAULT_LIMIT = 100;
const MAX_LIMIT = 1_000;
/** Past this, a filter gets there faster than paging does. */
const MAX_OFFSET = 10_000_000;
const MESSAGE_ID = /^[0-9A-HJKMNP-TV-Z]{26}$/;

export function api(ports: ApiPorts): Hono {
  const app = new Hono();
  app.get("/messages", async (context) => context.json(await list(ports, context)));
  app.get("/messages/:id", async (context) => {
    const { row, events } = await message(ports, context.req.param("id"));
    const query = queryOf(context, ["transcripts"]);
    const transcripts = flag(query, "transcripts");
    return context.json(messageDetailJson(row, events, { transcripts }));
  });
  app.get("/messages/:id/events", async (context) => {
    queryOf(context, []);
    const { events } = await message(ports, context.req.param("id"));
    return context.json({ events });
  });
  return app;
}

async function list({ queue, now }: ApiPorts, context: Context): Promise<unknown> {
  const filters = Object.keys(FILTER_OPTIONS) as FilterOption[];
  const query = queryOf(context, [
    ...filters,
    "pending",
    "limit",
    "cursor",
    "sort",
    "order",
    "total",
  ]);
  const filter = { ...filterOf(query, now()), pending: flag(query, "pending") };
  const sort = query.get("sort") ?? "created";
  if (!isSort(sort)) throw badRequest(`sort: it takes one of ${QUEUE_SORTS.join(", ")}`);
  const order = query.get("order") ?? "asc";
  if (order !== "asc" && order !== "desc") throw badRequest("order: it takes asc or desc");
  const limit = number(query.get("limit") ?? String(DEFAULT_LIMIT), MAX_LIMIT);
  if (!limit) throw badRequest(`limit: it takes a whole number from 1 to ${MAX_LIMIT}`);
  const offset = readCursor(query.get("cursor"));
  // One row more tells whether there is a next page.
  const page = { sort, descending: order === "desc", limit: limit + 1, offset };
  const rows = await queue.list(filter, page);
  return {
    messages: rows.slice(0, limit).map(messageJson),
    next: rows.length > limit ? writeCursor(offset + limit) : null,
    ...(flag(query, "total") ? { total: await queue.count(filter) } : {}),
  };
}

/** @throws RequestProblem 404 when there is no such message, 500 when its events are broken */
async function message(
  { queue, store }: ApiPorts,
  id: string,
): Promise<{ readonly row: QueueRow; readonly events: readonly StoredEvent[] }> {
  const row = MESSAGE_ID.test(id) ? await queue.get(id) : undefined;
  if (!row) throw notFound("there is no message with this id");
  try {
    return { row, events: await store.readStream(id) };
  } catch (error) {
    if (!(error instanceof UnreadableStream)) throw error;
    throw new RequestProblem({ status: 500, title: "Unreadable events", detail: error.message });
  }
}

type Query = ReadonlyMap<string, string>;

/** The parameters, each known and given once. */
function queryOf(context: Context, known: readonly string[]): Query {
  const query = new Map<string, string>();
  for (const [name, values] of Object.entries(context.req.queries())) {
    if (!known.includes(name)) {
      const takes = known.length > 0 ? `; there are ${known.join(", ")}` : "; it takes none";
      throw badRequest(`"${name.slice(0, 60)}" is not a parameter${takes}`);
    }
    if (values.length > 1) throw badRequest(`${name}: it is given ${values.length} times`);
    query.set(name, values[0] ?? "");
  }
  return query;
}

function filterOf(query: Query, now: number): QueueFilter {
  const criteria: Partial<Record<FilterOption, string>> = {};
  for (const option of Object.keys(FILTER_OPTIONS) as FilterOption[]) {
    const value = query.get(option);
    if (value !== undefined) criteria[option] = value;
  }
  try {
    return readFilter(criteria, now);
  } catch (error) {
    if (error instanceof BadFilter) throw badRequest(`${error.option}: it ${error.message}`);
    throw error;
  }
}

const isSort = (text: string): text is QueueSort =>
  (QUEUE_SORTS as readonly string[]).includes(text);

function flag(query: Query, name: string): boolean {
  const text = query.get(name) ?? "false";
  if (text !== "true" && text !== "false") throw badRequest(`${name}: it takes true or false`);
  return text === "true";
}

/** A whole number up to `most`, or undefined. */
function number(text: string, most: number): number | undefined {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : NaN;
  return value <= most ? value : undefined;
}

/** A cursor is opaque to clients: what it holds may change. */
const writeCursor = (offset: number): string => btoa(`o${offset}`).replaceAll("=", "");

function readCursor(cursor: string | undefined): number {
  if (cursor === undefined) return 0;
  let text = "";
  try {
    text = atob(cursor);
  } catch {
    // refused below
  }
  const offset = text.startsWith("o") ? number(text.slice(1), MAX_OFFSET) : undefined;
  if (offset === undefined) throw badRequest("cursor: it takes the `next` of an earlier answer");
  return offset;
}

/**
 * Operations that look: the queue, a message with its history, its events. Lists are of what is in
 * the store; by its id a message is found in the archive too.
 */
import type { ArchiveLookup } from "../../events/archive_lookup.ts";
import type { StoredEvent } from "../../events/catalogue.ts";
import {
  QUEUE_SORTS,
  QUEUE_STATES,
  type QueueFilter,
  type QueueRow,
  type QueueSort,
  type QueueView,
} from "../../events/projections/queue.ts";
import { type EventStore, UnreadableStream } from "../../events/store.ts";
import { archivedFor } from "./archived.ts";
import { BadFilter, FILTER_OPTIONS, type FilterOption, readFilter } from "./message_filter.ts";
import { messageDetailJson, messageJson } from "./message_json.ts";
import {
  type ApiRequest,
  flag,
  ID_PARAMETER,
  mayKnow,
  type Operation,
  type Parameter,
  type Principal,
  type Query,
  valueOf,
  wholeNumber,
} from "./operation.ts";
import { badParameter, forbidden, notFound, RequestProblem } from "./problem.ts";
import { EventList, MessageDetail, MessageList } from "./shapes.ts";

export interface ReadPorts {
  readonly queue: QueueView;
  readonly store: Pick<EventStore, "readStream">;
  readonly archive: Pick<ArchiveLookup, "find">;
  readonly now: () => number;
}

const DEFAULT_LIMIT = 100;
const MAX_LIMIT = 1_000;
/** Past this, a filter gets there faster than paging does. */
const MAX_OFFSET = 10_000_000;
const MESSAGE_ID = /^[0-9A-HJKMNP-TV-Z]{26}$/;

const FILTER_NAMES = Object.keys(FILTER_OPTIONS) as FilterOption[];
const query = (name: string, about: string, schema: Parameter["schema"]): Parameter => ({
  name,
  in: "query",
  about,
  schema,
});
const FLAG = { type: "boolean", default: false };

const FILTER_PARAMETERS: readonly Parameter[] = FILTER_NAMES.map((name) =>
  query(
    name,
    FILTER_OPTIONS[name][1],
    name === "state" ? { type: "string", enum: QUEUE_STATES } : { type: "string" },
  )
);

export function readOperations(ports: ReadPorts): Operation[] {
  return [
    {
      id: "listMessages",
      method: "get",
      path: "/messages",
      scope: "read",
      about: "Lists messages. Criteria add up: all of them must hold. Those that were archived " +
        "are not listed; their ids show them.",
      parameters: [
        ...FILTER_PARAMETERS,
        query("pending", "only messages that are in no final state", FLAG),
        query("limit", "messages on a page", {
          type: "integer",
          minimum: 1,
          maximum: MAX_LIMIT,
          default: DEFAULT_LIMIT,
        }),
        query("cursor", "the `next` of the page before", { type: "string" }),
        query("sort", "what they are sorted by", { type: "string", enum: QUEUE_SORTS }),
        query("order", "asc or desc", { type: "string", enum: ["asc", "desc"] }),
        query("total", "whether to count all that match", FLAG),
      ],
      answer: { status: 200, about: "A page of messages.", schema: MessageList },
      problems: [503],
      handle: async ({ query, principal }) => ({
        status: 200,
        body: await list(ports, query, principal),
      }),
    },
    {
      id: "showMessage",
      method: "get",
      path: "/messages/{id}",
      scope: "read",
      about: "Shows a message with every attempt, and what operators did to it; `archived` is " +
        "the file of the archive that it is in, or null.",
      parameters: [ID_PARAMETER, query("transcripts", "whether to show SMTP dialogues", FLAG)],
      answer: { status: 200, about: "The message.", schema: MessageDetail },
      problems: [404, 503],
      handle: async (asked) => {
        const transcripts = flag(asked.query, "transcripts");
        const { row, events, archived } = await message(ports, asked);
        return { status: 200, body: messageDetailJson(row, events, { transcripts, archived }) };
      },
    },
    {
      id: "listEvents",
      method: "get",
      path: "/messages/{id}/events",
      scope: "read",
      about: "The events of a message as they stand in the log, or in a file of the archive.",
      parameters: [ID_PARAMETER],
      answer: { status: 200, about: "The events, oldest first.", schema: EventList },
      problems: [404, 503],
      handle: async (asked) => {
        const { events, archived } = await message(ports, asked);
        return { status: 200, body: { events, archived } };
      },
    },
  ];
}

async function list(
  { queue, now }: ReadPorts,
  query: Query,
  principal: Principal,
): Promise<unknown> {
  const filter = {
    ...filterOf(query, now()),
    pending: flag(query, "pending"),
    ...ownAccount(principal, valueOf(query, "account")),
  };
  const sort = valueOf(query, "sort") ?? "created";
  if (!isSort(sort)) throw badParameter("sort", `it takes one of ${QUEUE_SORTS.join(", ")}`);
  const order = valueOf(query, "order") ?? "asc";
  if (order !== "asc" && order !== "desc") throw badParameter("order", "it takes asc or desc");
  const limit = wholeNumber(valueOf(query, "limit") ?? String(DEFAULT_LIMIT), MAX_LIMIT);
  if (!limit) throw badParameter("limit", `it takes a whole number from 1 to ${MAX_LIMIT}`);
  const offset = readCursor(valueOf(query, "cursor"));
  // One row more tells whether there is a next page.
  const page = { sort, descending: order === "desc", limit: limit + 1, offset };
  const total = flag(query, "total");
  const rows = await queue.list(filter, page);
  return {
    messages: rows.slice(0, limit).map(messageJson),
    next: rows.length > limit ? writeCursor(offset + limit) : null,
    ...(total ? { total: await queue.count(filter) } : {}),
  };
}

/**
 * The account that a token is bound to, as a criterion of a filter.
 * @throws RequestProblem 403 when another one is asked for
 */
export function ownAccount(
  { account }: Principal,
  asked: string | undefined,
): Pick<QueueFilter, "account"> {
  if (account === null) return asked === undefined ? {} : { account: asked };
  if (asked !== undefined && asked !== account) {
    throw forbidden("this token is bound to another account");
  }
  return { account };
}

/** The row of a message in the store that the principal may know of. */
export async function rowOf(
  queue: QueueView,
  id: string,
  principal: Principal,
): Promise<QueueRow | undefined> {
  const row = MESSAGE_ID.test(id) ? await queue.get(id) : undefined;
  return row && mayKnow(principal, row.account) ? row : undefined;
}

export const noSuchMessage = (): RequestProblem => notFound("there is no message with this id");

export const isMessageId = (id: string): boolean => MESSAGE_ID.test(id);

/** @throws RequestProblem 404 when there is no such message, 500 when its events are broken */
async function message(
  { queue, store, archive }: ReadPorts,
  { id, principal, request }: ApiRequest,
): Promise<{
  readonly row: QueueRow;
  readonly events: readonly StoredEvent[];
  /** The file, of one that is not in the store. */
  readonly archived: string | null;
}> {
  if (!MESSAGE_ID.test(id)) throw noSuchMessage();
  const row = await rowOf(queue, id, principal);
  try {
    const events = row ? await store.readStream(id) : [];
    // It may leave between the two.
    if (row && events.length > 0) return { row, events, archived: null };
  } catch (error) {
    if (!(error instanceof UnreadableStream)) throw error;
    throw new RequestProblem({ status: 500, title: "Unreadable events", detail: error.message });
  }
  const found = await archivedFor(archive, id, principal, request);
  if (!found) throw noSuchMessage();
  return { row: found.row, events: found.events, archived: found.file };
}

function filterOf(query: Query, now: number): QueueFilter {
  const criteria: Partial<Record<FilterOption, string>> = {};
  for (const option of FILTER_NAMES) {
    const value = valueOf(query, option);
    if (value !== undefined) criteria[option] = value;
  }
  try {
    return readFilter(criteria, now);
  } catch (error) {
    if (error instanceof BadFilter) throw badParameter(error.option, `it ${error.message}`);
    throw error;
  }
}

const isSort = (text: string): text is QueueSort =>
  (QUEUE_SORTS as readonly string[]).includes(text);

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
  const offset = text.startsWith("o") ? wholeNumber(text.slice(1), MAX_OFFSET) : undefined;
  if (offset === undefined) {
    throw badParameter("cursor", "it takes the `next` of an earlier answer");
  }
  return offset;
}

/**
 * Operations that act on messages: hold, release, kick, drop, transport; on one, or on all that a
 * filter selects, a page at a time. Each act is an event of its message, with who and why.
 */
import { z } from "zod";
import { type Command, CommandRefused, type Message } from "../../actors/message.ts";
import { ArchiveDamaged } from "../../events/archive.ts";
import { type ArchiveLookup, LookupBusy } from "../../events/archive_lookup.ts";
import { type QueueFilter, type QueueRow, type QueueView } from "../../events/projections/queue.ts";
import { UnreadableStream } from "../../events/store.ts";
import { archivedFor, archivedMessage, whyNot } from "./archived.ts";
import { type HeldContent, mediaType, readJson, unsupportedMedia } from "./body.ts";
import { BadFilter, FILTER_OPTIONS, type FilterOption, readFilter } from "./message_filter.ts";
import { messageJson } from "./message_json.ts";
import { isMessageId, noSuchMessage, ownAccount, rowOf } from "./messages.ts";
import {
  type ApiRequest,
  ID_PARAMETER,
  mayKnow,
  type Operation,
  type Parameter,
  type Principal,
} from "./operation.ts";
import { badRequest, conflict, unprocessable } from "./problem.ts";
import { ActReport, MessageShape } from "./shapes.ts";

export const ACTS = ["hold", "release", "kick", "drop", "transport"] as const;
export type Act = (typeof ACTS)[number];

export interface ActPorts {
  readonly queue: QueueView;
  readonly archive: Pick<ArchiveLookup, "find">;
  readonly now: () => number;
  /**
   * Carries out a command on a message.
   * @throws CommandRefused, StoreUnavailable
   */
  readonly act: (stream: string, command: Command) => Promise<Message>;
  /** Names of the transports that there are. */
  readonly transports: () => readonly string[];
}

const ABOUT: Readonly<Record<Act, string>> = {
  hold: "Holds a queued message: it is not tried until it is released.",
  release: "Releases a held message: it is due at once.",
  kick: "Makes a queued message due at once.",
  drop: "Drops a queued or held message: it is cancelled, and nobody gets a report.",
  transport: "Assigns the transport of the attempts to come; null lets the routes choose again.",
};

/** What an act is for, where the filter does not name states itself. */
const MEANT: Readonly<Record<Act, Pick<QueueFilter, "state" | "pending">>> = {
  hold: { pending: true },
  release: { state: "held" },
  kick: { state: "queued" },
  drop: { pending: true },
  transport: { pending: true },
};

const MAX_BODY = 2 * 2 ** 20;
const MAX_IDS = 10_000;
/** Ids of one request that are looked for in the archive when the store does not have them. */
const MAX_LOOKUPS = 10;
/** Messages that one request acts on. */
export const PAGE = 1_000;
/** Acts that wait for the disk together, and so share its writes. */
const AT_ONCE = 100;

export const JSON_TYPE = "application/json";
const UNEXPLAINED = "no reason given";

// deno-lint-ignore no-control-regex -- controls are what it keeps out
const LINE = /^[^\x00-\x1f\x7f-\x9f]+$/;
export const Reason = z.string().max(500).regex(LINE, { error: "is not one line of text" })
  .default(UNEXPLAINED);
const Transport = z.string().min(1).max(200).nullable().optional();

const SINGLE = z.strictObject({ reason: Reason });
const SINGLE_TRANSPORT = z.strictObject({ reason: Reason, transport: Transport });

const criterion = z.string();
const Filter = z.strictObject({
  ids: z.array(z.string().max(100)).max(MAX_IDS).optional(),
  ...Object.fromEntries(
    Object.keys(FILTER_OPTIONS).map((name) => [name, criterion.optional()]),
  ) as { [O in FilterOption]: z.ZodOptional<z.ZodString> },
});

const Bulk = z.strictObject({
  act: z.enum(ACTS),
  filter: Filter.default({}),
  all: z.boolean().default(false),
  dryRun: z.boolean().default(false),
  reason: Reason,
  transport: Transport,
  after: z.string().max(100).optional(),
}).check((context) => {
  const { filter, all, act, transport } = context.value;
  const issue = (path: string, message: string) =>
    context.issues.push({ code: "custom", path: [path], message, input: context.value });
  if (!all && Object.keys(filter).length === 0) {
    issue("filter", "selects everything; say so with all: true");
  }
  if ((act === "transport") !== (transport !== undefined)) {
    issue(
      "transport",
      act === "transport" ? "is missing: a name, or null" : "belongs to the act transport",
    );
  }
});

/** The operator's own name, beside that of the token: a person, where a program asks for it. */
export const OPERATOR_HEADER: Parameter = {
  name: "X-Operator",
  in: "header",
  about: "who acts, for the log; stands before the name of the token",
  schema: { type: "string", maxLength: 100 },
};

/** Who acts, as it stands in the log. @throws RequestProblem 400 */
export function whoActs({ request, principal }: ApiRequest): string {
  const operator = request.headers.get(OPERATOR_HEADER.name)?.trim();
  if (!operator) return principal.name;
  if (operator.length > 100 || !LINE.test(operator)) {
    throw badRequest("X-Operator: it takes a name of up to 100 characters");
  }
  return `${operator} (${principal.name})`;
}

/** JSON of a small request. @throws RequestProblem 400, 413, 415, 422 */
export function readContent<S extends z.ZodType>(
  held: HeldContent,
  request: Request,
  schema: S,
): Promise<z.output<S>> {
  if (mediaType(request) !== JSON_TYPE) throw unsupportedMedia([JSON_TYPE]);
  return held.with(request, MAX_BODY, (octets) => Promise.resolve(readJson(octets, schema)));
}

/** Problems of operations that read a small request and write to the log. */
export const ACT_PROBLEMS = [408, 413, 415, 422, 503] as const;

export function actOperations(ports: ActPorts, held: HeldContent): Operation[] {
  return [...ACTS.map((act) => single(act, ports, held)), bulk(ports, held)];
}

function single(act: Act, ports: ActPorts, held: HeldContent): Operation {
  const schema = act === "transport" ? SINGLE_TRANSPORT : SINGLE;
  return {
    id: `${act}Message`,
    method: "post",
    path: `/messages/{id}/${act}`,
    scope: "operate",
    about: ABOUT[act],
    parameters: [ID_PARAMETER, OPERATOR_HEADER],
    content: { [JSON_TYPE]: schema },
    answer: {
      status: 200,
      about: "The message after it.",
      schema: z.looseObject(MessageShape.shape),
    },
    problems: [404, 409, ...ACT_PROBLEMS],
    handle: async (asked) => {
      const who = whoActs(asked);
      const { reason, transport } = await readContent(held, asked.request, schema) as z.output<
        typeof SINGLE_TRANSPORT
      >;
      if (act === "transport" && transport === undefined) {
        throw unprocessable([{ pointer: "/transport", detail: "is missing: a name, or null" }]);
      }
      checkTransport(ports, transport);
      await checkThere(ports, asked);
      const command = commandOf(act, { who, why: reason }, ports.now(), transport);
      try {
        await ports.act(asked.id, command);
      } catch (error) {
        if (error instanceof CommandRefused) throw conflict(why(error));
        throw error;
      }
      const row = await rowOf(ports.queue, asked.id, asked.principal);
      if (!row) throw noSuchMessage();
      return { status: 200, body: messageJson(row) };
    },
  };
}

/** @throws RequestProblem 404, or 409 when it was archived */
async function checkThere(
  { queue, archive }: ActPorts,
  { id, principal, request }: ApiRequest,
): Promise<void> {
  if (await rowOf(queue, id, principal)) return;
  const found = isMessageId(id) && await archivedFor(archive, id, principal, request);
  throw found ? conflict(whyNot(found)) : noSuchMessage();
}

function bulk(ports: ActPorts, held: HeldContent): Operation {
  return {
    id: "actOnMessages",
    method: "post",
    path: "/queue/act",
    scope: "operate",
    about: `Acts on all messages that a filter selects, oldest first, up to ${PAGE} at a time: ` +
      "ask again with `after` set to `next` until that is null.",
    parameters: [OPERATOR_HEADER],
    content: { [JSON_TYPE]: Bulk },
    answer: { status: 200, about: "What became of each message.", schema: ActReport },
    problems: ACT_PROBLEMS,
    handle: async (asked) => {
      const who = whoActs(asked);
      const { act, filter, dryRun, reason, transport, after } = await readContent(
        held,
        asked.request,
        Bulk,
      );
      checkTransport(ports, transport);
      const selected = selection(act, filter, asked.principal, ports.now());
      // Of messages that are not named, those that are held already are not meant by a hold.
      const spared = act === "hold" && selected.pending === true;
      if (dryRun) {
        const held = spared ? await ports.queue.count({ ...selected, state: "held" }) : 0;
        const matched = await ports.queue.count(selected) - held;
        return { status: 200, body: { dryRun, matched, done: 0, results: [], next: null } };
      }
      const page = after === undefined ? selected : { ...selected, after };
      const rows = await ports.queue.list(page, { sort: "created", limit: PAGE + 1 });
      const command = commandOf(act, { who, why: reason }, ports.now(), transport);
      const meant = rows.slice(0, PAGE).filter(({ state }) => !spared || state !== "held");
      const results = await each(meant, (row) => outcome(ports, row, command));
      const unknown = after === undefined ? await missing(ports, asked, filter.ids, selected) : [];
      return {
        status: 200,
        body: {
          dryRun,
          matched: results.length,
          done: results.filter(({ done }) => done).length,
          results: [...unknown, ...results],
          next: rows.length > PAGE ? rows[PAGE - 1]!.stream : null,
        },
      };
    },
  };
}

function selection(
  act: Act,
  { ids, ...criteria }: z.output<typeof Filter>,
  principal: Principal,
  now: number,
): QueueFilter {
  const asked = ownAccount(principal, criteria.account);
  try {
    const filter = { ...readFilter(criteria, now), ...asked };
    if (ids) return { ...filter, ids };
    return filter.state === undefined ? { ...filter, ...MEANT[act] } : filter;
  } catch (error) {
    if (!(error instanceof BadFilter)) throw error;
    throw unprocessable([{ pointer: `/filter/${error.option}`, detail: error.message }]);
  }
}

type Result = ActReport["results"][number];

/** Of the messages that were named, those that are not there (or that no criterion lets through). */
async function missing(
  { queue, archive }: ActPorts,
  { principal, request }: ApiRequest,
  ids: readonly string[] | undefined,
  selected: QueueFilter,
): Promise<Result[]> {
  if (!ids) return [];
  const found = await queue.list(selected, { limit: MAX_IDS });
  const there = new Set(found.map(({ stream }) => stream));
  const results: Result[] = [];
  for (const id of new Set(ids)) {
    if (there.has(id)) continue;
    const left = results.length < MAX_LOOKUPS && isMessageId(id) && !await queue.get(id)
      ? await whyArchived(archive, id, principal, request.signal)
      : undefined;
    results.push({
      id,
      done: false,
      why: left ?? "there is no such message among those selected",
    });
  }
  return results;
}

/** What can be said of one that was archived; undefined when nothing can. */
async function whyArchived(
  archive: ActPorts["archive"],
  id: string,
  principal: Principal,
  signal: AbortSignal,
): Promise<string | undefined> {
  try {
    const found = await archivedMessage(archive, id, signal);
    return found && mayKnow(principal, found.row.account) ? whyNot(found) : undefined;
  } catch (error) {
    if (error instanceof LookupBusy || signal.aborted) return undefined;
    if (error instanceof ArchiveDamaged || error instanceof UnreadableStream) return error.message;
    throw error;
  }
}

async function each(
  rows: readonly QueueRow[],
  act: (row: QueueRow) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  for (let at = 0; at < rows.length; at += AT_ONCE) {
    results.push(...await Promise.all(rows.slice(at, at + AT_ONCE).map(act)));
  }
  return results;
}

async function outcome(
  ports: ActPorts,
  { stream: id }: QueueRow,
  command: Command,
): Promise<Result> {
  try {
    const { status } = await ports.act(id, command);
    return { id, done: true, state: status };
  } catch (error) {
    if (error instanceof CommandRefused) return { id, done: false, why: why(error) };
    if (error instanceof UnreadableStream) return { id, done: false, why: error.message };
    throw error; // a disk that fails ends the batch; what was done is in the log
  }
}

/** Without the command's own name in front, which the caller knows. */
const why = ({ message }: CommandRefused): string => message.replace(/^[A-Za-z]+: /, "");

function checkTransport({ transports }: ActPorts, name: string | null | undefined): void {
  if (name === undefined || name === null || transports().includes(name)) return;
  const detail = `is not a transport; there are ${transports().join(", ")}`;
  throw unprocessable([{ pointer: "/transport", detail }]);
}

function commandOf(
  act: Act,
  by: { readonly who: string; readonly why: string },
  now: number,
  transport: string | null | undefined,
): Command {
  switch (act) {
    case "hold":
      return { type: "Hold", ...by };
    case "release":
      return { type: "Release", ...by, now };
    case "kick":
      return { type: "Reschedule", ...by, due: now };
    case "drop":
      return { type: "Cancel", ...by };
    case "transport":
      return { type: "AssignTransport", ...by, transport: transport ?? null };
  }
}

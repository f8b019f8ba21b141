/**
 * Exports as CSV (RFC 4180): one row per event, with what a person asks of an attempt in columns
 * of its own. For spreadsheets, hence no cell is one that they would take for a formula; for
 * proof there are JSON lines.
 */
import type { StoredEvent } from "../catalogue.ts";
import { decode, messageOf } from "../decode.ts";
import type { RawEvent, RawLog } from "../engine.ts";
import { trail, type TrailFilter } from "./trail.ts";

const COLUMNS = [
  "time",
  "message",
  "version",
  "event",
  "attempt",
  "sender",
  "recipient",
  "transport",
  "host",
  "address",
  "tls_mode",
  "tls_protocol",
  "verified_by",
  "result",
  "code",
  "enhanced",
  "text",
  "next",
  "who",
  "position",
] as const;

type Cells = Partial<Record<(typeof COLUMNS)[number], string | number | null>>;

/** What the rows of an attempt say beside their own event. */
interface Context {
  readonly sender: string;
  readonly recipient: string;
  readonly attempt: number | undefined;
  readonly transport: string | undefined;
}

const NOTHING: Context = {
  sender: "",
  recipient: "",
  attempt: undefined,
  transport: undefined,
};

/** Streams whose context is remembered; that of others is read again. */
const REMEMBERED = 10_000;

/** Yields the lines, each with its CRLF, the header first. */
export async function* exportCsv(log: RawLog, filter: TrailFilter = {}): AsyncGenerator<string> {
  yield line(COLUMNS);
  const contexts = new Map<string, Context>();
  for await (const entry of trail(log, filter)) {
    if (!("event" in entry)) continue;
    const raw = entry.event;
    const before = contexts.get(raw.stream) ?? await contextBefore(log, raw);
    const event = readable(raw);
    const context = "type" in event ? after(before, event) : before;
    contexts.delete(raw.stream);
    contexts.set(raw.stream, context);
    if (contexts.size > REMEMBERED) contexts.delete(contexts.keys().next().value!);
    const cells: Cells = {
      time: raw.time,
      message: raw.stream,
      version: raw.version,
      event: raw.type,
      position: raw.position,
      ...context,
      ...("type" in event ? cellsOf(event) : { text: `unreadable: ${event.unreadable}` }),
    };
    yield line(COLUMNS.map((column) => cells[column] ?? ""));
  }
}

async function contextBefore(log: RawLog, raw: RawEvent): Promise<Context> {
  let context = NOTHING;
  if (raw.version === 1) return context;
  for (const earlier of await log.stream(raw.stream)) {
    if (earlier.version >= raw.version) break;
    const event = readable(earlier);
    if ("type" in event) context = after(context, event);
  }
  return context;
}

function readable(raw: RawEvent): StoredEvent | { readonly unreadable: string } {
  try {
    return decode(raw);
  } catch (error) {
    return { unreadable: messageOf(error) };
  }
}

function after(context: Context, event: StoredEvent): Context {
  switch (event.type) {
    case "Enqueued":
      return { ...NOTHING, sender: event.data.mailFrom, recipient: event.data.rcptTo };
    case "AttemptStarted":
      return { ...context, attempt: event.data.attempt, transport: undefined };
    case "TransportChosen":
      return { ...context, transport: event.data.transport };
    default:
      return context;
  }
}

function cellsOf(event: StoredEvent): Cells {
  switch (event.type) {
    case "Enqueued":
      return { next: event.data.due };
    case "AttemptStarted":
      return { next: event.data.next };
    case "TransportChosen":
      return { text: because(event.data.because) };
    case "DestinationsResolved":
      return {
        host: event.data.expanded,
        text: event.data.hosts.map(({ host, preference }) => `${preference} ${host}`).join(", "),
      };
    case "TLSAGathered": {
      const { host, tlsMode, verifiedBy, why } = event.data;
      return { host, tls_mode: tlsMode, verified_by: verifiedBy, text: why.join("; ") };
    }
    case "HostTried": {
      const { host, address, tlsMode, tls, verifiedBy, result, reply, error } = event.data;
      return {
        host,
        address,
        tls_mode: tlsMode,
        tls_protocol: tls?.protocol,
        verified_by: verifiedBy,
        result,
        code: reply?.code,
        enhanced: reply?.enhanced,
        text: error ?? reply?.text,
      };
    }
    case "Delivered": {
      const { host, address, reply, tls } = event.data;
      return {
        host,
        address,
        tls_mode: tls.mode,
        tls_protocol: tls.facts?.protocol,
        verified_by: tls.verifiedBy,
        result: "ok",
        code: reply.code,
        enhanced: reply.enhanced,
        text: reply.text,
      };
    }
    case "Failed": {
      const { permanent, result, reason, code, enhanced, remoteMTA, next } = event.data;
      const kind = permanent ? "permanent" : "temporary";
      return { host: remoteMTA, result, code, enhanced, text: `${kind}: ${reason}`, next };
    }
    case "DSNPostponed":
      return { text: `${event.data.kind}: at ${event.data.due}` };
    case "DSNSent":
      return { text: `${event.data.kind}: ${event.data.dsn ?? event.data.notSent ?? ""}` };
    case "Held":
    case "Cancelled":
    case "IntakePaused":
    case "IntakeResumed":
      return { who: event.data.who, text: event.data.why };
    case "AddressSuppressed":
    case "SuppressionLifted":
      return { who: event.data.who, text: `${event.data.address}: ${event.data.why}` };
    case "WebhookParked":
    case "WebhookResumed":
      return { who: event.data.who, text: `${event.data.endpoint}: ${event.data.why}` };
    case "HoldRuleAdded":
    case "HoldRuleRemoved":
      return { who: event.data.who, text: `rule ${event.data.id}: ${event.data.why}` };
    case "Released":
    case "Rescheduled":
      return { who: event.data.who, text: event.data.why, next: event.data.due };
    case "TransportAssigned": {
      const { who, why, transport } = event.data;
      return { who, text: why, transport: transport ?? "" };
    }
  }
  // An event type of a later catalogue has no columns of its own.
  return {};
}

function because(
  because: Extract<StoredEvent, { type: "TransportChosen" }>["data"]["because"],
): string {
  switch (because.kind) {
    case "route":
      return `routes[${because.index}] of ${because.owner ?? because.scope}`;
    case "override":
      return `assigned by ${because.who}`;
    case "default":
      return "no route matched";
  }
}

const line = (cells: readonly (string | number | null)[]): string =>
  `${cells.map(cell).join(",")}\r\n`;

/** Quoted where needed; with ' in front where a spreadsheet would begin to calculate. */
function cell(value: string | number | null): string {
  const text = String(value ?? "");
  const safe = /^[=+\-@\t\r\n]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/**
 * What webhook endpoints were told, held against the log.
 *
 * Every event that concerns an endpoint is told at least once, in the same words each time, and
 * after those before it on the same message were taken; nothing else is told. A post that repeats
 * one that was taken is explained by a kill only: another process sent it, and the position that
 * the log had for the endpoint when that one began did not cover the event.
 */
import type { Book } from "./books.ts";
import type { Post } from "./hook.ts";
import type { LogEvent } from "./log.ts";

/** An event that an endpoint is to be told of. */
interface Owed {
  readonly position: number;
  readonly stream: string;
  readonly kind: string;
  readonly time: string;
  /** Attempts on the message up to then; undefined where it is not about a message. */
  readonly attempts: number | undefined;
}

interface Position {
  readonly upTo: number;
  /** When that was recorded, epoch milliseconds. */
  readonly at: number;
}

/** What the log has for the endpoints. */
export class HookBooks {
  /** Events that are told, by id, in the order of the log. */
  readonly events = new Map<string, Owed>();
  /** Of each endpoint, in the order of the log; the first is where it begins. */
  readonly positions = new Map<string, Position[]>();

  /** @param books has read the same event before */
  constructor(private readonly books: ReadonlyMap<string, Book>) {}

  readonly read = ({ position, stream, version, type, time, data }: LogEvent): void => {
    if (type === "WebhookAdvanced") {
      const endpoint = String(data.endpoint);
      const known = this.positions.get(endpoint) ?? [];
      this.positions.set(endpoint, known);
      known.push({ upTo: Number(data.upTo), at: Date.parse(time) });
      return;
    }
    const book = this.books.get(stream);
    const kind = kindOf(type, data);
    if (kind === undefined || book?.reportOn !== undefined) return; // reports are not told
    const attempts = book?.attempts;
    this.events.set(`${stream}:${version}`, { position, stream, kind, time, attempts });
  };
}

function kindOf(type: string, data: LogEvent["data"]): string | undefined {
  switch (type) {
    case "Delivered":
      return "delivered";
    case "Failed":
      return data.permanent === true ? "failed" : "delayed";
    case "AddressSuppressed":
      return "suppressed";
    default:
      return undefined;
  }
}

export interface ToldFindings {
  /** Different events that were told, over all endpoints. */
  readonly told: number;
  readonly posts: number;
  /** Posts that were not answered 2xx. */
  readonly notTaken: number;
  /** Posts of what had been taken before, all of them explained. */
  readonly toldAgain: number;
  readonly violations: readonly string[];
}

export interface ToldBy {
  readonly posts: readonly Post[];
  /** The kinds of event that each endpoint is to be told of. */
  readonly endpoints: ReadonlyMap<string, readonly string[]>;
  /** When each process was started, epoch milliseconds. */
  readonly lives: readonly number[];
}

/** Compares what was posted with what the log has. */
export function compareTold(
  { events, positions }: Pick<HookBooks, "events" | "positions">,
  { posts, endpoints, lives }: ToldBy,
): ToldFindings {
  const violations: string[] = [];
  let told = 0;
  let toldAgain = 0;
  for (const [endpoint, kinds] of endpoints) {
    const [begun, ...advanced] = positions.get(endpoint) ?? [];
    const isOwed = (owed: Owed | undefined): owed is Owed =>
      owed !== undefined && kinds.includes(owed.kind) && begun !== undefined &&
      owed.position > begun.upTo;
    const earlier = before(events, isOwed);
    const bodies = new Map<string, string>();
    /** By id, the life in which it was taken last. */
    const taken = new Map<string, number>();
    for (const { id, body, life, taken: was, endpoint: of } of posts) {
      if (of !== endpoint) continue;
      const what = `${endpoint} was told of ${id}`;
      const owed = events.get(id);
      if (!isOwed(owed)) {
        violations.push(`${what}, which the log does not have for it`);
        continue;
      }
      const first = bodies.get(id);
      if (first === undefined) {
        bodies.set(id, body);
        const other = difference(body, id, owed);
        if (other) violations.push(`${what}: ${other}`);
      } else if (first !== body) {
        violations.push(`${what} again in other words`);
      }
      const missed = earlier.get(id)?.find((one) => !taken.has(one));
      if (missed) violations.push(`${what} before it had taken ${missed}`);
      const recorded = advanced.findLast(({ at }) => at < lives[life]!);
      if (recorded && owed.position <= recorded.upTo) {
        violations.push(`${what}, at ${owed.position}; the log had it at ${recorded.upTo} already`);
      }
      const last = taken.get(id);
      if (last === life) violations.push(`${what} again by the same process, which had its answer`);
      if (last !== undefined) toldAgain++;
      if (was) taken.set(id, life);
    }
    told += taken.size;
    for (const [id, owed] of events) {
      if (isOwed(owed) && !taken.has(id)) violations.push(`${endpoint} was never told of ${id}`);
    }
  }
  for (const { endpoint, id } of posts) {
    if (!endpoints.has(endpoint)) violations.push(`${id} was posted to ${endpoint}: nobody's`);
  }
  const notTaken = posts.filter(({ taken }) => !taken).length;
  return { told, posts: posts.length, notTaken, toldAgain, violations };
}

/** For each event, those on the same message that are told before it. */
function before(
  events: ReadonlyMap<string, Owed>,
  isOwed: (owed: Owed) => boolean,
): ReadonlyMap<string, readonly string[]> {
  const byStream = new Map<string, string[]>();
  const earlier = new Map<string, readonly string[]>();
  for (const [id, owed] of events) {
    if (!isOwed(owed)) continue;
    const of = byStream.get(owed.stream) ?? [];
    byStream.set(owed.stream, of);
    earlier.set(id, [...of]);
    of.push(id);
  }
  return earlier;
}

/** What a body says other than the log, in words. */
function difference(body: string, id: string, owed: Owed): string | undefined {
  let said: Record<string, unknown>;
  try {
    said = JSON.parse(body);
  } catch {
    return "its body is not JSON";
  }
  const { id: message, attempts } = (said.message ?? {}) as Record<string, unknown>;
  const expected = owed.attempts === undefined
    ? [id, owed.kind, owed.time]
    : [id, owed.kind, owed.time, owed.stream, owed.attempts];
  const found = [said.id, said.type, said.time, message, attempts].slice(0, expected.length);
  if (JSON.stringify(found) === JSON.stringify(expected)) return undefined;
  return `it says ${JSON.stringify(found)}, the log ${JSON.stringify(expected)}`;
}

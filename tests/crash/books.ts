/**
 * What the log says of every message, read from outside through `deno task audit export`, and
 * whether that agrees with what the clients were told and what the sink received.
 */
import { type Server, taskLines } from "../peers/serve.ts";

/** The log of one message, as far as it is compared. */
export interface Book {
  readonly stream: string;
  attempts: number;
  /** Delivered or Failed. */
  outcomes: number;
  delivered: boolean;
  /** Cancelled, or failed for good. */
  gaveUp: boolean;
  /** When the next attempt is due, where one is. */
  due: string | undefined;
  /** Attempts of which the log says that their outcome is unknown. */
  cut: number;
  lastVersion: number;
}

/**
 * In the reason of every attempt that was cut short after its last octet may have arrived: by the
 * end of our process, or by that of the connection before the final reply.
 */
const UNKNOWN = "outcome unknown";

interface Line {
  readonly stream?: string;
  readonly version?: number;
  readonly type?: string;
  readonly data?: Record<string, unknown>;
}

/**
 * Reads the books of all messages, by load id (the local part of the recipient).
 * @throws Error when the export fails, or a stream has a gap or an id appears twice
 */
export async function readBooks(server: Server): Promise<Map<string, Book>> {
  const books = new Map<string, Book>();
  const byStream = new Map<string, Book>();
  const others = new Set<string>(); // streams that are not messages
  for await (
    const text of taskLines("audit", ["export", "--format", "jsonl", "--data", server.data])
  ) {
    if (text === "") continue;
    const { stream, version, type, data } = JSON.parse(text) as Line;
    if (stream === undefined || version === undefined || data === undefined) continue;
    let book = byStream.get(stream);
    if (type === "Enqueued") {
      const id = String(data.rcptTo).split("@")[0] ?? "";
      if (books.has(id)) throw new Error(`${id} was enqueued twice: ${stream}`);
      book = newBook(stream, String(data.due));
      books.set(id, book);
      byStream.set(stream, book);
    }
    if (!book) {
      if (version === 1) others.add(stream);
      if (!others.has(stream)) throw new Error(`${stream} begins with version ${version}`);
      continue;
    }
    if (version !== book.lastVersion + 1) {
      throw new Error(`${stream} goes from version ${book.lastVersion} to ${version}`);
    }
    book.lastVersion = version;
    note(book, type, data);
  }
  return books;
}

/** The book that events of one stream make. */
export function bookOf(
  stream: string,
  events: readonly { readonly type: string; readonly data: Record<string, unknown> }[],
): Book {
  const book = newBook(stream, String(events[0]?.data.due));
  for (const { type, data } of events) note(book, type, data);
  return book;
}

const newBook = (stream: string, due: string): Book => ({
  stream,
  attempts: 0,
  outcomes: 0,
  delivered: false,
  gaveUp: false,
  due,
  cut: 0,
  lastVersion: 0,
});

function note(book: Book, type: string | undefined, data: Record<string, unknown>): void {
  switch (type) {
    case "AttemptStarted":
      book.attempts++;
      book.due = undefined;
      break;
    case "Delivered":
      book.outcomes++;
      book.delivered = true;
      break;
    case "Failed": {
      book.outcomes++;
      if (String(data.reason).includes(UNKNOWN)) book.cut++;
      if (data.permanent === true) book.gaveUp = true;
      else book.due = typeof data.next === "string" ? data.next : undefined;
      break;
    }
    case "Cancelled":
      book.gaveUp = true;
      break;
  }
}

export interface Findings {
  /** Files in the archive at the end. */
  readonly archived?: number;
  readonly acknowledged: number;
  /** Different messages that the sink has. */
  readonly received: number;
  /** Of the acknowledged: still in the queue with a due time. */
  readonly queued: number;
  /** Messages that the sink has more than once, all of them explained by cut attempts. */
  readonly duplicated: number;
  /** Acknowledged, and neither received nor queued. */
  readonly lost: number;
  /** In the log and received, although the client never got its answer. */
  readonly unacknowledged: number;
  readonly cutAttempts: number;
  /** What must not be, in words. */
  readonly violations: readonly string[];
}

/** Compares what clients were told, what the sink received and what the log says. */
export function compare(
  acknowledged: ReadonlySet<string>,
  received: ReadonlyMap<string, number>,
  books: ReadonlyMap<string, Book>,
): Findings {
  const violations: string[] = [];
  let queued = 0;
  let lost = 0;
  let duplicated = 0;
  let cutAttempts = 0;
  for (const id of acknowledged) {
    const book = books.get(id);
    if (!book) violations.push(`${id} was acknowledged and is not in the log`);
    if (received.has(id)) continue;
    if (book?.due !== undefined && !book.delivered && !book.gaveUp) {
      queued++;
    } else {
      lost++;
      violations.push(`${id} was acknowledged and not received (${describe(book)})`);
    }
  }
  for (const [id, times] of received) {
    const book = books.get(id);
    if (!book) {
      violations.push(`${id} was received and is not in the log`);
      continue;
    }
    if (times > 1) duplicated++;
    const explained = book.cut + (book.delivered ? 1 : 0);
    if (times > explained) {
      violations.push(`${id} was received ${times} times, the log explains ${explained} of them`);
    }
  }
  for (const [id, book] of books) {
    cutAttempts += book.cut;
    if (book.attempts !== book.outcomes) {
      violations.push(`${id} has ${book.attempts} attempts and ${book.outcomes} outcomes`);
    }
    if (book.delivered && !received.has(id)) {
      violations.push(`${id} is Delivered in the log and was not received`);
    }
    if (book.gaveUp) violations.push(`${id} was given up, though no failure was permanent`);
  }
  const unacknowledged = [...books.keys()].filter((id) => !acknowledged.has(id)).length;
  return {
    acknowledged: acknowledged.size,
    received: received.size,
    queued,
    duplicated,
    lost,
    unacknowledged,
    cutAttempts,
    violations,
  };
}

const describe = (book: Book | undefined): string =>
  book
    ? `stream ${book.stream}, ${book.attempts} attempts, ` +
      (book.delivered ? "delivered" : book.gaveUp ? "given up" : `due ${book.due}`)
    : "no stream";

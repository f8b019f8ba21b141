/**
 * What the log says of every message, and whether that agrees with what the clients were told and
 * what the sink received.
 */
import { domainOf, type LogEvent } from "./log.ts";
import { NOBODY } from "./mail.ts";

/** The log of one message, as far as it is compared. */
export interface Book {
  readonly stream: string;
  readonly from: string;
  readonly to: string;
  /** NOTIFY of the sender; undefined where nothing was asked for. */
  readonly notify: readonly string[] | undefined;
  /** For a report: the stream of the message that it is on. */
  readonly reportOn: string | undefined;
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
  /** Who had it held when it came in, and why: not tried before. */
  heldAtOnce: string | undefined;
  held: boolean;
  /** How often it was held, and how many attempts began while it was. */
  holds: number;
  triedWhileHeld: number;
  /** DSNSent: the stream of each report, or undefined where none was to be sent. */
  readonly reports: (string | undefined)[];
  /** When the report that it waits for is due. */
  reportDue: string | undefined;
  lastVersion: number;
}

/**
 * In the reason of every attempt that was cut short after its last octet may have arrived: by the
 * end of our process, or by that of the connection before the final reply.
 */
const UNKNOWN = "outcome unknown";

/** The books of all messages, read out of the log. */
export class Books {
  /** By the local part of the recipient, which begins with the load id; reports by Message-ID. */
  readonly byId = new Map<string, Book>();
  readonly byStream = new Map<string, Book>();
  readonly #others = new Set<string>(); // streams that are not messages

  /** @throws Error when a stream has a gap or an id appears twice */
  readonly read = (event: LogEvent): void => {
    const { stream, version, type, data } = event;
    let book = this.byStream.get(stream);
    if (type === "Enqueued") {
      book = newBook(stream, data);
      const id = idOf(data, book);
      if (this.byId.has(id)) throw new Error(`${id} was enqueued twice: ${stream}`);
      this.byId.set(id, book);
      this.byStream.set(stream, book);
    }
    if (!book) {
      if (version === 1) this.#others.add(stream);
      if (!this.#others.has(stream)) throw new Error(`${stream} begins with version ${version}`);
      return;
    }
    if (version !== book.lastVersion + 1) {
      throw new Error(`${stream} goes from version ${book.lastVersion} to ${version}`);
    }
    book.lastVersion = version;
    note(book, type, data);
  };
}

type Data = LogEvent["data"];

const idOf = ({ rcptTo, messageId }: Data, { reportOn }: Book): string =>
  reportOn === undefined ? String(rcptTo).split("@")[0]! : String(messageId);

function newBook(stream: string, { mailFrom, rcptTo, dsn, source, due }: Data): Book {
  const { notify } = (dsn ?? {}) as { notify?: string[] };
  const { kind, of } = (source ?? {}) as { kind?: string; of?: string };
  return {
    stream,
    from: String(mailFrom ?? ""),
    to: String(rcptTo),
    notify,
    reportOn: kind === "dsn" ? String(of) : undefined,
    attempts: 0,
    outcomes: 0,
    delivered: false,
    gaveUp: false,
    due: String(due),
    cut: 0,
    heldAtOnce: undefined,
    held: false,
    holds: 0,
    triedWhileHeld: 0,
    reports: [],
    reportDue: undefined,
    lastVersion: 0,
  };
}

function note(book: Book, type: string, data: Data): void {
  switch (type) {
    case "AttemptStarted":
      book.attempts++;
      book.due = undefined;
      if (book.held) book.triedWhileHeld++;
      break;
    case "Delivered":
      book.outcomes++;
      book.delivered = true;
      book.reportDue = data.reportDue as string | undefined;
      break;
    case "Failed": {
      book.outcomes++;
      if (String(data.reason).includes(UNKNOWN)) book.cut++;
      if (data.permanent === true) book.gaveUp = true;
      else book.due = typeof data.next === "string" ? data.next : undefined;
      book.reportDue = data.reportDue as string | undefined;
      break;
    }
    case "DSNSent":
      book.reports.push(data.dsn as string | undefined);
      book.reportDue = undefined;
      break;
    case "Held":
      book.held = true;
      book.holds++;
      if (book.attempts === 0) book.heldAtOnce ??= `${data.who}: ${data.why}`;
      break;
    case "Released":
      book.held = false;
      book.due = String(data.due);
      break;
    case "Cancelled":
      book.gaveUp = true;
      break;
  }
}

export interface Findings {
  readonly acknowledged: number;
  /** Different messages that the sink has, reports included. */
  readonly received: number;
  /** Of the acknowledged: still in the queue with a due time. */
  readonly queued: number;
  /** Refused for good by the receiving server, as they were meant to be. */
  readonly refused: number;
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
  let refused = 0;
  let lost = 0;
  let duplicated = 0;
  let cutAttempts = 0;
  let unacknowledged = 0;
  // A report that is in the log is owed like mail that was acknowledged.
  const reports = [...books].filter(([, { reportOn }]) => reportOn !== undefined);
  for (const id of [...acknowledged, ...reports.map(([id]) => id)]) {
    const book = books.get(id);
    if (!book) violations.push(`${id} was acknowledged and is not in the log`);
    if (received.has(id)) continue;
    if (book && mayBeGivenUp(book)) {
      refused++;
    } else if (book?.due !== undefined && !book.delivered && !book.gaveUp) {
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
    if (book.reportOn === undefined && !acknowledged.has(id)) unacknowledged++;
    if (book.attempts !== book.outcomes) {
      violations.push(`${id} has ${book.attempts} attempts and ${book.outcomes} outcomes`);
    }
    if (book.delivered && !received.has(id)) {
      violations.push(`${id} is Delivered in the log and was not received`);
    }
    if (book.gaveUp && !mayBeGivenUp(book)) {
      violations.push(`${id} was given up, though no failure was permanent`);
    }
    if (book.triedWhileHeld > 0) violations.push(`${id} was tried while it was held`);
    if (book.held) violations.push(`${id} is held, though everything was released`);
  }
  return {
    acknowledged: acknowledged.size,
    received: received.size,
    queued,
    refused,
    duplicated,
    lost,
    unacknowledged,
    cutAttempts,
    violations,
  };
}

const mayBeGivenUp = ({ gaveUp, to }: Book): boolean => gaveUp && domainOf(to) === NOBODY;

const describe = (book: Book | undefined): string =>
  book
    ? `stream ${book.stream}, ${book.attempts} attempts, ` +
      (book.delivered ? "delivered" : book.gaveUp ? "given up" : `due ${book.due}`)
    : "no stream";

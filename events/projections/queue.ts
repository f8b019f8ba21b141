/**
 * The queue projection: one row per message, which is what schedules attempts, answers
 * `queue list`, and says which bodies are still needed.
 */
import { isMessageEvent, type StoredEvent } from "../catalogue.ts";
import type { Projection } from "../projection.ts";

/** `attempting` means that an AttemptStarted has no outcome yet. */
export const QUEUE_STATES = [
  "queued",
  "attempting",
  "held",
  "delivered",
  "failed",
  "cancelled",
] as const;
export type QueueState = (typeof QUEUE_STATES)[number];

/** States after which nothing but DSNSent follows. */
export const FINAL_STATES: readonly QueueState[] = ["delivered", "failed", "cancelled"];

/** Times are epoch milliseconds. */
export type QueueRow = {
  readonly stream: string;
  readonly version: number;
  readonly state: QueueState;
  readonly submission: string;
  readonly account: string | null;
  readonly sender: string;
  readonly recipient: string;
  /** Domain of the recipient, lower case, as written (no A-label conversion). */
  readonly domain: string;
  readonly size: number;
  readonly attempts: number;
  /** MT-PRIORITY (RFC 6710), -9 to 9. */
  readonly priority: number;
  /** 1 when the sender was told of the delay, or was not to be told. */
  readonly delay_reported: number;
  /** Deadline that the submitter set. */
  readonly expires: number | null;
  /**
   * From when its lifetime counts: its arrival, the time until which it was to be held (RFC 4865),
   * or its release by an operator.
   */
  readonly ages_from: number;
  /** How many recipients the submission had. */
  readonly recipients: number;
  /** Operator's choice of transport, if any. */
  readonly override: string | null;
  /** Transport of the latest attempt. */
  readonly transport: string | null;
  readonly last_error: string | null;
  /** Class of the latest failure, while it says why the message is where it is. */
  readonly class: string | null;
  /** When the next attempt is due; null unless queued or attempting. */
  readonly due: number | null;
  readonly created: number;
  readonly updated: number;
  readonly finished: number | null;
  /** When the sender is told how it ended, or of its delay; null when there is nothing to tell. */
  readonly report_due: number | null;
  /** SHA-256 of the body while it is needed, for the report at last; null once it is released. */
  readonly body: string | null;
};

export const domainOf = (address: string): string =>
  address.slice(address.lastIndexOf("@") + 1).toLowerCase();

export const queueProjection: Projection<QueueRow> = {
  name: "queue",
  version: 7,
  columns: {
    stream: "TEXT",
    version: "INTEGER",
    state: "TEXT",
    submission: "TEXT",
    account: "TEXT",
    sender: "TEXT",
    recipient: "TEXT",
    domain: "TEXT",
    size: "INTEGER",
    attempts: "INTEGER",
    priority: "INTEGER",
    delay_reported: "INTEGER",
    expires: "INTEGER",
    ages_from: "INTEGER",
    recipients: "INTEGER",
    override: "TEXT",
    transport: "TEXT",
    last_error: "TEXT",
    class: "TEXT",
    due: "INTEGER",
    created: "INTEGER",
    updated: "INTEGER",
    finished: "INTEGER",
    report_due: "INTEGER",
    body: "TEXT",
  },
  counted: "state",
  body: "body",
  indexes: {
    queue_due: "(due, stream) WHERE state = 'queued'",
    queue_expires: "(expires, stream) WHERE state = 'queued' AND expires IS NOT NULL",
    queue_ages_from: "(ages_from, stream) WHERE state = 'queued'",
    queue_state: "(state, stream)",
    queue_pending: "(stream) WHERE finished IS NULL",
    queue_report: "(report_due, stream) WHERE report_due IS NOT NULL",
    queue_report_of: "(submission, stream) WHERE report_due IS NOT NULL",
    queue_account: "(account, stream) WHERE account IS NOT NULL",
    queue_domain: "(domain, stream)",
    queue_sender: "(lower(sender), stream)",
    queue_recipient: "(lower(recipient), stream)",
  },
  key: (event) => isMessageEvent(event) ? event.stream : undefined,
  apply,
  forget: () => undefined,
};

function apply(row: QueueRow | undefined, event: StoredEvent): QueueRow | undefined {
  if (!isMessageEvent(event)) return row;
  const at = Date.parse(event.time);
  if (event.type === "Enqueued") {
    const d = event.data;
    return {
      stream: event.stream,
      version: event.version,
      state: "queued",
      submission: d.submission,
      account: d.account,
      sender: d.mailFrom,
      recipient: d.rcptTo,
      domain: domainOf(d.rcptTo),
      size: d.size,
      attempts: 0,
      priority: d.priority ?? 0,
      delay_reported: 0,
      expires: d.expires === undefined ? null : Date.parse(d.expires),
      ages_from: Math.max(at, Date.parse(d.due)),
      recipients: d.recipients ?? 1,
      override: null,
      transport: null,
      last_error: null,
      class: null,
      due: Date.parse(d.due),
      created: at,
      updated: at,
      finished: null,
      report_due: null,
      body: d.body,
    };
  }
  if (!row) return undefined; // a stream that does not begin with Enqueued is doctor's business
  const next = { ...row, version: event.version, updated: at };
  switch (event.type) {
    case "AttemptStarted":
      return {
        ...next,
        state: "attempting",
        attempts: event.data.attempt,
        due: Date.parse(event.data.next),
        report_due: null,
      };
    case "TransportChosen":
      return { ...next, transport: event.data.transport };
    case "Delivered":
      return {
        ...next,
        state: "delivered",
        due: null,
        finished: at,
        ...awaitingReport(row, event.data.reportDue),
        last_error: null,
        class: null,
      };
    case "Failed":
      return event.data.permanent
        ? {
          ...next,
          state: "failed",
          due: null,
          finished: at,
          ...awaitingReport(row, event.data.reportDue),
          last_error: event.data.reason,
          class: event.data.class ?? null,
        }
        : {
          ...next,
          state: "queued",
          due: event.data.next ? Date.parse(event.data.next) : row.due,
          last_error: event.data.reason,
          class: event.data.class ?? null,
        };
    case "Held":
      return { ...next, state: "held", due: null, report_due: null, last_error: event.data.why };
    case "Released": {
      const due = Date.parse(event.data.due);
      return { ...next, state: "queued", due, ages_from: due };
    }
    case "Rescheduled":
      return { ...next, state: "queued", due: Date.parse(event.data.due) };
    case "TransportAssigned":
      return { ...next, override: event.data.transport };
    case "Cancelled":
      return {
        ...next,
        state: "cancelled",
        due: null,
        finished: at,
        report_due: null,
        body: null,
      };
    case "DestinationsResolved":
    case "TLSAGathered":
    case "HostTried":
      return next;
    case "DSNPostponed":
      return { ...next, report_due: Date.parse(event.data.due) };
    case "DSNSent":
      if (event.data.kind === "delayed") return { ...next, delay_reported: 1, report_due: null };
      return row.report_due === null ? next : { ...next, report_due: null, body: null };
  }
}

/** A report shows the header at least of what it reports on. */
const awaitingReport = ({ body }: QueueRow, due: string | undefined) =>
  due === undefined ? { report_due: null, body: null } : { report_due: Date.parse(due), body };

/** Selects messages everywhere in the same way; every criterion given must hold. */
export interface QueueFilter {
  readonly ids?: readonly string[];
  readonly from?: string;
  readonly to?: string;
  readonly toDomain?: string;
  readonly account?: string;
  readonly state?: QueueState;
  /** Only messages that are in no final state. */
  readonly pending?: boolean;
  /** Text that the last error contains, whatever the case. */
  readonly error?: string;
  /** Created before this time, epoch milliseconds. */
  readonly before?: number;
  /** Only streams that sort after this one: to go on where a page ended. */
  readonly after?: string;
}

export const QUEUE_SORTS = ["created", "due", "size", "attempts", "domain"] as const;
export type QueueSort = (typeof QUEUE_SORTS)[number];

/** What may end the wait of a message: its deadline, or its age. */
export type WaitLimit = "expires" | "ages_from";

/** Queries over the rows; each engine answers them in its own way. */
export interface QueueView {
  get(stream: string): Promise<QueueRow | undefined>;
  /** Queued rows due at or before `now`, by (due, stream), after that cursor. */
  due(
    now: number,
    limit: number,
    after?: { readonly due: number; readonly stream: string },
  ): Promise<QueueRow[]>;
  /** The earliest due time later than `after` of all queued rows; undefined when there is none. */
  nextDue(after: number): Promise<number | undefined>;
  /** Queued rows for which a limit is at or before `upTo`, by (limit, stream), after that cursor. */
  waiting(
    by: WaitLimit,
    upTo: number,
    limit: number,
    after?: { readonly at: number; readonly stream: string },
  ): Promise<QueueRow[]>;
  /** The earliest of these limits later than `after`; undefined when there is none. */
  nextWaiting(by: WaitLimit, after: number): Promise<number | undefined>;
  /** Rows whose attempt has no outcome; after a start these are what a crash left open. */
  attempting(limit: number): Promise<QueueRow[]>;
  /** Rows whose report is to be sent, by (report_due, stream). */
  reports(limit: number): Promise<QueueRow[]>;
  /** The same of one submission, by stream: those on a delay, or those on how it ended. */
  reportsOf(submission: string, about: "delay" | "end", limit: number): Promise<QueueRow[]>;
  list(
    filter: QueueFilter,
    page: {
      readonly sort?: QueueSort;
      readonly descending?: boolean;
      readonly limit: number;
      readonly offset?: number;
    },
  ): Promise<QueueRow[]>;
  count(filter: QueueFilter): Promise<number>;
  /** Number of messages by state; kept, not counted, so that asking is cheap. */
  depth(): Promise<Record<QueueState, number>>;
}

/** What an account has submitted, for limits. */
export interface SubmissionCounts {
  /** Since a time, in buckets of so many milliseconds; `at` is where a bucket begins. */
  submitted(account: string, since: number, bucket: number): Promise<SubmissionCount[]>;
}

/** Times are epoch milliseconds. */
export type SubmissionCount = {
  readonly at: number;
  readonly messages: number;
  readonly recipients: number;
};

/**
 * The ports: every way in which actors reach the world.
 *
 * Deciders are pure and need none of these. The running actors get them at construction:
 * production wires the real ones in src/main.ts, the simulation wires virtual ones, and neither
 * the actors nor the code behind a port can tell which it is.
 */
import type { EventData } from "../events/catalogue.ts";
import type { SuppressionRow } from "../events/projections/suppression.ts";
import type { StagedBody } from "../events/store.ts";

export type { BodyReader, BodyStore, BodyWriter, EventStore } from "../events/store.ts";
export type { QueueRow, QueueView } from "../events/projections/queue.ts";

/** Time. Wall time may jump in either direction; the monotonic clock never does. */
export interface Clock {
  /** Wall time, epoch milliseconds. */
  now(): number;
  /** Milliseconds since some moment in the past. For durations. */
  monotonic(): number;
  /** Calls `run` once after `ms` milliseconds of monotonic time; returns the way to cancel it. */
  timer(ms: number, run: () => void): () => void;
}

export interface Random {
  /** Uniform in [0, 1). */
  next(): number;
}

/** Makes stream and submission ids: unique, and sortable by time of arrival (ULID). */
export interface Ids {
  next(): string;
}

/** Lines for the operator. Never message content, never secrets. */
export interface Log {
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
}

/** What a route may ask about a message; evaluated anew for every attempt. */
export interface RoutingFacts {
  readonly account: string | null;
  readonly mailFrom: string;
  readonly rcptTo: string;
  readonly size: number;
  /** SHA-256 of the stored body, for routes that look into the header. */
  readonly body?: string;
  /** Number of the attempt that is about to start, from 1. */
  readonly attempt: number;
  /** Operator's choice of transport, if any, and whose it was. */
  readonly override?: { readonly transport: string; readonly who: string };
}

export type TransportChoice = EventData<"TransportChosen">;

/** Chooses the transport of an attempt. */
export interface Router {
  /**
   * A promise only where a route depends on what has to be asked (DNS, the header): it then comes
   * after bounded lookups, and before anything is dialled. What cannot be found out is not met.
   */
  choose(facts: RoutingFacts, signal?: AbortSignal): TransportChoice | Promise<TransportChoice>;
  /** What `choose` would say as far as that is known without asking: where to wait in line. */
  expect(facts: RoutingFacts): TransportChoice;
  /** The key of the destination that an attempt over this transport burdens (next hop). */
  destination(choice: TransportChoice, rcptTo: string): string;
}

/** An address that an earlier attempt of the same message dialled. */
export interface TriedAddress {
  readonly attempt: number;
  readonly host: string;
  readonly address: string;
  readonly result: EventData<"HostTried">["result"];
}

/** All that one attempt needs to know of its message. */
export interface DeliveryJob {
  readonly stream: string;
  readonly attempt: number;
  readonly message: EventData<"Enqueued">;
  readonly transport: TransportChoice;
  readonly tried: readonly TriedAddress[];
}

/** What a delivery finds out on its way to an outcome. */
export type Finding =
  | { readonly type: "DestinationsResolved"; readonly data: EventData<"DestinationsResolved"> }
  | { readonly type: "TLSAGathered"; readonly data: EventData<"TLSAGathered"> }
  | { readonly type: "HostTried"; readonly data: EventData<"HostTried"> };

export type Outcome =
  | {
    readonly kind: "delivered";
    readonly host: string;
    readonly address: string;
    readonly reply: EventData<"Delivered">["reply"];
    readonly tls: EventData<"Delivered">["tls"];
    /** The next hop announced DSN, and so took over the duty to report (RFC 3461, section 5.2.2). */
    readonly dsnOffered: boolean;
  }
  | {
    readonly kind: "failed";
    readonly permanent: boolean;
    readonly result: EventData<"Failed">["result"];
    readonly reason: string;
    readonly code?: number;
    readonly enhanced?: string;
    readonly remoteMTA?: string;
    /** What that host said, where it was a reply that ended the attempt. */
    readonly reply?: EventData<"Failed">["reply"];
  };

/** Where an attempt puts its findings. */
export interface Findings {
  /** Notes a finding; it is appended at the latest with the outcome. */
  note(finding: Finding): void;
  /** Resolves when all that was noted is on disk. Called before the next host is tried. */
  flush(): Promise<void>;
  /**
   * The outcome of this message is certain while others of the attempt go on; resolves when it is
   * on disk, or when that has failed. The attempt returns it once more.
   */
  settle(outcome: Outcome): Promise<void>;
}

/**
 * Makes one attempt over the chosen transport. Every way in which the outside world can fail is
 * an outcome; what it throws is a fault of our own code.
 */
export interface Delivery {
  /**
   * @param jobs recipients of one submission over one transport, at one destination: they go in one
   *   transaction where the host takes them so, and each has its own outcome. At least one, at most
   *   MAX_TOGETHER
   * @param findings of each job, in their order
   * @returns the outcomes, in their order
   */
  attempt(
    jobs: readonly DeliveryJob[],
    findings: readonly Findings[],
    signal: AbortSignal,
  ): Promise<readonly Outcome[]>;
}

/** Recipients of one transaction: as many as every server takes (RFC 5321, section 4.5.3.1.8). */
export const MAX_TOGETHER = 100;

/** What a report says of one recipient. */
export type RecipientReport =
  & {
    readonly stream: string;
    readonly message: EventData<"Enqueued">;
    /** RFC 3339 time at which the message was enqueued. */
    readonly arrived: string;
    /** Epoch milliseconds of the latest attempt; absent when there was none. */
    readonly at?: number;
    readonly attempt: number;
  }
  & (
    | { readonly kind: "failed"; readonly failure: EventData<"Failed"> }
    | {
      readonly kind: "delayed";
      readonly failure: EventData<"Failed">;
      /** Epoch milliseconds until which it is tried. */
      readonly until?: number;
    }
    /** Handed to a host that does not report itself (RFC 3461, section 5.2.2). */
    | { readonly kind: "relayed"; readonly delivery: EventData<"Delivered"> }
  );

/** Recipients of one submission; not empty. */
export type ReportRequest = readonly [RecipientReport, ...RecipientReport[]];

/** A report composed and staged, ready to be enqueued. */
export interface ComposedReport {
  readonly body: StagedBody;
  readonly messageId: string;
  readonly has8bit: boolean;
  readonly smtputf8: boolean;
  readonly signatures?: string[];
  /** Undoes the staging when the append that should carry it fails. */
  discard(): Promise<void>;
}

/** Composes delivery status notifications (RFC 3464). */
export interface Reporter {
  compose(report: ReportRequest): Promise<ComposedReport>;
}

/** A message as it was taken in, its body staged; each recipient becomes a stream of its own. */
export interface Submission {
  /** From `newSubmissionId`; stands in the Received header too. */
  readonly id: string;
  readonly account: string | null;
  readonly mailFrom: string;
  readonly recipients: readonly {
    readonly rcptTo: string;
    readonly dsn: EventData<"Enqueued">["dsn"];
  }[];
  readonly body: StagedBody;
  readonly messageId: string | null;
  readonly has8bit: boolean;
  readonly smtputf8: boolean;
  readonly requireTLS: boolean;
  readonly tlsOptional?: boolean;
  readonly source: EventData<"Enqueued">["source"];
  /** Epoch milliseconds before which it is not tried; absent: at once. */
  readonly due?: number;
  /** -9 to 9 (RFC 6710); absent: 0. */
  readonly priority?: number;
  /** Epoch milliseconds after which it is not tried any more. */
  readonly expires?: number;
  readonly signatures?: EventData<"Enqueued">["signatures"];
  readonly metadata?: EventData<"Enqueued">["metadata"];
  readonly idempotency?: EventData<"Enqueued">["idempotency"];
}

/** Takes messages into the queue. */
export interface Submitter {
  newSubmissionId(): string;
  /** New mail is turned away: saying so early saves the content. Absent: it never is. */
  readonly paused?: boolean;
  /**
   * The entry of the suppression list against mail of an account (or of nobody's) to an address.
   * Whoever takes recipients asks, and refuses them. Absent: there is no list.
   */
  suppressed?(rcptTo: string, account: string | null): SuppressionRow | undefined;
  /**
   * Resolves with a stream per recipient, in order, when all are on disk: only then may the
   * sender be told so.
   * @throws StoreUnavailable when the disk does not take it; nothing is enqueued then
   * @throws IntakeIsPaused when an operator has new mail turned away
   */
  submit(submission: Submission): Promise<{ readonly stream: string; readonly rcptTo: string }[]>;
}

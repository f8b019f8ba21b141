/**
 * The message: what may happen to a queued message, and what it is after it happened.
 *
 *   decide(command, state) → facts      what becomes fact when this is asked of it
 *   evolve(state, event)   → state      what it is after that fact
 *
 * Both are pure: times, jitter and routes come in with the command. A command that does not fit
 * the state is refused (CommandRefused), never half obeyed.
 *
 * The life of a message:
 *
 *   Enqueued → queued ⇄ attempting → delivered | failed     (final: only DSNSent follows)
 *                 ⇅                     queued or held → cancelled
 *                held                   queued → failed, when its time is over
 */
import {
  type EventData,
  type Fact,
  isMessageEvent,
  type StoredEvent,
} from "../events/catalogue.ts";
import { classify } from "./classification/classify.ts";
import type { Finding, Outcome, TransportChoice, TriedAddress } from "./ports.ts";
import { nextAttemptAt, type RetryPolicy } from "./retry.ts";
import { retryHint } from "./retry_hint.ts";

export type Status = "queued" | "attempting" | "held" | "delivered" | "failed" | "cancelled";

/** State of a message; `undefined` stands for a stream without events. */
export interface Message {
  readonly status: Status;
  readonly version: number;
  readonly enqueued: EventData<"Enqueued">;
  /** Epoch milliseconds. */
  readonly arrived: number;
  /**
   * From when its lifetime counts, epoch milliseconds: its arrival, the time until which it was to
   * be held (RFC 4865), or its release by an operator.
   */
  readonly agesFrom: number;
  /** Attempts started so far. */
  readonly attempts: number;
  /** When the next attempt is due, epoch milliseconds; while attempting: if this one fails. */
  readonly due: number;
  /** When the running attempt was started, epoch milliseconds; undefined when none is. */
  readonly attemptStarted?: number;
  /** How many attempts running, up to the latest, ended in a fault of our own code. */
  readonly faults: number;
  readonly override?: { readonly transport: string; readonly who: string };
  /** Addresses dialled so far, the latest at the end, at most TRIED_KEPT. */
  readonly tried: readonly TriedAddress[];
  readonly delayReported: boolean;
  readonly lastFailure?: EventData<"Failed">;
  readonly delivery?: EventData<"Delivered">;
  /** When the latest attempt was started, epoch milliseconds. */
  readonly lastAttempt?: number;
  /** When the report on its conclusion, or on its delay, is due, epoch milliseconds. */
  readonly reportDue?: number;
  /** While a report on its delay is due: until when it is tried (epoch ms), what it waits for. */
  readonly delay?: { readonly until: number; readonly why?: string };
}

/** Enough for two families and several hosts over all attempts; bounds the state. */
export const TRIED_KEPT = 64;

/** After this many attempts running that ended in a fault of our own code, a message is held. */
export const FAULTS_BEFORE_HOLD = 3;

export const INTERRUPTED = "interrupted, outcome unknown";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

export type Command =
  | { readonly type: "Enqueue"; readonly data: EventData<"Enqueued"> }
  | {
    readonly type: "StartAttempt";
    readonly now: number;
    readonly transport: TransportChoice;
    readonly policy: RetryPolicy;
    /** Uniform in [0, 1), for the jitter. */
    readonly random: number;
    /** Its destination was down while it was due. */
    readonly waited?: EventData<"AttemptStarted">["waited"];
  }
  | {
    readonly type: "Conclude";
    readonly now: number;
    readonly findings: readonly Finding[];
    readonly outcome: Outcome;
    readonly policy: RetryPolicy;
  }
  | { readonly type: "NoteFindings"; readonly findings: readonly Finding[] }
  /** It waits, and its lifetime is over; `why` is what it waited for, where that is known. */
  | { readonly type: "Expire"; readonly now: number; readonly why?: string }
  /** Its deadline has passed; `why` is what it waited for, where that is known. */
  | { readonly type: "MissDeadline"; readonly why?: string }
  /** A crash of the process cut the attempt short. */
  | { readonly type: "Interrupt"; readonly now: number }
  /** A fault of our own code ended the attempt. */
  | { readonly type: "Fault"; readonly reason: string; readonly stack: string }
  /** The content cannot be read (any more): no attempt can deliver it. */
  | { readonly type: "LoseBody"; readonly reason: string }
  | { readonly type: "Hold"; readonly who: string; readonly why: string; readonly stack?: string }
  | { readonly type: "Release"; readonly who: string; readonly why: string; readonly now: number }
  | {
    readonly type: "Reschedule";
    readonly who: string;
    readonly why: string;
    readonly due: number;
  }
  | {
    readonly type: "AssignTransport";
    readonly who: string;
    readonly why: string;
    readonly transport: string | null;
  }
  | { readonly type: "Cancel"; readonly who: string; readonly why: string };

/** The command does not fit the state of the message. */
export class CommandRefused extends Error {
  override readonly name = "CommandRefused";
}

/** The event cannot follow the state: the stream was not written by this decider. */
export class ImpossibleEvent extends Error {
  override readonly name = "ImpossibleEvent";
}

const iso = (ms: number): string => new Date(ms).toISOString();

export function decide(command: Command, state: Message | undefined): Fact[] {
  if (command.type === "Enqueue") {
    if (state) throw new CommandRefused("the message is enqueued already");
    return [{ type: "Enqueued", data: command.data }];
  }
  if (!state) throw new CommandRefused(`${command.type}: there is no such message`);
  switch (command.type) {
    case "StartAttempt": {
      expect(command.type, state, "queued");
      const attempt = state.attempts + 1;
      const { policy, now, random } = command;
      const next = withinLifetime(nextAttemptAt(policy, attempt, now, random), state, command);
      return [
        {
          type: "AttemptStarted",
          data: {
            attempt,
            next: iso(next),
            ...(command.waited ? { waited: command.waited } : {}),
          },
        },
        { type: "TransportChosen", data: command.transport },
      ];
    }
    case "NoteFindings":
      expect(command.type, state, "attempting");
      return [...command.findings];
    case "Conclude":
      expect(command.type, state, "attempting");
      return [...command.findings, outcomeFact(command.outcome, state, command)];
    case "Interrupt": {
      expect(command.type, state, "attempting");
      const failed: EventData<"Failed"> = {
        permanent: false,
        result: "canceled",
        reason: INTERRUPTED,
        next: iso(Math.max(state.due, command.now)),
      };
      return [{ type: "Failed", data: failed }];
    }
    case "Expire": {
      expect(command.type, state, "queued");
      const spent = `gave up after ${duration(ageOf(state, command.now))}`;
      return [waitedTooLong(spent, LIFETIME_OVER, command.why, state)];
    }
    case "MissDeadline": {
      expect(command.type, state, "queued");
      return [waitedTooLong(givenUpForDeadline(state), DEADLINE_OVER, command.why, state)];
    }
    case "Fault": {
      expect(command.type, state, "attempting");
      const failed: EventData<"Failed"> = {
        permanent: false,
        result: "error",
        reason: `fault in our own code: ${command.reason}`,
        next: iso(state.due),
        stack: command.stack,
      };
      const facts: Fact[] = [{ type: "Failed", data: failed }];
      if (state.faults + 1 >= FAULTS_BEFORE_HOLD) {
        const why =
          `${FAULTS_BEFORE_HOLD} attempts running ended in a fault of our own code: ${command.reason}`;
        facts.push({
          type: "Held",
          data: { who: "supervisor", why, stack: command.stack },
        });
      }
      return facts;
    }
    case "LoseBody": {
      expect(command.type, state, "attempting");
      const { reason } = command;
      const next = iso(state.due);
      return [
        { type: "Failed", data: { permanent: false, result: "error", reason, next } },
        { type: "Held", data: { who: "supervisor", why: `the content cannot be read: ${reason}` } },
      ];
    }
    case "Hold": {
      expect(command.type, state, "queued");
      const { who, why, stack } = command;
      return [{ type: "Held", data: { who, why, ...(stack ? { stack } : {}) } }];
    }
    case "Release": {
      expect(command.type, state, "held");
      const { who, why, now } = command;
      return [{ type: "Released", data: { who, why, due: iso(now) } }];
    }
    case "Reschedule": {
      expect(command.type, state, "queued");
      const { who, why, due } = command;
      return [{ type: "Rescheduled", data: { who, why, due: iso(due) } }];
    }
    case "AssignTransport": {
      expect(command.type, state, "queued", "held");
      const { who, why, transport } = command;
      return [{ type: "TransportAssigned", data: { who, why, transport } }];
    }
    case "Cancel": {
      expect(command.type, state, "queued", "held");
      const { who, why } = command;
      return [{ type: "Cancelled", data: { who, why } }];
    }
  }
}

function expect(command: string, state: Message, ...allowed: Status[]): void {
  if (!allowed.includes(state.status)) {
    throw new CommandRefused(
      `${command}: the message is ${state.status}, it must be ${allowed.join(" or ")}`,
    );
  }
}

/** The reason of a failure without the words of giving up. */
export const plainReason = (reason: string): string =>
  reason.replace(/^gave up (?:after [^:]+|for the deadline \S+): /, "");

/** Delivery time expired: RFC 3463, section 3.5, for good where that was asked for: RFC 2852, 4.1.4. */
const LIFETIME_OVER = "4.4.7";
const DEADLINE_OVER = "5.4.7";

const givenUpForDeadline = ({ enqueued }: Message): string =>
  `gave up for the deadline ${enqueued.expires}`;

/** The failure of a message that waits: with what it waited for, or else its latest failure. */
function waitedTooLong(
  spent: string,
  enhanced: string,
  why: string | undefined,
  { lastFailure }: Message,
): Fact {
  const last = why === undefined ? lastFailure : undefined;
  const reason = why ??
    (last ? plainReason(last.reason) : "it was not tried: its turn did not come");
  return {
    type: "Failed",
    data: {
      permanent: true,
      result: "timeout",
      // A refusal that was not believed at once does not become the end by waiting.
      class: (last?.reply?.code ?? 0) < 500 && last?.class || "network",
      reason: `${spent}: ${reason}`,
      enhanced,
      ...(last?.remoteMTA === undefined ? {} : { remoteMTA: last.remoteMTA }),
      ...(last?.reply === undefined ? {} : { reply: last.reply }),
    },
  };
}

/** How long a message has been in the queue, milliseconds; from when that counts: `agesFrom`. */
export const ageOf = ({ agesFrom }: Message, now: number): number => now - agesFrom;

/** The last attempt is made when the lifetime ends. */
function withinLifetime(
  at: number,
  { agesFrom }: Message,
  { now, policy }: { readonly now: number; readonly policy: RetryPolicy },
): number {
  const end = agesFrom + policy.lifetime;
  return end > now ? Math.min(at, end) : at;
}

function duration(ms: number): string {
  const [n, unit] = ms < HOUR ? [ms / MINUTE, "minute"] : [ms / HOUR, "hour"];
  return `${Math.floor(n)} ${unit}${Math.floor(n) === 1 ? "" : "s"}`;
}

/** When a message is not to be tried any more, epoch milliseconds. */
export const deadlineOf = ({ enqueued: { expires } }: Message): number =>
  expires === undefined ? Infinity : Date.parse(expires);

/** Whether the deadline of a message is over at a time. */
export const isOverdue = (state: Message, at: number): boolean => at >= deadlineOf(state);

function outcomeFact(
  outcome: Outcome,
  state: Message,
  { now, policy }: { readonly now: number; readonly policy: RetryPolicy },
): Fact {
  if (outcome.kind === "delivered") {
    const { host, address, reply, tls } = outcome;
    const queued = Math.max(0, now - state.arrived);
    return { type: "Delivered", data: { host, address, reply, tls, queued } };
  }
  const { result, code, enhanced, remoteMTA, reply } = outcome;
  const attempts = state.attempts >= policy.maxAttempts && `${state.attempts} attempts`;
  const age = ageOf(state, now);
  const hint = !outcome.permanent && reply?.code.toString().startsWith("4")
    ? retryHint(reply.text)
    : undefined;
  const next = withinLifetime(Math.max(state.due, now + (hint ?? 0)), state, { now, policy });
  const old = age >= policy.lifetime && duration(age);
  const spent = !outcome.permanent && (
    attempts || old
      ? `gave up after ${attempts || old}`
      : isOverdue(state, next) && givenUpForDeadline(state)
  );
  const permanent = outcome.permanent || spent !== false;
  const data: EventData<"Failed"> = {
    permanent,
    result,
    class: classify(outcome),
    reason: spent ? `${spent}: ${outcome.reason}` : outcome.reason,
    ...(code === undefined ? {} : { code }),
    ...(enhanced === undefined ? {} : { enhanced }),
    ...(remoteMTA === undefined ? {} : { remoteMTA }),
    ...(reply === undefined ? {} : { reply }),
    ...(permanent ? {} : { next: iso(next) }),
    ...(hint === undefined ? {} : { retryAfter: Math.ceil(hint / 1_000) }),
  };
  return { type: "Failed", data };
}

/**
 * The state after an event.
 * @throws ImpossibleEvent when the event cannot follow
 */
export function evolve(state: Message | undefined, event: StoredEvent): Message {
  if (!isMessageEvent(event)) {
    throw new ImpossibleEvent(`${event.type} on the stream of a message`);
  }
  if (event.type === "Enqueued") {
    if (state) throw new ImpossibleEvent("Enqueued on a stream that has events");
    return {
      status: "queued",
      version: event.version,
      enqueued: event.data,
      arrived: Date.parse(event.time),
      agesFrom: Math.max(Date.parse(event.time), Date.parse(event.data.due)),
      attempts: 0,
      due: Date.parse(event.data.due),
      faults: 0,
      tried: [],
      delayReported: false,
    };
  }
  if (!state) {
    throw new ImpossibleEvent(`${event.type} on a stream that does not begin with Enqueued`);
  }
  const must = (...allowed: Status[]) => {
    if (!allowed.includes(state.status)) {
      throw new ImpossibleEvent(`${event.type} cannot follow: the message is ${state.status}`);
    }
  };
  const next: Message = { ...state, version: event.version };
  switch (event.type) {
    case "AttemptStarted":
      must("queued");
      return {
        ...unreported(next),
        status: "attempting",
        attempts: event.data.attempt,
        due: Date.parse(event.data.next),
        attemptStarted: Date.parse(event.time),
        lastAttempt: Date.parse(event.time),
      };
    case "TransportChosen":
    case "DestinationsResolved":
    case "TLSAGathered":
      must("attempting");
      return next;
    case "HostTried": {
      must("attempting");
      const { host, address, result } = event.data;
      if (address === undefined) return next;
      const tried = [...state.tried, { attempt: state.attempts, host, address, result }];
      return { ...next, tried: tried.slice(-TRIED_KEPT) };
    }
    case "Delivered":
      must("attempting");
      return {
        ...ended(next),
        ...reportDue(event.data),
        status: "delivered",
        delivery: event.data,
      };
    case "Failed": {
      if (!event.data.permanent) must("attempting");
      else must("attempting", "queued");
      const failed = { ...ended(next), lastFailure: event.data };
      if (event.data.permanent) {
        return { ...unreported(failed), ...reportDue(event.data), status: "failed" };
      }
      return {
        ...failed,
        status: "queued",
        due: event.data.next === undefined ? state.due : Date.parse(event.data.next),
        faults: event.data.stack === undefined ? 0 : state.faults + 1,
      };
    }
    case "DSNPostponed": {
      must("queued");
      const { due, until, why } = event.data;
      const delay = { until: Date.parse(until), ...(why === undefined ? {} : { why }) };
      return { ...next, reportDue: Date.parse(due), delay };
    }
    case "DSNSent":
      if (event.data.kind !== "delayed") return unreported(next);
      must("queued");
      return { ...unreported(next), delayReported: true };
    case "Held":
      must("queued", "attempting");
      return { ...unreported(ended(next)), status: "held" };
    case "Released": {
      must("held");
      const due = Date.parse(event.data.due);
      return { ...next, status: "queued", due, agesFrom: due, faults: 0 };
    }
    case "Rescheduled":
      must("queued");
      return { ...next, due: Date.parse(event.data.due) };
    case "TransportAssigned": {
      must("queued", "held");
      const { transport, who } = event.data;
      const { override: _, ...rest } = next;
      return transport === null ? rest : { ...rest, override: { transport, who } };
    }
    case "Cancelled":
      must("queued", "held");
      return { ...unreported(next), status: "cancelled" };
  }
}

const reportDue = ({ reportDue }: { readonly reportDue?: string | undefined }) =>
  reportDue === undefined ? {} : { reportDue: Date.parse(reportDue) };

function unreported(state: Message): Message {
  const { reportDue: _, delay: _delay, ...rest } = state;
  return rest;
}

function ended(state: Message): Message {
  const { attemptStarted: _, ...rest } = state;
  return rest;
}

/** The state of a stream; undefined for one without events. */
export function fold(events: readonly StoredEvent[]): Message | undefined {
  return events.reduce<Message | undefined>(evolve, undefined);
}

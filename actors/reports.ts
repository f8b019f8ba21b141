/**
 * Reports to senders: who is told of what, at once or together with others, and the report as a
 * message of its own (RFC 3461, section 5.2; RFC 3464).
 *
 * A message with one recipient is reported on in the append that concludes it. Recipients of one
 * submission that fail within a short time share a report: the append that concludes each notes
 * that its report is due (`reportDue`), and due_reports.ts sends one for all. A report that was
 * noted as due is in the log, and so survives whatever happens to the process.
 *
 * A delay is noted likewise (`DSNPostponed`), and shares its report with other delays alone: a
 * report has one subject. The message lives on while that waits. So that nobody reads of a delay
 * after the end, or of attempts that nobody makes, a new attempt, a hold and every end take the
 * note back; when the message is still here after the next failure, it is made again.
 */
import type { EventData, Fact } from "../events/catalogue.ts";
import type { StreamAppend } from "../events/store.ts";
import { deadlineOf, decide, INTERRUPTED, type Message } from "./message.ts";
import type { ComposedReport, RecipientReport } from "./ports.ts";
import { lastAttemptAt, type RetryPolicy } from "./retry.ts";

/** How long a report waits for other recipients of its submission, milliseconds. */
export const REPORT_WINDOW = 10_000;
/**
 * The same for a report on a delay, which nobody waits for: longer, since the jitter of several
 * retries has drawn apart what began together.
 */
export const DELAY_WINDOW = 60_000;

const iso = (ms: number): string => new Date(ms).toISOString();

export type ReportKind = RecipientReport["kind"];

type WhatHappened = RecipientReport extends infer R
  ? R extends RecipientReport ? Omit<R, "stream" | "message" | "arrived" | "at" | "attempt"> : never
  : never;

/** A report that is due; `until`: epoch milliseconds until which the message is tried. */
export type DueDecision =
  | { readonly kind: "failed" | "relayed" }
  | { readonly kind: "delayed"; readonly until: number };

/** A report that is due, or why there is none. */
export type ReportDecision =
  | DueDecision
  | { readonly kind: ReportKind; readonly notSent: string };

/**
 * Whether the sender hears of how an attempt ended: of every permanent failure, once of a delay
 * (RFC 3461, section 4.1; RFC 5321, section 6.1), and where that was asked for of a message that
 * went to a host which reports on nothing (RFC 3461, section 5.2.2); undefined when there is
 * nothing to report.
 */
export function decideReport(
  state: Message,
  conclusion: Fact,
  { policy, dsnOffered }: { readonly policy: RetryPolicy; readonly dsnOffered: boolean },
): ReportDecision | undefined {
  if (conclusion.type === "Delivered") return decideSuccess(state, conclusion.data, dsnOffered);
  if (conclusion.type !== "Failed") return undefined;
  const failure = conclusion.data;
  if (failure.permanent) return decideEnd("failed", state);
  if (state.delayReported || failure.reason === INTERRUPTED) return undefined;
  if (state.attempts < policy.delayNoticeAfter) return undefined;
  const next = failure.next === undefined ? state.due : Date.parse(failure.next);
  return decideDelay(state, lastAttemptAt(policy, state.attempts, next, state.agesFrom));
}

function decideSuccess(
  state: Message,
  { host }: EventData<"Delivered">,
  dsnOffered: boolean,
): ReportDecision | undefined {
  if (!state.enqueued.dsn.notify?.includes("SUCCESS")) return undefined;
  if (dsnOffered) {
    return { kind: "relayed", notSent: `${host} offers DSN, and reports from there on` };
  }
  return decideEnd("relayed", state);
}

function decideEnd(kind: "failed" | "relayed", state: Message): ReportDecision {
  const notSent = whyNone(kind, state);
  return notSent === undefined ? { kind } : { kind, notSent };
}

/** Whether the sender hears of the delay of a message that is tried until a time, epoch ms. */
export function decideDelay(state: Message, until: number): ReportDecision {
  const kind = "delayed";
  const notSent = whyNone(kind, state);
  return notSent === undefined
    ? { kind, until: Math.min(until, deadlineOf(state)) }
    : { kind, notSent };
}

const ASKED = { failed: "FAILURE", delayed: "DELAY", relayed: "SUCCESS" } as const;

/**
 * Why the envelope allows no report: nothing goes to the null reverse-path, nothing on a report
 * that came back under another sender, else it is as NOTIFY says. Undefined where it allows one.
 */
function whyNone(kind: ReportKind, { enqueued }: Message): string | undefined {
  const { mailFrom, messageId, dsn } = enqueued;
  if (mailFrom === "") return "the sender is the null reverse-path";
  if (isReportId(messageId)) return "the message is itself a report";
  if (!dsn.notify || dsn.notify.includes(ASKED[kind])) return undefined;
  return `the sender asked for NOTIFY=${dsn.notify.join(",")}`;
}

/**
 * The Message-ID of a report: told from that of other mail, so that one which comes back (over a
 * forwarder that puts its own address in place of the null reverse-path) is not reported on again.
 */
export const reportId = (id: string, hostname: string): string => `<report.${id}@${hostname}>`;

const isReportId = (messageId: string | null): boolean =>
  /^<?report\.[0-9A-HJKMNP-TV-Z]{26}@[^\s@<>]+>?$/.test(messageId?.trim() ?? "");

/**
 * The facts with their report noted as due, where other recipients may share it; undefined where it
 * is not to wait for them.
 * @param facts how an attempt ended; none where the delay is that of a message that waits in line
 * @param why what that message waits for
 */
export function postponed(
  facts: readonly Fact[],
  state: Message,
  decision: ReportDecision,
  now: number,
  why?: string,
): Fact[] | undefined {
  const { recipients = 1 } = state.enqueued;
  if (recipients === 1 || "notSent" in decision) return undefined;
  const due = now + (decision.kind === "delayed" ? DELAY_WINDOW : REPORT_WINDOW);
  // An attempt would take it back.
  if (decision.kind === "delayed" && facts.some((fact) => isTriedBy(fact, due))) return undefined;
  return noted(facts, decision, due, why);
}

/** The facts with their report noted as due at a time, epoch milliseconds. */
export function noted(
  facts: readonly Fact[],
  decision: DueDecision,
  due: number,
  why?: string,
): Fact[] {
  if (decision.kind === "delayed") {
    const { kind, until } = decision;
    const data = { kind, due: iso(due), until: iso(until), ...(why === undefined ? {} : { why }) };
    return [...facts, { type: "DSNPostponed", data }];
  }
  const reportDue = iso(due);
  return facts.map((fact) => {
    if (fact.type === "Failed") return { ...fact, data: { ...fact.data, reportDue } };
    if (fact.type === "Delivered") return { ...fact, data: { ...fact.data, reportDue } };
    return fact;
  });
}

const isTriedBy = (fact: Fact, at: number): boolean =>
  fact.type === "Failed" && fact.data.next !== undefined && Date.parse(fact.data.next) <= at;

/** What a report says, of what has happened. */
export function whatHappened(
  conclusion: Fact,
  decision: DueDecision,
): WhatHappened {
  if (conclusion.type === "Delivered") return { kind: "relayed", delivery: conclusion.data };
  if (conclusion.type !== "Failed") throw new Error(`${conclusion.type} is nothing to report`);
  const failure = conclusion.data;
  if (decision.kind !== "delayed") return { kind: "failed", failure };
  return { ...decision, failure };
}

/** The failure of a message that waits in line, of which no attempt has failed. */
export const waitingFor = (why: string): EventData<"Failed"> => ({
  permanent: false,
  result: "timeout",
  reason: why,
});

/**
 * What a report that is due says of a recipient.
 * @throws Error when none is
 */
export function dueReport(stream: string, state: Message): RecipientReport {
  const { lastFailure, delivery, delay, status } = state;
  const about = recipientOf(stream, state);
  if (status === "delivered" && delivery) return { ...about, kind: "relayed", delivery };
  if (status === "failed" && lastFailure) return { ...about, kind: "failed", failure: lastFailure };
  if (status === "queued" && delay) {
    const failure = lastFailure ?? waitingFor(delay.why ?? "it waits to be tried");
    const until = Math.max(delay.until, state.due); // an operator may have put it off
    return { ...about, kind: "delayed", failure, until };
  }
  throw new Error(`${stream} is ${status}: there is nothing to report`);
}

/** What a report says of a recipient, without what became of it. */
export function recipientOf(stream: string, state: Message) {
  const arrived = iso(state.arrived);
  const { enqueued: message, attempts: attempt, lastAttempt: at } = state;
  return { stream, message, arrived, attempt, ...(at === undefined ? {} : { at }) };
}

/** The report as a message of its own, from the null reverse-path (RFC 3464, section 2). */
export function reportStream(
  about: RecipientReport,
  composed: ComposedReport,
  ids: { next(): string },
  now: number,
): StreamAppend {
  const { stream: of, message } = about;
  const facts = decide({
    type: "Enqueue",
    data: {
      account: message.account,
      mailFrom: "",
      rcptTo: message.mailFrom,
      size: composed.body.size,
      body: composed.body.sha256,
      messageId: composed.messageId,
      has8bit: composed.has8bit,
      smtputf8: composed.smtputf8,
      ...(composed.signatures ? { signatures: composed.signatures } : {}),
      requireTLS: false,
      dsn: { notify: ["NEVER"] },
      submission: ids.next(),
      source: { kind: "dsn", of },
      due: iso(now),
    },
  }, undefined);
  return { stream: ids.next(), expectedVersion: 0, facts };
}

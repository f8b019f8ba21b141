/**
 * Reports to senders: who is told of what, at once or together with others, and the report as a
 * message of its own (RFC 3461, section 5.2; RFC 3464).
 *
 * A message with one recipient is reported on in the append that concludes it. Recipients of one
 * submission that fail within a short time share a report: the append that concludes each notes
 * that its report is due (`reportDue`), and due_reports.ts sends one for all. A report that was
 * noted as due is in the log, and so survives whatever happens to the process.
 */
import type { EventData, Fact } from "../events/catalogue.ts";
import type { StreamAppend } from "../events/store.ts";
import { decide, INTERRUPTED, type Message } from "./message.ts";
import type { ComposedReport, RecipientReport } from "./ports.ts";
import { lastAttemptAt, type RetryPolicy } from "./retry.ts";

/** How long a report waits for other recipients of its submission, milliseconds. */
export const REPORT_WINDOW = 10_000;

export type ReportKind = RecipientReport["kind"];

type WhatHappened = RecipientReport extends infer R
  ? R extends RecipientReport ? Omit<R, "stream" | "message" | "arrived" | "at" | "attempt"> : never
  : never;

/** A report that is due, or why there is none. */
export type ReportDecision =
  | { readonly kind: ReportKind; readonly until?: number }
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
  if (failure.permanent) return decideNotice("failed", state);
  if (state.delayReported || failure.reason === INTERRUPTED) return undefined;
  if (state.attempts < policy.delayNoticeAfter) return undefined;
  const until = lastAttemptAt(policy, state.attempts, state.due, state.agesFrom);
  return decideNotice("delayed", state, until);
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
  return decideNotice("relayed", state);
}

const ASKED = { failed: "FAILURE", delayed: "DELAY", relayed: "SUCCESS" } as const;

/**
 * What the envelope allows to be reported: nothing to the null reverse-path, nothing on a report
 * that came back under another sender, else as NOTIFY says.
 */
export function decideNotice(kind: ReportKind, state: Message, until?: number): ReportDecision {
  const { mailFrom, messageId, dsn } = state.enqueued;
  if (mailFrom === "") return { kind, notSent: "the sender is the null reverse-path" };
  if (isReportId(messageId)) return { kind, notSent: "the message is itself a report" };
  if (dsn.notify && !dsn.notify.includes(ASKED[kind])) {
    return { kind, notSent: `the sender asked for NOTIFY=${dsn.notify.join(",")}` };
  }
  return { kind, ...(until === undefined ? {} : { until }) };
}

/**
 * The Message-ID of a report: told from that of other mail, so that one which comes back (over a
 * forwarder that puts its own address in place of the null reverse-path) is not reported on again.
 */
export const reportId = (id: string, hostname: string): string => `<report.${id}@${hostname}>`;

const isReportId = (messageId: string | null): boolean =>
  /^<?report\.[0-9A-HJKMNP-TV-Z]{26}@[^\s@<>]+>?$/.test(messageId?.trim() ?? "");

/** The conclusion with its report noted as due, where other recipients may share it. */
export function postponed(
  facts: readonly Fact[],
  state: Message,
  decision: ReportDecision,
  now: number,
): Fact[] | undefined {
  const { recipients = 1 } = state.enqueued;
  if (recipients === 1 || "notSent" in decision || decision.kind === "delayed") return undefined;
  const reportDue = new Date(now + REPORT_WINDOW).toISOString();
  return facts.map((fact) => {
    if (fact.type === "Failed") return { ...fact, data: { ...fact.data, reportDue } };
    if (fact.type === "Delivered") return { ...fact, data: { ...fact.data, reportDue } };
    return fact;
  });
}

/** What a report says, of what has happened. */
export function whatHappened(
  conclusion: Fact,
  kind: ReportKind,
  until?: number,
): WhatHappened {
  if (conclusion.type === "Delivered") return { kind: "relayed", delivery: conclusion.data };
  if (conclusion.type !== "Failed") throw new Error(`${conclusion.type} is nothing to report`);
  const failure = conclusion.data;
  if (kind !== "delayed") return { kind: "failed", failure };
  return { kind, failure, ...(until === undefined ? {} : { until }) };
}

/** What a report says of a recipient whose message is concluded. */
export function concludedReport(stream: string, state: Message): RecipientReport {
  const { lastFailure, delivery, status } = state;
  const about = recipientOf(stream, state);
  if (status === "delivered" && delivery) return { ...about, kind: "relayed", delivery };
  if (status === "failed" && lastFailure) return { ...about, kind: "failed", failure: lastFailure };
  throw new Error(`${stream} is ${status}: there is nothing to report`);
}

/** What a report says of a recipient, without what became of it. */
export function recipientOf(stream: string, state: Message) {
  const arrived = new Date(state.arrived).toISOString();
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
      due: new Date(now).toISOString(),
    },
  }, undefined);
  return { stream: ids.next(), expectedVersion: 0, facts };
}

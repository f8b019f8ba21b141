/**
 * The part of a report that people read: what happened to which message, who said what about each
 * recipient in their own words, and what can be done about it.
 */
import type { RecipientReport, ReportRequest } from "../../actors/ports.ts";
import { advice } from "./advice.ts";
import { dateTime, MAX_DIAGNOSTIC, remoteReply, statusOf } from "./delivery_status.ts";
import { oneLine, wrap } from "./safe_text.ts";

/** Lines of a reply that are shown. */
const MAX_REPLY_LINES = 20;

const SHOWN = { header: "the header of your message", message: "your message" } as const;

export interface Attached {
  readonly what: "header" | "message" | "nothing";
}

type Kind = RecipientReport["kind"];

const paragraph = (text: string) => [...wrap(text, ""), ""];

/** The text, CRLF throughout, lines of about 76 octets. */
export function humanText(report: ReportRequest, hostname: string, attached: Attached): string {
  const [{ message: { messageId }, arrived }] = report;
  const lines = [
    ...paragraph(`This is the mail system of ${hostname}.`),
    ...(["failed", "delayed", "relayed"] as const).flatMap((kind) => {
      const these = report.filter((one) => one.kind === kind);
      return these.length === 0 ? [] : chapter(kind, these, report.length > 1);
    }),
    `  Your message of  ${dateTime(Date.parse(arrived))}`,
    ...(messageId === null ? [] : [`  Message-ID       ${oneLine(messageId, 400)}`]),
    "",
    ...paragraph(
      attached.what === "nothing"
        ? "Below stand the same facts for programs. Your message is not stored here any more, so " +
          "that no part of it is attached."
        : `Below stand the same facts for programs, and ${SHOWN[attached.what]}.`,
    ),
    ...paragraph(
      `If you cannot tell why, write to postmaster@${hostname} and include this report.`,
    ),
  ];
  return lines.map((line) => `${line}\r\n`).join("");
}

function chapter(kind: Kind, these: readonly RecipientReport[], several: boolean): string[] {
  return [
    ...paragraph(several || these.length > 1 ? openingOfMany(kind) : opening(these[0]!)),
    ...these.flatMap((one) => recipient(one)),
  ];
}

const triesOf = ({ attempt }: RecipientReport) =>
  attempt === 1 ? "1 attempt" : `${attempt} attempts`;

const afterTries = (report: RecipientReport) =>
  report.attempt === 0 ? "and could not be tried" : `after ${triesOf(report)}`;

const lastTried = (report: RecipientReport) =>
  report.at === undefined ? "never" : `${dateTime(report.at)} (${triesOf(report)})`;

function opening(report: RecipientReport): string {
  const to = oneLine(report.message.rcptTo, 400);
  switch (report.kind) {
    case "failed":
      return `Your message to ${to} was not delivered, ${afterTries(report)}. ` +
        `It will not be tried again.`;
    case "delayed":
      return `Your message to ${to} has not been delivered yet, ${afterTries(report)}. ` +
        `It is tried again${limitOf(report)}: you need not send it again, and you will hear if ` +
        `it fails.`;
    case "relayed":
      return `Your message to ${to} was handed to the next server, which took it and does not ` +
        `report any further. There may be no other report on it.`;
  }
}

function openingOfMany(kind: Kind): string {
  switch (kind) {
    case "failed":
      return "Your message was not delivered to the recipients below. It will not be tried again.";
    case "delayed":
      return "Your message has not been delivered yet to the recipients below. It is tried again: " +
        "you need not send it again, and you will hear if it fails.";
    case "relayed":
      return "Your message was handed to the next server for the recipients below. It took the " +
        "message and does not report any further. There may be no other report.";
  }
}

const limitLine = (report: RecipientReport): string[] =>
  report.kind === "delayed" && report.until !== undefined
    ? [`  Tried until: ${dateTime(report.until)}`]
    : [];

const limitOf = (report: RecipientReport): string =>
  report.kind === "delayed" && report.until !== undefined ? ` until ${dateTime(report.until)}` : "";

function recipient(report: RecipientReport): string[] {
  return [
    `  Recipient:   ${oneLine(report.message.rcptTo, 400)}`,
    `  Last tried:  ${lastTried(report)}`,
    ...limitLine(report),
    report.kind === "relayed" ? `  ${oneLine(report.delivery.host, 255)} said:` : "  The reason:",
    "",
    ...quoted(report.kind === "relayed" ? remoteReply(report) ?? "" : report.failure.reason),
    "",
    ...paragraph(
      report.kind === "failed"
        ? advice(report.failure, statusOf(report))
        : "There is nothing that you have to do.",
    ),
  ];
}

/** The reason as it was given: indented, line by line, bounded. */
function quoted(reason: string): string[] {
  const all = reason.slice(0, MAX_DIAGNOSTIC).split(/\r\n|\r|\n/).map((line) =>
    oneLine(line, MAX_DIAGNOSTIC)
  ).filter((line) => line !== "");
  const shown = all.slice(0, MAX_REPLY_LINES).flatMap((line) =>
    wrap(line, "").map((part) => `    ${part}`)
  );
  return shown.length > 0 ? shown : ["    (none was given)"];
}

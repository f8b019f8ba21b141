/**
 * The part of a report that people read: what happened to which message, what the other side said
 * in its own words, and what can be done about it.
 */
import type { ReportRequest } from "../../actors/ports.ts";
import { dateTime, MAX_DIAGNOSTIC, statusOf } from "./delivery_status.ts";
import { oneLine, wrap } from "./safe_text.ts";

/** Lines of a reply that are shown. */
const MAX_REPLY_LINES = 20;

const SHOWN = { header: "the header of your message", message: "your message" } as const;

export interface Attached {
  readonly what: "header" | "message" | "nothing";
}

/** The text, CRLF throughout, lines of about 76 octets. */
export function humanText(report: ReportRequest, hostname: string, attached: Attached): string {
  const { message, failure, attempt } = report;
  const paragraph = (text: string) => [...wrap(text, ""), ""];
  const tries = attempt === 1 ? "1 attempt" : `${attempt} attempts`;
  const from = failure.remoteMTA === undefined
    ? "The reason:"
    : `The reason, at ${oneLine(failure.remoteMTA, 255)}:`;
  const lines = [
    ...paragraph(`This is the mail system of ${hostname}.`),
    ...paragraph(opening(report, tries)),
    `  Recipient:   ${oneLine(message.rcptTo, 400)}`,
    `  Sent:        ${dateTime(Date.parse(report.arrived))}`,
    `  Last tried:  ${dateTime(report.at)}`,
    ...(message.messageId === null ? [] : [`  Message-ID:  ${oneLine(message.messageId, 400)}`]),
    "",
    from,
    "",
    ...quoted(failure.reason),
    "",
    ...paragraph(advice(report, hostname)),
    ...paragraph(
      attached.what === "nothing"
        ? "Below stand the same facts for programs. Your message is not stored here any more, so " +
          "that no part of it is attached."
        : `Below stand the same facts for programs, and ${SHOWN[attached.what]}.`,
    ),
  ];
  return lines.map((line) => `${line}\r\n`).join("");
}

function opening({ kind, until, message }: ReportRequest, tries: string): string {
  const to = oneLine(message.rcptTo, 400);
  if (kind === "failed") {
    return `Your message to ${to} was not delivered, after ${tries}. It will not be tried again.`;
  }
  const limit = until === undefined ? "" : ` until ${dateTime(until)}`;
  return `Your message to ${to} has not been delivered yet, after ${tries}. ` +
    `It is tried again${limit}: you need not send it again, and you will hear if it fails.`;
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

/** Subjects of RFC 3463, section 3, in words that help. */
function advice(report: ReportRequest, hostname: string): string {
  const [, subject = "0", detail = "0"] = statusOf(report).split(".");
  const help = `If you cannot tell why, write to postmaster@${hostname} and include this report.`;
  if (report.kind === "delayed") return `There is nothing that you have to do. ${help}`;
  if (subject === "1" && detail === "10") {
    return `The domain of this address takes no mail at all. Ask for another address. ${help}`;
  }
  if (subject === "1") return `Check the address for typing errors, and send it again. ${help}`;
  if (subject === "2" && detail === "2") {
    return `The recipient's mailbox is full. Try again later, or ask the recipient to make room. ${help}`;
  }
  if ((subject === "2" || subject === "3") && (detail === "3" || detail === "4")) {
    return `The message is larger than the recipient's server takes. Send it without large ` +
      `attachments. ${help}`;
  }
  if (subject === "3" || subject === "4") {
    return `The recipient's server could not be reached or could not take mail. Try again later, ` +
      `and tell the recipient by other means if it lasts. ${help}`;
  }
  if (subject === "7") {
    return `The recipient's server refused the message by its rules. The reason above may say ` +
      `which; the recipient's postmaster can tell more. ${help}`;
  }
  return help;
}

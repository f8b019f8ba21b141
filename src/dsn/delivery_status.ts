/**
 * The part of a report that programs read: message/delivery-status (RFC 3464, section 2), or
 * message/global-delivery-status where the report goes by RFC 6531 (RFC 6533, section 4).
 */
import { isIPv4, isIPv6 } from "node:net";
import type { ReportRequest } from "../../actors/ports.ts";
import { quoteReply } from "../smtp/reply.ts";
import { asciiLine, field, isAscii, oneLine } from "./safe_text.ts";

/** Characters of a remote server's reply that a report repeats. */
export const MAX_DIAGNOSTIC = 2_000;

/** The fields, in their two groups, CRLF throughout. */
export function deliveryStatus(
  report: ReportRequest,
  hostname: string,
  unicodeReport: boolean,
): string {
  const { message, failure, kind } = report;
  const { envid, orcpt } = message.dsn;
  const line = unicodeReport ? oneLine : asciiLine;
  const optional = (name: string, value: string | undefined) =>
    value === undefined || value === "" ? "" : field(name, value);
  return [
    field("Reporting-MTA", `dns; ${hostname}`),
    optional("Original-Envelope-Id", envid && line(envid, 400)),
    field("Arrival-Date", dateTime(Date.parse(report.arrived))),
    "\r\n",
    optional("Original-Recipient", orcpt && originalRecipient(orcpt, unicodeReport)),
    field("Final-Recipient", typed(message.rcptTo, unicodeReport)),
    field("Action", kind),
    field("Status", statusOf(report)),
    optional("Remote-MTA", failure.remoteMTA && `dns; ${remoteName(failure.remoteMTA)}`),
    optional("Diagnostic-Code", diagnostic(report, line)),
    field("Last-Attempt-Date", dateTime(report.at)),
    optional(
      "Will-Retry-Until",
      kind === "delayed" && report.until !== undefined ? dateTime(report.until) : undefined,
    ),
  ].join("");
}

/** RFC 5322, section 3.3, in UTC. `ms` is epoch milliseconds. */
export const dateTime = (ms: number): string => new Date(ms).toUTCString().replace("GMT", "+0000");

/**
 * The status of RFC 3463. A delay is never of class 5, even where a permanent reply is only
 * believed when it comes again.
 */
export function statusOf({ kind, failure }: ReportRequest): string {
  const { enhanced, code, result } = failure;
  const known = enhanced !== undefined && /^[45]\.\d{1,3}\.\d{1,3}$/.test(enhanced)
    ? enhanced
    : code !== undefined && (code >= 400 && code <= 599)
    ? `${Math.floor(code / 100)}.0.0`
    : kind === "delayed"
    ? "4.0.0"
    : result === "permerror"
    ? "5.0.0"
    : "4.4.7"; // delivery time expired
  return kind === "delayed" ? known.replace(/^5/, "4") : known;
}

/** Address type and address: RFC 3464, section 2.3.2; RFC 6533, section 3. */
function typed(address: string, unicodeReport: boolean): string {
  if (isAscii(address)) return `rfc822; ${asciiLine(address, 400)}`;
  return `utf-8; ${unicodeReport ? oneLine(address, 400) : utf8Xtext(oneLine(address, 400))}`;
}

/** ORCPT stands in the log decoded, "type;address". */
function originalRecipient(orcpt: string, unicodeReport: boolean): string {
  const at = orcpt.indexOf(";");
  const type = orcpt.slice(0, Math.max(at, 0)).toLowerCase();
  const address = orcpt.slice(at + 1);
  if (!/^[a-z0-9-]{1,40}$/.test(type) || type === "rfc822" || type === "utf-8") {
    return typed(address, unicodeReport);
  }
  return `${type}; ${asciiLine(address, 400)}`;
}

/** utf-8-addr-xtext of RFC 6533, section 3: addresses of any script in ASCII. */
function utf8Xtext(address: string): string {
  return [...address].map((character) => {
    if (/^[!-*,-<>-[\]-~]$/.test(character)) return character;
    return `\\x{${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(2, "0")}}`;
  }).join("");
}

function remoteName(host: string): string {
  if (isIPv4(host)) return `[${host}]`;
  return isIPv6(host) ? `[IPv6:${host}]` : asciiLine(host, 255).replaceAll(" ", "?");
}

/** What the server said; undefined where it did not speak, and the words are ours. */
export function remoteReply({ failure: { reply } }: ReportRequest): string | undefined {
  return reply && quoteReply(reply);
}

/** RFC 3464, section 2.3.6. Words of our own are of no type that a registry knows. */
function diagnostic(report: ReportRequest, line: typeof oneLine): string {
  const reply = remoteReply(report);
  return reply === undefined
    ? `x-postledger; ${line(report.failure.reason, MAX_DIAGNOSTIC)}`
    : `smtp; ${line(reply, MAX_DIAGNOSTIC)}`;
}

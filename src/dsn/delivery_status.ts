/**
 * The part of a report that programs read: message/delivery-status (RFC 3464, section 2), or
 * message/global-delivery-status where the report goes by RFC 6531 (RFC 6533, section 4). A group
 * of fields for the message, and one for each recipient.
 */
import { isIPv4, isIPv6 } from "node:net";
import type { RecipientReport, ReportRequest } from "../../actors/ports.ts";
import { quoteReply } from "../smtp/reply.ts";
import { asciiLine, field, isAscii, oneLine } from "./safe_text.ts";

/** Characters of a remote server's reply that a report repeats. */
export const MAX_DIAGNOSTIC = 2_000;

const optional = (name: string, value: string | undefined) =>
  value === undefined || value === "" ? "" : field(name, value);

/** The fields, in their groups, CRLF throughout. */
export function deliveryStatus(
  report: ReportRequest,
  hostname: string,
  unicodeReport: boolean,
): string {
  const [{ message: { dsn: { envid } }, arrived }] = report;
  const line = unicodeReport ? oneLine : asciiLine;
  const about = field("Reporting-MTA", `dns; ${hostname}`) +
    optional("Original-Envelope-Id", envid && line(envid, 400)) +
    field("Arrival-Date", dateTime(Date.parse(arrived)));
  return [about, ...report.map((one) => recipientFields(one, unicodeReport))].join("\r\n");
}

function recipientFields(report: RecipientReport, unicodeReport: boolean): string {
  const { message: { rcptTo, dsn: { orcpt } }, kind, at } = report;
  const remote = remoteHost(report);
  return [
    optional("Original-Recipient", orcpt && originalRecipient(orcpt, unicodeReport)),
    field("Final-Recipient", typed(rcptTo, unicodeReport)),
    field("Action", kind),
    field("Status", statusOf(report)),
    optional("Remote-MTA", remote && `dns; ${remoteName(remote)}`),
    optional("Diagnostic-Code", diagnostic(report, unicodeReport ? oneLine : asciiLine)),
    optional("Last-Attempt-Date", at === undefined ? undefined : dateTime(at)),
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
export function statusOf(report: RecipientReport): string {
  if (report.kind === "relayed") {
    const { enhanced } = report.delivery.reply;
    return enhanced !== undefined && /^2\.\d{1,3}\.\d{1,3}$/.test(enhanced) ? enhanced : "2.0.0";
  }
  const { kind, failure: { enhanced, code, result } } = report;
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
  if (type === "utf-8") return typed(fromUtf8Xtext(address), unicodeReport);
  if (!/^[a-z0-9-]{1,40}$/.test(type) || type === "rfc822") return typed(address, unicodeReport);
  return `${type}; ${asciiLine(address, 400)}`;
}

/** utf-8-addr-xtext of RFC 6533, section 3: addresses of any script in ASCII. */
export function utf8Xtext(address: string): string {
  return [...address].map((character) => {
    if (/^[!-*,-<>-[\]-~]$/.test(character)) return character;
    return `\\x{${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(2, "0")}}`;
  }).join("");
}

/** The address that utf-8-addr-xtext stands for; what is no such escape stays as it is. */
function fromUtf8Xtext(address: string): string {
  return address.replace(/\\x\{([0-9A-Fa-f]{2,6})\}/g, (escape, hex: string) => {
    const point = Number.parseInt(hex, 16);
    return point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)
      ? escape
      : String.fromCodePoint(point);
  });
}

function remoteName(host: string): string {
  if (isIPv4(host)) return `[${host}]`;
  return isIPv6(host) ? `[IPv6:${host}]` : asciiLine(host, 255).replaceAll(" ", "?");
}

/** Who had the last word. */
export const remoteHost = (report: RecipientReport): string | undefined =>
  report.kind === "relayed" ? report.delivery.host : report.failure.remoteMTA;

/** What the server said; undefined where it did not speak, and the words are ours. */
export function remoteReply(report: RecipientReport): string | undefined {
  const { reply } = report.kind === "relayed" ? report.delivery : report.failure;
  return reply && quoteReply(reply);
}

/** RFC 3464, section 2.3.6. Words of our own are of no type that a registry knows. */
function diagnostic(report: RecipientReport, line: typeof oneLine): string {
  const reply = remoteReply(report);
  if (reply !== undefined) return `smtp; ${line(reply, MAX_DIAGNOSTIC)}`;
  return report.kind === "relayed"
    ? ""
    : `x-postledger; ${line(report.failure.reason, MAX_DIAGNOSTIC)}`;
}

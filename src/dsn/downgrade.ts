/**
 * The twin of a report for hosts without SMTPUTF8 or 8BITMIME: the same report in 7 bits, made
 * from the stored one (RFC 6533, sections 3 and 4; RFC 6522).
 *
 *   header           the address in A-labels; what else is not ASCII is left out
 *   text             stays: it is encoded
 *   delivery status  message/delivery-status, addresses in utf-8-addr-xtext
 *   original         encoded; a message/rfc822 of 8 bits, which may not be, gives its header alone
 *
 * Reads what compose.ts wrote and nothing else: a report that came from elsewhere is ordinary mail.
 */
import { Buffer } from "node:buffer";
import { domainToASCII } from "node:url";
import { utf8Xtext } from "./delivery_status.ts";
import { quotedPrintable } from "./quoted_printable.ts";
import { asciiLine, field, isAscii } from "./safe_text.ts";

/** Whether a report to this address can go by other ways than SMTPUTF8 at all. */
export const isDowngradable = (address: string): boolean =>
  isAscii(address.slice(0, address.lastIndexOf("@") + 1)) && asciiAddress(address) !== undefined;

/** An address with its domain in A-labels; undefined where it has none such. */
function asciiAddress(address: string): string | undefined {
  if (isAscii(address)) return address;
  const at = address.lastIndexOf("@");
  const domain = domainToASCII(address.slice(at + 1));
  const ascii = `${address.slice(0, at)}@${domain}`;
  return domain === "" || !isAscii(ascii) ? undefined : ascii;
}

/**
 * @param report as compose.ts wrote it
 * @throws Error when it was not written there
 */
export function downgrade(report: Buffer): Buffer {
  const [header, rest] = split(report);
  const boundary = /\r\n boundary="([^"]+)"\r\n$/.exec(header)?.[1];
  if (boundary === undefined) throw new Error("a stored report has no boundary");
  const text = rest.toString("latin1");
  const end = `\r\n--${boundary}--\r\n`;
  const begin = `--${boundary}\r\n`;
  if (!text.startsWith(begin) || !text.endsWith(end)) {
    throw new Error("a stored report does not consist of its parts");
  }
  const parts = text.slice(begin.length, -end.length).split(`\r\n${begin}`);
  const downgraded = parts.map((part) => downgradePart(Buffer.from(part, "latin1")));
  return Buffer.concat([
    Buffer.from(downgradeHeader(header) + "\r\n"),
    ...downgraded.flatMap((part) => [Buffer.from(begin), part, Buffer.from("\r\n")]),
    Buffer.from(`--${boundary}--\r\n`),
  ]);
}

/** What comes before the first empty line, with its CRLF, as text; and what comes after it. */
function split(octets: Buffer): [string, Buffer] {
  const at = octets.indexOf("\r\n\r\n");
  if (at === -1) throw new Error("a stored report has no header");
  return [octets.subarray(0, at + 2).toString(), octets.subarray(at + 4)];
}

/** The fields of a header as they are written, folds and CRLF included. */
const fieldsOf = (header: string): string[] => header.match(/.+\r\n(?:[ \t].*\r\n)*/g) ?? [];

const valueOf = (raw: string): string =>
  raw.slice(raw.indexOf(":") + 1).replace(/\r\n(?=[ \t])/g, "").trim();

function downgradeHeader(header: string): string {
  return fieldsOf(header).map((raw) => {
    if (isAscii(raw)) return raw;
    const name = raw.slice(0, raw.indexOf(":"));
    const value = valueOf(raw);
    if (name === "To") {
      return field("To", `<${asciiAddress(value.replace(/^<|>$/g, "")) ?? "undisclosed"}>`);
    }
    const [ascii = ""] = value.split(": ");
    return field(name, asciiLine(ascii, 400));
  }).join("");
}

function downgradePart(part: Buffer): Buffer {
  if (part.every((octet) => octet < 0x80) && !part.includes("message/global-delivery-status")) {
    return part;
  }
  const [header, content] = split(part);
  const type = /^Content-Type: (.+)\r\n/.exec(header)?.[1] ?? "";
  switch (type) {
    case "message/global-delivery-status":
      return written("message/delivery-status", "7bit", downgradeStatus(content.toString()));
    case "message/rfc822": {
      const [original] = content.indexOf("\r\n\r\n") === -1 ? [content.toString()] : split(content);
      return encoded("text/rfc822-headers", Buffer.from(original));
    }
    default:
      return encoded(type, content);
  }
}

const encoded = (type: string, content: Buffer): Buffer =>
  written(type, "quoted-printable", quotedPrintable(content));

const written = (type: string, encoding: string, content: string): Buffer =>
  Buffer.from(`Content-Type: ${type}\r\nContent-Transfer-Encoding: ${encoding}\r\n\r\n${content}`);

function downgradeStatus(status: string): string {
  return status.split("\r\n\r\n").map((group, n, all) => {
    // Of the empty line between groups, the first CRLF ends the last field of a group.
    const fields = fieldsOf(n < all.length - 1 ? `${group}\r\n` : group);
    return fields.map(downgradeStatusField).join("");
  }).join("\r\n");
}

function downgradeStatusField(raw: string): string {
  if (isAscii(raw)) return raw;
  const name = raw.slice(0, raw.indexOf(":"));
  const value = valueOf(raw);
  const address = /^utf-8; (.*)$/i.exec(value)?.[1];
  return field(
    name,
    address === undefined ? asciiLine(value, 3_000) : `utf-8; ${utf8Xtext(address)}`,
  );
}

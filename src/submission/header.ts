/**
 * Finds the header section of a message (RFC 5322, section 2.1) and what a mail queue must know
 * of it: which fields are there, and nothing about what they mean.
 */
import { Buffer } from "node:buffer";

export interface HeaderFacts {
  readonly hasDate: boolean;
  readonly hasMessageId: boolean;
  /** Value of the first Message-ID, angle brackets included; null when absent or beyond use. */
  readonly messageId: string | null;
  /** Number of Received fields: how many hops the message has made. */
  readonly received: number;
  /** `TLS-Required: No` (RFC 8689, section 5). */
  readonly tlsOptional: boolean;
}

/** A Message-ID longer than this is not worth keeping. RFC 5322, section 2.1.1: a line's length. */
const MAX_MESSAGE_ID = 998;

/** Octets of a TLS-Required field, comments included, that are read. */
const MAX_TLS_REQUIRED = 400;

const LF = 10;
const CR = 13;
const COLON = 58;

/** `yes`, `no`, or `more` when the first line is not whole yet. */
export function beginsWithField(content: Uint8Array): "yes" | "no" | "more" {
  for (let i = 0; i < content.length; i++) {
    const octet = content[i]!;
    if (octet === COLON) return i > 0 ? "yes" : "no";
    // Blanks before the colon are obsolete syntax that is still met (RFC 5322, section 4.5.8).
    if (octet === 32 || octet === 9) {
      if (i === 0) return "no";
      while (content[i + 1] === 32 || content[i + 1] === 9) i++;
      if (i + 1 === content.length) return "more";
      return content[i + 1] === COLON ? "yes" : "no";
    }
    if (octet < 33 || octet > 126) return "no";
  }
  return "more";
}

/**
 * Octets of the header section, the empty line not included; -1 when its end is not in sight.
 * @param from where the search may start, when what is before was searched already
 */
export function headerLength(content: Buffer, from = 0): number {
  if (content.length >= 2 && content[0] === CR && content[1] === LF) return 0;
  const at = content.indexOf("\r\n\r\n", Math.max(0, from - 3), "latin1");
  return at < 0 ? -1 : at + 2;
}

/** Reads a header section: whole lines, CRLF at each end. */
export function scanHeader(header: Buffer): HeaderFacts {
  let hasDate = false;
  let received = 0;
  let messageIdAt = -1;
  let tlsRequiredAt = -1;
  let tlsRequiredFields = 0;
  for (let at = 0; at < header.length;) {
    switch (header[at]! | 0x20) {
      case 0x64: // d
        hasDate ||= isField(header, at, "date");
        break;
      case 0x6d: // m
        if (messageIdAt < 0 && isField(header, at, "message-id")) messageIdAt = at;
        break;
      case 0x72: // r
        if (isField(header, at, "received")) received++;
        break;
      case 0x74: // t
        if (isField(header, at, "tls-required")) {
          tlsRequiredAt = at;
          tlsRequiredFields++;
        }
    }
    at = nextLine(header, at);
  }
  return {
    hasDate,
    hasMessageId: messageIdAt >= 0,
    messageId: messageIdAt < 0 ? null : messageId(header, messageIdAt),
    received,
    // A field that may stand once and stands twice says nothing.
    tlsOptional: tlsRequiredFields === 1 && isNo(header, tlsRequiredAt),
  };
}

/** Whether the value of a field is "No", the only one that RFC 8689 defines. */
function isNo(header: Buffer, at: number): boolean {
  const start = header.indexOf(COLON, at) + 1;
  let end = nextLine(header, at);
  while (header[end] === 32 || header[end] === 9) end = nextLine(header, end);
  if (end - start > MAX_TLS_REQUIRED) return false;
  const value = header.toString("latin1", start, end).replaceAll(/\([^()]*\)/g, " ");
  return value.trim().toLowerCase() === "no";
}

/** Whether any octet of the header section is not ASCII (RFC 6532). */
export function isInternationalized(header: Uint8Array): boolean {
  let bits = 0;
  for (let i = 0; i < header.length; i++) bits |= header[i]!;
  return (bits & 0x80) !== 0;
}

function isField(header: Buffer, at: number, name: string): boolean {
  for (let i = 0; i < name.length; i++) {
    let octet = header[at + i];
    if (octet === undefined) return false;
    if (octet >= 65 && octet <= 90) octet |= 0x20;
    if (octet !== name.charCodeAt(i)) return false;
  }
  let end = at + name.length;
  while (header[end] === 32 || header[end] === 9) end++;
  return header[end] === COLON;
}

function nextLine(header: Buffer, at: number): number {
  const lf = header.indexOf(LF, at);
  return lf < 0 ? header.length : lf + 1;
}

function messageId(header: Buffer, at: number): string | null {
  let end = nextLine(header, at);
  while (header[end] === 32 || header[end] === 9) end = nextLine(header, end);
  const start = header.indexOf(COLON, at) + 1;
  if (end - start > MAX_MESSAGE_ID + 4) return null;
  const value = header.toString("utf8", start, end);
  const id = /<[^<>]+>/.exec(value)?.[0].replace(/\s+/g, "") ?? value.trim();
  // What is kept is shown to people and compared: printable, without blanks.
  return /^[^\s\p{C}]+$/u.test(id) ? id : null;
}

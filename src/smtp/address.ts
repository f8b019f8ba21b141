/**
 * Mail addresses: the paths of MAIL and RCPT (RFC 5321, section 4.1.2), internationalized ones
 * included (RFC 6531, section 3.3), and the mailboxes in them wherever else one is given.
 *
 * A mailbox is kept in its simplest form: a quoted local part that needs no quotes loses them, a
 * source route is dropped (RFC 5321, appendix C). What is kept cannot carry CR, LF, NUL or any
 * other control, so that it may stand in a command or a header field as it is.
 */
import { Buffer } from "node:buffer";
import { isIPv4, isIPv6 } from "node:net";
import { domainToASCII } from "node:url";

/** Octets, RFC 5321, sections 4.5.3.1.1 to 4.5.3.1.3. A path counts its angle brackets. */
export const MAX_LOCAL_PART = 64;
export const MAX_DOMAIN = 255;
export const MAX_PATH = 256;
const MAX_LABEL = 63;

export interface Mailbox {
  /** Without quotes and backslashes. */
  readonly localPart: string;
  /** A domain as it was given, or an address literal in its brackets. */
  readonly domain: string;
}

/** A path at the beginning of a text, and where it ends in it. */
export interface ParsedPath<T> {
  readonly mailbox: T;
  /** Index of the first character after the closing bracket. */
  readonly end: number;
}

/** The text is not an address. The message says what is wrong with it and does not repeat it. */
export class BadAddress extends Error {
  override readonly name = "BadAddress";
}

// UTF8-non-ascii of RFC 6532, section 3.1, without C1 controls, no-break spaces, line separators,
// bidirectional overrides and lone surrogates: nothing that would disturb a log or a header.
const NON_ASCII = "\\u{A1}-\\u{2027}\\u{2030}-\\u{D7FF}\\u{E000}-\\u{10FFFF}";
// RFC 5322, section 3.2.3.
const ATEXT = `[A-Za-z0-9!#$%&'*+\\-/=?^_\`{|}~${NON_ASCII}]`;
const DOT_STRING = new RegExp(`${ATEXT}+(?:\\.${ATEXT}+)*`, "uy");
const QUOTED_STRING = new RegExp(`"((?:[ !#-\\[\\]-~${NON_ASCII}]|\\\\[ -~])*)"`, "uy");
const DOT_STRING_ONLY = new RegExp(`^${DOT_STRING.source}$`, "u");
const LITERAL = /\[([A-Za-z0-9.:]*)\]/y;
const DOMAIN = new RegExp(`[A-Za-z0-9.\\-${NON_ASCII}]+`, "uy");
const ASCII_LABEL = /^[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?$/;
const SOURCE_ROUTE = /@[^\s<>@,:[\]]+(?:,@[^\s<>@,:[\]]+)*:/y;
// deno-lint-ignore no-control-regex -- "only ASCII" is what it asks
const ASCII = /^[\x00-\x7f]*$/;

/** Whether a mailbox needs SMTPUTF8 (RFC 6531) to be named. */
export function isAscii(text: string): boolean {
  return ASCII.test(text);
}

/** `local@domain`, quoted only where it must be. */
export function formatMailbox(mailbox: Mailbox): string {
  const { localPart, domain } = mailbox;
  if (DOT_STRING_ONLY.test(localPart)) return `${localPart}@${domain}`;
  return `"${localPart.replace(/["\\]/g, "\\$&")}"@${domain}`;
}

/**
 * A mailbox that is the whole text, without angle brackets.
 * @throws BadAddress
 */
export function parseMailbox(text: string): Mailbox {
  if (text.length > MAX_LOCAL_PART * 2 + MAX_DOMAIN) {
    throw new BadAddress("the address is too long");
  }
  const { mailbox, end } = mailboxAt(text, 0);
  if (end !== text.length) throw new BadAddress("something follows the address");
  return mailbox;
}

/**
 * The reverse-path that begins the text; a null `mailbox` is the null reverse-path `<>`.
 * @throws BadAddress
 */
export function parseReversePath(text: string): ParsedPath<Mailbox | null> {
  if (text.startsWith("<>")) return { mailbox: null, end: 2 };
  return pathAt(text);
}

/**
 * The forward-path that begins the text; a null `mailbox` is `<Postmaster>` without a domain, in
 * any case of letters (RFC 5321, section 4.1.1.3).
 * @throws BadAddress
 */
export function parseForwardPath(text: string): ParsedPath<Mailbox | null> {
  if (text.startsWith("<>")) throw new BadAddress("a recipient cannot be the null path");
  if (/^<postmaster>/i.test(text)) return { mailbox: null, end: "<postmaster>".length };
  return pathAt(text);
}

function pathAt(text: string): ParsedPath<Mailbox> {
  if (!text.startsWith("<")) throw new BadAddress("the address must stand in angle brackets");
  SOURCE_ROUTE.lastIndex = 1;
  const start = SOURCE_ROUTE.test(text) ? SOURCE_ROUTE.lastIndex : 1;
  const { mailbox, end } = mailboxAt(text, start);
  if (text[end] !== ">") throw new BadAddress("the address does not end with a closing bracket");
  return { mailbox, end: end + 1 };
}

function mailboxAt(text: string, start: number): ParsedPath<Mailbox> {
  const local = localPartAt(text, start);
  if (text[local.end] !== "@") {
    throw new BadAddress("the local part must be followed by @ and a domain");
  }
  const domain = domainAt(text, local.end + 1);
  const mailbox = { localPart: local.mailbox, domain: domain.mailbox };
  if (octets(formatMailbox(mailbox)) > MAX_PATH - 2) {
    throw new BadAddress(`the address is longer than ${MAX_PATH - 2} octets`);
  }
  return { mailbox, end: domain.end };
}

function localPartAt(text: string, start: number): ParsedPath<string> {
  let localPart: string;
  let end: number;
  if (text[start] === '"') {
    QUOTED_STRING.lastIndex = start;
    const quoted = QUOTED_STRING.exec(text);
    if (!quoted) throw new BadAddress("the quoted local part is malformed");
    localPart = quoted[1]!.replace(/\\(.)/g, "$1");
    end = QUOTED_STRING.lastIndex;
  } else {
    DOT_STRING.lastIndex = start;
    const dotString = DOT_STRING.exec(text);
    if (!dotString) throw new BadAddress("the local part is malformed");
    localPart = dotString[0];
    end = DOT_STRING.lastIndex;
  }
  if (octets(localPart) > MAX_LOCAL_PART) {
    throw new BadAddress(`the local part is longer than ${MAX_LOCAL_PART} octets`);
  }
  return { mailbox: localPart, end };
}

function domainAt(text: string, start: number): ParsedPath<string> {
  if (text[start] === "[") {
    LITERAL.lastIndex = start;
    const literal = LITERAL.exec(text);
    if (!literal || !isAddressLiteral(literal[0])) {
      throw new BadAddress("the address literal is malformed");
    }
    return { mailbox: literal[0], end: LITERAL.lastIndex };
  }
  DOMAIN.lastIndex = start;
  const domain = DOMAIN.exec(text)?.[0] ?? "";
  const why = whyNoDomain(domain);
  if (why) throw new BadAddress(why);
  return { mailbox: domain, end: start + domain.length };
}

/** `[192.0.2.1]` or `[IPv6:2001:db8::1]`; RFC 5321, section 4.1.3, knows no other in use. */
export function isAddressLiteral(text: string): boolean {
  if (!text.startsWith("[") || !text.endsWith("]")) return false;
  const inner = text.slice(1, -1);
  if (isIPv4(inner)) return true;
  return /^ipv6:/i.test(inner) && !inner.includes("%") && isIPv6(inner.slice(5));
}

/** Whether the text is a domain of LDH labels or U-labels, without a trailing dot. */
export function isDomain(text: string): boolean {
  return whyNoDomain(text) === undefined;
}

function whyNoDomain(domain: string): string | undefined {
  if (domain === "") return "the domain is missing";
  const labels = domain.split(".");
  let length = -1;
  let last = "";
  for (const label of labels) {
    // A U-label counts as what it will be in the DNS; one that maps to several labels is a trick.
    const ascii = isAscii(label) ? label : domainToASCII(label);
    if (!ASCII_LABEL.test(ascii)) return "the domain is malformed";
    if (ascii.length > MAX_LABEL) return `a label of the domain is longer than ${MAX_LABEL} octets`;
    length += ascii.length + 1;
    last = ascii;
  }
  // No top-level domain is a number (RFC 3696, section 2), but an IPv4 address ends with one.
  if (/^\d+$/.test(last)) return "the domain ends with a number; an address stands in brackets";
  if (length > MAX_DOMAIN || octets(domain) > MAX_DOMAIN) {
    return `the domain is longer than ${MAX_DOMAIN} octets`;
  }
  return undefined;
}

function octets(text: string): number {
  return Buffer.byteLength(text);
}

/**
 * Makes a message of what a program wrote: header and body told apart, the fields put in that every
 * message has (RFC 5322, section 3.6), Bcc taken out, local names given a domain; and the recipients
 * that its header names.
 */
import { Buffer } from "node:buffer";
import { fieldsOf, type HeaderField } from "../../dkim/canonical.ts";
import { beginsWithField, isInternationalized } from "../../submission/header.ts";
import { addressesIn, BadList, qualify, qualifyList } from "./addresses.ts";

export interface Author {
  /** The address for a From field, where the message has none. */
  readonly address: string;
  readonly name: string | undefined;
  /** What local names are completed with. */
  readonly domain: string;
  /** Epoch milliseconds. */
  readonly now: number;
  /** Left side of a Message-ID, unique. */
  readonly id: string;
}

export interface Prepared {
  /** Whole lines, CRLF at each end. */
  readonly content: Buffer;
  /** As the header names them, each once; local names completed. */
  readonly named: readonly string[];
  readonly has8bit: boolean;
}

/** Never sent on: Bcc is why there is Bcc, the others are said by the envelope or are wrong soon. */
const DROPPED = new Set(["bcc", "resent-bcc", "return-path", "content-length"]);
const RECIPIENTS = ["to", "cc", "bcc"];
/** Fields in which local names are completed. */
const ADDRESSES = new Set([
  "from",
  "sender",
  "reply-to",
  "to",
  "cc",
  "resent-from",
  "resent-sender",
  "resent-to",
  "resent-cc",
]);

/**
 * @param input whole lines, CRLF at each end
 * @throws BadList when a field of recipients cannot be read, and `named` are wanted
 */
export function prepare(input: Buffer, author: Author, wantsNamed: boolean): Prepared {
  const { header, body } = split(input);
  const fields = fieldsOf(header.toString("latin1"));
  const named = wantsNamed ? recipientsOf(fields, author.domain) : [];
  const kept = fields.filter(({ name }) => !DROPPED.has(name))
    .map((field) => ADDRESSES.has(field.name) ? completed(field, author.domain) : field.text);
  const has = (name: string) => fields.some((field) => field.name === name);
  const added = [
    ...(has("from") ? [] : [`From: ${mailbox(author.name, author.address)}`]),
    ...(has("date") ? [] : [`Date: ${new Date(author.now).toUTCString().replace("GMT", "+0000")}`]),
    ...(has("message-id") ? [] : [`Message-ID: <${author.id}@${author.domain}>`]),
  ].map((field) => Buffer.from(field).toString("latin1"));
  const lines = [...kept, ...added].map((field) => `${field}\r\n`).join("");
  const content = Buffer.concat([Buffer.from(`${lines}\r\n`, "latin1"), body]);
  return { content, named, has8bit: isInternationalized(content) };
}

/** Where the header ends: at an empty line, or before a line that is no field. */
function split(input: Buffer): { readonly header: Buffer; readonly body: Buffer } {
  let at = 0;
  // What mbox files begin a message with is not part of it.
  while (/^>?From /.test(input.toString("latin1", at, at + 6))) at = lineEnd(input, at);
  const start = at;
  while (at < input.length) {
    const end = lineEnd(input, at);
    if (end - at === 2) {
      return { header: input.subarray(start, at), body: input.subarray(end) };
    }
    const folded = at > start && (input[at] === 32 || input[at] === 9);
    if (!folded && beginsWithField(input.subarray(at, end)) !== "yes") break;
    at = end;
  }
  return { header: input.subarray(start, at), body: input.subarray(at) };
}

function lineEnd(input: Buffer, at: number): number {
  const lf = input.indexOf(10, at);
  return lf < 0 ? input.length : lf + 1;
}

/** To, Cc and Bcc; of a message that is sent on by somebody else, theirs (RFC 5322, section 3.6.6). */
function recipientsOf(fields: readonly HeaderField[], domain: string): string[] {
  const resent = RECIPIENTS.map((name) => `resent-${name}`);
  const wanted = fields.some(({ name }) => resent.includes(name)) ? resent : RECIPIENTS;
  const specs = fields.filter(({ name }) => wanted.includes(name)).flatMap(({ name, text }) => {
    const value = text.slice(text.indexOf(":") + 1);
    try {
      return addressesIn(Buffer.from(value, "latin1").toString("utf8"));
    } catch (error) {
      if (!(error instanceof BadList)) throw error;
      throw new BadList(`the field ${name} cannot be read: ${error.message}`);
    }
  });
  return [...new Set(specs.map(({ spec }) => qualify(spec, domain)))];
}

/** What cannot be read stays as it is: it may be an address in a form of somebody's own. */
function completed({ text }: HeaderField, domain: string): string {
  const value = text.indexOf(":") + 1;
  try {
    return text.slice(0, value) + qualifyList(text.slice(value), domain);
  } catch (error) {
    if (error instanceof BadList) return text;
    throw error;
  }
}

/** RFC 5322, section 3.4; a name that is not ASCII as RFC 2047 has it. */
function mailbox(name: string | undefined, address: string): string {
  // deno-lint-ignore no-control-regex -- controls are what it takes out
  const clean = name?.replace(/[\x00-\x1f\x7f]+/g, " ").trim() ?? "";
  if (clean === "") return address;
  if (/^[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~ ]+$/.test(clean)) return `${clean} <${address}>`;
  if (/^[ -~]+$/.test(clean)) return `"${clean.replace(/["\\]/g, "\\$&")}" <${address}>`;
  return `${encodedWords(clean).join("\r\n ")} <${address}>`;
}

/** An encoded word has at most 75 characters, and holds whole characters. */
function encodedWords(text: string): string[] {
  const words: string[] = [];
  let part = "";
  for (const character of text) {
    if (Buffer.byteLength(part + character) > 42) {
      words.push(part);
      part = "";
    }
    part += character;
  }
  words.push(part);
  return words.map((word) => `=?utf-8?B?${Buffer.from(word).toString("base64")}?=`);
}

/**
 * The authors of a message: the mailboxes in its From field (RFC 5322, section 3.6.2; groups:
 * RFC 6854). Strict where it counts: whatever could be read as one author here and as another by
 * somebody else is not read at all.
 */
import { BadAddress, type Mailbox, parseMailbox } from "../smtp/address.ts";

/** The header does not say who its author is. The text is fit for a reply. */
export class BadAuthor extends Error {
  override readonly name = "BadAuthor";
}

/**
 * @param header section of a message: whole lines, CRLF at each end
 * @throws BadAuthor when there is no From field, more than one, or one that cannot be read
 */
export function authorsOf(header: Uint8Array): Mailbox[] {
  const text = new TextDecoder().decode(header).replace(/\r\n(?=[ \t])/g, "");
  const fields = text.split("\r\n").flatMap((line) => {
    const [, body] = /^from[ \t]*:(.*)$/i.exec(line) ?? [];
    return body === undefined ? [] : [body];
  });
  if (fields.length !== 1) {
    const found = fields.length === 0 ? "no From field" : "more than one From field";
    throw new BadAuthor(`the message has ${found}`);
  }
  const mailboxes = addressSpecs(fields[0]!).map((spec) => {
    try {
      return parseMailbox(spec);
    } catch (error) {
      if (error instanceof BadAddress) throw unreadable();
      throw error;
    }
  });
  if (mailboxes.length === 0) throw new BadAuthor("the From field names nobody");
  return mailboxes;
}

const unreadable = () => new BadAuthor("the From field cannot be read");

/** Quoted strings, literals, comments and the characters that divide a list, or a run of others. */
const TOKEN = /"(?:[^"\\]|\\.)*"|\[[^[\]\\]*\]|[()<>:;,]|[^"()<>:;,[\]\s]+|\s+/gy;

/** The address in each mailbox of a list, without names, comments and groups. */
function addressSpecs(list: string): string[] {
  const specs: string[] = [];
  let words = "";
  let angle: string | undefined;
  let closed = false;
  let group = false;
  let at = 0;
  const take = () => {
    const spec = closed ? angle! : words.trim();
    if (spec !== "") specs.push(spec);
    words = "";
    angle = undefined;
    closed = false;
  };
  while (at < list.length) {
    if (list[at] === "(") {
      at = afterComment(list, at);
      if (angle === undefined) words += " ";
      continue;
    }
    TOKEN.lastIndex = at;
    const token = TOKEN.exec(list)?.[0];
    if (token === undefined) throw unreadable();
    at += token.length;
    const blank = /^\s/.test(token);
    if (angle !== undefined && !closed) {
      if (token === ">") closed = true;
      else if (/^[<:;,]$/.test(token)) throw unreadable();
      else if (!blank) angle += token;
    } else if (token === ",") take();
    else if (token === "<" && !closed) angle = "";
    else if (token === ":" && !closed && !group) {
      group = true;
      words = "";
    } else if (token === ";" && group) {
      take();
      group = false;
    } else if (/^[<>:;)]$/.test(token) || (closed && !blank)) throw unreadable();
    else words += token;
  }
  if (group || (angle !== undefined && !closed)) throw unreadable();
  take();
  return specs;
}

/** Comments nest (RFC 5322, section 3.2.2). */
function afterComment(text: string, start: number): number {
  let depth = 0;
  for (let at = start; at < text.length; at++) {
    if (text[at] === "\\") at++;
    else if (text[at] === "(") depth++;
    else if (text[at] === ")" && --depth === 0) return at + 1;
  }
  throw unreadable();
}

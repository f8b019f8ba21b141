/**
 * Text of strangers made fit for a report: what a remote server said, and what a sender wrote,
 * must neither begin a header field of its own nor hide what the reader sees.
 */
import { Buffer } from "node:buffer";

/** RFC 5322, section 2.1.1, without the CRLF. */
export const MAX_LINE = 998;
const FOLD_AT = 76;

/**
 * One line: white space and line breaks are single spaces; controls, bidirectional overrides,
 * surrogates and whatever else has no glyph is "?".
 */
export function oneLine(text: string, limit: number): string {
  const line = text.slice(0, limit * 2).replace(/[\s\p{Z}]+/gu, " ").replace(/\p{C}/gu, "?").trim();
  return line.length > limit ? `${line.slice(0, limit - 3).toWellFormed()}...` : line;
}

/** `oneLine`, in printable ASCII: other characters are "?". */
export function asciiLine(text: string, limit: number): string {
  return oneLine(text, limit).replace(/[^ -~]/gu, "?");
}

// deno-lint-ignore no-control-regex -- "only ASCII" is what it asks
export const isAscii = (text: string): boolean => /^[\x00-\x7f]*$/.test(text);

/** A header field with its CRLF, folded at spaces; `value` is the outcome of one of the above. */
export function field(name: string, value: string): string {
  return `${wrap(`${name}: ${value}`, " ").join("\r\n")}\r\n`;
}

/**
 * Breaks a line at spaces so that lines measure about 76 octets, each but the first with `indent`.
 * A word that is longer stays whole until it would break the hard limit.
 */
export function wrap(text: string, indent: string): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ").flatMap((word) => chunks(word, MAX_LINE - 100))) {
    // A field name keeps its first word: a field must not begin with an empty line.
    const joined = line === "" ? word : `${line} ${word}`;
    const fits = Buffer.byteLength(joined) + indent.length <= FOLD_AT;
    if (line === "" || fits || (lines.length === 0 && /^[\w-]{1,40}:$/.test(line))) {
      line = joined;
    } else {
      lines.push(line);
      line = word;
    }
  }
  lines.push(line);
  return lines.map((text, n) => n === 0 ? text : indent + text);
}

/** Parts of at most `limit` octets in UTF-8, never within a character. */
function chunks(word: string, limit: number): string[] {
  if (Buffer.byteLength(word) <= limit) return [word];
  const parts: string[] = [];
  let part = "";
  let size = 0;
  for (const character of word) {
    const octets = Buffer.byteLength(character);
    if (size + octets > limit) {
      parts.push(part);
      part = "";
      size = 0;
    }
    part += character;
    size += octets;
  }
  return [...parts, part];
}

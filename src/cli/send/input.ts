/**
 * A message as programs write it to standard input, as lines of mail: CRLF at each end, whatever the
 * program wrote; nothing in them that a mail server would refuse. What a job prints shall arrive.
 *
 *   LF or CRLF ends a line         a CR elsewhere, and a NUL, become a blank
 *   a dot alone ends the message   unless it is content (-i)
 *   a line over 998 octets goes on in the next, behind a blank (RFC 5322, section 2.1.1)
 */
import { Buffer } from "node:buffer";

const MAX_LINE = 998;
const CR = 13;
const LF = 10;
const NUL = 0;
const BLANK = 32;
const CRLF = Buffer.from("\r\n");

export class MessageInput {
  readonly #ignoreDots: boolean;
  readonly #most: number;
  #pieces: Buffer[] = [];
  /** Of the line that is not whole yet. */
  #begun: Buffer[] = [];
  #begunSize = 0;
  #size = 0;
  #ended = false;

  /** @param most octets of a message */
  constructor(ignoreDots: boolean, most: number) {
    this.#ignoreDots = ignoreDots;
    this.#most = most;
  }

  get tooLarge(): boolean {
    return this.#size + this.#begunSize > this.#most;
  }

  /** Takes the next octets; true when the message has ended, or is too large to go on. */
  push(octets: Uint8Array): boolean {
    const chunk = Buffer.from(octets);
    for (let at = 0; at < chunk.length && !this.#ended;) {
      const lf = chunk.indexOf(LF, at);
      const piece = chunk.subarray(at, lf < 0 ? chunk.length : lf);
      if (piece.length > 0) this.#begun.push(piece);
      this.#begunSize += piece.length;
      if (lf < 0) break;
      this.#line();
      at = lf + 1;
    }
    return this.#ended || this.tooLarge;
  }

  /** Whether a dot has ended it. */
  get ended(): boolean {
    return this.#ended;
  }

  /** The whole lines that have come since the last call. */
  drain(): Buffer {
    const lines = Buffer.concat(this.#pieces);
    this.#pieces = [];
    this.#size = 0;
    return lines;
  }

  /** All that is left; nothing can follow. */
  end(): Buffer {
    if (this.#begun.length > 0) this.#line();
    return this.drain();
  }

  #line(): void {
    let line = Buffer.concat(this.#begun);
    this.#begun = [];
    this.#begunSize = 0;
    if (line.at(-1) === CR) line = line.subarray(0, -1);
    if (!this.#ignoreDots && line.length === 1 && line[0] === 0x2e) {
      this.#ended = true;
      return;
    }
    for (let at = 0; at < line.length; at++) {
      if (line[at] === CR || line[at] === NUL) line[at] = BLANK;
    }
    while (line.length > MAX_LINE) {
      let cut = MAX_LINE;
      // Not within a character of UTF-8.
      while (cut > MAX_LINE - 4 && (line[cut]! & 0xc0) === 0x80) cut--;
      this.#put(line.subarray(0, cut));
      line = Buffer.concat([Buffer.from(" "), line.subarray(cut)]);
    }
    this.#put(line);
  }

  #put(line: Buffer): void {
    this.#pieces.push(line, CRLF);
    this.#size += line.length + CRLF.length;
  }
}

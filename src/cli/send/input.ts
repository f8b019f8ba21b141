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
const DOT = 46;

export class MessageInput {
  readonly #ignoreDots: boolean;
  readonly #most: number;
  /** The lines so far, and the beginning of one; grows by doubling. */
  #out = Buffer.allocUnsafe(64 * 1024);
  #used = 0;
  #lineStart = 0;
  /** Of the line as it came in; a line that goes on in the next is not a new one. */
  #folded = false;
  #afterCR = false;
  #ended = false;

  /** @param most octets of a message */
  constructor(ignoreDots: boolean, most: number) {
    this.#ignoreDots = ignoreDots;
    this.#most = most;
  }

  get tooLarge(): boolean {
    return this.#used > this.#most;
  }

  /** Whether a dot has ended it. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Takes the next octets; true when the message has ended, or is too large to go on. */
  push(octets: Uint8Array): boolean {
    for (let i = 0; i < octets.length && !this.#ended; i++) {
      const octet = octets[i]!;
      if (octet === LF) {
        this.#afterCR = false;
        this.#endLine();
        continue;
      }
      if (this.#afterCR) this.#put(BLANK);
      this.#afterCR = octet === CR;
      if (!this.#afterCR) this.#put(octet === NUL ? BLANK : octet);
    }
    return this.#ended || this.tooLarge;
  }

  /** The whole lines that have come since the last call. */
  drain(): Buffer {
    const lines = Buffer.from(this.#out.subarray(0, this.#lineStart));
    this.#out.copyWithin(0, this.#lineStart, this.#used);
    this.#used -= this.#lineStart;
    this.#lineStart = 0;
    return lines;
  }

  /** All that is left; nothing can follow. */
  end(): Buffer {
    if (this.#used > this.#lineStart) this.#endLine();
    return this.drain();
  }

  #put(octet: number): void {
    if (this.#used - this.#lineStart === MAX_LINE) this.#fold(octet);
    this.#room(1);
    this.#out[this.#used++] = octet;
  }

  /** Ends the line before the character that `octet` belongs to. */
  #fold(octet: number): void {
    let cut = this.#used;
    // Not within a character of UTF-8: what continues it is 10xxxxxx.
    for (let next = octet; (next & 0xc0) === 0x80 && this.#used - cut < 3; cut--) {
      next = this.#out[cut - 1]!;
    }
    this.#room(3);
    this.#out.copyWithin(cut + 3, cut, this.#used);
    this.#out[cut] = CR;
    this.#out[cut + 1] = LF;
    this.#out[cut + 2] = BLANK;
    this.#used += 3;
    this.#lineStart = cut + 2;
    this.#folded = true;
  }

  #endLine(): void {
    const dot = this.#used - this.#lineStart === 1 && this.#out[this.#lineStart] === DOT;
    if (dot && !this.#folded && !this.#ignoreDots) {
      this.#used = this.#lineStart;
      this.#ended = true;
      return;
    }
    this.#room(2);
    this.#out[this.#used++] = CR;
    this.#out[this.#used++] = LF;
    this.#lineStart = this.#used;
    this.#folded = false;
  }

  #room(octets: number): void {
    if (this.#used + octets <= this.#out.length) return;
    const grown = Buffer.allocUnsafe(2 * this.#out.length);
    grown.set(this.#out);
    this.#out = grown;
  }
}

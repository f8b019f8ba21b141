/**
 * LineCheck: whether content is made of lines as RFC 5321, section 2.3.8, wants them, and whether
 * it is 8-bit. It sees the content once, chunk by chunk, and keeps nothing of it.
 *
 * CR and LF may only stand together. What one server takes for the end of a line, and so for the
 * end of a message, another must not take differently: that is how messages are smuggled past
 * checks. NUL is refused as well; without BINARYMIME no content may carry it (RFC 6152,
 * section 2).
 *
 * Lines longer than 1,000 octets are refused rather than cut: cutting would break signatures, and
 * the next server may refuse them just as well (RFC 5321, section 4.5.3.1.6). Whoever knows the
 * next servers to take more can raise the limit.
 */
import { Refusal } from "./refusal.ts";

/** CR or LF stood alone: sender and receiver may not agree where lines, or messages, end. */
export class BareLineEnd extends Refusal {}

const NUL = 0;
const LF = 10;
const CR = 13;

export class LineCheck {
  readonly #maxLine: number;
  #line = 1;
  /** Octets of the current line in earlier chunks. */
  #carried = 0;
  #afterCR = false;
  #bits = 0;

  /** @param maxLine octets of a line, CRLF included */
  constructor(maxLine: number) {
    this.#maxLine = maxLine;
  }

  get has8bit(): boolean {
    return (this.#bits & 0x80) !== 0;
  }

  /** Whether all content so far ends with a whole line (so does none). */
  get atLineStart(): boolean {
    return this.#carried === 0 && !this.#afterCR;
  }

  /** Checks the next octets. After the first fault there is no use in going on. */
  check(chunk: Uint8Array): Refusal | undefined {
    const length = chunk.length;
    if (length === 0) return undefined;
    let i = 0;
    let lineStart = -this.#carried;
    let bits = this.#bits;
    if (this.#afterCR) {
      if (chunk[0] !== LF) return this.#bare("CR");
      this.#afterCR = false;
      const long = this.#endOfLine(1 - lineStart);
      if (long) return long;
      i = lineStart = 1;
    }
    for (; i < length; i++) {
      const octet = chunk[i]!;
      bits |= octet;
      if (octet > CR) continue;
      if (octet === CR) {
        if (i + 1 === length) {
          this.#afterCR = true;
        } else if (chunk[i + 1] === LF) {
          i++;
          const long = this.#endOfLine(i + 1 - lineStart);
          if (long) return long;
          lineStart = i + 1;
        } else {
          return this.#bare("CR");
        }
      } else if (octet === LF) {
        return this.#bare("LF");
      } else if (octet === NUL) {
        return this.#fault("contains a NUL");
      }
    }
    this.#bits = bits;
    this.#carried = length - lineStart;
    return this.#carried > this.#maxLine ? this.#tooLong() : undefined;
  }

  /** Checks how the content ends. */
  end(): Refusal | undefined {
    return this.#afterCR ? this.#bare("CR") : undefined;
  }

  #endOfLine(octets: number): Refusal | undefined {
    if (octets > this.#maxLine) return this.#tooLong();
    this.#line++;
    return undefined;
  }

  #tooLong(): Refusal {
    return this.#fault(`is longer than ${this.#maxLine} octets`);
  }

  #fault(what: string): Refusal {
    return new Refusal(550, "5.6.0", `line ${this.#line} of the message ${what}`);
  }

  #bare(what: "CR" | "LF"): Refusal {
    const text = `line ${this.#line} of the message has a bare ${what}; lines end with CRLF`;
    return new BareLineEnd(550, "5.6.0", text);
  }
}

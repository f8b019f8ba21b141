/**
 * DotDecoder: finds the end of DATA content and takes out the dots that the client put in
 * (RFC 5321, section 4.5.2).
 *
 * Content ends with CRLF "." CRLF and with nothing else, whatever else looks like it: every other
 * place where a sloppy server might see an end is left in the content, bare CR and LF included,
 * for the line check of the intake to refuse.
 */
import { Buffer } from "node:buffer";

const CR = 13;
const LF = 10;
const DOT = 46;
const LONE_CR = Buffer.from("\r");

/** What came last, as far as it can be part of CRLF "." CRLF. */
enum Seen {
  Nothing,
  CR,
  CRLF,
  Dot,
  DotCR,
}

export class DotDecoder {
  /** The first line of content may be the dot already. */
  #seen = Seen.CRLF;

  /**
   * Decodes a chunk and emits its content in pieces of it.
   * @returns index in the chunk after the end of the content, -1 when it goes on
   */
  decode(chunk: Uint8Array, emit: (piece: Uint8Array) => void): number {
    const length = chunk.length;
    let seen = this.#seen;
    let start = 0;
    let i = 0;
    const passTo = (end: number) => {
      if (end > start) emit(start === 0 && end === length ? chunk : chunk.subarray(start, end));
    };
    while (i < length) {
      const octet = chunk[i]!;
      switch (seen) {
        case Seen.Nothing:
          if (octet === CR) seen = Seen.CR;
          break;
        case Seen.CR:
          if (octet === LF) seen = Seen.CRLF;
          else if (octet !== CR) seen = Seen.Nothing;
          break;
        case Seen.CRLF:
          if (octet === DOT) {
            passTo(i);
            start = i + 1;
            seen = Seen.Dot;
          } else seen = octet === CR ? Seen.CR : Seen.Nothing;
          break;
        case Seen.Dot:
          if (octet === CR) {
            start = i + 1; // held back: it belongs to the end of content, or comes after all
            seen = Seen.DotCR;
          } else seen = Seen.Nothing;
          break;
        case Seen.DotCR:
          if (octet === LF) {
            this.#seen = Seen.CRLF;
            return i + 1;
          }
          emit(LONE_CR);
          seen = octet === CR ? Seen.CR : Seen.Nothing;
          break;
      }
      i++;
    }
    this.#seen = seen;
    passTo(length);
    return -1;
  }
}

/**
 * The transparency of DATA (RFC 5321, section 4.5.2): a dot at the start of a line is doubled,
 * and a line with a single dot ends the message.
 *
 * Lines end with CRLF and with nothing else: a lone CR or LF that went out could be read as a line
 * end by the next server, and what follows it as commands (SMTP smuggling). Whatever takes
 * messages in sees to that; here it is checked once more, at the last moment.
 */
import { Buffer } from "node:buffer";

/** The content has a CR or LF that is not part of a CRLF; it must not be sent. */
export class BareLineEnd extends Error {
  override readonly name = "BareLineEnd";
  constructor() {
    super("the message has a CR or LF that is not part of a CRLF");
  }
}

const CR = 13;
const LF = 10;
const DOT = 46;
const ONE_DOT = Uint8Array.of(DOT);
const END = new TextEncoder().encode(".\r\n");
const CRLF_END = new TextEncoder().encode("\r\n.\r\n");
/** Between two octets of a chunk: a lone CR, a lone LF. The chunk's edges are looked at apart. */
const BARE = /\r(?!\n|$)|(?<!\r|^)\n/;

/** Stuffs one message, in whatever chunks it comes. */
export class DotStuffer {
  #lineStart = true;
  #afterCR = false;

  /**
   * The pieces to send for a chunk; they share its memory.
   * @throws BareLineEnd
   */
  push(chunk: Uint8Array): Uint8Array[] {
    if (chunk.length === 0) return [];
    const octets = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    // A CR at the end of the chunk before must be followed by LF, an LF at the start must follow it.
    if (this.#afterCR !== (octets[0] === LF)) throw new BareLineEnd();
    if (BARE.test(octets.toString("latin1"))) throw new BareLineEnd();

    const pieces: Uint8Array[] = [];
    let from = 0;
    if (octets[0] === DOT && this.#lineStart) pieces.push(ONE_DOT);
    // The edge: the chunk before ended with CR, this one begins with LF and a dot.
    if (this.#afterCR && octets[1] === DOT) {
      pieces.push(octets.subarray(0, 1), ONE_DOT);
      from = 1;
    }
    for (let at = octets.indexOf("\r\n.", 0, "latin1"); at >= 0;) {
      pieces.push(octets.subarray(from, at + 2), ONE_DOT);
      from = at + 2;
      at = octets.indexOf("\r\n.", from, "latin1");
    }
    pieces.push(from === 0 ? chunk : octets.subarray(from));
    this.#afterCR = octets[octets.length - 1] === CR;
    this.#lineStart = octets[octets.length - 1] === LF;
    return pieces;
  }

  /**
   * The end of data; a last line without CRLF gets one.
   * @throws BareLineEnd when the last octet was a CR
   */
  end(): Uint8Array {
    if (this.#afterCR) throw new BareLineEnd();
    return this.#lineStart ? END : CRLF_END;
  }
}

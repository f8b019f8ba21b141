/**
 * Relaxed canonicalization (RFC 6376, sections 3.4.2 and 3.4.4): the form of header and body that
 * survives what relays do to blanks. Content comes with CRLF at every line end, as it is stored.
 *
 * Text of a header is `latin1`, an octet per character, so that any octet passes unchanged.
 */
import { Buffer } from "node:buffer";
import { createHash, type Hash } from "node:crypto";

/** A field of a header section. */
export interface HeaderField {
  /** In lower case. */
  readonly name: string;
  /** All of it, folds included, without the CRLF at its end. */
  readonly text: string;
}

/** The fields of a header section, in its order. What has no colon is no field. */
export function fieldsOf(header: string): HeaderField[] {
  return header.split(/\r\n(?![ \t])/).flatMap((text) => {
    const colon = text.indexOf(":");
    if (colon < 1) return [];
    return [{ name: text.slice(0, colon).replace(/[ \t]+$/, "").toLowerCase(), text }];
  });
}

/** Section 3.4.2, without the CRLF at the end. */
export function relaxedField({ name, text }: HeaderField): string {
  const value = text.slice(text.indexOf(":") + 1)
    .replaceAll("\r\n", "")
    .replace(/[ \t]+/g, " ");
  return `${name}:${value.replace(/^ | $/g, "")}`;
}

const TAB = 9;
const LF = 10;
const CR = 13;
const SPACE = 32;
const ROOM = 64 * 1024;

/** The hash over a body in its relaxed form (section 3.4.4), chunk by chunk. */
export class RelaxedBodyHash {
  readonly #hash: Hash = createHash("sha256");
  #out = Buffer.allocUnsafe(ROOM);
  #length = 0;
  /** Blanks and line ends that count only if something follows them. */
  #blank = false;
  #lineEnds = 0;
  #afterCR = false;
  #empty = true;

  update(octets: Uint8Array): void {
    for (let i = 0; i < octets.length; i++) {
      const octet = octets[i]!;
      if (this.#afterCR) {
        this.#afterCR = false;
        if (octet === LF) {
          this.#lineEnds++;
          this.#blank = false;
          continue;
        }
        this.#emit(CR);
      }
      if (octet === SPACE || octet === TAB) this.#blank = true;
      else if (octet === CR) this.#afterCR = true;
      else this.#emit(octet);
    }
  }

  /** In base64, the tag `bh`. */
  digest(): string {
    if (this.#afterCR) this.#emit(CR);
    // Empty lines at the end do not count, the end of the last line always does.
    if (!this.#empty) {
      this.#put(CR);
      this.#put(LF);
    }
    this.#flush();
    return this.#hash.digest("base64");
  }

  #emit(octet: number): void {
    this.#empty = false;
    for (; this.#lineEnds > 0; this.#lineEnds--) {
      this.#put(CR);
      this.#put(LF);
    }
    if (this.#blank) {
      this.#blank = false;
      this.#put(SPACE);
    }
    this.#put(octet);
  }

  #put(octet: number): void {
    if (this.#length === ROOM) this.#flush();
    this.#out[this.#length++] = octet;
  }

  #flush(): void {
    this.#hash.update(this.#out.subarray(0, this.#length));
    this.#length = 0;
  }
}

/**
 * Reads DER (X.690, section 10): as much as certificates need. Every length is checked against
 * what is there; nothing is copied.
 */

/** The octets are not DER, or not what was expected there. */
export class DerError extends Error {
  override readonly name = "DerError";
}

/** Identifier octets. */
export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

export interface Element {
  /** Identifier octet: class, constructed or not, number. */
  readonly tag: number;
  /** Content octets. */
  readonly content: Uint8Array;
  /** Identifier, length and content octets. */
  readonly whole: Uint8Array;
}

/** Walks the elements of a constructed value, or of octets that hold several elements. */
export class DerReader {
  #at = 0;

  constructor(readonly octets: Uint8Array) {}

  get done(): boolean {
    return this.#at >= this.octets.length;
  }

  /** Whether the next element has this tag. */
  is(tag: number): boolean {
    return this.octets[this.#at] === tag;
  }

  /** @throws DerError when there is no such element */
  next(tag?: number): Element {
    const start = this.#at;
    const { octets } = this;
    const found = octets[start];
    let length = octets[start + 1];
    if (found === undefined || length === undefined) throw new DerError("ends too early");
    if ((found & 0x1f) === 0x1f) throw new DerError("a tag number over 30");
    if (tag !== undefined && found !== tag) {
      throw new DerError(`tag ${hex(found)} where ${hex(tag)} was expected`);
    }
    let at = start + 2;
    if (length >= 0x80) {
      const count = length & 0x7f;
      if (count === 0 || count > 3) throw new DerError("a length that DER does not have");
      length = 0;
      for (let n = 0; n < count; n++) length = length * 256 + (octets[at++] ?? NaN);
    }
    const end = at + length;
    if (!(end <= octets.length)) throw new DerError("a length beyond the end");
    this.#at = end;
    return { tag: found, content: octets.subarray(at, end), whole: octets.subarray(start, end) };
  }

  /** The next element if it has this tag. */
  optional(tag: number): Element | undefined {
    return this.is(tag) ? this.next(tag) : undefined;
  }

  /** A reader of the content of the next element. */
  enter(tag: number = TAG.sequence): DerReader {
    return new DerReader(this.next(tag).content);
  }

  /** @throws DerError when something is left */
  end(): void {
    if (!this.done) throw new DerError("octets after the end");
  }
}

const hex = (octet: number): string => `0x${octet.toString(16).padStart(2, "0")}`;

/** "1.2.840.113549" */
export function oidText(content: Uint8Array): string {
  const arcs: number[] = [];
  let value = 0;
  for (const octet of content) {
    value = value * 128 + (octet & 0x7f);
    if (value > Number.MAX_SAFE_INTEGER / 128) throw new DerError("an OID arc too large");
    if (octet & 0x80) continue;
    if (arcs.length === 0) {
      const first = Math.min(2, Math.floor(value / 40));
      arcs.push(first, value - 40 * first);
    } else arcs.push(value);
    value = 0;
  }
  return arcs.join(".");
}

/** A small INTEGER that is not negative; Infinity for one beyond 48 bits. */
export function smallInteger(content: Uint8Array): number {
  if (content.length === 0 || content[0]! & 0x80) throw new DerError("not a count");
  if (content.length > 7) return Infinity;
  return content.reduce((value, octet) => value * 256 + octet, 0);
}

/** UTCTime or GeneralizedTime as RFC 5280, section 4.1.2.5 has them; epoch milliseconds. */
export function timeOf({ tag, content }: Element): number {
  const text = String.fromCharCode(...content.subarray(0, 20));
  const digits = tag === TAG.utcTime
    ? /^(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(text)
    : tag === TAG.generalizedTime
    ? /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(text)
    : null;
  if (!digits) throw new DerError("not a time");
  const [year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0] = digits.slice(1)
    .map(Number);
  const century = tag === TAG.utcTime ? (year < 50 ? 2000 : 1900) : 0;
  return Date.UTC(century + year, month - 1, day, hour, minute, second);
}

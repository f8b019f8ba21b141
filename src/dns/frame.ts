/**
 * Checks the frame of a DNS message (RFC 1035, section 4.1) before the decoding library reads it:
 * the library trusts lengths, joins labels with dots whatever octets they have, and decodes types
 * that nobody asked for.
 *
 * What comes out is a copy in which every count, name and length is sound, and in which
 * - an octet within a label that no host name has (a dot, a control, 8 bits) is a backslash: the
 *   name equals none that was asked for, is no valid host, and still stands where it stood
 * - records of other types or classes than are wanted have the opaque type NULL
 */
import { Buffer } from "node:buffer";

/** The message is not one. */
export class FrameError extends Error {
  override readonly name = "FrameError";
}

export const HEADER = 12;

const TYPE = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: 6,
  NULL: 10,
  PTR: 12,
  MX: 15,
  TXT: 16,
  AAAA: 28,
  OPT: 41,
  TLSA: 52,
} as const;
const WANTED = new Set<number>(Object.values(TYPE));
const CLASS_IN = 1;

const MAX_NAME = 255;
/** A name has at most 127 labels, so no honest one needs more pointers. */
const MAX_POINTERS = 127;
const BACKSLASH = 0x5c;

/** @throws FrameError naming what is wrong and at which offset */
export function checkedCopy(message: Uint8Array): Buffer {
  const copy = Buffer.from(message);
  if (copy.length < HEADER) throw new FrameError("shorter than a header");
  const walk = new Walk(copy);
  const questions = copy.readUInt16BE(4);
  if (questions !== 1) throw new FrameError(`${questions} questions instead of one`);
  walk.question();
  for (const count of [6, 8, 10]) {
    for (let n = copy.readUInt16BE(count); n > 0; n--) walk.record();
  }
  return copy;
}

/** Header and question alone, for a truncated message: what follows may be cut anywhere. */
export function withoutRecords(message: Uint8Array): Buffer {
  const copy = Buffer.from(message);
  if (copy.length < HEADER) throw new FrameError("shorter than a header");
  for (const count of [6, 8, 10]) copy.writeUInt16BE(0, count);
  return checkedCopy(copy);
}

class Walk {
  readonly #octets: Buffer;
  #at = HEADER;
  /** Offsets of the labels read so far: the only places that a pointer may lead to. */
  readonly #labels = new Set<number>();
  #options = 0;

  constructor(octets: Buffer) {
    this.#octets = octets;
  }

  question(): void {
    this.#name();
    this.#skip(4);
  }

  record(): void {
    const start = this.#at;
    this.#name();
    const typeAt = this.#at;
    this.#skip(10);
    const type = this.#octets.readUInt16BE(typeAt);
    const end = this.#at + this.#octets.readUInt16BE(typeAt + 8);
    if (end > this.#octets.length) this.#fail("record data ends behind the message");
    this.#data(type, end);
    if (this.#at !== end) this.#fail(`data of type ${type} does not fill its length`);
    if (type === TYPE.OPT) {
      if (this.#octets[start] !== 0 || ++this.#options > 1) this.#fail("bad OPT record");
    } else if (!WANTED.has(type) || this.#octets.readUInt16BE(typeAt + 2) !== CLASS_IN) {
      this.#octets.writeUInt16BE(TYPE.NULL, typeAt);
    }
  }

  #data(type: number, end: number): void {
    switch (type) {
      case TYPE.A:
        return this.#skip(4);
      case TYPE.AAAA:
        return this.#skip(16);
      case TYPE.NS:
      case TYPE.CNAME:
      case TYPE.PTR:
        return this.#name();
      case TYPE.MX:
        this.#skip(2);
        return this.#name();
      case TYPE.SOA:
        this.#name();
        this.#name();
        return this.#skip(20);
      case TYPE.TXT:
        do this.#skip(1 + this.#octet(this.#at)); while (this.#at < end);
        return;
      case TYPE.TLSA:
        if (end - this.#at < 3) this.#fail("TLSA record too short");
        return this.#skip(end - this.#at);
      case TYPE.OPT:
        while (this.#at < end) {
          this.#skip(4);
          this.#skip(this.#octets.readUInt16BE(this.#at - 2));
        }
        return;
      default:
        return this.#skip(end - this.#at);
    }
  }

  #name(): void {
    let at = this.#at;
    let length = 1;
    let pointers = 0;
    for (;;) {
      const octet = this.#octet(at);
      const next = octet < 0xc0 ? at + 1 + octet : at + 2;
      if (pointers === 0) this.#at = next;
      if (octet === 0) return;
      if (octet < 0x40) {
        length += 1 + octet;
        if (length > MAX_NAME) this.#fail("name too long");
        if (next > this.#octets.length) this.#fail("label ends behind the message");
        if (pointers === 0) {
          this.#labels.add(at);
          this.#blunt(at + 1, next);
        }
        at = next;
      } else if (octet >= 0xc0) {
        at = ((octet & 0x3f) << 8) | this.#octet(at + 1);
        if (!this.#labels.has(at)) this.#fail("pointer to what is no earlier label");
        if (++pointers > MAX_POINTERS) this.#fail("too many pointers in a name");
      } else {
        this.#fail("label of an unknown kind");
      }
    }
  }

  #blunt(from: number, to: number): void {
    for (let at = from; at < to; at++) {
      const octet = this.#octet(at);
      if (octet <= 0x20 || octet >= 0x7f || octet === 0x2e) this.#octets[at] = BACKSLASH;
    }
  }

  #octet(at: number): number {
    return this.#octets[at] ?? this.#fail("ends in the middle");
  }

  #skip(octets: number): void {
    this.#at += octets;
    if (this.#at > this.#octets.length) this.#fail("ends in the middle");
  }

  #fail(what: string): never {
    throw new FrameError(`${what} (offset ${this.#at})`);
  }
}

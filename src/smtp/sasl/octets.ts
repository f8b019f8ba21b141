/**
 * Octets and text of SASL messages: strict UTF-8 both ways, strict base64 (RFC 4648, section 4,
 * canonical, so that every octet string has one spelling), comparison in constant time.
 */
import { Buffer } from "node:buffer";
import { timingSafeEqual } from "node:crypto";
import { SaslError } from "./error.ts";

/** Octets of one decoded message; what a line of MAX_AUTH_LINE (framing.ts) can carry at most. */
export const MAX_MESSAGE = 9216;

// A byte order mark is content: dropping it would make two messages read as one.
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

export const utf8 = (text: string): Uint8Array => encoder.encode(text);

/** @throws SaslError `too-long`, or `malformed` when the octets are not UTF-8 */
export function fromUtf8(octets: Uint8Array): string {
  if (octets.length > MAX_MESSAGE) {
    throw new SaslError("too-long", `a SASL message is longer than ${MAX_MESSAGE} octets`);
  }
  try {
    return decoder.decode(octets);
  } catch {
    throw new SaslError("malformed", "a SASL message is not UTF-8");
  }
}

export const toBase64 = (octets: Uint8Array): string => Buffer.from(octets).toString("base64");

/** @throws SaslError `bad-base64` for any spelling but the canonical, padded one */
export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  const octets = Buffer.from(text, "base64");
  if (octets.toString("base64") !== text) {
    throw new SaslError("bad-base64", "it is not base64 as RFC 4648, section 4, writes it");
  }
  return new Uint8Array(octets);
}

/** Whether both are the same octets; takes a time that tells nothing but the lengths. */
export const sameOctets = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && timingSafeEqual(a, b);

/** All in one. */
export const joined = (...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> =>
  new Uint8Array(Buffer.concat(parts));

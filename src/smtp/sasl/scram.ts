/**
 * What both sides of SCRAM share (RFC 5802; SHA-256: RFC 7677): the keys and signatures of
 * section 3, and the attributes and names of section 7.
 */
import { Buffer } from "node:buffer";
import { createHash, createHmac, pbkdf2 } from "node:crypto";
import { promisify } from "node:util";
import { SaslError } from "./error.ts";
import { utf8 } from "./octets.ts";

export type ScramHash = "sha256" | "sha1";

export type ScramName =
  | "SCRAM-SHA-256"
  | "SCRAM-SHA-256-PLUS"
  | "SCRAM-SHA-1"
  | "SCRAM-SHA-1-PLUS";

export const scramHash = (name: ScramName): ScramHash =>
  name.startsWith("SCRAM-SHA-256") ? "sha256" : "sha1";

/** Octets of a hash, and so of every key and signature. */
export const HASH_LENGTH: Readonly<Record<ScramHash, number>> = { sha256: 32, sha1: 20 };

/** Characters of a nonce and octets of a salt at most; both are far above what the field uses. */
export const MAX_NONCE = 1024;
export const MAX_SALT = 1024;

/** Iterations at least (RFC 5802, section 5.1; RFC 7677, section 4). */
export const MIN_ITERATIONS = 4096;
/** Iterations that a client computes at most, unless told otherwise: about 0.3 s of one core. */
export const MAX_ITERATIONS = 600_000;

/** Hi() of RFC 5802 over a prepared password. Runs beside the event loop. */
export type SaltedPassword = (
  hash: ScramHash,
  password: string,
  salt: Uint8Array,
  iterations: number,
) => Promise<Uint8Array>;

const derive = promisify(pbkdf2);

export const saltedPassword: SaltedPassword = (hash, password, salt, iterations) =>
  derive(utf8(password), salt, iterations, HASH_LENGTH[hash], hash);

/**
 * A SaltedPassword that remembers its last results, so that a client that logs in for every
 * connection computes once (RFC 5802, section 5.1, allows it). Holds what is worth as much as
 * the password, in memory only; passwords are not kept.
 */
export function remembering(compute: SaltedPassword = saltedPassword, most = 64): SaltedPassword {
  const known = new Map<string, Promise<Uint8Array>>();
  return (hash, password, salt, iterations) => {
    // Each part in a form without commas, so that no two askings share a key.
    const key = createHash("sha256")
      .update(`${hash},${iterations},${Buffer.from(salt).toString("base64")},${password}`)
      .digest("base64");
    const found = known.get(key) ?? compute(hash, password, salt, iterations);
    known.delete(key);
    known.set(key, found);
    if (known.size > most) known.delete(known.keys().next().value!);
    found.catch(() => known.delete(key));
    return found;
  };
}

export const hmac = (hash: ScramHash, key: Uint8Array, text: string): Uint8Array =>
  createHmac(hash, key).update(text, "utf8").digest();

export const digest = (hash: ScramHash, octets: Uint8Array): Uint8Array =>
  createHash(hash).update(octets).digest();

export const clientKey = (hash: ScramHash, salted: Uint8Array): Uint8Array =>
  hmac(hash, salted, "Client Key");

export const serverKey = (hash: ScramHash, salted: Uint8Array): Uint8Array =>
  hmac(hash, salted, "Server Key");

/** Octet by octet; both of one length. */
export const xor = (a: Uint8Array, b: Uint8Array): Uint8Array => a.map((octet, n) => octet ^ b[n]!);

/** A user name as an attribute's value: "," and "=" escaped (`saslname`). */
export const escapeName = (name: string): string =>
  name.replaceAll("=", "=3D").replaceAll(",", "=2C");

/** @throws SaslError `malformed` for "=" that begins neither "=2C" nor "=3D" */
export function unescapeName(text: string): string {
  if (!/^(?:[^=,\0]|=2C|=3D)+$/.test(text)) {
    throw new SaslError("malformed", "a user name is not written as RFC 5802 (saslname) asks");
  }
  return text.replaceAll("=2C", ",").replaceAll("=3D", "=");
}

export interface Attribute {
  readonly name: string;
  readonly value: string;
}

/**
 * The attributes of a message, in order.
 * @throws SaslError `malformed`, also when one comes twice
 */
export function attributes(message: string): Attribute[] {
  const seen = new Set<string>();
  return message.split(",").map((part) => {
    const match = /^([A-Za-z])=([^\0]+)$/s.exec(part);
    if (!match) throw new SaslError("malformed", "a SCRAM message is not a list of attributes");
    const name = match[1]!;
    if (seen.has(name)) {
      throw new SaslError("malformed", "a SCRAM message has an attribute twice");
    }
    seen.add(name);
    return { name, value: match[2]! };
  });
}

/** Printable ASCII without comma, as nonces are. */
export const isNonce = (text: string): boolean =>
  text.length <= MAX_NONCE && /^[!-+\--~]+$/.test(text);

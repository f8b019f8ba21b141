/**
 * Passwords as a server keeps them: SCRAM keys (RFC 5802, section 3) and a scrypt hash (RFC
 * 7914), never the password; made from it, written as one line, and checked against it.
 *
 * The line: `v1` and three parts, a space between them. The SCRAM parts are as RFC 5803 writes
 * them, the scrypt part is a PHC string.
 */
import { createHmac, scrypt } from "node:crypto";
import { SaslError } from "./error.ts";
import type { RandomBytes } from "./mechanism.ts";
import { fromBase64, joined, sameOctets, toBase64, utf8 } from "./octets.ts";
import { prepared } from "./prepare.ts";
import {
  clientKey,
  digest,
  HASH_LENGTH,
  MAX_ITERATIONS,
  MAX_SALT,
  MIN_ITERATIONS,
  saltedPassword,
  type ScramHash,
  serverKey,
} from "./scram.ts";

export interface ScramKeys {
  readonly iterations: number;
  readonly salt: Uint8Array;
  readonly storedKey: Uint8Array;
  readonly serverKey: Uint8Array;
}

export interface ScryptHash extends ScryptCost {
  readonly salt: Uint8Array;
  readonly hash: Uint8Array;
}

/** Cost of RFC 7914: N is 2 to the power of `ln`; it takes 128 * N * r octets of memory. */
export interface ScryptCost {
  readonly ln: number;
  readonly r: number;
  readonly p: number;
}

export interface StoredCredentials {
  readonly "scram-sha-256": ScramKeys;
  readonly "scram-sha-1": ScramKeys;
  readonly scrypt: ScryptHash;
}

export interface CredentialCost {
  readonly iterations: number;
  readonly scrypt: ScryptCost;
}

/**
 * 65536 iterations are the most that clients on Cyrus SASL compute; scrypt takes 32 MiB and about
 * a quarter of a second.
 */
export const DEFAULT_COST: CredentialCost = { iterations: 65_536, scrypt: { ln: 15, r: 8, p: 3 } };

const SALT_OCTETS = 16;
const SCRYPT_OCTETS = 32;
/** What a stored line may ask of us. */
const MAX_SCRYPT_MEMORY = 256 * 1024 * 1024;
const MAX_SCRYPT_PARALLEL = 16;

/** How many scrypt hashes are computed at once: each takes its memory, logins come in herds. */
const AT_ONCE = 2;
let running = 0;
const waiting: (() => void)[] = [];

/**
 * Credentials to store for a password.
 * @throws SaslError `credentials` when SASLprep refuses the password
 * @throws RangeError for iterations that no client would take
 */
export async function deriveCredentials(
  password: string,
  random: RandomBytes,
  cost: CredentialCost = DEFAULT_COST,
): Promise<StoredCredentials> {
  if (cost.iterations < MIN_ITERATIONS || cost.iterations > MAX_ITERATIONS) {
    throw new RangeError(`iterations must be ${MIN_ITERATIONS} to ${MAX_ITERATIONS}`);
  }
  const text = prepared(password, "the password");
  const salt = random(SALT_OCTETS);
  return {
    "scram-sha-256": await scramKeys("sha256", text, random(SALT_OCTETS), cost.iterations),
    "scram-sha-1": await scramKeys("sha1", text, random(SALT_OCTETS), cost.iterations),
    scrypt: { ...cost.scrypt, salt, hash: await scryptHash(text, salt, cost.scrypt) },
  };
}

/** Whether the password is the one; takes the same time whether or not. */
export async function verifyPassword(
  credentials: StoredCredentials,
  password: string,
): Promise<boolean> {
  let text: string;
  try {
    text = prepared(password, "the password");
  } catch (error) {
    // No stored password looks like this, for any user; the time it takes gives nothing away.
    if (error instanceof SaslError) return false;
    throw error;
  }
  const { salt, hash } = credentials.scrypt;
  return sameOctets(await scryptHash(text, salt, credentials.scrypt), hash);
}

/**
 * Credentials that no password fits, the same each time for the same name: what an unknown user
 * gets, so that it cannot be told from a known one (RFC 5802, section 9).
 * @param secret of this server, 32 octets or more, never changed while it runs
 */
export function fakeCredentials(
  secret: Uint8Array,
  username: string,
  cost: CredentialCost = DEFAULT_COST,
): StoredCredentials {
  const octets = (purpose: string, length: number): Uint8Array =>
    createHmac("sha256", secret).update(`${purpose}\0${username}`).digest().subarray(0, length);
  const keys = (hash: ScramHash): ScramKeys => ({
    iterations: cost.iterations,
    salt: octets(`${hash} salt`, SALT_OCTETS),
    storedKey: octets(`${hash} stored key`, HASH_LENGTH[hash]),
    serverKey: octets(`${hash} server key`, HASH_LENGTH[hash]),
  });
  return {
    "scram-sha-256": keys("sha256"),
    "scram-sha-1": keys("sha1"),
    scrypt: {
      ...cost.scrypt,
      salt: octets("scrypt salt", SALT_OCTETS),
      hash: octets("scrypt hash", SCRYPT_OCTETS),
    },
  };
}

/** As one line of printable ASCII; `parseCredentials` reads it back. */
export function serializeCredentials(credentials: StoredCredentials): string {
  const scram = (name: string, keys: ScramKeys) =>
    `${name}$${keys.iterations}:${toBase64(keys.salt)}` +
    `$${toBase64(keys.storedKey)}:${toBase64(keys.serverKey)}`;
  const { ln, r, p, salt, hash } = credentials.scrypt;
  return [
    "v1",
    scram("SCRAM-SHA-256", credentials["scram-sha-256"]),
    scram("SCRAM-SHA-1", credentials["scram-sha-1"]),
    `$scrypt$ln=${ln},r=${r},p=${p}$${unpadded(salt)}$${unpadded(hash)}`,
  ].join(" ");
}

/** @throws SaslError `stored`, which names the part that is wrong and repeats none of it */
export function parseCredentials(line: string): StoredCredentials {
  const [version, sha256, sha1, scryptPart, ...more] = line.split(" ");
  if (version !== "v1" || scryptPart === undefined || more.length > 0) {
    throw new SaslError(
      "stored",
      'stored credentials are not "v1" and three parts; make new ones with the password',
    );
  }
  return {
    "scram-sha-256": parseScram(sha256!, "SCRAM-SHA-256", "sha256"),
    "scram-sha-1": parseScram(sha1!, "SCRAM-SHA-1", "sha1"),
    scrypt: parseScrypt(scryptPart),
  };
}

function parseScram(part: string, name: string, hash: ScramHash): ScramKeys {
  const match = /^([A-Z0-9-]+)\$([1-9]\d{0,8}):([^$:]+)\$([^$:]+):([^$:]+)$/.exec(part);
  const iterations = Number(match?.[2]);
  if (!match || match[1] !== name || iterations < MIN_ITERATIONS || iterations > MAX_ITERATIONS) {
    throw unreadable(name);
  }
  const [salt, storedKey, server] = [3, 4, 5].map((n) => decode(match[n]!, name));
  const length = HASH_LENGTH[hash];
  if (salt!.length > MAX_SALT || storedKey!.length !== length || server!.length !== length) {
    throw unreadable(name);
  }
  return { iterations, salt: salt!, storedKey: storedKey!, serverKey: server! };
}

function parseScrypt(part: string): ScryptHash {
  const match = /^\$scrypt\$ln=([1-9]\d?),r=([1-9]\d{0,2}),p=([1-9]\d?)\$([^$=]+)\$([^$=]+)$/.exec(
    part,
  );
  if (!match) throw unreadable("scrypt");
  const [ln, r, p] = [1, 2, 3].map((n) => Number(match[n])) as [number, number, number];
  const memory = 128 * 2 ** ln * r;
  if (memory > MAX_SCRYPT_MEMORY || p > MAX_SCRYPT_PARALLEL) {
    throw unreadable("scrypt");
  }
  const [salt, hash] = [4, 5].map((n) => decode(padded(match[n]!), "scrypt"));
  if (salt!.length > MAX_SALT || hash!.length !== SCRYPT_OCTETS) throw unreadable("scrypt");
  return { ln, r, p, salt: salt!, hash: hash! };
}

function decode(text: string, part: string): Uint8Array {
  try {
    return fromBase64(text);
  } catch {
    throw unreadable(part);
  }
}

const unreadable = (part: string): SaslError =>
  new SaslError(
    "stored",
    `the ${part} part of stored credentials cannot be read; make new ones with the password`,
  );

const unpadded = (octets: Uint8Array): string => toBase64(octets).replace(/=+$/, "");
const padded = (text: string): string => text + "=".repeat((4 - text.length % 4) % 4);

async function scramKeys(
  hash: ScramHash,
  password: string,
  salt: Uint8Array,
  iterations: number,
): Promise<ScramKeys> {
  const salted = await saltedPassword(hash, password, salt, iterations);
  return {
    iterations,
    salt,
    storedKey: digest(hash, clientKey(hash, salted)),
    serverKey: serverKey(hash, salted),
  };
}

/** Runs beside the event loop, at most AT_ONCE at a time, in order of asking. */
async function scryptHash(
  password: string,
  salt: Uint8Array,
  { ln, r, p }: ScryptCost,
): Promise<Uint8Array> {
  if (running >= AT_ONCE) await new Promise<void>((resolve) => waiting.push(resolve));
  else running++;
  try {
    return await new Promise((resolve, reject) => {
      const N = 2 ** ln;
      const maxmem = 128 * r * (N + p) + 1024 * 1024;
      scrypt(joined(utf8(password)), salt, SCRYPT_OCTETS, { N, r, p, maxmem }, (error, key) => {
        if (error) reject(error);
        else resolve(key);
      });
    });
  } finally {
    // Hands its place on, so that nobody who asks in between takes it.
    const next = waiting.shift();
    if (next) next();
    else running--;
  }
}

/**
 * DKIM keys: made, read from PKCS #8 PEM files, and shown as the TXT record that publishes them
 * (RFC 6376, section 3.6.1; RFC 8463 for Ed25519).
 */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
} from "node:crypto";

export type DkimAlgorithm = "rsa" | "ed25519";

export interface DkimKey {
  readonly algorithm: DkimAlgorithm;
  readonly privateKey: KeyObject;
  /** Bits of the RSA modulus; 256 for Ed25519. */
  readonly bits: number;
}

/** RFC 8301, section 3.2: signers MUST use at least this, and SHOULD use 2048. */
export const LEAST_RSA_BITS = 1024;
export const GOOD_RSA_BITS = 2048;
/** Nothing verifies longer ones in reasonable time, and RFC 8301 asks no verifier to. */
export const MOST_RSA_BITS = 4096;
/** An RSA key of 4096 bits has some 3,300 octets of PEM. */
const MAX_FILE = 64 * 1024;

/** The file holds no key that can sign; one line, which names the file and repeats none of it. */
export class BadDkimKey extends Error {
  override readonly name = "BadDkimKey";
}

/** A new key: RSA with 2048 bits, or Ed25519. */
export function makeDkimKey(algorithm: DkimAlgorithm): DkimKey {
  const { privateKey } = algorithm === "rsa"
    ? generateKeyPairSync("rsa", { modulusLength: GOOD_RSA_BITS })
    : generateKeyPairSync("ed25519");
  return { algorithm, privateKey, bits: algorithm === "rsa" ? GOOD_RSA_BITS : 256 };
}

/** PKCS #8 PEM, as `openssl genpkey` writes it. */
export const dkimKeyPem = ({ privateKey }: DkimKey): string =>
  String(privateKey.export({ type: "pkcs8", format: "pem" }));

/** @throws BadDkimKey when the file is missing, unreadable, no such key, or too short a one */
export function readDkimKey(file: string): DkimKey {
  let pem: string;
  try {
    const { isFile, size } = Deno.statSync(file);
    if (!isFile) throw new BadDkimKey(`${file} is not a file`);
    if (size > MAX_FILE) throw new BadDkimKey(`${file} has ${size} octets, which is no key`);
    pem = Deno.readTextFileSync(file);
  } catch (error) {
    if (error instanceof BadDkimKey) throw error;
    if (error instanceof Deno.errors.NotFound) throw new BadDkimKey(`${file} does not exist`);
    if (error instanceof Deno.errors.PermissionDenied || error instanceof Deno.errors.NotCapable) {
      throw new BadDkimKey(`${file} cannot be read: permission denied`);
    }
    throw new BadDkimKey(
      `${file} cannot be read: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  return parseDkimKey(pem, file);
}

/** @param file names the key in errors @throws BadDkimKey */
export function parseDkimKey(pem: string, file: string): DkimKey {
  let privateKey: KeyObject;
  try {
    privateKey = createPrivateKey(pem);
  } catch {
    // What the library says of a key that it cannot read may repeat parts of it.
    throw new BadDkimKey(
      `${file} holds no private key in PEM without a passphrase; ` +
        `make one with "openssl genpkey -algorithm ed25519"`,
    );
  }
  const type = privateKey.asymmetricKeyType;
  if (type === "ed25519") return { algorithm: "ed25519", privateKey, bits: 256 };
  if (type !== "rsa") {
    throw new BadDkimKey(
      `${file} holds a key of type ${type ?? "unknown"}; DKIM takes RSA and Ed25519`,
    );
  }
  const bits = privateKey.asymmetricKeyDetails?.modulusLength ?? 0;
  if (bits < LEAST_RSA_BITS || bits > MOST_RSA_BITS) {
    throw new BadDkimKey(
      `${file} holds an RSA key of ${bits} bits; DKIM takes ${LEAST_RSA_BITS} to ` +
        `${MOST_RSA_BITS} (RFC 8301, section 3.2), and ${GOOD_RSA_BITS} is right`,
    );
  }
  return { algorithm: "rsa", privateKey, bits };
}

/** The tag `p`: SubjectPublicKeyInfo of an RSA key, the 32 octets of an Ed25519 key; base64. */
export function dkimPublicKey({ algorithm, privateKey }: DkimKey): string {
  const spki = createPublicKey(privateKey.export({ type: "pkcs8", format: "pem" }))
    .export({ type: "spki", format: "der" });
  // RFC 8410, section 4: the key is the last 32 octets.
  return (algorithm === "ed25519" ? spki.subarray(-32) : spki).toString("base64");
}

/** The value of the TXT record of `selector._domainkey.domain`, in one piece. */
export const dkimRecord = (key: DkimKey): string =>
  `v=DKIM1; k=${key.algorithm}; p=${dkimPublicKey(key)}`;

export const dkimRecordName = (selector: string, domain: string): string =>
  `${selector}._domainkey.${domain}`;

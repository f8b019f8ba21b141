/**
 * Keys of TLS hosts, and what TLSA records with selector SPKI say of them (RFC 7671, section 5.1:
 * `3 1 1` stays true over every renewal that keeps the key).
 */
import { createHash, createPrivateKey, createPublicKey } from "node:crypto";
import type { RecordData } from "../ports.ts";

const KEY = /-----BEGIN ((?:EC |RSA )?PRIVATE KEY)-----[^-]*-----END \1-----/;

/** The file holds no private key; one line, which names the file and repeats none of it. */
export class BadHostKey extends Error {
  override readonly name = "BadHostKey";
}

/**
 * SHA-256 over the SubjectPublicKeyInfo of the private key in a PEM file.
 * @throws BadHostKey
 */
export function spkiDigest(keyFile: string): Uint8Array {
  let pem: string;
  try {
    pem = Deno.readTextFileSync(keyFile);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new BadHostKey(`${keyFile} cannot be read: ${why}`);
  }
  return spkiDigestOfPem(pem, keyFile);
}

/** @param file names the key in errors @throws BadHostKey */
export function spkiDigestOfPem(pem: string, file: string): Uint8Array {
  try {
    // Files of OpenSSL may begin with the parameters of a curve.
    const [block = ""] = KEY.exec(pem) ?? [];
    const key = createPrivateKey(`${block}\n`).export({ type: "pkcs8", format: "pem" });
    const spki = createPublicKey(key).export({ type: "spki", format: "der" });
    return new Uint8Array(createHash("sha256").update(spki).digest());
  } catch {
    // What the library says of a key that it cannot read may repeat parts of it.
    throw new BadHostKey(`${file} holds no private key in PEM without a passphrase`);
  }
}

/** DANE-EE(3) SPKI(1) SHA2-256(1). */
export const tlsaOf = (spki: Uint8Array): RecordData["TLSA"] => ({
  usage: 3,
  selector: 1,
  matching: 1,
  data: spki,
});

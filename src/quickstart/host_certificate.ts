/**
 * Keys of a TLS host, and what is made with them: a self-signed certificate to begin with, and a
 * request (PKCS #10, RFC 2986) for a CA, which renews with the same key as often as it likes, so
 * that TLSA records `3 1 1` stay true (RFC 7671, section 5.1).
 */
import "reflect-metadata";
import { Buffer } from "node:buffer";
import { createPrivateKey, createPublicKey } from "node:crypto";
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  Pkcs10CertificateRequestGenerator,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from "@peculiar/x509";

export const HOST_KEYS = ["ecdsa", "rsa"] as const;
export type HostKeyKind = (typeof HOST_KEYS)[number];

const ALGORITHMS = {
  ecdsa: { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" },
  rsa: {
    name: "RSASSA-PKCS1-v1_5",
    modulusLength: 2048,
    publicExponent: new Uint8Array([1, 0, 1]),
    hash: "SHA-256",
  },
} as const;

const DAY = 86_400_000;
/** Long enough to be no trap for a host whose clients go by TLSA and not by dates. */
const LIFETIME = 3_650 * DAY;

/** A new private key, PKCS #8 PEM. */
export async function makeHostKey(kind: HostKeyKind): Promise<string> {
  const pair = await crypto.subtle.generateKey(ALGORITHMS[kind], true, ["sign", "verify"]);
  const der = await crypto.subtle.exportKey("pkcs8", pair.privateKey);
  const base64 = Buffer.from(der).toString("base64").replace(/.{64}(?=.)/g, "$&\n");
  return `-----BEGIN PRIVATE KEY-----\n${base64}\n-----END PRIVATE KEY-----\n`;
}

/** A self-signed certificate for a host name, PEM. @param now epoch milliseconds */
export async function selfSigned(
  kind: HostKeyKind,
  keyPem: string,
  hostname: string,
  now: number,
): Promise<string> {
  const certificate = await X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: [{ CN: [hostname] }],
    // Clocks differ.
    notBefore: new Date(now - DAY),
    notAfter: new Date(now + LIFETIME),
    signingAlgorithm: ALGORITHMS[kind],
    keys: await importPair(kind, keyPem),
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
      new SubjectAlternativeNameExtension([{ type: "dns", value: hostname }]),
    ],
  });
  return `${certificate.toString("pem")}\n`;
}

/** A request for a certificate with this key, PEM. */
export async function certificateRequest(
  kind: HostKeyKind,
  keyPem: string,
  hostname: string,
): Promise<string> {
  const request = await Pkcs10CertificateRequestGenerator.create({
    name: [{ CN: [hostname] }],
    signingAlgorithm: ALGORITHMS[kind],
    keys: await importPair(kind, keyPem),
    extensions: [new SubjectAlternativeNameExtension([{ type: "dns", value: hostname }])],
  });
  return `${request.toString("pem")}\n`;
}

/** Positive, and of 16 octets, which nobody can guess (RFC 5280, section 4.1.2.2). */
function serialNumber(): string {
  const octets = crypto.getRandomValues(new Uint8Array(16));
  octets[0] = (octets[0]! & 0x7f) | 0x40;
  return Buffer.from(octets).toString("hex");
}

async function importPair(kind: HostKeyKind, pem: string): Promise<CryptoKeyPair> {
  const key = createPrivateKey(pem);
  const algorithm = ALGORITHMS[kind];
  const secret = key.export({ type: "pkcs8", format: "der" });
  const open = createPublicKey(pem).export({ type: "spki", format: "der" });
  return {
    privateKey: await crypto.subtle.importKey("pkcs8", octets(secret), algorithm, true, ["sign"]),
    publicKey: await crypto.subtle.importKey("spki", octets(open), algorithm, true, ["verify"]),
  };
}

/** Buffers share memory with others; WebCrypto takes one that is its own. */
const octets = (buffer: Uint8Array): Uint8Array<ArrayBuffer> => new Uint8Array(buffer);

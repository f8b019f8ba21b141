/**
 * A certificate (RFC 5280), read from DER: what verifying a chain needs of it, and nothing else.
 *
 * Own code rather than X509Certificate, because DANE compares octets as they were sent (the
 * SubjectPublicKeyInfo among them), and because signatures with RSA-PSS have to be verified too.
 * Keys and signatures themselves are node:crypto's business; of Deno's, ECDSA over P-521 verifies
 * nothing, so that an issuer with such a key is not believed. DANE-EE needs no signature.
 */
import { constants, createPublicKey, type KeyObject, verify } from "node:crypto";
import { Buffer } from "node:buffer";
import { DerError, DerReader, oidText, smallInteger, TAG, timeOf } from "./der.ts";

export interface Certificate {
  readonly der: Uint8Array;
  /** SubjectPublicKeyInfo, DER as it stands in the certificate. */
  readonly spki: Uint8Array;
  /** Names as DER. */
  readonly subject: Uint8Array;
  readonly issuer: Uint8Array;
  /** Epoch milliseconds. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** dNSNames of the subjectAltName, lower case. */
  readonly dnsNames: readonly string[];
  /** Common names of the subject, as far as they are plain text, lower case. */
  readonly commonNames: readonly string[];
  /** basicConstraints; undefined where the certificate is no CA's. */
  readonly ca?: { readonly pathLength?: number };
  readonly version: number;
  /** Bits of keyUsage, the first one (digitalSignature) highest; undefined where absent. */
  readonly keyUsage?: number;
  /** OIDs of extendedKeyUsage. */
  readonly extendedKeyUsage?: readonly string[];
  /** dNSName subtrees of nameConstraints. */
  readonly permitted?: readonly string[];
  readonly excluded?: readonly string[];
  /** A critical extension that is not understood here. */
  readonly unknownCritical?: string;
  readonly signed: Uint8Array;
  readonly signatureAlgorithm: { readonly oid: string; readonly parameters: Uint8Array };
  readonly signature: Uint8Array;
}

const OID = {
  commonName: "2.5.4.3",
  keyUsage: "2.5.29.15",
  subjectAltName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  nameConstraints: "2.5.29.30",
  certificatePolicies: "2.5.29.32",
  extendedKeyUsage: "2.5.29.37",
} as const;

/** What keyUsage must have for a certificate that issued another (RFC 5280, section 4.2.1.3). */
export const KEY_CERT_SIGN = 0x0400;

/** Names that are kept of a certificate. */
const MAX_NAMES = 1_000;

type Growing<T> = { -readonly [K in keyof T]: T[K] };
type Extended = Growing<
  Pick<
    Certificate,
    | "dnsNames"
    | "ca"
    | "keyUsage"
    | "extendedKeyUsage"
    | "permitted"
    | "excluded"
    | "unknownCritical"
  >
>;

/** @throws DerError when the octets are no certificate */
export function parseCertificate(der: Uint8Array): Certificate {
  const outer = new DerReader(der);
  const certificate = outer.enter();
  outer.end();
  const signed = certificate.next(TAG.sequence);
  const signatureAlgorithm = algorithm(certificate.enter());
  const signature = bits(certificate.next(TAG.bitString).content);
  certificate.end();

  const tbs = new DerReader(signed.content);
  const version = tbs.is(0xa0) ? smallInteger(tbs.enter(0xa0).next(TAG.integer).content) + 1 : 1;
  tbs.next(TAG.integer); // serialNumber
  tbs.next(TAG.sequence); // signature, the same as signatureAlgorithm
  const issuer = tbs.next(TAG.sequence).whole;
  const validity = tbs.enter();
  const notBefore = timeOf(validity.next());
  const notAfter = timeOf(validity.next());
  const subject = tbs.next(TAG.sequence);
  const spki = tbs.next(TAG.sequence).whole;
  tbs.optional(0x81); // issuerUniqueID
  tbs.optional(0x82);
  const extended: Extended = { dnsNames: [] };
  if (tbs.is(0xa3)) {
    const extensions = tbs.enter(0xa3).enter();
    while (!extensions.done) extension(extensions.enter(), extended);
  }
  return {
    der,
    spki,
    subject: subject.whole,
    issuer,
    notBefore,
    notAfter,
    commonNames: commonNames(subject.content),
    version,
    signed: signed.whole,
    signatureAlgorithm,
    signature,
    ...extended,
  };
}

function algorithm(reader: DerReader): Certificate["signatureAlgorithm"] {
  const oid = oidText(reader.next(TAG.oid).content);
  return { oid, parameters: reader.done ? new Uint8Array() : reader.next().whole };
}

function bits(content: Uint8Array): Uint8Array {
  if (content[0] !== 0) throw new DerError("a signature that is not whole octets");
  return content.subarray(1);
}

function extension(reader: DerReader, into: Extended): void {
  const oid = oidText(reader.next(TAG.oid).content);
  const critical = (reader.optional(TAG.boolean)?.content[0] ?? 0) !== 0;
  const value = new DerReader(reader.next(TAG.octetString).content);
  switch (oid) {
    case OID.basicConstraints: {
      const constraints = value.enter();
      if ((constraints.optional(TAG.boolean)?.content[0] ?? 0) === 0) return;
      const length = constraints.optional(TAG.integer);
      into.ca = length ? { pathLength: smallInteger(length.content) } : {};
      return;
    }
    case OID.keyUsage: {
      const [, high = 0, low = 0] = value.next(TAG.bitString).content;
      into.keyUsage = high << 8 | low;
      return;
    }
    case OID.extendedKeyUsage: {
      const usages = value.enter();
      const oids: string[] = [];
      while (!usages.done) oids.push(oidText(usages.next(TAG.oid).content));
      into.extendedKeyUsage = oids;
      return;
    }
    case OID.subjectAltName:
      into.dnsNames = dnsNames(value.enter());
      return;
    case OID.nameConstraints: {
      const constraints = value.enter();
      if (constraints.is(0xa0)) into.permitted = subtrees(constraints.enter(0xa0));
      if (constraints.is(0xa1)) into.excluded = subtrees(constraints.enter(0xa1));
      return;
    }
    case OID.certificatePolicies:
      return;
    default:
      if (critical) into.unknownCritical ??= oid;
  }
}

const DNS_NAME = 0x82;

function dnsNames(names: DerReader): string[] {
  const found: string[] = [];
  while (!names.done && found.length < MAX_NAMES) {
    const { tag, content } = names.next();
    if (tag === DNS_NAME) found.push(latin1(content).toLowerCase());
  }
  return found;
}

function subtrees(reader: DerReader): string[] | undefined {
  const found: string[] = [];
  let others = 0;
  while (!reader.done && found.length < MAX_NAMES) {
    const { tag, content } = reader.enter().next();
    if (tag === DNS_NAME) found.push(latin1(content).toLowerCase());
    else others++;
  }
  // Constraints on other kinds of names say nothing of host names.
  return found.length === 0 && others > 0 ? undefined : found;
}

function commonNames(subject: Uint8Array): string[] {
  const found: string[] = [];
  const names = new DerReader(subject);
  while (!names.done) {
    const attributes = names.enter(TAG.set);
    while (!attributes.done) {
      const attribute = attributes.enter();
      const oid = oidText(attribute.next(TAG.oid).content);
      const { tag, content } = attribute.next();
      // UTF8String, PrintableString, TeletexString, IA5String
      if (oid === OID.commonName && [0x0c, 0x13, 0x14, 0x16].includes(tag)) {
        found.push(latin1(content).toLowerCase());
      }
    }
  }
  return found;
}

const latin1 = (octets: Uint8Array): string =>
  Buffer.from(octets.buffer, octets.byteOffset, octets.length).toString("latin1");

/** Digests of signature algorithms by OID, for keys that do not bring their own. */
const DIGESTS: Readonly<Record<string, string>> = {
  "1.2.840.113549.1.1.5": "sha1",
  "1.2.840.113549.1.1.14": "sha224",
  "1.2.840.113549.1.1.11": "sha256",
  "1.2.840.113549.1.1.12": "sha384",
  "1.2.840.113549.1.1.13": "sha512",
  "1.2.840.10045.4.1": "sha1",
  "1.2.840.10045.4.3.1": "sha224",
  "1.2.840.10045.4.3.2": "sha256",
  "1.2.840.10045.4.3.3": "sha384",
  "1.2.840.10045.4.3.4": "sha512",
};
const RSA_PSS = "1.2.840.113549.1.1.10";
const PSS_DIGESTS: Readonly<Record<string, string>> = {
  "1.3.14.3.2.26": "sha1",
  "2.16.840.1.101.3.4.2.1": "sha256",
  "2.16.840.1.101.3.4.2.2": "sha384",
  "2.16.840.1.101.3.4.2.3": "sha512",
};
const EDWARDS: ReadonlySet<string> = new Set(["1.3.101.112", "1.3.101.113"]);

/** A public key from its SubjectPublicKeyInfo; undefined when that is none. */
export function publicKey(spki: Uint8Array): KeyObject | undefined {
  try {
    const outer = new DerReader(spki);
    outer.next(TAG.sequence);
    outer.end();
    return createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" });
  } catch {
    return undefined;
  }
}

/** Whether the key made the certificate's signature. */
export function isSignedBy(certificate: Certificate, spki: Uint8Array): boolean {
  const key = publicKey(spki);
  if (!key) return false;
  const { signed, signature, signatureAlgorithm: { oid, parameters } } = certificate;
  try {
    if (EDWARDS.has(oid)) return verify(null, signed, key, signature);
    if (oid !== RSA_PSS) {
      const digest = DIGESTS[oid];
      return digest !== undefined && verify(digest, signed, key, signature);
    }
    const { digest, saltLength } = pssParameters(parameters);
    if (digest === undefined) return false;
    const padding = constants.RSA_PKCS1_PSS_PADDING;
    return verify(digest, signed, { key, padding, saltLength }, signature);
  } catch {
    return false; // a key of another kind than the signature
  }
}

/** RFC 4055, section 3.1. */
function pssParameters(parameters: Uint8Array): { digest: string | undefined; saltLength: number } {
  const reader = new DerReader(parameters).enter();
  let digest: string | undefined = "sha1";
  let saltLength = 20;
  while (!reader.done) {
    const { tag, content } = reader.next();
    const inner = new DerReader(content);
    if (tag === 0xa0) digest = PSS_DIGESTS[oidText(inner.enter().next(TAG.oid).content)];
    if (tag === 0xa2) saltLength = smallInteger(inner.next(TAG.integer).content);
  }
  return { digest, saltLength };
}

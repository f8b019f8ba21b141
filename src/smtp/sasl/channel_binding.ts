/**
 * Channel binding data of a TLS session: `tls-server-end-point` (RFC 5929, section 4), the hash
 * of the server's certificate under the hash of its signature, read from its DER (RFC 5280,
 * section 4.1; hashes: RFC 4055, RFC 5758).
 */
import { createHash } from "node:crypto";
import type { ChannelBinding } from "./mechanism.ts";

/** Hash by signature algorithm; MD5 and SHA-1 count as SHA-256 (RFC 5929, section 4.1). */
const HASHES: ReadonlyMap<string, string> = new Map([
  ["2a864886f70d010104", "sha256"], // md5WithRSAEncryption
  ["2a864886f70d010105", "sha256"], // sha1WithRSAEncryption
  ["2a864886f70d01010b", "sha256"], // sha256WithRSAEncryption
  ["2a864886f70d01010c", "sha384"],
  ["2a864886f70d01010d", "sha512"],
  ["2a8648ce3d0401", "sha256"], // ecdsa-with-SHA1
  ["2a8648ce3d040302", "sha256"], // ecdsa-with-SHA256
  ["2a8648ce3d040303", "sha384"],
  ["2a8648ce3d040304", "sha512"],
  ["608648016503040201", "sha256"], // id-sha256, in the parameters of RSASSA-PSS
  ["608648016503040202", "sha384"],
  ["608648016503040203", "sha512"],
  ["2b0e03021a", "sha256"], // id-sha1
]);
const RSASSA_PSS = "2a864886f70d01010a";

const SEQUENCE = 0x30;
const OBJECT_IDENTIFIER = 0x06;
const EXPLICIT_0 = 0xa0;

/**
 * Undefined for certificates that RFC 5929 defines no binding for: signatures with no single
 * hash (Ed25519 among them), hashes not known here, or octets that are no certificate.
 */
export function tlsServerEndPoint(certificate: Uint8Array): ChannelBinding | undefined {
  const hash = signatureHash(certificate);
  if (hash === undefined) return undefined;
  const data = new Uint8Array(createHash(hash).update(certificate).digest());
  return { type: "tls-server-end-point", data };
}

function signatureHash(certificate: Uint8Array): string | undefined {
  // Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signatureValue }
  const outer = element(certificate, SEQUENCE);
  const tbs = outer && element(outer.content, SEQUENCE);
  const algorithm = tbs && element(tbs.rest, SEQUENCE);
  const oid = algorithm && element(algorithm.content, OBJECT_IDENTIFIER);
  if (!oid) return undefined;
  if (hex(oid.content) !== RSASSA_PSS) return HASHES.get(hex(oid.content));
  // RSASSA-PSS-params ::= SEQUENCE { hashAlgorithm [0] DEFAULT sha1, … } (RFC 4055, section 3.1)
  const parameters = element(oid.rest, SEQUENCE);
  if (!parameters) return undefined;
  const tagged = element(parameters.content, EXPLICIT_0);
  if (!tagged) return "sha256";
  const identifier = element(tagged.content, SEQUENCE);
  const inner = identifier && element(identifier.content, OBJECT_IDENTIFIER);
  return inner && HASHES.get(hex(inner.content));
}

const hex = (octets: Uint8Array): string =>
  Array.from(octets, (octet) => octet.toString(16).padStart(2, "0")).join("");

/** The DER element that the octets begin with, if it has the tag, and what follows it. */
function element(
  octets: Uint8Array,
  tag: number,
): { readonly content: Uint8Array; readonly rest: Uint8Array } | undefined {
  const short = octets[1];
  if (octets[0] !== tag || short === undefined) return undefined;
  let start = 2;
  let length = short;
  if (short >= 0x80) {
    const more = short & 0x7f;
    if (more < 1 || more > 3 || octets.length < 2 + more) return undefined;
    start += more;
    length = 0;
    for (const octet of octets.subarray(2, start)) length = length * 256 + octet;
  }
  const end = start + length;
  if (end > octets.length) return undefined;
  return { content: octets.subarray(start, end), rest: octets.subarray(end) };
}

/**
 * Finds a path from a server's certificate to a trust anchor among the certificates that the
 * server presented, and judges it: signatures, validity, CA constraints (RFC 5280, section 6.1).
 *
 * What a server presents is in no order, may name itself as its issuer, hold a certificate twice,
 * or lead around in circles. Every certificate is visited at most once and at most MAX_SIGNATURES
 * signatures are verified, so that a chain made to be expensive is merely refused.
 */
import { createHash } from "node:crypto";
import { type Certificate, isSignedBy, KEY_CERT_SIGN } from "./certificate.ts";

/** Certificates in a path, the server's own included. */
export const MAX_PATH = 10;
const MAX_SIGNATURES = 64;

export interface Anchors {
  /** Whether a certificate above the leaf is a trust anchor; says which. */
  readonly matches: (certificate: Certificate) => string | undefined;
  /** Anchors that the server need not have presented. */
  readonly certificates: readonly Certificate[];
  /** Keys (SubjectPublicKeyInfo) that are anchors without a certificate. */
  readonly keys: readonly { readonly spki: Uint8Array; readonly name: string }[];
}

export type PathVerdict =
  | { readonly ok: true; readonly anchor: string; readonly path: readonly Certificate[] }
  | { readonly ok: false; readonly expired: boolean; readonly reason: string };

/** @param now epoch milliseconds */
export function findPath(
  leaf: Certificate,
  presented: readonly Certificate[],
  anchors: Anchors,
  now: number,
): PathVerdict {
  const pool = [...presented, ...anchors.certificates];
  const visited = new Set<string>([keyOf(leaf)]);
  const queue: Certificate[][] = [[leaf]];
  let signatures = 0;
  let nearly: PathVerdict | undefined;
  const judge = (path: readonly Certificate[], anchor: string): PathVerdict => {
    const fault = pathFault(path, now);
    return fault ? { ok: false, ...fault } : { ok: true, anchor, path };
  };
  for (let path = queue.shift(); path; path = queue.shift()) {
    const top = path.at(-1) ?? leaf;
    let issuers = 0;
    for (const issuer of path.length < MAX_PATH ? pool : []) {
      if (!sameOctets(issuer.subject, top.issuer) || visited.has(keyOf(issuer))) continue;
      if (signatures++ >= MAX_SIGNATURES) break;
      if (!isSignedBy(top, issuer.spki)) continue;
      issuers++;
      visited.add(keyOf(issuer));
      const longer = [...path, issuer];
      const anchor = anchors.matches(issuer);
      if (anchor === undefined) {
        queue.push(longer);
        continue;
      }
      const verdict = judge(longer, anchor);
      if (verdict.ok) return verdict;
      nearly ??= verdict;
    }
    // A key stands for an issuer that is not there: where it is, its certificate is judged too.
    if (issuers > 0) continue;
    for (const { spki, name } of anchors.keys) {
      if (signatures++ >= MAX_SIGNATURES) break;
      if (!isSignedBy(top, spki)) continue;
      const verdict = judge(path, name);
      if (verdict.ok) return verdict;
      nearly ??= verdict;
    }
  }
  return nearly ?? {
    ok: false,
    expired: false,
    reason: "no path from the certificate to a trust anchor of the TLSA records",
  };
}

const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
const ANY_USAGE = "2.5.29.37.0";

/** What is wrong with a path whose signatures are right; undefined when nothing is. */
function pathFault(
  path: readonly Certificate[],
  now: number,
): { readonly expired: boolean; readonly reason: string } | undefined {
  const fault = (reason: string, expired = false) => ({ reason, expired });
  /** Certificates below that count against a path length (RFC 5280, section 4.2.1.9). */
  let below = 0;
  for (const [depth, certificate] of path.entries()) {
    const { notBefore, notAfter, ca, version, keyUsage, unknownCritical } = certificate;
    const which = depth === 0 ? "the certificate" : `the issuer at depth ${depth}`;
    if (now < notBefore) return fault(`${which} is valid from ${iso(notBefore)} on`, true);
    if (now > notAfter) return fault(`${which} expired at ${iso(notAfter)}`, true);
    if (unknownCritical !== undefined) {
      return fault(`${which} has the unknown critical extension ${unknownCritical}`);
    }
    const usages = certificate.extendedKeyUsage;
    if (usages && !usages.includes(SERVER_AUTH) && !usages.includes(ANY_USAGE)) {
      return fault(`${which} is not for TLS servers`);
    }
    if (depth === 0) continue;
    const selfIssued = sameOctets(certificate.subject, certificate.issuer);
    // Certificates before version 3 have no extensions; as roots they are still met.
    if (!ca && !(version < 3 && selfIssued)) return fault(`${which} is not a CA`);
    if (keyUsage !== undefined && (keyUsage & KEY_CERT_SIGN) === 0) {
      return fault(`${which} may not sign certificates`);
    }
    if (ca?.pathLength !== undefined && below > ca.pathLength) {
      return fault(`${which} allows ${ca.pathLength} issuers below it, there are ${below}`);
    }
    if (!selfIssued) below++;
    const names = path[0]?.dnsNames ?? [];
    const { permitted, excluded } = certificate;
    const outside = permitted &&
      names.find((name) => !permitted.some((tree) => within(name, tree)));
    const inside = excluded && names.find((name) => excluded.some((tree) => within(name, tree)));
    if (outside !== undefined || inside !== undefined) {
      return fault(`${which} may not issue for ${outside ?? inside}`);
    }
  }
  return undefined;
}

/** RFC 5280, section 4.2.1.10: a subtree is the name and all below it. */
function within(name: string, tree: string): boolean {
  return tree === "" || name === tree || name.endsWith(tree.startsWith(".") ? tree : `.${tree}`);
}

const iso = (ms: number): string => new Date(ms).toISOString();

export function sameOctets(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((octet, n) => octet === b[n]);
}

/** Equal for equal certificates. */
const keyOf = ({ der }: Certificate): string => createHash("sha256").update(der).digest("hex");

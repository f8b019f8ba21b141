/**
 * Whether a certificate is for a host: RFC 6125, sections 6.4 and 7.2, as RFC 7672, section 3.2.3
 * and RFC 8461, section 4.1 ask for it.
 */
import type { Certificate } from "./certificate.ts";

/**
 * The names of a certificate that count: its dNSNames, and only where it has none, and
 * `commonName` allows it, the common names of its subject.
 */
export function namesOf(certificate: Certificate, commonName: boolean): readonly string[] {
  const { dnsNames, commonNames } = certificate;
  return dnsNames.length > 0 || !commonName ? dnsNames : commonNames;
}

/** The first of the wanted names (lower case) that a presented name stands for. */
export function matchingName(
  presented: readonly string[],
  wanted: readonly string[],
): string | undefined {
  return wanted.find((name) => presented.some((pattern) => matches(pattern, name)));
}

/** An asterisk stands for one whole label, the leftmost, of a name of at least three. */
function matches(pattern: string, name: string): boolean {
  if (!pattern.startsWith("*.")) return pattern === name;
  const suffix = pattern.slice(1);
  if (suffix.indexOf(".", 1) < 0 || !name.endsWith(suffix)) return false;
  const label = name.slice(0, -suffix.length);
  return label !== "" && !label.includes(".");
}

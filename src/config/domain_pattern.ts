/**
 * Domain patterns of routes: `example.org` is that domain, `.example.org` that domain and all
 * below it. Everything is compared as lower-case A-labels (RFC 5890, section 2.3.2.1).
 */
import { domainToASCII } from "node:url";

export interface DomainPattern {
  /** Lower-case A-labels without leading or trailing dot, or an address literal in brackets. */
  readonly domain: string;
  readonly below: boolean;
}

const LABEL = /^(?!-)[a-z0-9_-]{1,63}(?<!-)$/;
const LITERAL = /^\[(?:ipv6:)?[0-9a-f.:]{2,45}\]$/;

/** The domain as lower-case A-labels; what has no A-label form is only lower-cased. */
export function canonicalDomain(domain: string): string {
  const lower = domain.toLowerCase();
  // The ASCII case is nearly every case, and this is called for every attempt.
  // deno-lint-ignore no-control-regex
  const ascii = /^[\x00-\x7f]*$/.test(lower) ? lower : domainToASCII(lower).toLowerCase() || lower;
  return ascii.endsWith(".") ? ascii.slice(0, -1) : ascii;
}

/** Domain of a mailbox as lower-case A-labels; "" for the null reverse-path and "postmaster". */
export function canonicalDomainOf(address: string): string {
  const at = address.lastIndexOf("@");
  return at < 0 ? "" : canonicalDomain(address.slice(at + 1));
}

/** Whether this is a domain name in canonical form, by length and letters (RFC 1035, 2.3.4). */
export function isDomainName(domain: string): boolean {
  return domain.length <= 253 && domain.split(".").every((label) => LABEL.test(label));
}

/** Reads a pattern as it stands in a config; undefined when it is none. */
export function parseDomainPattern(text: string): DomainPattern | undefined {
  const below = text.startsWith(".");
  const domain = canonicalDomain(below ? text.slice(1) : text);
  if (!isDomainName(domain) && (below || !LITERAL.test(domain))) return undefined;
  return { domain, below };
}

export const formatDomainPattern = (pattern: DomainPattern): string =>
  pattern.below ? `.${pattern.domain}` : pattern.domain;

/** Whether a domain in canonical form is meant by the pattern. */
export function matchesDomain(pattern: DomainPattern, domain: string): boolean {
  return domain === pattern.domain || (pattern.below && domain.endsWith(`.${pattern.domain}`));
}

/** Whether every domain that `narrow` means is meant by `wide` too. */
export function coversDomain(wide: DomainPattern, narrow: DomainPattern): boolean {
  return (wide.below || !narrow.below) && matchesDomain(wide, narrow.domain);
}

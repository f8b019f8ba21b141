/**
 * Domain patterns of routes: `example.org` is that domain, `.example.org` that domain and all
 * below it. Everything is compared as lower-case A-labels (RFC 5890, section 2.3.2.1).
 */
import { asciiName, hostName } from "../dns/names.ts";

export interface DomainPattern {
  /** Lower-case A-labels without leading or trailing dot, or an address literal in brackets. */
  readonly domain: string;
  readonly below: boolean;
}

const LITERAL = /^\[(?:ipv6:)?[0-9a-f.:]{2,45}\]$/;

/** The domain as lower-case A-labels; what has no such form, a literal for one, in lower case. */
export const canonicalDomain = (domain: string): string =>
  asciiName(domain) ?? domain.toLowerCase();

/** Domain of a mailbox as lower-case A-labels; "" for the null reverse-path and "postmaster". */
export function canonicalDomainOf(address: string): string {
  const at = address.lastIndexOf("@");
  return at < 0 ? "" : canonicalDomain(address.slice(at + 1));
}

/** Reads a pattern as it stands in a config; undefined when it is none. */
export function parseDomainPattern(text: string): DomainPattern | undefined {
  const below = text.startsWith(".");
  const name = hostName(below ? text.slice(1) : text);
  if (name !== undefined) return { domain: name, below };
  const literal = text.toLowerCase();
  return LITERAL.test(literal) ? { domain: literal, below: false } : undefined;
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

/**
 * The addresses of an account: `alice@example.com` is that mailbox and its sub-addresses
 * (`alice+tag@example.com`, RFC 5233), `@example.com` every mailbox of that domain, and of none
 * below it.
 *
 * Domains are compared as lower-case A-labels, local parts without regard to case: only the host
 * of a domain may tell its local parts apart (RFC 5321, section 2.4), and here we are it.
 */
import { canonicalDomain } from "../config/domain_pattern.ts";
import { BadAddress, isDomain, type Mailbox, parseMailbox } from "../smtp/address.ts";

export interface AddressPattern {
  /** As it was written. */
  readonly text: string;
  /** In lower case; absent: every mailbox of the domain. */
  readonly localPart?: string;
  /** Lower-case A-labels. */
  readonly domain: string;
}

const canonicalLocalPart = (text: string): string => text.normalize("NFC").toLowerCase();

/** Reads a pattern as it stands in a config; undefined when it is none. */
export function parseAddressPattern(text: string): AddressPattern | undefined {
  if (text.startsWith("@")) {
    const domain = text.slice(1);
    return isDomain(domain) ? { text, domain: canonicalDomain(domain) } : undefined;
  }
  try {
    const { localPart, domain } = parseMailbox(text);
    return {
      text,
      localPart: canonicalLocalPart(localPart),
      domain: canonicalDomain(domain),
    };
  } catch (error) {
    if (error instanceof BadAddress) return undefined;
    throw error;
  }
}

/** Whether a mailbox is meant by the pattern. */
export function matchesAddress(pattern: AddressPattern, mailbox: Mailbox): boolean {
  if (canonicalDomain(mailbox.domain) !== pattern.domain) return false;
  if (pattern.localPart === undefined) return true;
  const localPart = canonicalLocalPart(mailbox.localPart);
  return localPart === pattern.localPart || localPart.startsWith(`${pattern.localPart}+`);
}

/** The one spelling of an address under which it is looked up as a login; undefined for domains. */
export const loginOf = ({ localPart, domain }: AddressPattern): string | undefined =>
  localPart === undefined ? undefined : `${localPart}@${domain}`;

/**
 * Domain names as questions carry them: A-labels in lower case without the trailing dot
 * (RFC 1035, section 2.3; RFC 5890, section 2.3.2.1). The root is ".".
 */
import { domainToASCII } from "node:url";

/** Octets of a name on the wire, the root's length octet included (RFC 1035, section 2.3.4). */
const MAX_WIRE = 255;
const MAX_LABEL = 63;

/** Letters, digits, hyphen; underscore (RFC 8552) and slash (RFC 2317) occur in names, not hosts. */
const LABEL = /^[a-z0-9_/-]+$/;
const HOST_LABEL = /^[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?$/;

/** Writers of U-labels need no more than this; longer text is not even converted. */
const MAX_TEXT = 1024;

/**
 * The name as it is asked for, or undefined when it is none: an empty or overlong label, a name
 * over 255 octets, characters that have no A-label, a wildcard, a space.
 */
export function asciiName(text: string): string | undefined {
  if (text.length > MAX_TEXT) return undefined;
  if (text === ".") return ".";
  // deno-lint-ignore no-control-regex
  const ascii = (/^[\x00-\x7f]*$/.test(text) ? text : domainToASCII(text)).toLowerCase();
  const name = ascii.endsWith(".") ? ascii.slice(0, -1) : ascii;
  if (name.length + 2 > MAX_WIRE) return undefined;
  const fits = name.split(".").every((label) => label.length <= MAX_LABEL && LABEL.test(label));
  return fits ? name : undefined;
}

/**
 * The name of a host or mail domain, or undefined: stricter than a name in that no label begins
 * or ends with a hyphen and that it cannot be mistaken for an IPv4 address. Underscores are let
 * through, since hosts with such names are in use.
 */
export function hostName(text: string): string | undefined {
  const name = asciiName(text);
  if (name === undefined || name === ".") return undefined;
  const labels = name.split(".");
  if (!labels.every((label) => HOST_LABEL.test(label))) return undefined;
  return /^(?:\d+|0x[0-9a-f]*)$/.test(labels.at(-1) ?? "") ? undefined : name;
}

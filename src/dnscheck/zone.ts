/**
 * Records as lines of a zone file (RFC 1035, section 5.1): absolute names, TXT in strings of at
 * most 255 octets (section 3.3.14).
 */
import { Buffer } from "node:buffer";
import { isIPv4 } from "node:net";
import type { RecordData } from "../ports.ts";

const MAX_STRING = 255;

const line = (name: string, type: string, data: string): string => `${name}. IN ${type} ${data}`;

/** A TXT record; quotes, backslashes and whatever is not printable ASCII are escaped. */
export function txtLine(name: string, value: string): string {
  const octets = new TextEncoder().encode(value);
  const strings: string[] = [];
  for (let at = 0; at === 0 || at < octets.length; at += MAX_STRING) {
    strings.push(quoted(octets.subarray(at, at + MAX_STRING)));
  }
  return line(name, "TXT", strings.join(" "));
}

const quoted = (octets: Uint8Array): string =>
  `"${
    Array.from(octets, (octet) => {
      if (octet === 0x22 || octet === 0x5c) return `\\${String.fromCharCode(octet)}`;
      if (octet >= 0x20 && octet < 0x7f) return String.fromCharCode(octet);
      return `\\${String(octet).padStart(3, "0")}`;
    }).join("")
  }"`;

export const addressLine = (name: string, address: string): string =>
  line(name, isIPv4(address) ? "A" : "AAAA", address);

export const mxLine = (name: string, preference: number, host: string): string =>
  line(name, "MX", `${preference} ${host}.`);

export const tlsaLine = (
  name: string,
  { usage, selector, matching, data }: RecordData["TLSA"],
): string =>
  line(name, "TLSA", `${usage} ${selector} ${matching} ${Buffer.from(data).toString("hex")}`);

export const ptrLine = (address: string, name: string): string =>
  line(reverseName(address), "PTR", `${name}.`);

/** An address as a URI (RFC 6068), fit for lists with commas and for limits behind "!". */
export function mailto(address: string): string {
  const at = address.lastIndexOf("@");
  const localPart = encodeURIComponent(address.slice(0, at)).replaceAll("!", "%21");
  return `mailto:${localPart}@${address.slice(at + 1)}`;
}

/** The name under which the names of an address stand (RFC 1035, section 3.5; RFC 3596). */
export function reverseName(address: string): string {
  if (isIPv4(address)) return `${address.split(".").reverse().join(".")}.in-addr.arpa`;
  return `${groupsOf(address).join("").split("").reverse().join(".")}.ip6.arpa`;
}

/** The one spelling of an address: RFC 5952 for IPv6. */
export const canonicalAddress = (address: string): string =>
  isIPv4(address) ? address : new URL(`http://[${address}]/`).hostname.slice(1, -1);

/** The eight groups of an IPv6 address, four digits each. */
function groupsOf(address: string): string[] {
  const [head = "", tail] = canonicalAddress(address).split("::");
  const groups = (text: string | undefined) => text ? text.split(":") : [];
  const front = groups(head);
  const back = groups(tail);
  const zeros = Array.from({ length: 8 - front.length - back.length }, () => "0");
  return [...front, ...zeros, ...back].map((group) => group.padStart(4, "0"));
}

/**
 * The small values of a config: durations, sizes, addresses. Each is a zod type that reads the
 * text of the file into the unit that the program uses.
 *
 * Messages are written to stand behind the value that was found: `"7x" is not a duration; …`.
 */
import { isIP } from "node:net";
import { z } from "zod";
import { hostName } from "../dns/names.ts";
import { parseDomainPattern } from "./domain_pattern.ts";
import type { SocketAddress } from "./types.ts";

const DURATION_UNITS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
};
/** Longer than any queue keeps mail; keeps sums of durations far from the limits of time values. */
const MAX_DURATION = 366 * 86_400_000;

/** Reads "7m30s", "2h", "500ms" into milliseconds; undefined when it is no duration up to a year. */
export function parseDuration(text: string): number | undefined {
  if (text.length > 32 || !/^(\d+(ms|[smhdw]))+$/.test(text)) return undefined;
  let total = 0;
  for (const [, digits, unit] of text.matchAll(/(\d+)(ms|[smhdw])/g)) {
    total += Number(digits) * DURATION_UNITS[unit!]!;
  }
  return total <= MAX_DURATION ? total : undefined;
}

const SIZE_UNITS: Readonly<Record<string, number>> = {
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
};

/** Reads "50MiB", "10 MB" or "65536" into octets; undefined when it is no size. */
export function parseSize(text: string): number | undefined {
  const [, digits, unit] = /^(\d{1,12}) ?([A-Za-z]*)$/.exec(text) ?? [];
  if (digits === undefined || unit === undefined) return undefined;
  const factor = unit === "" ? 1 : SIZE_UNITS[unit];
  const octets = factor === undefined ? NaN : Number(digits) * factor;
  return Number.isSafeInteger(octets) ? octets : undefined;
}

/** Reads "127.0.0.1:25", "[::1]:25", or an address alone where there is a default port. */
export function parseSocketAddress(text: string, defaultPort?: number): SocketAddress | undefined {
  const [, v6, v4, digits] = /^(?:\[([^\]]*)\]|([^:]*))(?::(\d{1,5}))?$/.exec(text) ?? [];
  const bare = isIP(text) === 6 ? text : undefined;
  const address = bare ?? v6 ?? v4 ?? "";
  const port = digits === undefined ? defaultPort : Number(digits);
  const family = isIP(address);
  if (family === 0 || (v6 !== undefined && family !== 6) || port === undefined || port > 65535) {
    return undefined;
  }
  return { address, port };
}

/** A zod type that reads text with `parse`, and says `message` where that gives undefined. */
function text<T>(parse: (text: string) => T | undefined, message: string) {
  return z.string().transform((value, context): T => {
    const parsed = parse(value);
    if (parsed !== undefined) return parsed;
    context.addIssue({ code: "custom", message });
    return z.NEVER;
  });
}

/** Milliseconds, more than none. */
export const Duration = text(
  (value) => parseDuration(value) || undefined,
  'is not a duration above zero and up to a year; write it like "7m30s", "2h" or "5d"',
);

const NOT_A_SIZE = 'is not a size; write it like "50MiB", "10MB" or 65536';
/** Octets. */
export const Size = z.union([z.int().min(0), text(parseSize, NOT_A_SIZE)], { error: NOT_A_SIZE });

export const Listen = text(
  (value) => parseSocketAddress(value),
  'is not an address with a port; write it like "127.0.0.1:2525" or "[::1]:2525"',
);

export const DnsServer = text(
  (value) => parseSocketAddress(value, 53),
  'is not the IP address of a resolver; write it like "127.0.0.1" or "[::1]:53"',
);

export const DomainName = text(
  hostName,
  'is not a domain name; write it like "mail.example.com"',
);

export const Host = text(
  (value) => isIP(value) === 0 ? hostName(value) : value,
  'is not a host; write a name like "relay.example.net" or an IP address, without a port',
);

export const IpAddress = text(
  (value) => isIP(value) === 0 ? undefined : value,
  'is not an IP address; write it like "192.0.2.1" or "2001:db8::1"',
);

export const SocksProxyAddress = text(
  (value) => parseSocketAddress(value, 1080),
  'is not the IP address of a proxy; write it like "198.51.100.7:1080" or "[2001:db8::7]:1080"',
);

export const Pattern = text(
  parseDomainPattern,
  'is not a domain; write "example.org", or ".example.org" for it and all below it',
);

export const Port = z.int().min(1).max(65535);

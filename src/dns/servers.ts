/**
 * Which resolvers are asked: those of the config, or those of the system (resolv.conf(5)).
 */
import { isIPv4, isIPv6 } from "node:net";
import type { Endpoint } from "../ports.ts";

const DNS_PORT = 53;

/** As many as the C library asks. */
const MAX_SYSTEM_SERVERS = 3;

/**
 * Parses "192.0.2.1", "192.0.2.1:53", "2001:db8::1" or "[2001:db8::1]:53".
 * @throws Error saying what was expected
 */
export function parseServer(text: string): Endpoint {
  if (isIPv4(text) || isIPv6(text)) return { address: text, port: DNS_PORT };
  const match = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d{1,5}))?$/.exec(text);
  const [, v6, v4, digits] = match ?? [];
  const port = digits === undefined ? DNS_PORT : Number(digits);
  const address = v6 !== undefined && isIPv6(v6) ? v6 : v4 !== undefined && isIPv4(v4) ? v4 : "";
  if (address === "" || port < 1 || port > 65_535) {
    throw new Error(`DNS server "${text}": expected IP, IP:PORT or [IPv6]:PORT`);
  }
  return { address, port };
}

export const formatServer = ({ address, port }: Endpoint): string =>
  isIPv6(address) ? `[${address}]:${port}` : `${address}:${port}`;

/** The name servers of a resolv.conf(5); 127.0.0.1 where it names none, as the C library does. */
export function parseResolvConf(text: string): string[] {
  const servers = text.split("\n").flatMap((line) => {
    const address = /^\s*nameserver\s+([^\s#;]+)/.exec(line)?.[1] ?? "";
    return isIPv4(address) || isIPv6(address) ? [formatServer({ address, port: DNS_PORT })] : [];
  });
  return servers.length > 0 ? servers.slice(0, MAX_SYSTEM_SERVERS) : ["127.0.0.1:53"];
}

/** The system's name servers. Needs permission to read /etc/resolv.conf. */
export function systemServers(file = "/etc/resolv.conf"): string[] {
  try {
    return parseResolvConf(Deno.readTextFileSync(file));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return parseResolvConf("");
    throw error;
  }
}

export const isLoopback = ({ address }: Endpoint): boolean =>
  address === "::1" || /^127\.\d+\.\d+\.\d+$/.test(address);

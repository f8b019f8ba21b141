/** Which addresses only this host can reach. */
import { isIPv4, isIPv6 } from "node:net";

/** Whether a listener on this address serves this host alone. Names other than localhost do not. */
export function isLoopback(address: string): boolean {
  const bare = address.replace(/^\[(.*)\]$/, "$1").toLowerCase();
  if (bare === "localhost") return true;
  const mapped = /^::ffff:(.*)$/.exec(bare)?.[1];
  if (mapped !== undefined && isIPv4(mapped)) return isLoopback(mapped);
  if (isIPv4(bare)) return bare.startsWith("127.");
  return isIPv6(bare) && /^[0:]*:0*1$/.test(bare);
}

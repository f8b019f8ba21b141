/**
 * The order in which the addresses of a host are dialled, from what earlier attempts of the same
 * message found. Pure.
 *
 *   - the next attempt starts with the other address family than the one that ended the last
 *   - the second attempt in a family prefers the same address again: greylisting remembers it
 *   - from the third on, what was tried least comes first
 */
import { isIPv6 } from "node:net";
import type { TriedAddress } from "../../actors/ports.ts";

/**
 * @param addresses as the DNS gave them, the preferred family first
 * @param tried by this message so far; the attempt that is running does not count
 * @param attempt number of the attempt that is running
 */
export function dialOrder(
  addresses: readonly string[],
  host: string,
  tried: readonly TriedAddress[],
  attempt: number,
): readonly string[] {
  const before = tried.filter((one) => one.host === host && one.attempt < attempt);
  const last = before.at(-1);
  if (!last) return addresses;
  const first = !isIPv6(last.address);
  const families = [first, !first].map((v6) => {
    const family = addresses.filter((address) => isIPv6(address) === v6);
    return byMemory(family, before.filter((one) => isIPv6(one.address) === v6));
  });
  return families.flat();
}

function byMemory(
  family: readonly string[],
  before: readonly TriedAddress[],
): readonly string[] {
  const attempts = new Set(before.map((one) => one.attempt));
  if (attempts.size === 0) return family;
  const again = before.at(-1)?.address;
  if (attempts.size === 1) {
    return [
      ...family.filter((address) => address === again),
      ...family.filter((address) => address !== again),
    ];
  }
  const times = (address: string) =>
    new Set(before.filter((one) => one.address === address).map((one) => one.attempt)).size;
  return family.toSorted((a, b) => times(a) - times(b));
}

/** Whether no earlier attempt of the message dialled the host. */
export function isFirstAttempt(
  host: string,
  tried: readonly TriedAddress[],
  attempt: number,
): boolean {
  return !tried.some((one) => one.host === host && one.attempt < attempt);
}

/**
 * Dials from addresses of this machine that the config names, by the family of what is dialled. A
 * family that it names none for is left to the system.
 */
import { isIPv6 } from "node:net";
import type { LocalAddresses } from "../config/types.ts";
import type { Connection, Dialer, Endpoint } from "../ports.ts";

export class LocalDialer implements Dialer {
  constructor(private readonly dialer: Dialer, private readonly local: LocalAddresses) {}

  connect(target: Endpoint, signal: AbortSignal): Promise<Connection> {
    const localAddress = isIPv6(target.address) ? this.local.ipv6 : this.local.ipv4;
    return this.dialer.connect(
      { ...target, ...(localAddress === undefined ? {} : { localAddress }) },
      signal,
    );
  }
}

/**
 * Direct delivery: to the MX hosts of the recipient's domain (RFC 5321, section 5.1).
 *
 *   1. Where mail for the domain goes is looked up: MX hosts, the domain itself, a literal.
 *   2. From our own name on, hosts are left out: they are the ones that we would relay for, and
 *      giving them the message would make a loop. When nothing is left, that is the failure.
 *   3. The hosts are tried in order.
 *
 * TLS is opportunistic (RFC 7435): STARTTLS where offered, the certificate is not judged.
 */
import { isIP } from "node:net";
import type { DeliveryJob, Findings, Outcome, Random } from "../../actors/ports.ts";
import type { DirectTransportConfig } from "../config/types.ts";
import { resolveDestination } from "../dns/destinations.ts";
import { type DeliveryPorts, tryHosts } from "./hosts.ts";

export interface DirectPorts extends DeliveryPorts {
  readonly random: Random;
}

export async function deliverDirect(
  ports: DirectPorts,
  config: Pick<DirectTransportConfig, "port" | "ipFamily" | "allowLoopback">,
  job: DeliveryJob,
  findings: Findings,
  signal: AbortSignal,
): Promise<Outcome> {
  const domain = job.message.rcptTo.slice(job.message.rcptTo.lastIndexOf("@") + 1);
  const destination = await resolveDestination(ports.resolver, domain, ports.random, signal);
  if (destination.kind !== "hosts") {
    const { kind, code: enhanced, reason } = destination;
    if (kind === "permanent") {
      return { kind: "failed", permanent: true, result: "permerror", reason, enhanced };
    }
    const { cause } = destination;
    const result = signal.aborted ? "canceled" : cause === "timeout" ? "timeout" : "temperror";
    return { kind: "failed", permanent: false, result, reason, enhanced };
  }
  const { nextHop, expanded, dnssec, by, hosts } = destination;
  findings.note({
    type: "DestinationsResolved",
    data: { nextHop, expanded, dnssec, by, hosts },
  });
  const reachable = beforeOurselves(hosts, ports.hostname);
  if (reachable.length === 0) {
    return {
      kind: "failed",
      permanent: true,
      result: "error",
      reason: `mail for ${nextHop} would come back to us: ${ports.hostname} is its best host`,
      enhanced: "5.4.6",
    };
  }
  const options = {
    hosts: reachable.map(({ host }) => ({
      host,
      tls: { mode: "opportunistic", ...(isIP(host) ? {} : { serverName: host }) } as const,
    })),
    port: config.port,
    family: config.ipFamily,
    allowLoopback: config.allowLoopback,
  };
  return await tryHosts(ports, options, job, findings, signal);
}

/** The hosts that are preferred over our own name; all, where it is not among them. */
function beforeOurselves<H extends { host: string; preference: number }>(
  hosts: readonly H[],
  hostname: string,
): readonly H[] {
  const us = hosts.find(({ host }) => host === hostname.toLowerCase());
  return us ? hosts.filter(({ preference }) => preference < us.preference) : hosts;
}

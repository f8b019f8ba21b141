/**
 * Delivery over a smarthost: a transport of type `smtp`, one host that the configuration names.
 * Its addresses are looked up, not its MX records. That it refuses a message permanently is
 * permanent; that it is down is temporary, and the reason names the transport.
 */
import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import type { DeliveryJob, Findings, Outcome } from "../../actors/ports.ts";
import type { SmtpTransportConfig } from "../config/types.ts";
import type { TlsSession } from "../ports.ts";
import type { TlsPolicy } from "../tls/policy.ts";
import { type DeliveryPorts, tryHosts } from "./hosts.ts";

export async function deliverSmarthost(
  ports: DeliveryPorts,
  config: Pick<SmtpTransportConfig, "name" | "host" | "port" | "tls"> & {
    /** Trust anchors in PEM for `verified`, instead of the system's. */
    readonly ca?: readonly string[];
  },
  job: DeliveryJob,
  findings: Findings,
  signal: AbortSignal,
): Promise<Outcome> {
  const { name, host, port } = config;
  findings.note({
    type: "DestinationsResolved",
    data: {
      nextHop: host,
      expanded: host,
      dnssec: { nextHop: "unchecked", expanded: "unchecked" },
      by: "configured",
      hosts: [{ host, preference: 0 }],
    },
  });
  const hosts = [{ host, tls: smarthostPolicy(config) }];
  // The operator named this host: that it is this very machine is no mistake.
  const options = { hosts, port, family: "any", allowLoopback: true } as const;
  const outcome = await tryHosts(ports, options, job, findings, signal);
  if (outcome.kind === "delivered") return outcome;
  const reason = `transport "${name}": ${outcome.reason}`;
  if (outcome.permanent && outcome.code === undefined && outcome.enhanced === "5.4.4") {
    // A host name without address is a mistake of ours, and can be mended before the last attempt.
    return { ...outcome, permanent: false, enhanced: "4.4.4", reason };
  }
  return { ...outcome, reason };
}

/** The TLS policy that the `tls` key of a transport means. */
export function smarthostPolicy(
  config: Pick<SmtpTransportConfig, "host" | "tls"> & { readonly ca?: readonly string[] },
): TlsPolicy {
  const { host, tls: mode, ca } = config;
  const serverName = isIP(host) ? {} : { serverName: host };
  if (mode !== "verified") return { mode, ...serverName };
  return {
    mode,
    by: "pkix",
    ...serverName,
    ...(ca ? { ca } : {}),
    verify: (session) => verifyPkix(session, host),
  };
}

/** A trusted chain, and a certificate for the host's name or address (RFC 6125). */
function verifyPkix(session: TlsSession, host: string): string | undefined {
  if (!session.chainTrusted) return session.chainError ?? "its chain is not trusted";
  const [leaf] = session.chain;
  if (!leaf) return "the host presented none";
  const certificate = new X509Certificate(leaf);
  const matches = isIP(host)
    ? certificate.checkIP(host)
    : certificate.checkHost(host, { subject: "never" });
  return matches === undefined ? `it is not for ${host}` : undefined;
}

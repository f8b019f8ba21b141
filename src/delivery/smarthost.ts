/**
 * Delivery over a smarthost: a transport of type `smtp`, `submission` or `submissions`, one host
 * that the configuration names. Its addresses are looked up, not its MX records.
 *
 * That it refuses a message permanently is permanent. That it is down, refuses our login or does
 * not let our account send is temporary, an operator can mend it; the reason names the transport.
 */
import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import type { Outcome } from "../../actors/ports.ts";
import type { SmarthostTransportConfig } from "../config/types.ts";
import type { TlsSession } from "../ports.ts";
import type { TlsPolicy } from "../tls/policy.ts";
import { type DeliveryPorts, tryHosts } from "./hosts.ts";
import { noteAll, type Party } from "./party.ts";

export async function deliverSmarthost(
  ports: DeliveryPorts,
  config: Pick<SmarthostTransportConfig, "name" | "host" | "port" | "tls" | "ca" | "ipFamily">,
  parties: readonly Party[],
  signal: AbortSignal,
): Promise<Outcome[]> {
  const { name, host, port, ipFamily: family } = config;
  noteAll(parties, {
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
  const options = { hosts, port, family, allowLoopback: true };
  const outcomes = await tryHosts(ports, options, parties, signal);
  return outcomes.map((outcome) => ofTransport(name, outcome));
}

/** An outcome with the name of the transport, and temporary where an operator can mend it. */
function ofTransport(name: string, outcome: Outcome): Outcome {
  if (outcome.kind === "delivered") return outcome;
  const reason = `transport "${name}": ${outcome.reason}`;
  if (outcome.permanent && outcome.code === undefined && outcome.enhanced === "5.4.4") {
    // A host name without address is a mistake of ours, and can be mended before the last attempt.
    return { ...outcome, permanent: false, enhanced: "4.4.4", reason };
  }
  if (outcome.permanent && outcome.code === 530) {
    // RFC 4954, section 6, RFC 3207, section 4: it wants a login or TLS that the config lacks.
    return { ...outcome, permanent: false, result: "temperror", reason };
  }
  return { ...outcome, reason };
}

/** The TLS policy that the `tls` key of a transport means. */
export function smarthostPolicy(
  config: Pick<SmarthostTransportConfig, "host" | "tls" | "ca">,
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

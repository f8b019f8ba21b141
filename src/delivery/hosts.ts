/**
 * Hosts in turn, best first, until one settles the matter: what direct delivery and a smarthost
 * have in common. Addresses of a host are looked up when its turn comes, and what one host said
 * is on disk before the next is tried.
 */
import type { DeliveryJob, Findings, Outcome } from "../../actors/ports.ts";
import { resolveAddresses } from "../dns/addresses.ts";
import type { DnsError, Resolver } from "../ports.ts";
import type { TlsPolicy } from "../tls/policy.ts";
import { conclude, goesOn, type HostVerdict } from "./outcome.ts";
import { submit, type SubmitPorts } from "./submit.ts";

export interface DeliveryPorts extends SubmitPorts {
  readonly resolver: Resolver;
}

/** Hosts that are tried in one attempt. */
export const MAX_HOSTS_TRIED = 10;

export interface HostsOptions {
  readonly hosts: readonly { readonly host: string; readonly tls: TlsPolicy }[];
  readonly port: number;
  readonly family: "any" | "ipv4" | "ipv6";
  readonly allowLoopback: boolean;
}

/** Tries hosts (at least one) until the message is delivered or refused for good. */
export async function tryHosts(
  ports: DeliveryPorts,
  options: HostsOptions,
  job: DeliveryJob,
  findings: Findings,
  signal: AbortSignal,
): Promise<Outcome> {
  const { port, family, allowLoopback } = options;
  const tried: HostVerdict[] = [];
  for (const { host, tls } of options.hosts.slice(0, MAX_HOSTS_TRIED)) {
    if (tried.length > 0) await findings.flush();
    const found = await resolveAddresses(ports.resolver, host, { family, allowLoopback, signal });
    if (found.failure) {
      const { reason, code, cause } = found.failure;
      const result = signal.aborted ? "canceled" : RESULTS[cause ?? "servfail"] ?? "error";
      tried.push({
        host,
        verdict: { result, phase: "connect", error: reason, enhanced: code },
        tls: { mode: tls.mode, verifiedBy: "none" },
        dsnOffered: false,
      });
      const seen = { tlsMode: tls.mode, verifiedBy: "none", phases: {} } as const;
      findings.note({ type: "HostTried", data: { host, ...seen, result, error: reason } });
    } else {
      const { addresses } = found;
      tried.push(...await submit(ports, job, { host, port, addresses, tls }, findings, signal));
    }
    if (goesOn(tried.at(-1)!.verdict) === "no") break;
  }
  return conclude(tried);
}

const RESULTS: Readonly<Partial<Record<DnsError["kind"], "timeout" | "canceled">>> = {
  timeout: "timeout",
  canceled: "canceled",
};

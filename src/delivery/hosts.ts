/**
 * Hosts in turn, best first, until one settles the matter: what direct delivery and a smarthost
 * have in common. Addresses of a host are looked up when its turn comes, and what one host said
 * is on disk before the next is tried.
 */
import type { DeliveryJob, Outcome } from "../../actors/ports.ts";
import { type HostAddresses, resolveAddresses } from "../dns/addresses.ts";
import type { DnsError, Resolver } from "../ports.ts";
import type { TlsPolicy } from "../tls/policy.ts";
import type { Reporting } from "../tls/reports/results.ts";
import type { Verdict } from "../smtp/verdict.ts";
import { dialOrder, isFirstAttempt } from "./dial_order.ts";
import { onDisk, type Party } from "./party.ts";
import { submit, type SubmitPorts } from "./submit.ts";

export interface DeliveryPorts extends SubmitPorts {
  readonly resolver: Resolver;
}

/** Hosts that are tried in one attempt. */
export const MAX_HOSTS_TRIED = 10;

/** Decides on the proof that a host must give, once its addresses are known; notes why. */
export type HostJudge = (
  found: HostAddresses,
  parties: readonly Party[],
) => Promise<
  | { readonly policy: TlsPolicy; readonly reporting?: Reporting }
  | { readonly failure: Verdict }
>;

export interface HostsOptions {
  readonly hosts: readonly { readonly host: string; readonly tls: TlsPolicy | HostJudge }[];
  readonly port: number;
  readonly family: "any" | "ipv4" | "ipv6";
  readonly allowLoopback: boolean;
}

/** Tries hosts (at least one) until each message is delivered or refused for good. */
export async function tryHosts(
  ports: DeliveryPorts,
  options: HostsOptions,
  parties: readonly Party[],
  signal: AbortSignal,
): Promise<Outcome[]> {
  const { port, family, allowLoopback } = options;
  /** Those that this host is tried for. */
  let left = parties;
  /** A host that was not dialled. */
  const failed = (host: string, verdict: Verdict) => {
    const tlsMode = "none" as const;
    const tls = { mode: tlsMode, verifiedBy: "none" } as const;
    const { result, error } = verdict;
    const seen = { tlsMode, verifiedBy: "none", phases: {} } as const;
    const data = { host, ...seen, result, ...(error === undefined ? {} : { error }) };
    for (const party of left) {
      party.tried.push({ host, verdict, tls, dsnOffered: false });
      party.note({ type: "HostTried", data });
    }
  };
  for (const [n, { host, tls }] of options.hosts.slice(0, MAX_HOSTS_TRIED).entries()) {
    if (n > 0) await onDisk(parties);
    const found = await resolveAddresses(ports.resolver, host, { family, allowLoopback, signal });
    if (found.failure) {
      const { reason, code, cause } = found.failure;
      const result = signal.aborted ? "canceled" : RESULTS[cause ?? "servfail"] ?? "error";
      failed(host, { result, phase: "connect", error: reason, enhanced: code });
    } else {
      const judged: Awaited<ReturnType<HostJudge>> = typeof tls === "function"
        ? await tls(found, left)
        : { policy: tls };
      if ("failure" in judged) failed(host, judged.failure);
      else {
        // They have been through the same attempts: the first speaks for all.
        const [{ job }] = left as readonly [Party];
        const addresses = dialOrder(found.addresses, host, job.tried, job.attempt);
        const doubtful = ({ tried, attempt }: DeliveryJob) =>
          found.dualStack && isFirstAttempt(host, tried, attempt);
        const { policy, reporting } = judged;
        const counted = reporting ? { reporting } : {};
        const target = { host, port, addresses, tls: policy, doubtful, ...counted };
        await submit(ports, left, target, signal);
      }
    }
    left = left.filter(({ through }) => !through);
    if (left.length === 0) break;
  }
  return parties.map(({ outcome }) => outcome);
}

const RESULTS: Readonly<Partial<Record<DnsError["kind"], "timeout" | "canceled">>> = {
  timeout: "timeout",
  canceled: "canceled",
};

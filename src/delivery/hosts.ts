/**
 * Hosts in turn, best first, until one settles the matter: what direct delivery and a smarthost
 * have in common. Addresses of a host are looked up when its turn comes, and what one host said
 * is on disk before the next is tried.
 */
import type { DeliveryJob, Findings, Outcome } from "../../actors/ports.ts";
import { type HostAddresses, resolveAddresses } from "../dns/addresses.ts";
import type { DnsError, Resolver } from "../ports.ts";
import type { TlsPolicy } from "../tls/policy.ts";
import type { Reporting } from "../tls/reports/results.ts";
import type { Verdict } from "../smtp/verdict.ts";
import { dialOrder, isFirstAttempt } from "./dial_order.ts";
import { conclude, goesOn, type HostVerdict } from "./outcome.ts";
import { submit, type SubmitPorts } from "./submit.ts";

export interface DeliveryPorts extends SubmitPorts {
  readonly resolver: Resolver;
}

/** Hosts that are tried in one attempt. */
export const MAX_HOSTS_TRIED = 10;

/** Decides on the proof that a host must give, once its addresses are known. */
export type HostJudge = (
  found: HostAddresses,
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
  /** A host that was not dialled. */
  const failed = (host: string, verdict: Verdict) => {
    const tlsMode = "none" as const;
    tried.push({ host, verdict, tls: { mode: tlsMode, verifiedBy: "none" }, dsnOffered: false });
    const { result, error } = verdict;
    const seen = { tlsMode, verifiedBy: "none", phases: {} } as const;
    const data = { host, ...seen, result, ...(error === undefined ? {} : { error }) };
    findings.note({ type: "HostTried", data });
  };
  for (const { host, tls } of options.hosts.slice(0, MAX_HOSTS_TRIED)) {
    if (tried.length > 0) await findings.flush();
    const found = await resolveAddresses(ports.resolver, host, { family, allowLoopback, signal });
    if (found.failure) {
      const { reason, code, cause } = found.failure;
      const result = signal.aborted ? "canceled" : RESULTS[cause ?? "servfail"] ?? "error";
      failed(host, { result, phase: "connect", error: reason, enhanced: code });
    } else {
      const judged: Awaited<ReturnType<HostJudge>> = typeof tls === "function"
        ? await tls(found)
        : { policy: tls };
      if ("failure" in judged) failed(host, judged.failure);
      else {
        const addresses = dialOrder(found.addresses, host, job.tried, job.attempt);
        const doubtful = found.dualStack && isFirstAttempt(host, job.tried, job.attempt);
        const { policy, reporting } = judged;
        const counted = reporting ? { reporting } : {};
        const target = { host, port, addresses, tls: policy, doubtful, ...counted };
        tried.push(...await submit(ports, job, target, findings, signal));
      }
    }
    if (goesOn(tried.at(-1)!.verdict) === "no") break;
  }
  return conclude(tried);
}

const RESULTS: Readonly<Partial<Record<DnsError["kind"], "timeout" | "canceled">>> = {
  timeout: "timeout",
  canceled: "canceled",
};

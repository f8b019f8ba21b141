/**
 * Direct delivery: to the MX hosts of the recipient's domain (RFC 5321, section 5.1).
 *
 *   1. Where mail for the domain goes is looked up: MX hosts, the domain itself, a literal.
 *   2. From our own name on, hosts are left out: they are the ones that we would relay for, and
 *      giving them the message would make a loop. When nothing is left, that is the failure.
 *   3. Hosts that an enforced MTA-STS policy does not name are passed over (RFC 8461).
 *   4. The hosts are tried in order. What each must prove is judged when its addresses are known
 *      (judge.ts): by DANE, by MTA-STS, TLS at least, or nothing (opportunistic: RFC 7435).
 */
import type { Outcome, Random } from "../../actors/ports.ts";
import type { EventData } from "../../events/catalogue.ts";
import type { DirectTransportConfig } from "../config/types.ts";
import { type Destination, resolveDestination } from "../dns/destinations.ts";
import {
  type MtaSts,
  type MtaStsFinding,
  type MtaStsUnknown,
  passesOver,
} from "../tls/requirements.ts";
import { reportedPolicies, undialedResults } from "../tls/reports/results.ts";
import { type DeliveryPorts, type HostJudge, tryHosts } from "./hosts.ts";
import { judgeHost, PASSED_OVER, passedOver } from "./judge.ts";
import { noteAll, type Party } from "./party.ts";

export interface DirectPorts extends DeliveryPorts {
  readonly random: Random;
  /** Names of ours beside `hostname`. */
  readonly ourselves?: readonly string[];
  /** Finds MTA-STS policies; absent: none is looked for. */
  readonly mtaSts?: MtaSts;
  /** Trust anchors in PEM for MTA-STS, instead of the system's. */
  readonly ca?: readonly string[];
  /** Whether sessions are counted for TLS reports (RFC 8460); absent: they are not. */
  readonly tlsReports?: () => boolean;
}

export async function deliverDirect(
  ports: DirectPorts,
  config: Pick<DirectTransportConfig, "port" | "ipFamily" | "allowLoopback">,
  parties: readonly Party[],
  signal: AbortSignal,
): Promise<Outcome[]> {
  const [{ job: { message } }] = parties as readonly [Party];
  const all = (outcome: Outcome) => parties.map(() => outcome);
  const domain = message.rcptTo.slice(message.rcptTo.lastIndexOf("@") + 1);
  const destination = await resolveDestination(ports.resolver, domain, ports.random, signal);
  if (destination.kind !== "hosts") {
    const { kind, code: enhanced, reason } = destination;
    if (kind === "permanent") {
      return all({ kind: "failed", permanent: true, result: "permerror", reason, enhanced });
    }
    const { cause } = destination;
    const result = signal.aborted ? "canceled" : cause === "timeout" ? "timeout" : "temperror";
    return all({ kind: "failed", permanent: false, result, reason, enhanced });
  }
  const { nextHop, by, hosts } = destination;
  const policy = by === "literal" ? undefined : await ports.mtaSts?.find(nextHop, signal);
  const { requireTLS, tlsOptional = false } = message;
  const needs = { requireTLS, tlsOptional };
  const ignorePolicies = tlsOptional && !requireTLS;
  const reportedOn = by !== "literal" && !ignorePolicies && ports.tlsReports?.() === true;
  const known = reportedOn ? policy : withoutFailure(policy);
  noteAll(parties, { type: "DestinationsResolved", data: destinationFact(destination, known) });
  if (policy?.status === "temporary" && !ignorePolicies) {
    const reason = `whether ${nextHop} has an MTA-STS policy cannot be found out: ${policy.reason}`;
    const result = signal.aborted ? "canceled" : "temperror";
    return all({ kind: "failed", permanent: false, result, reason, enhanced: "4.7.5" });
  }
  const mtaSts = policy?.status === "temporary" ? undefined : policy;
  const reachable = beforeOurselves(hosts, [ports.hostname, ...ports.ourselves ?? []]);
  if (reachable.length === 0) {
    return all({
      kind: "failed",
      permanent: true,
      result: "error",
      reason: `mail for ${nextHop} would come back to us: ${ports.hostname} is its best host`,
      enhanced: "5.4.6",
    });
  }
  const reporting = (gathered: EventData<"TLSAGathered">) =>
    reportedOn ? reportedPolicies(nextHop, mtaSts, gathered) : undefined;
  const reported = (gathered: EventData<"TLSAGathered">): EventData<"TLSAGathered"> => {
    const policies = reporting(gathered);
    const tlsReport = policies && undialedResults(policies);
    return tlsReport ? { ...gathered, tlsReport } : gathered;
  };
  const named: typeof hosts = [];
  for (const host of reachable) {
    const why = ignorePolicies ? undefined : passesOver(host.host, mtaSts);
    if (why === undefined) named.push(host);
    else {
      const gathered = passedOver(host.host, [why]);
      noteAll(parties, { type: "TLSAGathered", data: reported(gathered) });
    }
  }
  if (named.length === 0) {
    const reason = `the MTA-STS policy of ${nextHop} is enforced and names none of its hosts: ${
      reachable.map(({ host }) => host).join(", ")
    }`;
    return all({
      kind: "failed",
      permanent: false,
      result: "error",
      reason,
      enhanced: PASSED_OVER,
    });
  }
  const circumstances = { destination, mtaSts, needs, port: config.port };
  const judge = (host: string): HostJudge => async (found, left) => {
    const judged = await judgeHost(ports, host, found, circumstances, signal);
    const { gathered } = judged;
    if ("failure" in judged) {
      noteAll(left, { type: "TLSAGathered", data: reported(gathered) });
      return judged;
    }
    noteAll(left, { type: "TLSAGathered", data: gathered });
    const counted = reporting(gathered);
    return { policy: judged.policy, ...(counted ? { reporting: counted } : {}) };
  };
  const options = {
    hosts: named.map(({ host }) => ({ host, tls: judge(host) })),
    port: config.port,
    family: config.ipFamily,
    allowLoopback: config.allowLoopback,
  };
  return await tryHosts(ports, options, parties, signal);
}

/** Destination and policy as the log has them. */
export function destinationFact(
  destination: Destination & { kind: "hosts" },
  policy: MtaStsFinding | MtaStsUnknown | undefined,
): EventData<"DestinationsResolved"> {
  const { nextHop, expanded, dnssec, by, hosts, unicode, ignored } = destination;
  const mtaSts = policy?.status === "policy" ? { ...policy, mx: [...policy.mx] } : policy;
  return {
    nextHop,
    expanded,
    dnssec,
    by,
    hosts,
    ...(unicode === undefined ? {} : { unicode }),
    ...(ignored ? { ignored: [...ignored] } : {}),
    ...(mtaSts ? { mtaSts } : {}),
  };
}

/** What nobody reports on is not marked as to be reported. */
function withoutFailure(
  policy: MtaStsFinding | MtaStsUnknown | undefined,
): MtaStsFinding | MtaStsUnknown | undefined {
  if (policy?.status !== "policy" && policy?.status !== "error") return policy;
  const { failure: _, ...rest } = policy;
  return rest;
}

/** The hosts that are preferred over our own names; all, where none is among them. */
function beforeOurselves<H extends { host: string; preference: number }>(
  hosts: readonly H[],
  names: readonly string[],
): readonly H[] {
  const us = hosts.find(({ host }) => names.some((name) => host === name.toLowerCase()));
  return us ? hosts.filter(({ preference }) => preference < us.preference) : hosts;
}

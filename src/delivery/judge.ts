/**
 * Judges a host before it is dialled: gathers its TLSA records, decides how much proof its session
 * needs (tls/requirements.ts), and makes the TLS policy of it. Used by direct delivery and by
 * `resolve`, so that the latter says what the former would do.
 */
import { createHash } from "node:crypto";
import { domainToUnicode } from "node:url";
import type { Clock } from "../../actors/ports.ts";
import type { EventData } from "../../events/catalogue.ts";
import type { HostAddresses } from "../dns/addresses.ts";
import type { Destination } from "../dns/destinations.ts";
import { gatherTlsa, type TlsaAnswer } from "../dns/tlsa.ts";
import type { Resolver } from "../ports.ts";
import type { Verdict } from "../smtp/verdict.ts";
import { type TlsaRecord, unusable, verifyDane } from "../tls/dane.ts";
import { verifyPkix } from "../tls/pkix.ts";
import type { Observe, TlsPolicy } from "../tls/policy.ts";
import {
  type MessageNeeds,
  type MtaStsFinding,
  type Requirement,
  requirementsFor,
  type TlsaFacts,
} from "../tls/requirements.ts";

export interface JudgePorts {
  readonly clock: Pick<Clock, "now">;
  readonly resolver: Resolver;
  /** Trust anchors in PEM for MTA-STS, instead of the system's. */
  readonly ca?: readonly string[];
}

type Found = Destination & { kind: "hosts" };

/** What is the same for all hosts of an attempt. */
export interface Circumstances {
  readonly destination: Found;
  readonly mtaSts: MtaStsFinding | undefined;
  readonly needs: MessageNeeds;
  readonly port: number;
}

export type Judged =
  | { readonly gathered: EventData<"TLSAGathered">; readonly policy: TlsPolicy }
  | { readonly gathered: EventData<"TLSAGathered">; readonly failure: Verdict };

/** @param found its addresses; at least one */
export async function judgeHost(
  ports: JudgePorts,
  host: string,
  found: HostAddresses,
  circumstances: Circumstances,
  signal: AbortSignal,
): Promise<Judged> {
  const { destination, mtaSts, needs, port } = circumstances;
  const answer = await askTlsa(ports.resolver, host, found, circumstances, signal);
  const facts = factsOf(answer, destination, host);
  const literal = destination.by === "literal";
  const requirement = requirementsFor({ name: host, literal }, facts, mtaSts, needs);
  const gathered = gatheredFact(host, found, answer, requirement);
  if (requirement.verdict === "try") {
    const records = answer.state === "records" ? answer.records : [];
    return { gathered, policy: policyOf(ports, host, requirement, records, port) };
  }
  const { why } = requirement;
  const { enhanced, cause } = requirement.verdict === "fail"
    ? requirement
    : { enhanced: PASSED_OVER, cause: "mta-sts" };
  const result = signal.aborted
    ? "canceled"
    : cause !== "tlsa-lookup"
    ? "error"
    : answer.state === "failed" && answer.cause === "timeout"
    ? "timeout"
    : "temperror";
  return {
    gathered,
    failure: { result, phase: "connect", error: why.at(-1) ?? "not dialled", enhanced },
  };
}

/** Status of a host that an enforced MTA-STS policy does not name (RFC 3463: other security). */
export const PASSED_OVER = "4.7.0";

/** The finding about a host that is passed over, and whose addresses are not even looked up. */
export function passedOver(host: string, why: readonly string[]): EventData<"TLSAGathered"> {
  const nothing = { addresses: [], expanded: host, authentic: false, hostAuthentic: false };
  const notAsked: TlsaAnswer = { state: "not-asked", why: "passed over" };
  const found = { ...nothing, dualStack: false };
  return gatheredFact(host, found, notAsked, { verdict: "skip", why }, "unchecked");
}

async function askTlsa(
  resolver: Resolver,
  host: string,
  found: HostAddresses,
  { destination, needs, port }: Circumstances,
  signal: AbortSignal,
): Promise<TlsaAnswer> {
  if (destination.by === "literal") {
    return { state: "not-asked", why: "an address literal has no TLSA records" };
  }
  if (needs.tlsOptional && !needs.requireTLS) {
    return { state: "not-asked", why: "the message says TLS-Required: No" };
  }
  return await gatherTlsa(resolver, {
    host,
    expanded: found.expanded,
    port,
    wayAuthentic: destination.dnssec.expanded === "secure",
    hostAuthentic: found.hostAuthentic,
    expandedAuthentic: found.authentic,
  }, signal);
}

function factsOf(answer: TlsaAnswer, destination: Found, host: string): TlsaFacts {
  if (answer.state !== "records") return answer;
  const { base, records } = answer;
  // RFC 7672, section 3.2.2. All of them are secure, or there would be no DANE.
  const names = new Set([base, host, destination.nextHop, destination.expanded]);
  const usable = records.filter((record) => unusable(record) === undefined).length;
  return { state: "records", base, usable, names: [...names] };
}

const hex = (data: Uint8Array): string =>
  [...data].map((octet) => octet.toString(16).padStart(2, "0")).join("");

function gatheredFact(
  host: string,
  found: HostAddresses,
  answer: TlsaAnswer,
  requirement: Requirement,
  checked?: "unchecked",
): EventData<"TLSAGathered"> {
  const status = (secure: boolean) => checked ?? (secure ? "secure" : "insecure");
  const unicode = domainToUnicode(host);
  const { verdict, why } = requirement;
  const tried = verdict === "try" ? requirement : undefined;
  const records = answer.state === "records" ? answer.records : [];
  return {
    host,
    ...(unicode === host || unicode === "" ? {} : { unicode }),
    expanded: found.expanded,
    dnssec: { host: status(found.hostAuthentic), expanded: status(found.authentic) },
    addresses: [...found.addresses],
    dualStack: found.dualStack,
    tlsa: answer.state,
    ...("base" in answer ? { base: answer.base } : {}),
    records: records.map((record) => {
      const { usage, selector, matching, data } = record;
      const fault = unusable(record);
      const facts = { usage, selector, matching, data: hex(data.subarray(0, MAX_DATA)) };
      return { ...facts, ...(fault === undefined ? {} : { unusable: fault }) };
    }),
    daneRequired: records.some((record) => unusable(record) === undefined),
    verdict,
    tlsMode: tried?.mode ?? "none",
    verifiedBy: tried?.verifiedBy ?? "none",
    names: [...tried?.names ?? []],
    why: [...why],
  };
}

/** Octets of a record's data that the log keeps: every digest, and the most of a certificate. */
const MAX_DATA = 4_096;

/** Equal for equal record sets, in whatever order they came. */
function fingerprint(records: readonly TlsaRecord[]): string {
  const lines = records.map(({ usage, selector, matching, data }) =>
    `${usage} ${selector} ${matching} ${hex(data)}`
  );
  return createHash("sha256").update(lines.sort().join("\n")).digest("hex");
}

function policyOf(
  { clock, ca }: JudgePorts,
  host: string,
  requirement: Requirement & { verdict: "try" },
  records: readonly TlsaRecord[],
  port: number,
): TlsPolicy {
  const { mode, verifiedBy, names, serverName, testing } = requirement;
  const sni = serverName === undefined ? {} : { serverName };
  const trust = ca === undefined ? {} : { ca };
  const observe: { observe?: Observe } = testing
    ? {
      observe: (session) =>
        testing.hostAllowed ? verifyPkix(session, host) : {
          ok: false,
          type: "certificate-host-mismatch",
          reason: `the policy does not name ${host}`,
        },
    }
    : {};
  if (mode !== "verified") return { mode, ...sni, ...trust, ...observe };
  if (verifiedBy === "dane") {
    const identity = `${port} ${names.join(" ")} ${fingerprint(records)}`;
    const verify: (TlsPolicy & { mode: "verified" })["verify"] = (session) =>
      verifyDane(session.chain, records, names, clock.now());
    return { mode, by: "dane", ...sni, ...trust, identity, ...observe, verify };
  }
  return {
    mode,
    by: "mta-sts",
    ...sni,
    ...trust,
    identity: names.join(" "),
    verify: (session) => verifyPkix(session, host),
  };
}

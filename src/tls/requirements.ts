/**
 * What a host must prove before it gets a message: from what was found out about it, by DNSSEC and
 * TLSA records (RFC 7672), by the MTA-STS policy of the domain (RFC 8461), and from what the
 * message asks for (REQUIRETLS and TLS-Required: RFC 8689). Pure; every decision says why.
 *
 *   TLS-Required: No, and no REQUIRETLS   opportunistic, whatever the domain publishes
 *   enforced policy without this host     the host is passed over
 *   TLSA question without an answer       the host fails, temporarily
 *   usable TLSA records                   verified by DANE
 *   enforced policy                       verified by MTA-STS
 *   only unusable TLSA records            required, not verified
 *   nothing of these                      opportunistic
 *   REQUIRETLS where nothing verifies     the host fails
 */

import type { PolicyError } from "./mta_sts_policy.ts";

/** A policy as published (RFC 8461, section 3.2), or why the domain has none to go by. */
export type MtaStsFinding =
  | { readonly status: "none"; readonly domain: string; readonly why: string }
  | {
    readonly status: "policy";
    readonly domain: string;
    readonly mode: "enforce" | "testing" | "none";
    /** Of the TXT record. */
    readonly id: string;
    /** Patterns: names as A-labels in lower case, perhaps with "*." in front. */
    readonly mx: readonly string[];
    /** Seconds. */
    readonly maxAge: number;
    readonly from: "cache" | "fetched";
    /** What was notable, as a fetch that failed while a policy was cached. */
    readonly why?: string;
    /** What that was, in the words of RFC 8460. */
    readonly failure?: PolicyError["type"];
  }
  /** The domain has a record, its policy cannot be had and none is cached: delivery goes on. */
  | {
    readonly status: "error";
    readonly domain: string;
    readonly why: string;
    readonly failure?: PolicyError["type"];
  };

/** The DNS gave no answer to rely on while nothing was cached: the attempt fails temporarily. */
export interface MtaStsUnknown {
  readonly status: "temporary";
  readonly domain: string;
  readonly reason: string;
}

/** Finds policies; the port through which direct delivery asks. */
export interface MtaSts {
  /**
   * @param domain of the recipient's address, as A-labels in lower case; never a name reached
   *   through CNAMEs
   * @throws nothing for what DNS, network or policy host do
   */
  find(domain: string, signal: AbortSignal): Promise<MtaStsFinding | MtaStsUnknown>;
}

/** Whether a policy's patterns allow a host (RFC 8461, section 4.1). */
export function allowsHost(patterns: readonly string[], host: string): boolean {
  const dot = host.indexOf(".");
  const parent = dot < 0 ? undefined : host.slice(dot + 1);
  return patterns.some((pattern) =>
    pattern.startsWith("*.") ? parent === pattern.slice(2) : host === pattern
  );
}

/** Why a host is passed over: an enforced policy does not name it. Undefined where it is not. */
export function passesOver(host: string, policy: MtaStsFinding | undefined): string | undefined {
  if (policy?.status !== "policy" || policy.mode !== "enforce") return undefined;
  if (allowsHost(policy.mx, host)) return undefined;
  const named = policy.mx.slice(0, 8).join(", ");
  return `the MTA-STS policy of ${policy.domain} (enforce) names ${named}, not ${host}`;
}

/** What the TLSA records of a host came to. */
export type TlsaFacts =
  /** The question was not asked: what leads to the host is not authentic, or it is a literal. */
  | { readonly state: "not-asked"; readonly why: string }
  /** Asked for, and there are none to go by. */
  | { readonly state: "none"; readonly base: string; readonly why: string }
  /** No answer to rely on. */
  | { readonly state: "failed"; readonly base: string; readonly why: string }
  /** Authentic records; `usable` of them can be verified against. */
  | {
    readonly state: "records";
    readonly base: string;
    readonly usable: number;
    /** Names that the certificate may bear under DANE-TA (RFC 7672, section 3.2.2). */
    readonly names: readonly string[];
  };

/** What the message itself asks for (RFC 8689). */
export interface MessageNeeds {
  /** MAIL FROM came with REQUIRETLS. */
  readonly requireTLS: boolean;
  /** Its header has `TLS-Required: No`; REQUIRETLS goes before it (RFC 8689, section 5). */
  readonly tlsOptional: boolean;
}

export type Requirement =
  /** Deliver, under these conditions. */
  | {
    readonly verdict: "try";
    readonly mode: "opportunistic" | "required" | "verified";
    readonly verifiedBy: "none" | "mta-sts" | "dane";
    /** Names of which the certificate must bear one; empty where names are not looked at. */
    readonly names: readonly string[];
    /** Name for SNI; absent for address literals. */
    readonly serverName?: string;
    /** MTA-STS in testing: what would be asked for is found out and logged, not enforced. */
    readonly testing?: { readonly names: readonly string[]; readonly hostAllowed: boolean };
    readonly why: readonly string[];
  }
  /** Passed over: an enforced MTA-STS policy does not name the host. */
  | { readonly verdict: "skip"; readonly why: readonly string[] }
  /** Not dialled; the host has failed with this enhanced code (RFC 3463). */
  | {
    readonly verdict: "fail";
    readonly cause: "tlsa-lookup" | "requiretls";
    readonly enhanced: string;
    readonly why: readonly string[];
  };

/**
 * @param host name of the MX host as its record has it, or a bare IP address
 * @param mtaSts undefined where none was asked for (literals, MTA-STS switched off)
 */
export function requirementsFor(
  host: { readonly name: string; readonly literal: boolean },
  tlsa: TlsaFacts,
  mtaSts: MtaStsFinding | undefined,
  { requireTLS, tlsOptional }: MessageNeeds,
): Requirement {
  const serverName = host.literal ? {} : { serverName: host.name };
  if (tlsOptional && !requireTLS) {
    const why = ["TLS-Required: No in the header: what the domain asks for is not enforced"];
    return {
      verdict: "try",
      mode: "opportunistic",
      verifiedBy: "none",
      names: [],
      ...serverName,
      why,
    };
  }
  const notNamed = passesOver(host.name, mtaSts);
  if (notNamed !== undefined) return { verdict: "skip", why: [notNamed] };
  const policy = mtaSts?.status === "policy" ? mtaSts : undefined;
  const hostAllowed = policy !== undefined && allowsHost(policy.mx, host.name);
  const enforced = policy?.mode === "enforce";
  const why: string[] = [];
  const testing = policy?.mode === "testing"
    ? { testing: { names: [host.name], hostAllowed } }
    : {};
  switch (tlsa.state) {
    case "not-asked":
    case "none":
      why.push(`no DANE: ${tlsa.why}`);
      break;
    case "failed":
      why.push(`DANE cannot be ruled out: ${tlsa.why}`);
      return { verdict: "fail", cause: "tlsa-lookup", enhanced: "4.7.5", why };
    case "records": {
      if (tlsa.usable === 0) {
        why.push(`the TLSA records of ${tlsa.base} are all unusable: TLS, without proof by DANE`);
        break;
      }
      why.push(`TLSA records of ${tlsa.base}: DANE is required`);
      if (enforced) why.push(`the MTA-STS policy of ${policy.domain} names the host`);
      const { names, base } = tlsa;
      return {
        verdict: "try",
        mode: "verified",
        verifiedBy: "dane",
        names,
        serverName: base, // RFC 7672, section 8.1
        ...testing,
        why,
      };
    }
  }
  if (enforced) {
    why.push(`the MTA-STS policy of ${policy.domain} is enforced: certificate for ${host.name}`);
    return {
      verdict: "try",
      mode: "verified",
      verifiedBy: "mta-sts",
      names: [host.name],
      ...serverName,
      why,
    };
  }
  why.push(noPolicy(mtaSts));
  if (requireTLS) {
    why.push("REQUIRETLS: neither DANE nor an enforced MTA-STS policy can vouch for the host");
    // A policy that could not be had may be there the next time.
    const enhanced = mtaSts?.status === "error" ? "4.7.10" : "5.7.10";
    return { verdict: "fail", cause: "requiretls", enhanced, why };
  }
  if (tlsa.state === "records") {
    return {
      verdict: "try",
      mode: "required",
      verifiedBy: "none",
      names: [],
      serverName: tlsa.base,
      ...testing,
      why,
    };
  }
  why.push("opportunistic TLS");
  return {
    verdict: "try",
    mode: "opportunistic",
    verifiedBy: "none",
    names: [],
    ...serverName,
    ...testing,
    why,
  };
}

function noPolicy(finding: MtaStsFinding | undefined): string {
  if (!finding) return "MTA-STS does not apply";
  if (finding.status !== "policy") return `no MTA-STS: ${finding.why}`;
  return `the MTA-STS policy of ${finding.domain} is in mode ${finding.mode}: not enforced`;
}

/**
 * The TLSA records of a mail host (RFC 7672, section 2.2; RFC 7671, section 7).
 *
 *   1. The question is asked only where an answer proves something: the way to the host (MX
 *      records, or their absence) and the answers for the host itself are authentic.
 *   2. The base domain is the name at the end of the host's CNAMEs where all of them and the
 *      addresses are authentic, and there are records there; otherwise the host's own name.
 *   3. CNAMEs of the TLSA name itself are followed, authentic as a whole or not at all.
 *   4. A question without an answer to rely on is neither "there are records" nor "there are
 *      none": whoever can suppress an answer must not be able to suppress DANE.
 */
import { type Answer, DnsError, type RecordData, type Resolver } from "../ports.ts";
import { asciiName } from "./names.ts";

/** CNAMEs that are followed from a TLSA name. */
export const MAX_TLSA_CNAMES = 16;

/** Records of a host that are considered. */
export const MAX_TLSA_RECORDS = 64;

export interface TlsaQuestion {
  /** Name of the host as its MX record has it. */
  readonly host: string;
  /** The name at the end of its CNAMEs. */
  readonly expanded: string;
  readonly port: number;
  /** The answers that led to the host were authentic. */
  readonly wayAuthentic: boolean;
  /** The answers for the host's own name, and all answers to the end of its CNAMEs, were. */
  readonly hostAuthentic: boolean;
  readonly expandedAuthentic: boolean;
}

export type TlsaAnswer =
  | { readonly state: "not-asked"; readonly why: string }
  | { readonly state: "none"; readonly base: string; readonly why: string }
  | {
    readonly state: "failed";
    readonly base: string;
    readonly why: string;
    readonly cause: DnsError["kind"];
  }
  | {
    readonly state: "records";
    readonly base: string;
    readonly records: readonly RecordData["TLSA"][];
  };

/** Never throws for what the DNS does. */
export async function gatherTlsa(
  resolver: Resolver,
  question: TlsaQuestion,
  signal?: AbortSignal,
): Promise<TlsaAnswer> {
  const { host, expanded, port, wayAuthentic, hostAuthentic, expandedAuthentic } = question;
  if (!wayAuthentic) {
    return { state: "not-asked", why: "what leads to the host is not authentic by DNSSEC" };
  }
  if (!hostAuthentic) {
    return { state: "not-asked", why: `the address of ${host} is not authentic by DNSSEC` };
  }
  const bases = expandedAuthentic && expanded !== host ? [expanded, host] : [host];
  let none: TlsaAnswer & { state: "none" } | undefined;
  for (const base of bases) {
    const found = await lookup(resolver, base, port, signal);
    if (found.state !== "none") return found;
    none ??= found;
  }
  return none ?? { state: "not-asked", why: "there is no name to ask for" };
}

type Found = Exclude<TlsaAnswer, { state: "not-asked" }>;

async function lookup(
  resolver: Resolver,
  base: string,
  port: number,
  signal: AbortSignal | undefined,
): Promise<Found> {
  const name = `_${port}._tcp.${base}`;
  const none = (why: string): Found => ({ state: "none", base, why });
  if (asciiName(name) === undefined) {
    return none(`${name.slice(0, 40)}… is longer than a name can be`);
  }
  try {
    const { answer, authentic } = await follow(resolver, name, signal);
    if (answer.status !== "records") {
      return none(`${name} has no TLSA records${authentic ? "" : " (not authentic)"}`);
    }
    if (!authentic) return none(`the TLSA records of ${name} are not authentic by DNSSEC`);
    return { state: "records", base, records: answer.records.slice(0, MAX_TLSA_RECORDS) };
  } catch (error) {
    if (!(error instanceof DnsError)) throw error;
    return { state: "failed", base, why: error.message, cause: error.kind };
  }
}

/** A resolver follows CNAMEs on its own; where it stopped short, the rest is asked for here. */
async function follow(
  resolver: Resolver,
  name: string,
  signal: AbortSignal | undefined,
): Promise<{ answer: Answer<"TLSA">; authentic: boolean }> {
  const chain = [name];
  let authentic = true;
  for (;;) {
    const answer = await resolver.query(chain.at(-1) ?? name, "TLSA", signal);
    authentic &&= answer.authentic;
    for (const target of answer.cnames) {
      if (chain.includes(target)) {
        throw new DnsError("malformed", `the CNAMEs of ${name} loop at ${target}`);
      }
      chain.push(target);
    }
    if (chain.length > MAX_TLSA_CNAMES + 1) {
      throw new DnsError("malformed", `${name} has more than ${MAX_TLSA_CNAMES} CNAMEs`);
    }
    if (answer.status !== "nodata" || answer.cnames.length === 0) return { answer, authentic };
  }
}

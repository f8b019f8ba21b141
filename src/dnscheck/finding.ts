/** What a check of the DNS says: one thing that is right or wrong, and what to publish. */
import type { Clock } from "../../actors/ports.ts";
import type { Answer, RecordType, Resolver } from "../ports.ts";
import type { PolicyFetcher } from "../tls/mta_sts_fetch.ts";

export type CheckName =
  | "spf"
  | "dkim"
  | "dmarc"
  | "mx"
  | "mta-sts"
  | "tlsrpt"
  | "tlsa"
  | "reverse";

export type Level = "ok" | "warning" | "error";

/**
 * - `secure`: every answer was authentic, as a resolver says that we trust with it
 * - `not-authentic`: one was not: the zone is not signed, or the resolver does not validate
 */
export type Dnssec = "secure" | "not-authentic";

export interface Finding {
  readonly check: CheckName;
  readonly level: Level;
  /** The name that was asked for, or what it is about. */
  readonly name: string;
  /** What was found, in one sentence. */
  readonly found: string;
  /** Absent where nothing was asked, or no answer came. */
  readonly dnssec?: Dnssec;
  /** Lines of a zone file that make it right; empty where there is nothing to publish. */
  readonly publish: readonly string[];
}

/** How the checks reach the world. */
export interface CheckPorts {
  readonly clock: Pick<Clock, "timer">;
  readonly resolver: Resolver;
  readonly policies: PolicyFetcher;
  readonly signal: AbortSignal;
}

export const dnssecOf = (
  ...answers: readonly Pick<Answer<RecordType>, "authentic">[]
): Dnssec => answers.every(({ authentic }) => authentic) ? "secure" : "not-authentic";

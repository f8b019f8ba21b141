/** What all sessions of a listener share, and what it announces (RFC 5321, section 4.1.1.1). */
import type { BodyStore, Clock, Log, Submitter } from "../../../actors/ports.ts";
import type { AccountGate } from "../../accounts/gate.ts";
import type { DkimSigner } from "../../dkim/signer.ts";
import type { CertificateSource } from "./certificate.ts";
import type { SmtpLimits } from "./limits.ts";
import type { Counters } from "./stats.ts";

export interface Listener {
  readonly name: string;
  readonly hostname: string;
  readonly limits: SmtpLimits;
  /** TLS begins with the connection (RFC 8314, section 3.3), not with STARTTLS. */
  readonly implicitTls: boolean;
  /** Only this host can reach it, so that a session without TLS is not overheard. */
  readonly loopback: boolean;
  readonly tls: CertificateSource | undefined;
  /** Set where mail takes a login. */
  readonly gate: AccountGate | undefined;
  /** Signs what is taken; absent: nothing is signed. */
  readonly signer?: Pick<DkimSigner, "begin">;
  readonly submitter: Submitter;
  readonly bodies: BodyStore;
  readonly clock: Clock;
  readonly log: Log;
  readonly counters: Counters;
}

/**
 * Thrown where a session is over. Not an Error: it ends every session, QUIT included, and a stack
 * trace that nobody reads would be a tax on each.
 */
export class SessionOver {
  /** @param reply the last word; undefined where nobody listens */
  constructor(readonly reply?: string) {}
}

/** The extensions of a session as the reply to EHLO lists them. */
export function extensionsOf(
  { limits, tls, clock }: Listener,
  session: { readonly tls: boolean; readonly mechanisms: readonly string[] },
): string[] {
  const { mechanisms } = session;
  const holdUntil = new Date(clock.now() + limits.hold).toISOString().replace(/\.\d+/, "");
  return [
    "PIPELINING",
    `SIZE ${limits.messageSize}`,
    ...(tls && !session.tls ? ["STARTTLS"] : []),
    ...(mechanisms.length > 0 ? [`AUTH ${mechanisms.join(" ")}`] : []),
    "8BITMIME",
    "SMTPUTF8",
    "ENHANCEDSTATUSCODES",
    "DSN",
    "CHUNKING",
    "MT-PRIORITY",
    // RFC 4865, section 3: the longest interval in seconds, and the time at which it ends.
    `FUTURERELEASE ${Math.floor(limits.hold / 1_000)} ${holdUntil}`,
    ...(session.tls ? ["REQUIRETLS"] : []), // RFC 8689, section 4.1: only within TLS
  ];
}

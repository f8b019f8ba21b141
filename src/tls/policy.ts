/**
 * How much proof of the other side a session must have, as a type: what the delivery code hands
 * to the SMTP client, and all that the client knows about it.
 */
import type { TlsSession } from "../ports.ts";

/** What is wrong with TLS at a host, in the words of RFC 8460, section 4.3. */
export type TlsFailureType =
  | "starttls-not-supported"
  | "certificate-host-mismatch"
  | "certificate-expired"
  | "certificate-not-trusted"
  | "validation-failure"
  | "tlsa-invalid"
  | "dane-required";

/** The judgement over a session: accepted, and by what; or refused, and why. */
export type TlsJudgement =
  | { readonly ok: true; readonly by: string }
  | { readonly ok: false; readonly type: TlsFailureType; readonly reason: string };

/** MTA-STS in mode testing: judges a session that goes on in any case. */
export type Observe = (session: TlsSession) => TlsJudgement;

/**
 * - `none`: no STARTTLS, even where offered
 * - `opportunistic`: STARTTLS where offered, no certificate checks (RFC 7435); a failed handshake
 *   ends the connection, and going on in plain text on a new one is up to the caller
 * - `required`: no MAIL without TLS; certificate not checked
 * - `verified`: no MAIL without TLS and a session that `verify` accepts
 */
export type TlsPolicy =
  | { readonly mode: "none" }
  | {
    readonly mode: "opportunistic" | "required";
    readonly serverName?: string;
    /** Trust anchors in PEM for what `observe` sees, instead of the system's. */
    readonly ca?: readonly string[];
    readonly observe?: Observe;
  }
  | {
    readonly mode: "verified";
    readonly by: "pkix" | "mta-sts" | "dane";
    readonly serverName?: string;
    readonly ca?: readonly string[];
    /** What is verified against, where server name and `by` do not say it all. */
    readonly identity?: string;
    readonly observe?: Observe;
    /** Judges the session; undefined accepts, a string is the reason for refusing. */
    readonly verify: (session: TlsSession) => TlsJudgement | string | undefined;
  };

/** Sessions may be shared between messages only under equal keys. */
export function policyKey(policy: TlsPolicy): string {
  switch (policy.mode) {
    case "none":
      return "none";
    case "opportunistic":
    case "required": {
      const observed = policy.observe ? "/observed" : "";
      return `${policy.mode}/${policy.serverName ?? ""}${observed}`;
    }
    case "verified": {
      const observed = policy.observe ? "/observed" : "";
      const { by, serverName = "", identity = "" } = policy;
      return `verified/${by}/${serverName}/${identity}${observed}`;
    }
  }
}

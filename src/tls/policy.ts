/**
 * How much proof of the other side a session must have, as a type: what the delivery code hands
 * to the SMTP client, and all that the client knows about it.
 */
import type { TlsSession } from "../ports.ts";

/**
 * - `none`: no STARTTLS, even where offered
 * - `opportunistic`: STARTTLS where offered, no certificate checks (RFC 7435); a failed handshake
 *   ends the connection, and going on in plain text on a new one is up to the caller
 * - `required`: no MAIL without TLS; certificate not checked
 * - `verified`: no MAIL without TLS and a session that `verify` accepts
 */
export type TlsPolicy =
  | { readonly mode: "none" }
  | { readonly mode: "opportunistic"; readonly serverName?: string }
  | { readonly mode: "required"; readonly serverName?: string }
  | {
    readonly mode: "verified";
    readonly by: "pkix" | "mta-sts" | "dane";
    readonly serverName?: string;
    readonly ca?: readonly string[];
    /** Judges the session; undefined accepts, a string is the reason for refusing. */
    readonly verify: (session: TlsSession) => string | undefined;
  };

/** Sessions may be shared between messages only under equal keys. */
export function policyKey(policy: TlsPolicy): string {
  switch (policy.mode) {
    case "none":
      return "none";
    case "opportunistic":
    case "required":
      return `${policy.mode}/${policy.serverName ?? ""}`;
    case "verified":
      return `verified/${policy.by}/${policy.serverName ?? ""}`;
  }
}

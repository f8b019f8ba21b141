/**
 * The one way in which anything about SASL (RFC 4422) fails, by name. The text is fit for logs:
 * it never holds a password, a token, a key, or octets that came from the other side.
 */

/**
 * - `bad-base64`: a line that is not strict base64 (RFC 4648, section 4)
 * - `too-long`: a line or message over its bound
 * - `malformed`: a message that its mechanism does not know
 * - `out-of-order`: a message, or a success, that is not due; success before proof is this
 * - `nonce`: the server's nonce does not extend ours
 * - `iterations`: an iteration count outside the bounds
 * - `extension`: an extension that must be understood and is not
 * - `binding`: channel binding that is not that of the session, or an offer of it tampered with
 * - `signature`: the server does not know the password
 * - `refused`: the server says that the login fails
 * - `credentials`: a user name, password or token that the mechanism cannot carry
 * - `stored`: stored credentials that cannot be read
 */
export type SaslReason =
  | "bad-base64"
  | "too-long"
  | "malformed"
  | "out-of-order"
  | "nonce"
  | "iterations"
  | "extension"
  | "binding"
  | "signature"
  | "refused"
  | "credentials"
  | "stored";

export class SaslError extends Error {
  override readonly name = "SaslError";
  constructor(readonly reason: SaslReason, message: string) {
    super(message);
  }
}

/** What a failed login is to the client: a broken protocol (501), or no login (535). */
export const failureReason = (error: SaslError): "malformed" | "credentials" =>
  NO_LOGIN.has(error.reason) ? "credentials" : "malformed";

const NO_LOGIN: ReadonlySet<SaslReason> = new Set<SaslReason>(["credentials", "binding", "nonce"]);

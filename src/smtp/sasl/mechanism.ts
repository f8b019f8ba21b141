/**
 * What a SASL mechanism is to the code around it: a state machine that takes and gives octets.
 * It knows no base64, no SMTP and no socket; framing.ts does lines, client_exchange.ts runs one.
 */

/** Every mechanism of the client, the most secure first: the default order of choice. */
export const MECHANISMS = [
  "SCRAM-SHA-256-PLUS",
  "SCRAM-SHA-1-PLUS",
  "SCRAM-SHA-256",
  "SCRAM-SHA-1",
  "OAUTHBEARER",
  "XOAUTH2",
  "CRAM-MD5",
  "PLAIN",
  "LOGIN",
] as const;

export type MechanismName = typeof MECHANISMS[number];

/** The mechanisms that a server can verify with stored credentials. */
export type ServerMechanismName =
  | "SCRAM-SHA-256-PLUS"
  | "SCRAM-SHA-1-PLUS"
  | "SCRAM-SHA-256"
  | "SCRAM-SHA-1"
  | "PLAIN";

/** One login, seen from the client. Every message may be asked for or taken once, in order. */
export interface ClientMechanism {
  readonly name: MechanismName;
  /**
   * The initial response; undefined where the server speaks first.
   * @throws SaslError
   */
  start(): Uint8Array | undefined;
  /**
   * Answers a challenge. After it has thrown, the login is over.
   * @throws SaslError
   */
  step(challenge: Uint8Array): Promise<Uint8Array>;
  /**
   * Whether a success reply may be believed now: all was said, and where the mechanism lets the
   * server prove itself (SCRAM), it has.
   */
  done(): boolean;
  /** Why the server refuses a token, as far as it said so before its reply (RFC 7628). */
  readonly refusal?: string | undefined;
}

/**
 * - `challenge`: send it and hand the response to the next step
 * - `success`: `username` is logged in, spelled as it was looked up (SASLprep applied)
 * - `failure`: over. `malformed` is a client that breaks the protocol (reply 501); `credentials`
 *   everything else (reply 535), an unknown user as much as a wrong password; `username` as claimed, where it was
 *   read, for counting failed logins
 */
export type ServerStep =
  | { readonly kind: "challenge"; readonly data: Uint8Array }
  | { readonly kind: "success"; readonly username: string }
  | {
    readonly kind: "failure";
    readonly reason: "malformed" | "credentials";
    readonly username?: string;
    /** For the operator: what was wrong, free of secrets. */
    readonly detail: string;
  };

/** One login, seen from the server. All mechanisms here begin with the client's message. */
export interface ServerMechanism {
  readonly name: ServerMechanismName;
  /**
   * Takes the initial response, then the answer to each challenge. After `success` or `failure`
   * it takes nothing more.
   * @throws Error of the account lookup only: what the client sends never makes it throw
   */
  step(response: Uint8Array): Promise<ServerStep>;
}

/**
 * Channel binding data (RFC 5056) of the TLS session in use: `tls-exporter` (RFC 9266), 32
 * octets of keying material, or `tls-server-end-point` (RFC 5929), the certificate's hash.
 */
export interface ChannelBinding {
  readonly type: "tls-exporter" | "tls-server-end-point";
  readonly data: Uint8Array;
}

/** So many octets from a cryptographic source. */
export type RandomBytes = (length: number) => Uint8Array;

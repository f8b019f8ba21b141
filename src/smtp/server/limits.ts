/** Limits of a listener: what one client may cost. Each is met with a reply, never with silence. */
import { DEFAULT_INTAKE_LIMITS, type IntakeLimits } from "../../submission/intake.ts";

export interface SmtpLimits extends IntakeLimits {
  /** Connections at once. */
  readonly connections: number;
  /** Connections at once from one address. */
  readonly connectionsPerAddress: number;
  /** Recipients of one message (RFC 5321, section 4.5.3.1.8: at least 100). */
  readonly recipients: number;
  /** RCPT commands beyond `recipients` in one transaction before the session is ended. */
  readonly recipientOvershoot: number;
  /**
   * Octets of a command line, CRLF included. RFC 5321 has 512; MAIL and RCPT with all parameters
   * of the extensions offered need less than 2,048.
   */
  readonly commandLine: number;
  /** Octets of one overlong command line that are skipped before the session is ended. */
  readonly garbage: number;
  /** Commands that failed or did nothing for a message, since the last message was taken. */
  readonly unproductive: number;
  /** Messages on one connection. */
  readonly messages: number;
  /** Milliseconds for a command, or between two reads of content (RFC 5321, section 4.5.3.2.7). */
  readonly idle: number;
  /** Milliseconds for the whole content of a message: a client must not dribble for ever. */
  readonly content: number;
  /** Milliseconds for which a client may have a message held (RFC 4865). */
  readonly hold: number;
  /** Milliseconds for a TLS handshake. */
  readonly handshake: number;
  /** Milliseconds in which the client may close after our last word. */
  readonly linger: number;
}

export const DEFAULT_SMTP_LIMITS: SmtpLimits = {
  ...DEFAULT_INTAKE_LIMITS,
  connections: 1000,
  connectionsPerAddress: 200,
  recipients: 100,
  recipientOvershoot: 1000,
  commandLine: 2048,
  garbage: 64 * 1024,
  unproductive: 50,
  messages: 10_000,
  idle: 5 * 60_000,
  content: 60 * 60_000,
  hold: 7 * 24 * 60 * 60_000,
  handshake: 60_000,
  linger: 5_000,
};

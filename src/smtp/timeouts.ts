/** How long the client waits for what (RFC 5321, section 4.5.3.2). */

/** Milliseconds that each reply may take, and the pace of the content. */
export interface Timeouts {
  readonly greeting: number;
  readonly ehlo: number;
  /** The reply to STARTTLS, and the handshake. */
  readonly tls: number;
  readonly login: number;
  readonly mail: number;
  readonly rcpt: number;
  readonly data: number;
  /** Until the peer takes more of the content. */
  readonly block: number;
  /** Octets a second that the whole content must go out with, on top of one `block`. */
  readonly minimumRate: number;
  readonly end: number;
  readonly quit: number;
}

const MINUTE = 60_000;

/** RFC 5321, section 4.5.3.2; EHLO, TLS, AUTH and QUIT, which it leaves open, are ours. */
export const TIMEOUTS: Timeouts = {
  greeting: 5 * MINUTE,
  ehlo: 5 * MINUTE,
  tls: 1 * MINUTE,
  login: 3 * MINUTE,
  mail: 5 * MINUTE,
  rcpt: 5 * MINUTE,
  data: 2 * MINUTE,
  block: 3 * MINUTE,
  minimumRate: 500,
  end: 10 * MINUTE,
  quit: 1_000,
};

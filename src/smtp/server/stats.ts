/** What a listener counts, for the metrics. */

export interface Counters {
  connectionsAccepted: number;
  /** Turned away because too many were open, in total or from one address. */
  connectionsRefused: number;
  messagesAccepted: number;
  /** Refused, permanently or temporarily, after their content had come. */
  messagesRefused: number;
  tlsFailures: number;
}

export interface SmtpStats extends Readonly<Counters> {
  /** Connections open now. */
  readonly connections: number;
}

/**
 * How a session or a transaction ended, as a type: what the SMTP client tells the delivery code.
 */
import type { EventData } from "../../events/catalogue.ts";
import type { TlsFailureType } from "../tls/policy.ts";
import type { SmtpReply } from "./reply.ts";

/**
 * Where in the dialogue it ended. `body` is the content up to its final dot; `end` is after the
 * dot was sent: a verdict without reply in that phase leaves open whether the server has the
 * message.
 */
export type Phase =
  | "connect"
  | "greeting"
  | "ehlo"
  | "tls"
  | "login"
  | "mail"
  | "rcpt"
  | "data"
  | "body"
  | "end";

export interface Verdict {
  readonly result: EventData<"HostTried">["result"];
  readonly phase: Phase;
  /** The reply that decided it, if one did. */
  readonly reply?: SmtpReply;
  /** What happened, in words, where it was not (only) a reply. */
  readonly error?: string;
  /** Status in the words of RFC 3463 where no reply gave one; class 5 is permanent for this host. */
  readonly enhanced?: string;
  /** The peer ended the connection, or said that it does (421). */
  readonly closed?: boolean;
  /** The TLS handshake itself failed: plain text on a new connection is a way out. */
  readonly handshake?: boolean;
  /** What was wrong with TLS, for TLS reporting. */
  readonly tlsFailure?: TlsFailureType;
  /**
   * A policy refusal (x.7.x) at the first attempt to a dual-stack host: it counts as temporary,
   * since it may be meant for the address family that we came with.
   */
  readonly doubted?: boolean;
  /** What was refused is our account's right to send, not the message: an operator can mend it. */
  readonly account?: boolean;
  /** The proxy failed, not the host behind it. */
  readonly proxy?: boolean;
}

/** Ends a dialogue from wherever it is; caught where the session is entered. */
export class DialogueEnded extends Error {
  override readonly name = "DialogueEnded";
  constructor(readonly verdict: Verdict) {
    super(verdict.error ?? verdict.reply?.text ?? verdict.result);
  }
}

/** The result that a reply means where a 2xx was hoped for. */
export function resultOf(reply: SmtpReply): "ok" | "temperror" | "permerror" | "error" {
  if (reply.code < 300) return "ok";
  if (reply.code < 400) return "error";
  return reply.code < 500 ? "temperror" : "permerror";
}

/** The verdict of a reply that was not the one hoped for. */
export function refused(phase: Phase, reply: SmtpReply): Verdict {
  const result = resultOf(reply);
  const closed = reply.code === 421 ? { closed: true } : {};
  if (result === "temperror" || result === "permerror") return { result, phase, reply, ...closed };
  return { result: "error", phase, reply, error: `unexpected reply ${reply.code}` };
}

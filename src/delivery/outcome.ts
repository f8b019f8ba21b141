/**
 * From what single hosts said to how the attempt ended. Pure.
 *
 *   reply to the message   2xx delivered; 5xx permanent, over all hosts; 4xx the next host
 *   connection, greeting,  the next address, then the next host: a host that does not talk to us
 *   EHLO, TLS              judges the connection, not the message, so that also its 554 is
 *                          temporary (RFC 5321, sections 3.1 and 4.2.1); only 521 says that the
 *                          host takes no mail at all (RFC 7504)
 *   login                  temporary, whatever the reply: it is our account that is refused. After
 *                          a 5xx, or a server that cannot prove itself, no other address is asked
 *   no fitting extension   permanent for this host: the next may have it
 *   policy refusal (x.7.x) at the first attempt to a dual-stack host: temporary, since it may be
 *                          meant for the address family that we came with
 *   content we must not    permanent, over all hosts
 *   send
 *   lost after the end     outcome unknown: temporary, and no other host is asked in this attempt,
 *   of the message         because the message may have arrived (RFC 5321, section 4.5.3.2.6)
 *
 * The attempt is permanent by exhaustion only when every host is permanently out.
 */
import type { Outcome } from "../../actors/ports.ts";
import type { EventData } from "../../events/catalogue.ts";
import type { SessionTls } from "../smtp/client.ts";
import { quoteReply, type SmtpReply } from "../smtp/reply.ts";
import type { Phase, Verdict } from "../smtp/verdict.ts";

/** One address tried, or one host for which there was none. */
export interface HostVerdict {
  readonly host: string;
  readonly address?: string;
  readonly verdict: Verdict;
  readonly tls: SessionTls;
  readonly dsnOffered: boolean;
}

/** The order of a dialogue. */
const PHASES: readonly Phase[] = [
  "connect",
  "greeting",
  "ehlo",
  "tls",
  "login",
  "mail",
  "rcpt",
  "data",
  "body",
  "end",
];
const BEFORE_MAIL: ReadonlySet<Phase> = new Set(["connect", "greeting", "ehlo", "tls", "login"]);

/** What is tried after a verdict: another address of the host, another host, or nothing. */
export function goesOn(verdict: Verdict): "address" | "host" | "no" {
  const { result, phase, reply } = verdict;
  if (result === "ok" || result === "canceled" || verdict.proxy) return "no";
  // Credentials that one address refuses are refused by all, and each refusal counts against them.
  if (phase === "login" && (reply ? result === "permerror" : result === "error")) {
    return verdict.closed && !reply ? "address" : "no";
  }
  if (BEFORE_MAIL.has(phase)) return "address";
  if (verdict.doubted) return "host";
  if (result === "permerror") return reply || phase === "body" ? "no" : "host";
  if (phase === "end" && result !== "temperror") return "no";
  return phase === "mail" && !reply ? "address" : "host";
}

/** A permanent refusal by the policy of the host (RFC 3463, section 3.8), as the server said it. */
export function isPolicyRefusal({ result, reply }: Verdict): boolean {
  return result === "permerror" && /^5\.7\./.test(reply?.enhanced ?? "");
}

/** Whether this host will never take the message, whatever others say. */
function isPermanent(verdict: Verdict): boolean {
  const { result, phase, reply, enhanced, account, doubted } = verdict;
  if (doubted) return false;
  if (account) return false;
  if (reply) return result === "permerror" && (!BEFORE_MAIL.has(phase) || reply.code === 521);
  return enhanced?.startsWith("5.") ?? false;
}

/**
 * The outcome of an attempt.
 * @param tried every address tried, in order; not empty
 */
export function conclude(tried: readonly HostVerdict[]): Outcome {
  const last = tried.at(-1);
  if (!last) throw new RangeError("an attempt without a verdict has no outcome");
  const { verdict: { result, reply } } = last;
  if (result === "ok" && reply && last.address !== undefined) {
    return {
      kind: "delivered",
      host: last.host,
      address: last.address,
      reply: replyFact(reply),
      tls: tlsFact(last.tls),
      dsnOffered: last.dsnOffered,
    };
  }
  if (goesOn(last.verdict) === "no") return failed(last, isPermanent(last.verdict), 1);
  const temporary = tried.filter(({ verdict }) => !isPermanent(verdict));
  if (temporary.length === 0) return failed(furthest(tried, last), true, tried.length);
  return failed(furthest(temporary, last), false, tried.length);
}

function tlsFact({ mode, verifiedBy, facts, proof }: SessionTls): EventData<"Delivered">["tls"] {
  const vouched = proof === undefined ? {} : { proof };
  return { mode, verifiedBy, ...(facts ? { facts } : {}), ...vouched };
}

/** The verdict of the dialogue that got furthest says most; of equals the first. */
function furthest(tried: readonly HostVerdict[], otherwise: HostVerdict): HostVerdict {
  let best = tried[0] ?? otherwise;
  for (const one of tried) {
    if (PHASES.indexOf(one.verdict.phase) > PHASES.indexOf(best.verdict.phase)) best = one;
  }
  return best;
}

function failed(of: HostVerdict, permanent: boolean, tried: number): Outcome {
  const { verdict, host } = of;
  const { result, reply } = verdict;
  const others = tried > 1 ? ` (${tried} addresses tried)` : "";
  const enhanced = reply ? reply.enhanced : verdict.enhanced;
  return {
    kind: "failed",
    permanent,
    // `permerror` is kept for refusals of the message: this one is tried again.
    result: result === "permerror" && !permanent ? "temperror" : result,
    reason: describe(of) + others,
    ...(reply ? { code: reply.code } : {}),
    ...(enhanced === undefined ? {} : { enhanced }),
    remoteMTA: host,
    ...(reply ? { reply: replyFact(reply) } : {}),
  };
}

const COMMANDS: Readonly<Partial<Record<Phase, string>>> = {
  ehlo: "EHLO",
  tls: "STARTTLS",
  login: "AUTH",
  mail: "MAIL FROM",
  rcpt: "RCPT TO",
  data: "DATA",
  body: "the message",
  end: "the message",
};

/** The verdict in words: `mx.example.net (192.0.2.1) said 550 5.1.1 No such user to RCPT TO`. */
export function describe({ host, address, verdict }: HostVerdict): string {
  const { phase, reply, error } = verdict;
  const who = address === undefined || address === host ? host : `${host} (${address})`;
  if (!reply) return `${who}: ${error ?? verdict.result}`;
  const command = COMMANDS[phase];
  const said = `${who} said ${quoteReply(reply).slice(0, MAX_REPLY_TEXT)}`;
  const context = command === undefined ? "in its greeting" : `to ${command}`;
  return `${said} ${context}${error === undefined ? "" : `: ${error}`}`;
}

/** Characters of a reply that the log keeps. */
const MAX_REPLY_TEXT = 2048;

/** A reply as the catalogue has it, bounded. */
export function replyFact(reply: SmtpReply): EventData<"Delivered">["reply"] {
  const { code, enhanced, text } = reply;
  const kept = text.length > MAX_REPLY_TEXT ? `${text.slice(0, MAX_REPLY_TEXT - 1)}…` : text;
  return { code, ...(enhanced === undefined ? {} : { enhanced }), text: kept };
}

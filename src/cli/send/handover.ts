/**
 * Hands a message over to the queue, or to a server elsewhere, by SMTP with the client, TLS and login
 * of the queue's own transports; and says what became of each recipient, as an exit code.
 */
import { Buffer } from "node:buffer";
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import type { Clock } from "../../../actors/ports.ts";
import type { SmarthostTransportConfig } from "../../config/types.ts";
import { loginOf, systemSecrets } from "../../delivery/credentials.ts";
import { smarthostPolicy } from "../../delivery/smarthost.ts";
import { type Connection, type Dialer, DialError } from "../../ports.ts";
import { ClientSession, type Transaction } from "../../smtp/client.ts";
import type { Verdict } from "../../smtp/verdict.ts";
import { EX_DATAERR, EX_NOPERM, EX_NOUSER, EX_TEMPFAIL, EX_UNAVAILABLE } from "./exit_codes.ts";

export interface Letter {
  readonly mailFrom: string;
  readonly recipients: Transaction["recipients"];
  readonly content: Buffer;
  readonly has8bit: boolean;
  readonly smtputf8: boolean;
}

/** A recipient that the message was not taken for. */
export interface NotTaken {
  readonly rcptTo: string;
  /** In one line, printable as far as the server's words are. */
  readonly why: string;
  readonly exit: number;
}

export interface HandoverPorts {
  readonly clock: Clock;
  readonly dialer: Dialer;
  readonly hostname: string;
  /** Hears the dialogue, a line each. */
  readonly verbose?: (line: string) => void;
}

/** Every server takes as many in one transaction (RFC 5321, section 4.5.3.1.8). */
const RECIPIENTS = 100;
/** Milliseconds for a connection. */
const CONNECT = 30_000;

/** @returns the recipients for whom the message was not taken; empty when all is well */
export async function handOver(
  letter: Letter,
  server: SmarthostTransportConfig,
  ports: HandoverPorts,
): Promise<NotTaken[]> {
  const { recipients, content } = letter;
  const failed = (verdict: Verdict) => recipients.map(({ rcptTo }) => notTaken(rcptTo, verdict));
  const signal = new AbortController().signal;
  const session = await open(server, ports, signal);
  if (!(session instanceof ClientSession)) return failed(session);
  const lost: NotTaken[] = [];
  try {
    for (let at = 0; at < recipients.length; at += RECIPIENTS) {
      const some = recipients.slice(at, at + RECIPIENTS);
      const { recipients: verdicts } = await session.send({
        mailFrom: letter.mailFrom,
        recipients: some,
        size: content.length,
        has8bit: letter.has8bit,
        smtputf8: letter.smtputf8,
        requireTLS: false,
        body: () => Promise.resolve({ size: content.length, chunks: () => slices(content) }),
      }, signal);
      lost.push(
        ...some.flatMap(({ rcptTo }, n) =>
          verdicts[n]!.result === "ok" ? [] : [notTaken(rcptTo, verdicts[n]!)]
        ),
      );
      if (session.usable) continue;
      const closed: Verdict = { result: "error", phase: "mail", error: "the connection has ended" };
      lost.push(
        ...recipients.slice(at + RECIPIENTS).map(({ rcptTo }) => notTaken(rcptTo, closed)),
      );
      break;
    }
  } finally {
    await session.quit();
    say(session, ports);
  }
  return lost;
}

/** A session that is greeted, or why there is none. */
async function open(
  server: SmarthostTransportConfig,
  ports: HandoverPorts,
  signal: AbortSignal,
): Promise<ClientSession | Verdict> {
  const { clock, dialer, hostname } = ports;
  const { host, port, auth, certificate, type } = server;
  const where = `${host.includes(":") ? `[${host}]` : host}:${port}`;
  const unreached = (why: string): Verdict => ({
    result: "error",
    phase: "connect",
    error: `${where} cannot be reached: ${why}`,
  });
  let addresses: readonly string[];
  try {
    addresses = await addressesOf(server);
  } catch (error) {
    return unreached(error instanceof Error ? error.message : String(error));
  }
  let verdict = unreached(`${host} has no address of the family that is wanted`);
  for (const address of addresses) {
    let connection: Connection;
    try {
      connection = await dialer.connect({ address, port }, AbortSignal.timeout(CONNECT));
    } catch (error) {
      if (!(error instanceof DialError)) throw error;
      verdict = unreached(error.message);
      continue;
    }
    const session = new ClientSession(connection, {
      clock,
      hostname,
      tls: smarthostPolicy(server),
      ...(type === "submissions" ? { implicitTls: true } : {}),
      ...(certificate
        ? { certificate: { cert: certificate.cert, key: certificate.key.reveal() } }
        : {}),
      ...(auth ? { login: loginOf(auth, server, clock, systemSecrets) } : {}),
    });
    ({ verdict } = await session.greet(signal));
    if (verdict.result === "ok") return session;
    say(session, ports);
    if (verdict.reply) break; // it has answered: another address would say the same
  }
  return verdict;
}

async function addressesOf({ host, ipFamily }: SmarthostTransportConfig): Promise<string[]> {
  if (isIP(host)) return [host];
  const family = ipFamily === "ipv4" ? 4 : ipFamily === "ipv6" ? 6 : 0;
  return (await lookup(host, { all: true, family })).map(({ address }) => address);
}

function notTaken(rcptTo: string, verdict: Verdict): NotTaken {
  const { reply, error } = verdict;
  const said = reply &&
    [reply.code, reply.enhanced, reply.text.replaceAll("\n", " ")].filter(Boolean).join(" ");
  const why = [error, said].filter((part) => part !== undefined).join(": ");
  return { rcptTo, why: why || verdict.result, exit: exitOf(verdict) };
}

/** What a caller may know of it, in the terms of sysexits.h. */
function exitOf({ result, phase, reply, enhanced, account }: Verdict): number {
  const status = reply?.enhanced ?? enhanced ?? "";
  if (phase === "login" && !status.startsWith("4.") && reply?.code !== 454) return EX_NOPERM;
  if (result !== "permerror") return EX_TEMPFAIL;
  if (account || reply?.code === 530 || status.startsWith("5.7.")) return EX_NOPERM;
  if (phase === "rcpt" && (status === "" || status.startsWith("5.1."))) return EX_NOUSER;
  return status.startsWith("5.6.") ? EX_DATAERR : EX_UNAVAILABLE;
}

function say(session: ClientSession, { verbose }: HandoverPorts): void {
  if (!verbose) return;
  for (const { who, line } of session.transcript.take()) verbose(`${who}: ${line}`);
}

async function* slices(content: Buffer): AsyncIterable<Uint8Array> {
  for (let at = 0; at < content.length; at += 65_536) yield content.subarray(at, at + 65_536);
}

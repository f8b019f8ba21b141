/**
 * Brings a message to one host, for one recipient or for several in one transaction: its addresses
 * in turn, over a kept session where there is one.
 *
 *   1. A kept session to the address under the same policy is used. Found dead before MAIL was
 *      answered, it is replaced by a new connection; nothing was sent that could count twice.
 *   2. Otherwise the address is dialled, greeted, and given the message.
 *   3. A TLS handshake that fails under `opportunistic`, and only there, is followed by a new
 *      connection to the same address without TLS (RFC 7435, section 3; RFC 5321 has no way back to
 *      plain text): once per host and attempt.
 *   4. What each address said is noted as HostTried, for each recipient. Whether the next address
 *      follows for it is up to outcome.ts; the finding is on disk before it is dialled.
 *   5. Recipients that the host turned away as too many for one transaction get another one at the
 *      same address, as long as each takes some (RFC 5321, section 4.5.3.1.10).
 */
import { isIPv6 } from "node:net";
import type { BodyStore, Clock, DeliveryJob } from "../../actors/ports.ts";
import type { EventData } from "../../events/catalogue.ts";
import { type ClientCertificate, type Connection, type Dialer, DialError } from "../ports.ts";
import { ClientSession, type SessionTls } from "../smtp/client.ts";
import type { Timeouts } from "../smtp/timeouts.ts";
import type { Login } from "../smtp/login.ts";
import type { Sessions } from "../smtp/sessions.ts";
import type { Verdict } from "../smtp/verdict.ts";
import { policyKey, type TlsPolicy } from "../tls/policy.ts";
import { type Reporting, sessionResults } from "../tls/reports/results.ts";
import { contentSize, openContent } from "./content.ts";
import { goesOn, isPolicyRefusal, replyFact } from "./outcome.ts";
import { onDisk, type Party } from "./party.ts";
import { reportTwin } from "./report_twin.ts";
import { transcriptOf } from "./shared_transcript.ts";

/** What submitting needs of the world. */
export interface SubmitPorts {
  readonly clock: Clock;
  readonly dialer: Dialer;
  readonly bodies: BodyStore;
  readonly sessions: Sessions;
  /** Our name in EHLO. */
  readonly hostname: string;
  /** How the transport reaches hosts, where that is more than dialling them. */
  readonly way?: Way;
  readonly timeouts?: Partial<Timeouts>;
  readonly dialLimits?: Partial<DialLimits>;
  /** Messages over one session; absent: as many as all sessions may carry. */
  readonly messagesPerConnection?: number;
}

/** What the transport of an attempt adds to a session. */
export interface Way {
  /** Sessions are shared under equal keys only; says nothing secret. */
  readonly key: string;
  readonly implicitTls?: boolean;
  readonly certificate?: ClientCertificate;
  readonly login?: Login;
  /** Address and port of the proxy, for the log. */
  readonly proxy?: string;
}

export interface DialLimits {
  /** Milliseconds for one connection, and for all dialling of one host. */
  readonly connect: number;
  readonly host: number;
  /** Addresses of one host that are tried in one attempt. */
  readonly addresses: number;
}

export const DIAL_LIMITS: DialLimits = { connect: 30_000, host: 120_000, addresses: 8 };

/** A host with what was found out about it. */
export interface Target {
  readonly host: string;
  readonly port: number;
  /** Not empty, in the order in which to try them. */
  readonly addresses: readonly string[];
  readonly tls: TlsPolicy;
  readonly localAddress?: string;
  /** Whether a policy refusal is not believed yet: the host is dual stack, this its first attempt. */
  readonly doubtful: (job: DeliveryJob) => boolean;
  /** The policies under which sessions with it are counted for a TLS report. */
  readonly reporting?: Reporting;
}

/** Tries a host for messages (at least one) that are not through; each gets a verdict per address. */
export async function submit(
  ports: SubmitPorts,
  parties: readonly Party[],
  target: Target,
  signal: AbortSignal,
): Promise<void> {
  const { clock } = ports;
  const limits = { ...DIAL_LIMITS, ...ports.dialLimits };
  const latest = clock.monotonic() + limits.host;
  let fellBack = false;
  const dial = async (address: string, policy: TlsPolicy, all: readonly Party[]) => {
    const ms = Math.min(limits.connect, latest - clock.monotonic());
    const trial = new Trial(ports, all.map(({ job }) => job), target, address, policy, signal);
    const { verdicts: said, tls, dsnOffered } = await trial.run(ms);
    const verdicts = said.map((verdict, n) =>
      isPolicyRefusal(verdict) && target.doubtful(all[n]!.job) ? doubt(verdict, address) : verdict
    );
    const fallback = policy === target.tls ? {} : { fallback: true };
    for (const [n, data] of trial.findings(verdicts).entries()) {
      const party = all[n]!;
      party.note({ type: "HostTried", data: { ...data, ...fallback } });
      party.tried.push({ host: target.host, address, verdict: verdicts[n]!, tls, dsnOffered });
    }
  };
  /** Dials, and again for those that were too many, while that gets somewhere. */
  const dialAll = async (address: string, policy: TlsPolicy, all: readonly Party[]) => {
    for (let left = all;;) {
      await dial(address, policy, left);
      const crowded = left.filter((party) => isTooMany(latestOf(party)));
      if (crowded.length === left.length || crowded.length === 0) return;
      await onDisk(parties);
      left = crowded;
    }
  };
  let left = parties;
  for (const [n, address] of target.addresses.slice(0, limits.addresses).entries()) {
    if (n > 0) {
      if (clock.monotonic() >= latest) break;
      await onDisk(parties);
    }
    await dialAll(address, target.tls, left);
    const unshaken = left.filter((party) => latestOf(party).handshake);
    if (unshaken.length > 0 && target.tls.mode === "opportunistic" && !fellBack) {
      fellBack = true;
      await onDisk(parties);
      await dialAll(address, { mode: "none" }, unshaken);
    }
    left = left.filter((party) => goesOn(latestOf(party)) === "address");
    if (left.length === 0) break;
  }
}

const latestOf = ({ tried }: Party): Verdict => tried.at(-1)!.verdict;

/** RFC 5321, section 4.5.3.1.10; RFC 3463, section 3.6. 552 is what older servers say. */
function isTooMany({ phase, reply }: Verdict): boolean {
  if (phase !== "rcpt" || !reply || (reply.code !== 452 && reply.code !== 552)) return false;
  if (reply.enhanced !== undefined) return /^[45]\.5\.3$/.test(reply.enhanced);
  return /too many (?:recipients|rcpt)/i.test(reply.text);
}

function doubt(verdict: Verdict, address: string): Verdict {
  const family = isIPv6(address) ? "IPv6" : "IPv4";
  const error = `it may be meant for ${family} alone, and counts as temporary`;
  return { ...verdict, doubted: true, error: verdict.error ?? error };
}

type Phases = Record<string, number>;

/** One address, from taking or dialling a session to giving it back. */
class Trial {
  readonly #begun: number;
  #phases: Phases = {};
  #session: ClientSession | undefined;
  #reused = false;

  constructor(
    readonly ports: SubmitPorts,
    readonly jobs: readonly DeliveryJob[],
    readonly target: Target,
    readonly address: string,
    readonly policy: TlsPolicy,
    readonly signal: AbortSignal,
  ) {
    this.#begun = ports.clock.monotonic();
  }

  /** @param ms how long connecting may take */
  async run(
    ms: number,
  ): Promise<{ verdicts: readonly Verdict[]; tls: SessionTls; dsnOffered: boolean }> {
    const { sessions } = this.ports;
    const { port, localAddress = "" } = this.target;
    const way = this.ports.way?.key ?? "";
    const key = `${way}|${this.address}|${port}|${localAddress}|${policyKey(this.policy)}`;
    let verdicts = await this.#overKept(key);
    if (!verdicts) {
      const failed = await this.#connect(ms);
      verdicts = failed ? this.jobs.map(() => failed) : await this.#send();
    }
    const session = this.#session;
    if (session) sessions.give(key, session, this.ports.messagesPerConnection);
    return {
      verdicts,
      tls: this.#tls(),
      dsnOffered: session?.extensions.has("DSN") ?? false,
    };
  }

  /** Over a kept session; undefined when there is none, or it turns out to be dead. */
  async #overKept(key: string): Promise<readonly Verdict[] | undefined> {
    const { sessions } = this.ports;
    const session = sessions.take(key);
    if (!session) return undefined;
    session.transcript.take(); // of the message before
    this.#session = session;
    this.#reused = true;
    const verdicts = await this.#send();
    const dead = verdicts.every(({ phase, closed, result }) =>
      phase === "mail" && closed === true && result !== "timeout"
    );
    if (!dead || this.signal.aborted) return verdicts;
    session.close();
    sessions.drop(key);
    this.#session = undefined;
    this.#reused = false;
    this.#phases = {};
    return undefined;
  }

  /** Dials and greets; the verdict when that fails. */
  async #connect(ms: number): Promise<Verdict | undefined> {
    const { clock, dialer, hostname, timeouts, way } = this.ports;
    const { port, localAddress } = this.target;
    const begun = clock.monotonic();
    const abort = new AbortController();
    const onAbort = () => abort.abort(this.signal.reason);
    if (this.signal.aborted) onAbort();
    else this.signal.addEventListener("abort", onAbort, { once: true });
    let late = false;
    const cancel = clock.timer(Math.max(0, ms), () => {
      late = true;
      abort.abort(new DialError("timeout", `no connection within ${Math.round(ms / 1000)} s`));
    });
    let connection: Connection;
    try {
      connection = await dialer.connect(
        { address: this.address, port, ...(localAddress ? { localAddress } : {}) },
        abort.signal,
      );
    } catch (error) {
      return dialVerdict(error, late, this.signal.aborted);
    } finally {
      cancel();
      this.signal.removeEventListener("abort", onAbort);
      this.#phases["connect"] = Math.round(clock.monotonic() - begun);
    }
    const session = new ClientSession(connection, {
      clock,
      hostname,
      tls: this.policy,
      begun,
      ...(way?.implicitTls ? { implicitTls: true } : {}),
      ...(way?.certificate ? { certificate: way.certificate } : {}),
      ...(way?.login ? { login: way.login } : {}),
      ...(timeouts ? { timeouts } : {}),
    });
    this.#session = session;
    const { verdict, phases } = await session.greet(this.signal);
    Object.assign(this.#phases, phases);
    return verdict.result === "ok" ? undefined : verdict;
  }

  /** One transaction; but for the recipients, the messages are the same. */
  async #send(): Promise<readonly Verdict[]> {
    const { bodies } = this.ports;
    const session = this.#session!;
    const [{ message: original }] = this.jobs as readonly [DeliveryJob];
    const twin = await reportTwin(bodies, original, session.extensions);
    const message = twin?.message ?? original;
    const { mailFrom, has8bit, smtputf8, requireTLS } = message;
    const { recipients: verdicts, phases } = await session.send({
      mailFrom,
      recipients: this.jobs.map(({ message: { rcptTo, dsn } }) => ({ rcptTo, dsn })),
      size: contentSize(message),
      has8bit,
      smtputf8,
      requireTLS,
      body: () => twin ? Promise.resolve(twin.body) : openContent(bodies, message),
    }, this.signal);
    Object.assign(this.#phases, phases);
    return verdicts;
  }

  #tls(): SessionTls {
    const established = this.#session?.tls;
    if (established && (established.facts || this.#session?.sent)) return established;
    return { mode: this.policy.mode, verifiedBy: "none" }; // never got so far: what was asked
  }

  /** What each recipient's log has of it, in their order. */
  findings(verdicts: readonly Verdict[]): EventData<"HostTried">[] {
    const lines = this.#session?.transcript.take();
    return verdicts.map((verdict, n) => {
      const transcript = lines && verdicts.length > 1 ? transcriptOf(lines, n) : lines;
      const { tlsReport, ...found } = this.#finding(verdict, transcript);
      // The session is counted once, however many it was for.
      return n === 0 && tlsReport ? { ...found, tlsReport } : found;
    });
  }

  #finding(
    verdict: Verdict,
    transcript: EventData<"HostTried">["transcript"],
  ): EventData<"HostTried"> {
    const { clock, way } = this.ports;
    const { host, port, reporting } = this.target;
    const { mode, verifiedBy, facts, proof, testing } = this.#tls();
    const session = this.#session;
    const extensions = session ? [...session.extensions.keys()] : [];
    const { result, reply, error, tlsFailure } = verdict;
    const found: EventData<"HostTried"> = {
      host,
      address: this.address,
      port,
      ...(session ? { local: session.connection.local.address } : {}),
      ...(way?.proxy === undefined ? {} : { proxy: way.proxy }),
      ...(this.#reused ? { reused: true } : {}),
      tlsMode: mode,
      ...(facts ? { tls: facts } : {}),
      verifiedBy,
      ...(proof === undefined ? {} : { proof }),
      ...(testing
        ? {
          testing: testing.ok
            ? { ok: true, detail: testing.by }
            : { ok: false, detail: testing.reason, type: testing.type },
        }
        : {}),
      ...(tlsFailure === undefined ? {} : { tlsFailure }),
      ...(session?.login ? { login: session.login } : {}),
      ...(extensions.length > 0 ? { extensions } : {}),
      ...(reply ? { reply: replyFact(reply) } : {}),
      result,
      ...(error === undefined ? {} : { error: error.slice(0, 1024) }),
      phases: { ...this.#phases, total: Math.round(clock.monotonic() - this.#begun) },
      ...(transcript ? { transcript } : {}),
    };
    const tlsReport = reporting && sessionResults(reporting, this.policy.mode, found);
    return tlsReport ? { ...found, tlsReport } : found;
  }
}

function dialVerdict(error: unknown, late: boolean, aborted: boolean): Verdict {
  if (!(error instanceof DialError) && !late && !aborted) throw error;
  const kind = aborted ? "canceled" : late ? "timeout" : (error as DialError).kind;
  const result = kind === "timeout" || kind === "canceled" ? kind : "error";
  const message = error instanceof Error ? error.message : String(error);
  const proxy = error instanceof DialError && error.proxy ? { proxy: true } : {};
  return { result, phase: "connect", error: message, enhanced: "4.4.1", closed: true, ...proxy };
}

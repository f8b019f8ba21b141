/**
 * Brings one message to one host: its addresses in turn, over a kept session where there is one.
 *
 *   1. A kept session to the address under the same policy is used. Found dead before MAIL was
 *      answered, it is replaced by a new connection; nothing was sent that could count twice.
 *   2. Otherwise the address is dialled, greeted, and given the message.
 *   3. A TLS handshake that fails under `opportunistic`, and only there, is followed by a new
 *      connection to the same address without TLS (RFC 7435, section 3; RFC 5321 has no way back to
 *      plain text): once per host and attempt.
 *   4. What each address said is noted as HostTried. Whether the next address follows is up to
 *      outcome.ts; the finding is on disk before it is dialled.
 */
import { isIPv6 } from "node:net";
import type { BodyStore, Clock, DeliveryJob, Findings } from "../../actors/ports.ts";
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
import { goesOn, type HostVerdict, isPolicyRefusal, replyFact } from "./outcome.ts";
import { reportTwin } from "./report_twin.ts";

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
  /** A policy refusal is not believed yet: the host is dual stack, and this the first attempt. */
  readonly doubtful?: boolean;
  /** The policies under which sessions with it are counted for a TLS report. */
  readonly reporting?: Reporting;
}

/** Tries a host; a verdict per address tried, the last one counts. */
export async function submit(
  ports: SubmitPorts,
  job: DeliveryJob,
  target: Target,
  findings: Findings,
  signal: AbortSignal,
): Promise<HostVerdict[]> {
  const { clock } = ports;
  const limits = { ...DIAL_LIMITS, ...ports.dialLimits };
  const latest = clock.monotonic() + limits.host;
  const tried: HostVerdict[] = [];
  let fellBack = false;
  const dial = async (address: string, policy: TlsPolicy): Promise<Verdict> => {
    const ms = Math.min(limits.connect, latest - clock.monotonic());
    const trial = new Trial(ports, job, target, address, policy, signal);
    const { verdict: said, tls, dsnOffered } = await trial.run(ms);
    const verdict = target.doubtful && isPolicyRefusal(said) ? doubt(said, address) : said;
    const fallback = policy === target.tls ? {} : { fallback: true };
    findings.note({ type: "HostTried", data: { ...trial.finding(verdict), ...fallback } });
    tried.push({ host: target.host, address, verdict, tls, dsnOffered });
    return verdict;
  };
  for (const address of target.addresses.slice(0, limits.addresses)) {
    if (tried.length > 0) {
      if (clock.monotonic() >= latest) break;
      await findings.flush();
    }
    let verdict = await dial(address, target.tls);
    if (verdict.handshake && target.tls.mode === "opportunistic" && !fellBack) {
      fellBack = true;
      await findings.flush();
      verdict = await dial(address, { mode: "none" });
    }
    if (goesOn(verdict) !== "address") break;
  }
  return tried;
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
    readonly job: DeliveryJob,
    readonly target: Target,
    readonly address: string,
    readonly policy: TlsPolicy,
    readonly signal: AbortSignal,
  ) {
    this.#begun = ports.clock.monotonic();
  }

  /** @param ms how long connecting may take */
  async run(ms: number): Promise<{ verdict: Verdict; tls: SessionTls; dsnOffered: boolean }> {
    const { sessions } = this.ports;
    const { port, localAddress = "" } = this.target;
    const way = this.ports.way?.key ?? "";
    const key = `${way}|${this.address}|${port}|${localAddress}|${policyKey(this.policy)}`;
    let verdict = await this.#overKept(key);
    verdict ??= await this.#connect(ms) ?? await this.#send();
    const session = this.#session;
    if (session) sessions.give(key, session);
    return {
      verdict,
      tls: this.#tls(),
      dsnOffered: session?.extensions.has("DSN") ?? false,
    };
  }

  /** Over a kept session; undefined when there is none, or it turns out to be dead. */
  async #overKept(key: string): Promise<Verdict | undefined> {
    const { sessions } = this.ports;
    const session = sessions.take(key);
    if (!session) return undefined;
    session.transcript.take(); // of the message before
    this.#session = session;
    this.#reused = true;
    const verdict = await this.#send();
    const dead = verdict.phase === "mail" && verdict.closed === true && !this.signal.aborted &&
      verdict.result !== "timeout";
    if (!dead) return verdict;
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

  async #send(): Promise<Verdict> {
    const { bodies } = this.ports;
    const session = this.#session!;
    const twin = await reportTwin(bodies, this.job.message, session.extensions);
    const message = twin?.message ?? this.job.message;
    const { mailFrom, rcptTo, dsn, has8bit, smtputf8, requireTLS } = message;
    const { recipients: [verdict], phases } = await session.send({
      mailFrom,
      recipients: [{ rcptTo, dsn }],
      size: contentSize(message),
      has8bit,
      smtputf8,
      requireTLS,
      body: () => twin ? Promise.resolve(twin.body) : openContent(bodies, message),
    }, this.signal);
    Object.assign(this.#phases, phases);
    return verdict!;
  }

  #tls(): SessionTls {
    const established = this.#session?.tls;
    if (established && (established.facts || this.#session?.sent)) return established;
    return { mode: this.policy.mode, verifiedBy: "none" }; // never got so far: what was asked
  }

  finding(verdict: Verdict): EventData<"HostTried"> {
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
      ...(session ? { transcript: session.transcript.take() } : {}),
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

/**
 * The client side of an SMTP session (RFC 5321) over a connection that somebody else dialled.
 *
 *   greet   greeting, EHLO (HELO where refused), STARTTLS as the policy says, EHLO again, AUTH;
 *           with implicit TLS (RFC 8314, section 3.3) the handshake comes before the greeting
 *   send    one message: MAIL, RCPT …, DATA, content, final reply; any number of times
 *   quit    QUIT
 *
 * Every wait has a deadline for the whole reply (RFC 5321, section 4.5.3.2), so a server that sends
 * an octet a second gains nothing. Whatever the server does is a Verdict, never an exception; what
 * does throw is a fault of our own (a body that cannot be read). After a verdict that leaves the
 * dialogue in doubt the connection is closed, and `usable` is false.
 */
import type { Clock } from "../../actors/ports.ts";
import type { BodyReader } from "../../events/store.ts";
import type { ClientCertificate, Connection, TlsSession } from "../ports.ts";
import type { TlsFailureType, TlsJudgement, TlsPolicy } from "../tls/policy.ts";
import { Dialogue } from "./dialogue.ts";
import { BareLineEnd, DotStuffer } from "./dot_stuffing.ts";
import {
  type Envelope,
  envelopeCommands,
  type Extensions,
  parseExtensions,
  unfit,
  unsafeEnvelope,
} from "./envelope.ts";
import { type LoggedIn, type Login, logIn } from "./login.ts";
import type { SmtpReply } from "./reply.ts";
import { tlsServerEndPoint } from "./sasl/channel_binding.ts";
import { TIMEOUTS, type Timeouts } from "./timeouts.ts";
import { Transcript } from "./transcript.ts";
import { DialogueEnded, refused, type Verdict } from "./verdict.ts";

export interface SessionOptions {
  readonly clock: Clock;
  /** Our name in EHLO. */
  readonly hostname: string;
  readonly tls: TlsPolicy;
  /** The handshake comes first, and there is no STARTTLS: port 465. */
  readonly implicitTls?: boolean;
  readonly certificate?: ClientCertificate;
  /** Logs in before the first message. */
  readonly login?: Login;
  readonly timeouts?: Partial<Timeouts>;
  /** Monotonic milliseconds at which the connection was begun; times are counted from there. */
  readonly begun?: number;
}

/** What vouches for the peer, as it goes into the log. */
export interface SessionTls {
  readonly mode: TlsPolicy["mode"];
  readonly verifiedBy: "none" | "pkix" | "mta-sts" | "dane";
  readonly facts?: TlsSession["facts"];
  /** What of the certificate was believed, where the policy says so. */
  readonly proof?: string;
  /** What MTA-STS in mode testing would have said. */
  readonly testing?: TlsJudgement;
}

export interface Transaction extends Envelope {
  /** Opens the content; called when the server is ready for it. */
  readonly body: () => Promise<BodyReader>;
}

/** How a transaction ended, for each recipient in the order of the envelope. */
export interface TransactionResult {
  readonly recipients: readonly Verdict[];
  /** Milliseconds from MAIL to the reply to DATA, and from there to the final reply. */
  readonly phases: Readonly<Record<string, number>>;
}

/** Octets of content that are gathered before they are written. */
const GATHER = 64 * 1024;
/** Results after which nobody knows where the dialogue stands. */
const IN_DOUBT: ReadonlySet<Verdict["result"]> = new Set(["error", "timeout", "canceled"]);
const NO_EXTENSIONS: Extensions = new Map();

export class ClientSession {
  readonly connection: Connection;
  readonly transcript: Transcript;
  readonly begun: number;
  readonly #clock: Clock;
  readonly #hostname: string;
  readonly #options: SessionOptions;
  readonly #policy: TlsPolicy;
  readonly #timeouts: Timeouts;
  readonly #dialogue: Dialogue;
  #extensions: Extensions = NO_EXTENSIONS;
  #tls: SessionTls = { mode: "none", verifiedBy: "none" };
  #login: LoggedIn | undefined;
  /** The server's certificate, DER. */
  #certificate: Uint8Array | undefined;
  /** A transaction was begun and not completed: RSET goes before the next. */
  #unfinished = false;
  #sent = 0;
  #refusals = 0;

  constructor(connection: Connection, options: SessionOptions) {
    this.connection = connection;
    this.#clock = options.clock;
    this.#hostname = options.hostname;
    this.#options = options;
    this.#policy = options.tls;
    this.#timeouts = { ...TIMEOUTS, ...options.timeouts };
    this.begun = options.begun ?? options.clock.monotonic();
    this.transcript = new Transcript(options.clock, this.begun);
    this.#dialogue = new Dialogue(connection, options.clock, this.transcript);
  }

  get extensions(): Extensions {
    return this.#extensions;
  }

  /** TLS as it is; mode `none` where a policy that allows it ended in plain text. */
  get tls(): SessionTls {
    return this.#tls;
  }

  /** Who is logged in, where somebody is. */
  get login(): LoggedIn | undefined {
    return this.#login;
  }

  /** Whether another message may be sent. */
  get usable(): boolean {
    return !this.#dialogue.closed;
  }

  /** Transactions begun, and those of them in which the server refused something. */
  get sent(): number {
    return this.#sent;
  }
  get refusals(): number {
    return this.#refusals;
  }

  /** Opens the dialogue; `ok` when a message may be sent. */
  async greet(
    signal: AbortSignal,
  ): Promise<{ verdict: Verdict; phases: Record<string, number> }> {
    const phases: Record<string, number> = {};
    const { implicitTls, login } = this.#options;
    const begins = implicitTls ? "tls" : "greeting";
    const verdict = await this.#dialogue.run(signal, begins, async () => {
      if (implicitTls) await this.#timed(phases, "tls", () => this.#handshake());
      let reply = await this.#timed(phases, "greeting", () => {
        return this.#dialogue.reply("greeting", this.#timeouts.greeting);
      });
      if (reply.code !== 220) throw new DialogueEnded(refused("greeting", reply));
      reply = await this.#timed(phases, "ehlo", () => this.#ehlo());
      if (this.#wantsTls()) {
        reply = await this.#timed(phases, "tls", () => this.#startTls(reply));
      }
      if (login) await this.#timed(phases, "login", () => this.#logIn(login, signal));
      return { result: "ok", phase: "ehlo", reply };
    });
    if (verdict.result !== "ok") this.#hangUp(verdict);
    return { verdict, phases };
  }

  /** Sends one message. One at a time. */
  async send(transaction: Transaction, signal: AbortSignal): Promise<TransactionResult> {
    const { recipients } = transaction;
    const verified = this.#tls.verifiedBy !== "none";
    const lacking = unsafeEnvelope(transaction) ?? unfit(transaction, this.#extensions, verified);
    if (lacking) {
      const verdict: Verdict = { result: "permerror", phase: "mail", ...lacking };
      return { recipients: recipients.map(() => verdict), phases: {} };
    }
    this.#sent++;
    const phases: Record<string, number> = {};
    const refusals: (Verdict | undefined)[] = recipients.map(() => undefined);
    const verdict = await this.#dialogue.run(signal, "mail", async () => {
      const ready = await this.#timed(phases, "envelope", () => {
        return this.#envelope(transaction, refusals);
      });
      if (!ready) return { result: "permerror", phase: "rcpt" }; // each recipient has its own
      const reply = await this.#timed(phases, "data", () => this.#content(transaction));
      this.#unfinished = false;
      if (reply.code >= 300) return refused("end", reply);
      return { result: "ok", phase: "end", reply };
    });
    if (verdict.closed || IN_DOUBT.has(verdict.result)) this.close();
    const outcomes = refusals.map((refusal) => refusal ?? verdict);
    if (outcomes.some(({ result }) => result !== "ok")) this.#refusals++;
    return { recipients: outcomes, phases };
  }

  /** Takes leave: QUIT, a short wait for its reply, close. Never throws. */
  quit(): Promise<void> {
    return this.#dialogue.quit(this.#timeouts.quit);
  }

  close(): void {
    this.#dialogue.close();
  }

  /** After a session that could not be opened: QUIT where there is somebody to hear it. */
  #hangUp(verdict: Verdict): void {
    if (verdict.reply && !verdict.closed) void this.quit();
    else this.close();
  }

  async #ehlo(): Promise<SmtpReply> {
    this.#dialogue.command(`EHLO ${this.#hostname}`);
    let reply = await this.#dialogue.reply("ehlo", this.#timeouts.ehlo);
    this.#extensions = reply.code === 250 ? parseExtensions(reply.lines) : NO_EXTENSIONS;
    // RFC 5321, section 3.2: a server that does not know EHLO is asked with HELO.
    if (reply.code >= 500) {
      this.#dialogue.command(`HELO ${this.#hostname}`);
      reply = await this.#dialogue.reply("ehlo", this.#timeouts.ehlo);
    }
    if (reply.code !== 250) throw new DialogueEnded(refused("ehlo", reply));
    return reply;
  }

  #wantsTls(): boolean {
    const { mode } = this.#policy;
    if (this.#options.implicitTls) return false;
    return mode === "opportunistic" ? this.#extensions.has("STARTTLS") : mode !== "none";
  }

  async #startTls(greeted: SmtpReply): Promise<SmtpReply> {
    const policy = this.#policy;
    if (policy.mode === "none") return greeted;
    if (!this.#extensions.has("STARTTLS")) {
      return this.#noTls(
        "TLS is required and the host does not offer STARTTLS",
        "starttls-not-supported",
      );
    }
    this.#dialogue.command("STARTTLS");
    const reply = await this.#dialogue.reply("tls", this.#timeouts.tls);
    if (reply.code !== 220) {
      // RFC 3207, section 4: the client decides whether to go on without.
      if (policy.mode === "opportunistic" && reply.code !== 421) return greeted;
      throw new DialogueEnded(
        { ...refused("tls", reply), error: "the host refused STARTTLS" },
      );
    }
    // Whatever follows the reply was sent in plain text, by whomever (RFC 3207, section 6).
    this.#dialogue.expectSilence("tls");
    await this.#handshake();
    try {
      return await this.#ehlo();
    } catch (error) {
      // Under TLS 1.3 a server that refuses the handshake says so when ours has ended already.
      if (!(error instanceof DialogueEnded) || error.verdict.result !== "error") throw error;
      if (error.verdict.reply) throw error;
      const tlsFailure = "validation-failure" as const;
      throw new DialogueEnded({ ...error.verdict, phase: "tls", handshake: true, tlsFailure });
    }
  }

  /** The handshake, and the policy's judgement of it. */
  async #handshake(): Promise<void> {
    const policy = this.#policy;
    if (policy.mode === "none") throw new Error("a handshake under a policy of no TLS");
    const { certificate } = this.#options;
    const { serverName } = policy;
    const { ca } = policy;
    const session = await this.#dialogue.startTls({
      ...(serverName === undefined ? {} : { serverName }),
      ...(ca === undefined ? {} : { ca }),
      ...(certificate === undefined ? {} : { certificate }),
    }, this.#timeouts.tls);
    const { mode, observe } = policy;
    const testing = observe ? { testing: observe(session) } : {};
    const { facts } = session;
    this.#tls = { mode, verifiedBy: "none", facts, ...testing };
    if (mode === "verified") {
      const judged = policy.verify(session);
      const refused = typeof judged === "string"
        ? { type: "validation-failure" as const, reason: judged }
        : judged?.ok === false
        ? judged
        : undefined;
      if (refused) {
        this.#noTls(`the certificate is not accepted: ${refused.reason}`, refused.type);
      }
      const proof = typeof judged === "object" && judged.ok ? { proof: judged.by } : {};
      this.#tls = { mode, verifiedBy: policy.by, facts, ...proof, ...testing };
    }
    this.#certificate = session.chain[0];
  }

  async #logIn(login: Login, signal: AbortSignal): Promise<void> {
    this.#dialogue.expectSilence("login");
    const certificate = this.#certificate;
    this.#login = await logIn(
      this.#dialogue,
      login,
      {
        extensions: this.#extensions,
        tls: this.#tls.facts !== undefined,
        verified: this.#tls.verifiedBy !== "none",
        channelBinding: certificate && tlsServerEndPoint(certificate),
      },
      this.#timeouts.login,
      signal,
    );
  }

  #noTls(error: string, tlsFailure: TlsFailureType): never {
    const verdict: Verdict = {
      result: "error",
      phase: "tls",
      error,
      enhanced: "4.7.5",
      tlsFailure,
    };
    throw new DialogueEnded(verdict);
  }

  /** The envelope up to the reply to DATA; false when no recipient was accepted. */
  async #envelope(
    transaction: Transaction,
    refusals: (Verdict | undefined)[],
  ): Promise<boolean> {
    const { mail, rcpt } = envelopeCommands(transaction, this.#extensions);
    // RFC 2920: the whole group at once, DATA at its end; then every reply must be read.
    const pipelining = this.#extensions.has("PIPELINING");
    const reset = this.#unfinished;
    this.#unfinished = true;
    this.#dialogue.expectSilence("mail");
    const { mail: mailTime, rcpt: rcptTime, data: dataTime } = this.#timeouts;
    if (pipelining) this.#dialogue.command(...(reset ? ["RSET"] : []), mail, ...rcpt, "DATA");

    if (reset) {
      if (!pipelining) this.#dialogue.command("RSET");
      const reply = await this.#dialogue.reply("mail", mailTime);
      if (reply.code >= 300) throw new DialogueEnded({ ...refused("mail", reply), closed: true });
    }
    if (!pipelining) this.#dialogue.command(mail);
    let reply = await this.#dialogue.reply("mail", mailTime);
    const sender = reply.code < 300 ? undefined : this.#refused("mail", reply);
    if (sender && (!pipelining || sender.closed)) throw new DialogueEnded(sender);

    try {
      let accepted = 0;
      for (const [n, command] of rcpt.entries()) {
        if (!pipelining) this.#dialogue.command(command);
        reply = await this.#dialogue.reply("rcpt", rcptTime);
        if (reply.code < 300) accepted++;
        else refusals[n] = sender ?? this.#refused("rcpt", reply);
        if (reply.code === 421) throw new DialogueEnded(refusals[n] ?? refused("rcpt", reply));
      }
      if (!pipelining) {
        if (accepted === 0) return false;
        this.#dialogue.command("DATA");
      }
      reply = await this.#dialogue.reply("data", dataTime);
      if (sender || accepted === 0) {
        // RFC 2920, section 3.1: DATA was accepted for nobody; an empty message ends it.
        if (reply.code === 354) await this.#emptyMessage();
        if (sender) throw new DialogueEnded(sender);
        return false;
      }
      if (reply.code !== 354) throw new DialogueEnded(refused("data", reply));
      return true;
    } catch (error) {
      // The server has refused and then hung up: the refusal counts.
      if (!sender || !(error instanceof DialogueEnded) || error.verdict === sender) throw error;
      throw new DialogueEnded({ ...sender, closed: true });
    }
  }

  /** Whether what is refused is the message, or what the account that is logged in may send. */
  #refused(phase: "mail" | "rcpt", reply: SmtpReply): Verdict {
    const verdict = refused(phase, reply);
    const account = this.#login !== undefined &&
      (phase === "mail" || reply.code === 530 || aboutSender(reply));
    return account ? { ...verdict, account } : verdict;
  }

  async #emptyMessage(): Promise<void> {
    this.#dialogue.command(".");
    await this.#dialogue.reply("end", this.#timeouts.end);
    this.#unfinished = false;
  }

  /** The content, dot-stuffed, and the reply to it. */
  async #content(transaction: Transaction): Promise<SmtpReply> {
    const { block, minimumRate, end, quit } = this.#timeouts;
    const latest = this.#clock.monotonic() + block + (transaction.size / minimumRate) * 1000;
    const reader = await transaction.body();
    this.#dialogue.beginContent(reader.size);
    const stuffer = new DotStuffer();
    let pieces: Uint8Array[] = [];
    let gathered = 0;
    try {
      for await (const chunk of reader.chunks()) {
        for (const piece of stuffer.push(chunk)) {
          pieces.push(piece);
          gathered += piece.length;
        }
        if (gathered < GATHER) continue;
        const ms = Math.min(block, latest - this.#clock.monotonic());
        await this.#dialogue.block(concat(pieces, gathered), ms, quit);
        pieces = [];
        gathered = 0;
      }
      const last = stuffer.end();
      pieces.push(last);
      gathered += last.length;
    } catch (error) {
      if (!(error instanceof BareLineEnd)) throw error;
      throw new DialogueEnded({
        result: "permerror",
        phase: "body",
        error: error.message,
        enhanced: "5.6.0",
        closed: true, // in the middle of the content: only hanging up ends the transaction
      });
    }
    this.#dialogue.put(concat(pieces, gathered));
    return await this.#dialogue.reply("end", end);
  }

  async #timed<T>(
    phases: Record<string, number>,
    name: string,
    run: () => Promise<T>,
  ): Promise<T> {
    const begun = this.#clock.monotonic();
    try {
      return await run();
    } finally {
      phases[name] = Math.round(this.#clock.monotonic() - begun);
    }
  }
}

/**
 * A refusal of the sender that comes in answer to RCPT, as Postfix gives it: 553 5.7.1, or a code
 * about the sender's address (RFC 3463, section 3.2).
 */
const aboutSender = ({ code, enhanced = "" }: SmtpReply): boolean =>
  ["5.1.7", "5.1.8"].includes(enhanced) || (code === 553 && enhanced === "5.7.1");

function concat(pieces: readonly Uint8Array[], length: number): Uint8Array {
  const joined = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    joined.set(piece, at);
    at += piece.length;
  }
  return joined;
}

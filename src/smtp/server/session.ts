/**
 * Session: the dialogue with one client (RFC 5321), command by command.
 *
 *   greeting → EHLO or HELO → { MAIL → RCPT … → DATA, or BDAT … → 250 when it is on disk } → QUIT
 *
 * STARTTLS and AUTH stand before the first MAIL; AUTH is in login.ts.
 *
 * Replies go out when no whole command is left to answer, so a pipelined group (RFC 2920) gets its
 * replies together. Whatever goes wrong with one message leaves the session able to take the next,
 * unless the two sides may no longer agree where commands and content begin and end: then the
 * session ends.
 */
import type { Submission } from "../../../actors/ports.ts";
import { Intake } from "../../submission/intake.ts";
import { BareLineEnd } from "../../submission/lines.ts";
import { Refusal } from "../../submission/refusal.ts";
import { checkClientName, checkNoArgument } from "./arguments.ts";
import type { Awaited, Connection, TlsFacts } from "./connection.ts";
import { ContentReader } from "./content.ts";
import type { InputLine, LineFault } from "./input.ts";
import { extensionsOf, type Listener, SessionOver } from "./listener.ts";
import { Login } from "./login.ts";
import { addRecipient, openTransaction } from "./envelope.ts";
import { noteFault, refusalFor } from "./faults.ts";
import type { Transaction } from "./transaction.ts";

const LINE_FAULTS: Record<LineFault, string> = {
  "too long": "the line is too long",
  "bare CR": "the line has a bare CR",
  "bare LF": "the line has a bare LF; lines end with CRLF",
  "control": "the line has a control character",
  "not UTF-8": "the line is not UTF-8",
  "flood": "the line does not end",
};

export class Session {
  readonly #listener: Listener;
  readonly #connection: Connection;
  readonly #content: ContentReader;
  #login: Login;
  #tls: TlsFacts | undefined;
  #helo: { readonly name: string; readonly extended: boolean } | undefined;
  #transaction: Transaction | undefined;
  /** Since the last message was taken. */
  #unproductive = 0;
  #messages = 0;
  #waitsForClient = false;
  /** Which may mean waiting, for the client or because of failures before. */
  #loggingIn = false;
  #stopping = false;

  constructor(listener: Listener, connection: Connection) {
    this.#listener = listener;
    this.#connection = connection;
    const { clock, limits } = listener;
    this.#login = new Login(listener, connection);
    this.#content = new ContentReader(
      connection,
      clock,
      limits,
      (e) => refusalFor(this.#listener, e),
    );
  }

  /** Runs the session to its end. Never rejects. */
  async run(): Promise<void> {
    const { hostname, implicitTls } = this.#listener;
    try {
      if (implicitTls) await this.#handshake();
      this.#reply(`220 ${hostname} ESMTP Postledger`);
      for (;;) await this.#answer(await this.#command());
    } catch (error) {
      if (!(error instanceof SessionOver)) {
        noteFault(this.#listener, error);
        this.#reply("421 4.3.0 internal error, closing");
      } else if (error.reply !== undefined) this.#reply(error.reply);
    }
    this.#reset();
    this.#connection.end();
  }

  /** Ends the session as soon as no content is under way. */
  stop(): void {
    this.#stopping = true;
    const waits = this.#waitsForClient || this.#loggingIn;
    if (waits && !this.#transaction?.chunked) this.#connection.interrupt();
  }

  /** The next command line. */
  #command(): Promise<InputLine> {
    if (this.#unproductive > this.#listener.limits.unproductive) {
      throw new SessionOver("421 4.7.0 too many commands without a message, closing");
    }
    return this.#line();
  }

  /** The next line; a client has the idle time to send it whole. */
  async #line(longest?: number): Promise<InputLine> {
    const { clock, limits, hostname } = this.#listener;
    const until = clock.monotonic() + limits.idle;
    for (;;) {
      if (this.#stopping && !this.#transaction?.chunked) {
        throw new SessionOver(`421 4.3.2 ${hostname} is shutting down, closing`);
      }
      const line = this.#connection.input.line(longest);
      if (line) return line;
      this.#waitsForClient = true;
      const why = await this.#connection.more(Math.max(0, until - clock.monotonic()));
      this.#waitsForClient = false;
      if (why !== "interrupted") this.#expectReady(why);
    }
  }

  async #answer(line: InputLine): Promise<void> {
    try {
      if ("fault" in line) {
        const text = LINE_FAULTS[line.fault];
        if (line.fault === "bare LF" || line.fault === "flood") {
          throw new SessionOver(`500 5.5.2 ${text}, closing`);
        }
        throw new Refusal(500, "5.5.2", text);
      }
      await this.#obey(line.text.trimEnd());
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#unproductive++;
      this.#refuse(error);
    }
  }

  /** @returns a promise only where there is something to wait for */
  #obey(line: string): Promise<void> | void {
    const space = line.indexOf(" ");
    const verb = (space < 0 ? line : line.slice(0, space)).toUpperCase();
    const rest = space < 0 ? "" : line.slice(space + 1);
    switch (verb) {
      case "EHLO":
      case "HELO":
        return this.#hello(verb, rest);
      case "MAIL":
        return this.#mail(rest);
      case "RCPT":
        return this.#rcpt(rest);
      case "DATA":
        checkNoArgument(rest);
        return this.#data();
      case "BDAT":
        return this.#bdat(rest);
      case "STARTTLS":
        checkNoArgument(rest);
        return this.#startTls();
      case "AUTH":
        return this.#auth(rest);
      case "QUIT":
        checkNoArgument(rest);
        throw new SessionOver(`221 2.0.0 ${this.#listener.hostname} closing`);
    }
    this.#unproductive++;
    switch (verb) {
      case "RSET":
        checkNoArgument(rest);
        this.#reset();
        return this.#reply("250 2.0.0 Ok");
      case "NOOP":
        return this.#reply("250 2.0.0 Ok");
      case "VRFY":
        if (rest === "") throw new Refusal(501, "5.5.4", "VRFY takes an address");
        return this.#reply("252 2.5.0 not verified; send mail and it is attempted");
      case "EXPN":
        return this.#reply("502 5.5.1 EXPN is not offered");
      case "HELP":
        return this.#reply(
          "214 2.0.0 EHLO HELO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY QUIT",
        );
    }
    return this.#reply("500 5.5.1 command not known");
  }

  /** RFC 5321, section 4.1.1.1. */
  #hello(verb: "EHLO" | "HELO", name: string): void {
    checkClientName(verb, name);
    this.#reset();
    this.#unproductive++;
    const { hostname } = this.#listener;
    this.#helo = { name, extended: verb === "EHLO" };
    if (verb === "HELO") return this.#reply(`250 ${hostname}`);
    const tls = this.#tls !== undefined;
    const mechanisms = this.#login.mechanisms(tls);
    const lines = [hostname, ...extensionsOf(this.#listener, { tls, mechanisms })];
    this.#reply(lines.map((l, i) => `250${i < lines.length - 1 ? "-" : " "}${l}`).join("\r\n"));
  }

  /** RFC 4954, section 4. */
  async #auth(rest: string): Promise<void> {
    if (!this.#helo?.extended) throw new Refusal(503, "5.5.1", "EHLO comes first");
    if (this.#transaction) throw new Refusal(503, "5.5.1", "a transaction is open; RSET ends it");
    this.#loggingIn = true;
    try {
      await this.#login.run(rest, this.#tls !== undefined, (challenge, longest) => {
        this.#reply(challenge);
        return this.#line(longest);
      });
    } finally {
      this.#loggingIn = false;
    }
    this.#reply("235 2.7.0 logged in");
  }

  async #mail(rest: string): Promise<void> {
    if (!this.#helo) throw new Refusal(503, "5.5.1", "EHLO comes first");
    if (this.#transaction) throw new Refusal(503, "5.5.1", "a transaction is open; RSET ends it");
    const tls = this.#tls !== undefined;
    const account = this.#login.account(tls);
    const { extended } = this.#helo;
    const transaction = await openTransaction(this.#listener, rest, { extended, tls, account });
    if (this.#messages >= this.#listener.limits.messages) {
      throw new SessionOver("421 4.7.0 enough messages for one connection, closing");
    }
    this.#transaction = transaction;
    this.#reply("250 2.1.0 Ok");
  }

  async #rcpt(rest: string): Promise<void> {
    const transaction = this.#transaction;
    if (!transaction) throw new Refusal(503, "5.5.1", "MAIL comes first");
    if (transaction.chunked) throw new Refusal(503, "5.5.1", "content has begun");
    const full = await addRecipient(this.#listener, transaction, rest, this.#helo!.extended);
    if (full) this.#refuse(full);
    else this.#reply("250 2.1.5 Ok");
  }

  /** RFC 5321, section 4.1.1.4. */
  async #data(): Promise<void> {
    const transaction = this.#open();
    if (transaction.chunked) throw new Refusal(503, "5.5.1", "BDAT has begun; DATA cannot follow");
    const { id, intake } = this.#intake(transaction);
    this.#reply("354 End data with <CR><LF>.<CR><LF>");
    this.#expectReady(await this.#content.data(intake), intake);
    await this.#conclude(transaction, id, intake);
    // Where CR or LF stands alone, someone on the way may have seen another end of the message
    // than we did. What follows the true end is no more to be trusted than what came before, so
    // the session ends; the refusal itself is permanent and has reached the client.
    if (intake.refusal instanceof BareLineEnd) throw new SessionOver();
  }

  /** RFC 3030, section 2. */
  async #bdat(rest: string): Promise<void> {
    const parts = /^(\d{1,15})( +LAST)?$/i.exec(rest);
    // Without a size there is no telling where the content ends and commands go on.
    if (!parts) throw new SessionOver("501 5.5.4 BDAT takes a size, and LAST at the end; closing");
    const size = Number(parts[1]);
    const last = parts[2] !== undefined;
    let transaction: Transaction;
    try {
      transaction = this.#open();
    } catch (error) {
      this.#expectReady(await this.#content.chunk(size, undefined));
      throw error;
    }
    const { id, intake } = transaction.chunked ??= this.#intake(transaction);
    this.#expectReady(await this.#content.chunk(size, intake), intake);
    if (last || intake.refusal) return this.#conclude(transaction, id, intake);
    this.#reply(`250 2.0.0 Ok: ${size} octets`);
  }

  /** The transaction, ready for content. */
  #open(): Transaction {
    if (!this.#transaction) throw new Refusal(503, "5.5.1", "MAIL comes first");
    if (this.#transaction.recipients === 0) {
      throw new Refusal(554, "5.5.1", "there are no valid recipients");
    }
    return this.#transaction;
  }

  #intake(transaction: Transaction): { readonly id: string; readonly intake: Intake } {
    const { bodies, clock, gate, hostname, limits, signer, submitter } = this.#listener;
    const id = submitter.newSubmissionId();
    const only = transaction.onlyRecipient;
    const { account, parameters: { priority } } = transaction;
    const intake = new Intake(
      bodies,
      {
        from: { name: this.#helo!.name, address: this.#connection.peer.address },
        by: hostname,
        with: this.#protocol(transaction),
        ...(this.#tls ? { tls: this.#tls } : {}),
        id,
        ...(only === undefined ? {} : { for: only }),
        ...(priority === undefined ? {} : { priority }),
        at: clock.now(),
      },
      limits,
      account && ((header) => gate!.checkHeader(account, header)),
      signer,
    );
    return { id, intake };
  }

  /** The name of the protocol in the Received field: RFC 3848; RFC 6531, section 4.3. */
  #protocol(transaction: Transaction): string {
    const base = transaction.parameters.smtputf8 ? "UTF8SMTP" : "ESMTP";
    if (!this.#tls && !this.#helo!.extended) return "SMTP";
    return `${base}${this.#tls ? "S" : ""}${transaction.account ? "A" : ""}`;
  }

  /** Content is complete: the message is taken, or refused; the transaction is over either way. */
  async #conclude(transaction: Transaction, id: string, intake: Intake): Promise<void> {
    const { counters, gate, submitter } = this.#listener;
    const { account, recipients } = transaction;
    this.#transaction = undefined;
    let giveBack: (() => void) | undefined;
    try {
      const taken = await intake.finish();
      if (account) giveBack = await gate!.takeAllowance(account, recipients);
      await submitter.submit(transaction.submission(id, taken, this.#source()));
    } catch (error) {
      giveBack?.();
      const refusal = refusalFor(this.#listener, error);
      intake.refuse(refusal);
      counters.messagesRefused++;
      this.#unproductive++;
      return this.#refuse(refusal);
    }
    counters.messagesAccepted++;
    this.#messages++;
    this.#unproductive = 0;
    this.#reply(`250 2.0.0 Ok: queued as ${id}`);
  }

  #source(): Submission["source"] {
    const { address, port } = this.#connection.peer;
    return {
      kind: "smtp",
      listener: this.#listener.name,
      peer: `${address.includes(":") ? `[${address}]` : address}:${port}`,
      helo: this.#helo!.name,
      ...(this.#login.name === undefined ? {} : { login: this.#login.name }),
      ...(this.#tls ? { tls: this.#tls } : {}),
    };
  }

  /** RFC 3207. */
  async #startTls(): Promise<void> {
    const { tls } = this.#listener;
    if (!tls) throw new Refusal(502, "5.5.1", "STARTTLS is not offered");
    if (this.#tls) throw new Refusal(503, "5.5.1", "the session is in TLS already");
    // What came in clear behind the command was put there by someone who hopes that it is taken
    // for part of the protected session.
    if (!this.#connection.drained) {
      throw new SessionOver("501 5.5.1 nothing may follow STARTTLS before the handshake, closing");
    }
    this.#reply("220 2.0.0 ready to start TLS");
    this.#reset();
    // What was learnt in clear is forgotten (RFC 3207, section 4.2), a login with it.
    this.#helo = undefined;
    this.#login = new Login(this.#listener, this.#connection);
    await this.#handshake();
  }

  async #handshake(): Promise<void> {
    const { tls, limits, name, log, counters } = this.#listener;
    const facts = await this.#connection.startTls(tls!.context(), limits.handshake);
    if (typeof facts === "string") {
      counters.tlsFailures++;
      const peer = this.#connection.peer.address;
      log.warn("TLS handshake with a client failed", { listener: name, peer, why: facts });
      throw new SessionOver();
    }
    this.#tls = facts;
  }

  #reset(): void {
    const chunked = this.#transaction?.chunked;
    this.#transaction = undefined;
    chunked?.intake.refuse(new Refusal(451, "4.3.0", "the transaction was given up"));
  }

  /** A wait for the client that did not end with input ends the session. */
  #expectReady(why: Awaited, intake?: Intake): void {
    if (why === "ready") return;
    const timeout = "421 4.4.2 timeout, closing";
    intake?.refuse(new Refusal(421, "4.4.2", "the content did not end"));
    throw new SessionOver(why === "timeout" ? timeout : undefined);
  }

  #refuse(refusal: Refusal): void {
    this.#reply(`${refusal.code} ${refusal.enhanced} ${refusal.message}`);
  }

  #reply(text: string): void {
    this.#connection.reply(`${text}\r\n`);
  }
}

/**
 * Commands out, replies in, over one connection: deadlines, cancelling, and the transcript.
 * Knows no order of commands; that is the client's.
 *
 * A deadline is for a whole reply, not for its next octet. When it passes, or the caller cancels,
 * the connection is closed, and what waits on it ends with the Verdict that says why.
 */
import type { Clock } from "../../actors/ports.ts";
import type { Connection, TlsClientOptions, TlsSession } from "../ports.ts";
import { commandLines } from "./envelope.ts";
import { ReplyError, ReplyParser, type SmtpReply } from "./reply.ts";
import type { Transcript } from "./transcript.ts";
import { DialogueEnded, type Phase, refused, type Verdict } from "./verdict.ts";

export class Dialogue {
  readonly #connection: Connection;
  readonly #clock: Clock;
  readonly #transcript: Transcript;
  #parser = new ReplyParser();
  /** Where the dialogue stands: what a cancelling now would interrupt. */
  #phase: Phase = "greeting";
  /** Why we closed the connection ourselves; explains the read that then fails. */
  #ended: Verdict | undefined;
  #closed = false;

  constructor(connection: Connection, clock: Clock, transcript: Transcript) {
    this.#connection = connection;
    this.#clock = clock;
    this.#transcript = transcript;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Before something is said to which the next reply must belong: nothing may wait that answers
   * nothing we asked, or every reply from here on would be taken for another one.
   * @throws DialogueEnded
   */
  expectSilence(phase: Phase): void {
    if (!this.#parser.pending) return;
    const error = "the host sent more than the replies to our commands";
    throw new DialogueEnded({ result: "error", phase, error, enhanced: "4.5.0", closed: true });
  }

  /** Runs a part of the dialogue, which begins with `phase`: what ends it becomes its verdict. */
  async run(signal: AbortSignal, phase: Phase, part: () => Promise<Verdict>): Promise<Verdict> {
    this.#phase = phase;
    const abort = () => this.#end("canceled", "canceled");
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
    try {
      if (this.#ended) return this.#ended;
      return await part();
    } catch (error) {
      if (error instanceof DialogueEnded) return error.verdict;
      this.close(); // a fault of our own; no final dot was sent, so nothing was accepted
      throw error;
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  /**
   * Sends commands, as one write. Does not wait: the deadline of the reply is the command's too.
   * @throws UnsafeCommand
   */
  command(...commands: readonly string[]): void {
    const octets = commandLines(commands);
    for (const command of commands) this.#transcript.client(command);
    this.put(octets);
  }

  /**
   * Sends a line that holds a secret; the transcript gets `shown` instead.
   * @throws UnsafeCommand
   */
  secret(line: string, shown: string): void {
    const octets = commandLines([line]);
    this.#transcript.client(shown);
    this.put(octets);
  }

  /** Sends octets without waiting: the read that follows says what happened to the connection. */
  put(octets: Uint8Array): void {
    this.#connection.write(octets).catch(() => {});
  }

  /**
   * The next reply.
   * @param shown what the transcript gets instead of a reply's lines
   * @throws DialogueEnded when there is none within `ms`, or nonsense
   */
  async reply(
    phase: Phase,
    ms: number,
    shown: (reply: SmtpReply) => readonly string[] = ({ lines }) => lines,
  ): Promise<SmtpReply> {
    this.#phase = phase;
    let cancel: (() => void) | undefined;
    try {
      for (;;) {
        const reply = this.#parser.next();
        if (reply) {
          this.#transcript.server(shown(reply));
          return reply;
        }
        if (this.#ended) throw new DialogueEnded(this.#ended);
        cancel ??= this.#deadline(ms);
        const octets = await this.#connection.read();
        if (octets === null) throw new Error("the host closed the connection");
        this.#parser.push(octets);
      }
    } catch (error) {
      if (this.#ended) throw new DialogueEnded(this.#ended);
      const nonsense = error instanceof ReplyError;
      if (nonsense) this.#transcript.server([`[${error.message}]`]);
      const why = nonsense
        ? error.message
        : `${messageOf(error)} while we waited for ${WAITING_FOR[phase]}`;
      throw new DialogueEnded({
        result: "error",
        phase,
        error: phase === "end" ? `${why}: outcome unknown` : why,
        enhanced: nonsense ? "4.5.0" : "4.4.2",
        closed: true,
      });
    } finally {
      cancel?.();
    }
  }

  /**
   * From here on, cancelling interrupts the content.
   * @throws DialogueEnded when the server has answered the content already
   */
  beginContent(octets: number): void {
    this.expectSilence("body");
    this.#phase = "body";
    this.#transcript.client(`[message: ${octets} octets]`);
  }

  /**
   * Writes a block of content and waits until the peer has room for more.
   * @param ms how long that may take
   * @param replyMs how long to look for a last word when the peer hangs up
   * @throws DialogueEnded
   */
  async block(octets: Uint8Array, ms: number, replyMs: number): Promise<void> {
    const cancel = this.#deadline(ms);
    try {
      await this.#connection.write(octets);
    } catch {
      if (this.#ended) throw new DialogueEnded(this.#ended);
      const reply = await this.reply("body", replyMs);
      throw new DialogueEnded({ ...refused("body", reply), closed: true });
    } finally {
      cancel();
    }
  }

  /**
   * The TLS handshake.
   * @throws DialogueEnded with `handshake` set when it fails
   */
  async startTls(options: TlsClientOptions, ms: number): Promise<TlsSession> {
    const cancel = this.#deadline(ms);
    try {
      const session = await this.#connection.startTls(options);
      this.#parser = new ReplyParser();
      this.#transcript.client(`[TLS: ${session.facts.protocol} ${session.facts.cipher}]`);
      return session;
    } catch (error) {
      const failed = `the TLS handshake failed: ${messageOf(error)}`;
      // A handshake that hangs has failed like one that is refused.
      const handshake = { handshake: true, tlsFailure: "validation-failure" } as const;
      const ended = this.#ended;
      throw new DialogueEnded(
        ended ? { ...ended, ...(ended.result === "timeout" ? handshake : {}) } : {
          result: "error",
          phase: "tls",
          error: failed,
          enhanced: "4.7.5",
          closed: true,
          ...handshake,
        },
      );
    } finally {
      cancel();
    }
  }

  /** QUIT, a short wait for its reply, close. Never throws. */
  async quit(ms: number): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    try {
      this.command("QUIT");
      await this.reply(this.#phase, ms);
    } catch {
      // Leaving anyway.
    }
    this.#connection.close();
  }

  close(): void {
    this.#closed = true;
    this.#connection.close();
  }

  /** Ends the dialogue with a timeout after `ms`, unless the returned function is called before. */
  #deadline(ms: number): () => void {
    return this.#clock.timer(Math.max(0, ms), () => {
      const seconds = Math.round(Math.max(0, ms) / 1000);
      this.#end("timeout", `gave up after ${seconds} s waiting for ${WAITING_FOR[this.#phase]}`);
    });
  }

  #end(result: "timeout" | "canceled", why: string): void {
    const phase = this.#phase;
    const error = phase === "end" ? `${why}: outcome unknown` : why;
    this.#ended ??= { result, phase, error, enhanced: "4.4.2", closed: true };
    this.close();
  }
}

const WAITING_FOR: Readonly<Record<Phase, string>> = {
  connect: "the connection",
  greeting: "the greeting",
  ehlo: "the reply to EHLO",
  tls: "TLS to begin",
  login: "the login",
  mail: "the reply to MAIL FROM",
  rcpt: "the reply to RCPT TO",
  data: "the reply to DATA",
  body: "the host to take the message",
  end: "the reply to the end of the message",
};

const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);

/**
 * Connection: the socket of one client, in clear or in TLS, as a session wants it.
 *
 * - Reading is bounded: with more than 64 KiB unused the socket is paused, and TCP slows the client.
 * - Replies collect until `flush`, so that a pipelined group is answered with one write.
 * - One timer serves all deadlines: it is moved by changing a number, and looks again when it rings.
 */
import { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import { type SecureContext, TLSSocket } from "node:tls";
import type { Clock } from "../../../actors/ports.ts";
import type { EventData } from "../../../events/catalogue.ts";
import { Input } from "./input.ts";
import type { SmtpLimits } from "./limits.ts";

/** What ended a wait. `interrupted` is our own doing: the server stops. */
export type Awaited = "ready" | "closed" | "timeout" | "interrupted";
export type TlsFacts = NonNullable<EventData<"Enqueued">["source"]["tls"]>;

const HIGH_WATER = 64 * 1024;

export class Connection {
  readonly input: Input;
  /** `address`, IPv4 also where it came mapped into IPv6, and `port` of the client. */
  readonly peer: { readonly address: string; readonly port: number };
  readonly #clock: Clock;
  readonly #limits: SmtpLimits;
  /** What it reads from and writes to: the socket itself, or the TLS around it. */
  #stream: Socket;
  #paused = false;
  /** No more octets will come: the client ended its side, or the connection broke. */
  #ended = false;
  #broken = false;
  #replies = "";
  /** Wakes whoever waits; at most one does. */
  #wake: ((why: Awaited) => void) | undefined;
  #waitsForDrain = false;
  /** Input does not end the wait. */
  #pausing = false;
  #deadline = Infinity;
  #cancelTimer: (() => void) | undefined;
  #timerAt = Infinity;
  /** Resolves when the socket is gone. */
  readonly closed: Promise<void>;
  #onClosed: () => void = () => {};
  /** Our listeners on the stream, by event. */
  readonly #handlers = {
    data: (chunk: Buffer) => this.#onData(chunk),
    end: () => this.#onEnd(),
    drain: () => this.#waitsForDrain && this.#awake("ready"),
    // "close" follows; there is nothing to tell a client that is gone.
    error: () => {},
    close: () => this.#close(),
  };

  constructor(socket: Socket, clock: Clock, limits: SmtpLimits) {
    this.#clock = clock;
    this.#limits = limits;
    this.closed = new Promise((resolve) => this.#onClosed = resolve);
    this.#stream = socket;
    this.input = new Input(limits);
    this.peer = {
      address: (socket.remoteAddress ?? "").replace(/^::ffff:(?=\d+\.)/i, ""),
      port: socket.remotePort ?? 0,
    };
    socket.setNoDelay(true);
    this.#listen(socket);
  }

  /** Everything that the client has sent, as far as it can be known, is used. */
  get drained(): boolean {
    return this.input.octets === 0 && !this.#paused;
  }

  /** Adds a reply; it is sent with the next `flush`, or at once when very many have collected. */
  reply(text: string): void {
    this.#replies += text;
    if (this.#replies.length > HIGH_WATER / 4) this.flush();
  }

  flush(): void {
    if (this.#replies === "" || this.#broken) return;
    this.#stream.write(this.#replies, "latin1");
    this.#replies = "";
  }

  /** Resolves when there is unused input, or will never be any; replies are sent first. */
  async more(ms: number): Promise<Awaited> {
    this.flush();
    // A client that sends and never reads must not make us hold its replies.
    if (this.#stream.writableLength > HIGH_WATER) {
      const held = this.input.octets;
      this.#waitsForDrain = true;
      const why = await this.#wait(ms);
      this.#waitsForDrain = false;
      if (why !== "ready" || this.input.octets > held) return why;
    }
    if (this.#ended || this.#broken) return "closed";
    this.#resume();
    return this.#wait(ms);
  }

  /** Waits, replies sent; `timeout` when the time is over. What comes meanwhile is kept. */
  async pause(ms: number): Promise<Awaited> {
    this.flush();
    if (this.#ended) return "closed";
    this.#pausing = true;
    const why = await this.#wait(ms);
    this.#pausing = false;
    return why;
  }

  /** Ends the wait that is on, if one is. */
  interrupt(): void {
    this.#awake("interrupted");
  }

  /**
   * Runs the server side of a TLS handshake. What came in clear and was not used is gone; the
   * caller has made sure that there was nothing (RFC 3207, section 4.2).
   * @returns what was negotiated, or why nothing was
   */
  async startTls(context: SecureContext, ms: number): Promise<TlsFacts | string> {
    this.flush();
    const plain = this.#stream;
    this.#unlisten(plain);
    plain.on("error", () => {}); // reported through the TLS socket
    this.input.clear();
    const secure = new TLSSocket(plain, { isServer: true, secureContext: context });
    this.#stream = secure;
    let fault = "the client closed the connection";
    secure.once("secure", () => this.#awake("ready"));
    secure.once("error", (error: Error) => fault = error.message);
    this.#listen(secure);
    this.#paused = false;
    const why = await this.#wait(ms);
    if (why !== "ready") {
      this.destroy();
      return why === "timeout" ? "the handshake took too long" : fault;
    }
    const protocol = secure.getProtocol() ?? "TLS";
    return { protocol, cipher: secure.getCipher().standardName };
  }

  /**
   * Sends what has collected and closes. The client gets a moment to read it and close too: a
   * socket closed over unread input would take our last reply with it.
   */
  end(): void {
    if (this.#broken) return;
    this.flush();
    this.#stream.off("data", this.#handlers.data).on("data", () => {});
    this.input.clear();
    this.#stream.end();
    this.#stream.resume();
    if (this.#ended) return;
    this.#wake = () => this.destroy();
    this.#setDeadline(this.#limits.linger);
  }

  destroy(): void {
    this.#stream.destroy();
    this.#close();
  }

  #listen(stream: Socket): void {
    for (const [event, handler] of Object.entries(this.#handlers)) stream.on(event, handler);
  }

  #unlisten(stream: Socket): void {
    for (const [event, handler] of Object.entries(this.#handlers)) stream.off(event, handler);
  }

  #onData(chunk: Buffer): void {
    this.input.push(chunk);
    if (this.input.octets > HIGH_WATER && !this.#paused) {
      this.#paused = true;
      this.#stream.pause();
    }
    if (!this.#waitsForDrain && !this.#pausing) this.#awake("ready");
  }

  #onEnd(): void {
    this.#ended = true;
    this.#awake("closed");
  }

  #close(): void {
    if (this.#broken) return;
    this.#broken = this.#ended = true;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#awake("closed");
    this.#onClosed();
  }

  #resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#stream.resume();
  }

  #wait(ms: number): Promise<Awaited> {
    if (this.#broken) return Promise.resolve("closed");
    this.#setDeadline(ms);
    return new Promise((resolve) => this.#wake = resolve);
  }

  #awake(why: Awaited): void {
    const wake = this.#wake;
    if (!wake) return;
    this.#wake = undefined;
    this.#deadline = Infinity;
    wake(why);
  }

  #setDeadline(ms: number): void {
    this.#deadline = this.#clock.monotonic() + ms;
    if (this.#cancelTimer && this.#timerAt <= this.#deadline) return;
    this.#cancelTimer?.();
    this.#setTimer(ms);
  }

  #setTimer(ms: number): void {
    this.#timerAt = this.#clock.monotonic() + ms;
    this.#cancelTimer = this.#clock.timer(ms, () => {
      this.#cancelTimer = undefined;
      if (this.#deadline === Infinity) return; // nobody waits; the next wait sets it again
      const left = this.#deadline - this.#clock.monotonic();
      if (left > 0) this.#setTimer(left);
      else this.#awake("timeout");
    });
  }
}

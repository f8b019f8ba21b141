/** A client that sends what it is told, right or wrong, and a listener on loopback to send it to. */
import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import type { Clock, Submission } from "../../../actors/ports.ts";
import type { AccountGate } from "../../../src/accounts/gate.ts";
import { SmtpServer, type SmtpServerOptions } from "../../../src/smtp/server.ts";
import { MemoryBodies, MemoryLog, MemorySubmitter, realClock } from "./fakes.ts";

const pem = (name: string) =>
  readFileSync(new URL(`../../../fixtures/tls/${name}`, import.meta.url), "utf8");
export const TLS = { cert: pem("localhost.cert.pem"), key: pem("localhost.key.pem") };
const CA = pem("ca.cert.pem");

export class RawClient {
  #chunks: Buffer[] = [];
  #wake: (() => void) | undefined;
  #ended = false;
  #socket: Socket;

  constructor(socket: Socket) {
    this.#socket = socket;
    this.#listen(socket);
  }

  static async connect(port: number): Promise<RawClient> {
    const socket = connectTcp({ port, host: "127.0.0.1" });
    socket.setNoDelay(true);
    await new Promise((resolve, reject) => socket.once("connect", resolve).once("error", reject));
    return new RawClient(socket);
  }

  get socket(): Socket {
    return this.#socket;
  }

  write(data: string | Uint8Array): void {
    this.#socket.write(typeof data === "string" ? Buffer.from(data) : data);
  }

  /** The next reply, its lines joined by LF; "" when the server has closed. */
  async reply(): Promise<string> {
    for (;;) {
      const received = Buffer.concat(this.#chunks);
      const text = received.toString("latin1");
      const whole = /^(?:\d{3}-[^\r\n]*\r\n)*\d{3} [^\r\n]*\r\n/.exec(text)?.[0];
      if (whole) {
        this.#chunks = [received.subarray(whole.length)];
        return whole.trimEnd().replaceAll("\r\n", "\n");
      }
      if (this.#ended) return "";
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  async command(line: string): Promise<string> {
    this.write(`${line}\r\n`);
    return await this.reply();
  }

  /** The codes of the next replies. */
  async codes(count: number): Promise<string> {
    const codes: string[] = [];
    for (let i = 0; i < count; i++) codes.push((await this.reply()).slice(0, 3));
    return codes.join(" ");
  }

  /** Everything that still comes until the server closes. */
  async rest(): Promise<string> {
    while (!this.#ended) await new Promise<void>((resolve) => this.#wake = resolve);
    return Buffer.concat(this.#chunks).toString("latin1");
  }

  async startTls(): Promise<TLSSocket> {
    this.#socket.removeAllListeners("data");
    const secure = connectTls({ socket: this.#socket, ca: [CA], servername: "localhost" });
    this.#socket = secure;
    this.#listen(secure);
    await new Promise((resolve, reject) =>
      secure.once("secureConnect", resolve).once("error", reject)
        .once("close", () => reject(new Error("closed in the handshake")))
    );
    return secure;
  }

  close(): void {
    this.#socket.destroy();
  }

  #listen(socket: Socket): void {
    const ended = () => {
      this.#ended = true;
      this.#wake?.();
    };
    socket.on("data", (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#wake?.();
    });
    socket.on("end", ended).on("error", ended).on("close", ended);
  }
}

export class Fixture {
  readonly bodies = new MemoryBodies();
  readonly submitter = new MemorySubmitter();
  readonly log = new MemoryLog();
  readonly server: SmtpServer;
  readonly #clients: RawClient[] = [];
  port = 0;

  constructor(
    options: Partial<SmtpServerOptions> = {},
    clock: Clock = realClock,
    gate?: AccountGate,
  ) {
    const { bodies, submitter, log } = this;
    this.server = new SmtpServer({ bodies, submitter, log, clock, ...(gate && { gate }) }, {
      name: "test",
      hostname: "mx.test",
      address: "127.0.0.1",
      port: 0,
      protocol: "smtp",
      ...options,
    });
  }

  async start(): Promise<this> {
    this.port = (await this.server.listen()).port;
    return this;
  }

  async connect(): Promise<RawClient> {
    const client = await RawClient.connect(this.port);
    this.#clients.push(client);
    return client;
  }

  /** A client that has been greeted and has said EHLO. */
  async greeted(): Promise<RawClient> {
    const client = await this.connect();
    await client.reply();
    await client.command("EHLO client.test");
    return client;
  }

  /** A client with an open transaction of one recipient. */
  async ready(): Promise<RawClient> {
    const client = await this.greeted();
    client.write("MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n");
    const codes = await client.codes(2);
    if (codes !== "250 250") throw new Error(`envelope refused: ${codes}`);
    return client;
  }

  /** The stored octets of a submission. */
  stored(submission: Submission): Buffer {
    return this.bodies.bodies.get(submission.body.sha256)!;
  }

  /** The stored octets without the fields that were added before them. */
  content(submission: Submission): Buffer {
    const stored = this.stored(submission);
    const added =
      /^(?:Received: (?:[^\r]*\r\n\t)*[^\r]*\r\n)(?:Date: [^\r]*\r\n)?(?:Message-ID: <S\d+@mx\.test>\r\n)?/
        .exec(stored.toString("latin1"))![0];
    return stored.subarray(added.length);
  }

  async stop(): Promise<void> {
    for (const client of this.#clients) client.close();
    await this.server.close(50);
  }
}

/** Lets everything that is ready happen. */
export const settle = (ms = 20) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits for something that is about to be so. */
export async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !condition(); i++) await settle(4);
  if (!condition()) throw new Error(`it never came to be: ${condition}`);
}

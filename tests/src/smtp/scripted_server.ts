/**
 * An SMTP server on loopback that does what a test tells it to: well-behaved by default, and any
 * reply can be replaced, withheld, or turned into a hang-up.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import net from "node:net";
import tls from "node:tls";

/** Instead of a reply: hang up at once, or say nothing. */
export const HANG_UP = Symbol("hang up");
export const SILENCE = Symbol("silence");
export type Answer = string | typeof HANG_UP | typeof SILENCE;

/** Keys: "greeting", a verb in upper case, or "." for the end of a message. */
export type Answers = Record<string, Answer | ((line: string, connection: number) => Answer)>;

export interface Script {
  extensions?: string[];
  answers?: Answers;
  /** Offers STARTTLS with this key and certificate. */
  tls?: { key: string; cert: string };
  /** Sends every answer one octet at a time, an octet in so many milliseconds. */
  pace?: number;
  /** Answers the first octets of a TLS handshake with something else. */
  garbleTls?: boolean;
  /** TLS from the first octet, with the key and certificate of `tls`. */
  implicitTls?: boolean;
  /** Asks for the client's certificate. */
  requestCert?: boolean;
  /** Answers AUTH and the lines of its exchange; a reply 334 asks for another line. */
  auth?: (line: string, turn: number) => Answer | Promise<Answer>;
  /** Reads nothing of the message after DATA. */
  stopReading?: boolean;
}

export interface ReceivedMessage {
  /** Octets between DATA and the final dot, unstuffed. */
  content: Buffer;
  connection: number;
  tls: boolean;
  /** SHA-256 of the certificate that the client showed, hex. */
  clientCertificate?: string;
}

export class ScriptedServer {
  readonly commands: string[] = [];
  readonly messages: ReceivedMessage[] = [];
  connections = 0;
  open = 0;
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();

  private constructor(readonly script: Script) {
    this.#server = net.createServer((socket) => this.#serve(socket));
  }

  static async start(script: Script = {}, host = "127.0.0.1", port = 0): Promise<ScriptedServer> {
    const server = new ScriptedServer(script);
    await new Promise<void>((resolve, reject) => {
      server.#server.once("error", reject);
      server.#server.listen(port, host, resolve);
    });
    return server;
  }

  get port(): number {
    return (this.#server.address() as net.AddressInfo).port;
  }

  /** Cuts all connections, as a restart of the server would. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async stop(): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #serve(plain: net.Socket): void {
    const connection = ++this.connections;
    this.open++;
    this.#sockets.add(plain);
    plain.on("close", () => {
      this.open--;
      this.#sockets.delete(plain);
    });
    let socket: net.Socket = plain;
    let rest = Buffer.alloc(0);
    let inData = false;
    /** Lines of a login so far; -1 when none goes on. */
    let turn = -1;

    const secured = (): tls.TLSSocket => {
      const { tls: keys, requestCert = false } = this.script;
      const options = { isServer: true, ...keys, requestCert, rejectUnauthorized: false };
      const secure = new tls.TLSSocket(plain, options);
      secure.on("error", () => plain.destroy());
      secure.on("data", take);
      return secure;
    };
    const logIn = async (line: string) => {
      const value = await this.script.auth!(line, turn++);
      if (value === HANG_UP) socket.destroy();
      else if (value !== SILENCE) send(`${value}\r\n`);
      if (typeof value !== "string" || !value.startsWith("334")) turn = -1;
    };
    const send = (answer: string) => {
      const octets = Buffer.from(answer, "latin1");
      if (!this.script.pace) return void socket.write(octets);
      let at = 0;
      const timer = setInterval(() => {
        if (at >= octets.length || socket.destroyed) return clearInterval(timer);
        socket.write(octets.subarray(at, ++at));
      }, this.script.pace);
    };
    const answer = (key: string, line: string, otherwise: string): boolean => {
      const scripted = this.script.answers?.[key] ?? otherwise;
      const value = typeof scripted === "function" ? scripted(line, connection) : scripted;
      if (value === HANG_UP) socket.destroy();
      else if (value !== SILENCE) send(value.endsWith("\n") ? value : `${value}\r\n`);
      return typeof value === "string" && /^[23]/.test(value);
    };
    const command = (line: string) => {
      this.commands.push(line);
      if (turn >= 0) return void logIn(line);
      const verb = line.split(" ")[0]!.toUpperCase();
      switch (verb) {
        case "EHLO": {
          const keywords = [...this.script.extensions ?? ["PIPELINING", "8BITMIME"]];
          if (this.script.tls && socket === plain) keywords.push("STARTTLS");
          const lines = ["sink.test", ...keywords];
          answer(
            verb,
            line,
            lines.map((text, n) => `250${n === lines.length - 1 ? " " : "-"}${text}\r\n`).join(""),
          );
          break;
        }
        case "STARTTLS":
          if (answer(verb, line, "220 2.0.0 go ahead")) {
            plain.off("data", take);
            if (this.script.garbleTls) plain.once("data", () => plain.end("554 no TLS here\r\n"));
            // Without a certificate the handshake is never answered.
            if (this.script.tls) socket = secured();
          }
          break;
        case "AUTH":
          if (!this.script.auth) return void answer(verb, line, "502 5.5.1 no AUTH");
          turn = 0;
          void logIn(line);
          break;
        case "DATA":
          inData = answer(verb, line, "354 go on");
          if (inData && this.script.stopReading) socket.pause();
          break;
        case "QUIT":
          answer(verb, line, "221 2.0.0 bye");
          socket.end();
          break;
        default:
          answer(verb, line, "250 2.0.0 ok");
      }
    };
    const take = (octets: Buffer) => {
      rest = Buffer.concat([rest, octets]);
      for (;;) {
        if (inData) {
          const whole = Buffer.concat([Buffer.from("\r\n"), rest]);
          const end = whole.indexOf("\r\n.\r\n");
          if (end < 0) return;
          rest = whole.subarray(end + 5);
          inData = false;
          const raw = end === 0 ? "" : whole.subarray(2, end + 2).toString("latin1");
          const content = Buffer.from(raw.replace(/(^|\r\n)\./g, "$1"), "latin1");
          const certificate = (socket as tls.TLSSocket).getPeerCertificate?.();
          this.messages.push({
            content,
            connection,
            tls: socket !== plain,
            ...(certificate?.raw
              ? { clientCertificate: createHash("sha256").update(certificate.raw).digest("hex") }
              : {}),
          });
          answer(".", "", "250 2.0.0 queued");
          continue;
        }
        const end = rest.indexOf("\r\n");
        if (end < 0) return;
        const line = rest.subarray(0, end).toString("latin1");
        rest = rest.subarray(end + 2);
        command(line);
      }
    };
    plain.setNoDelay(true);
    plain.on("error", () => plain.destroy());
    if (this.script.implicitTls) socket = secured();
    else plain.on("data", take);
    answer("greeting", "", "220 sink.test ready");
  }
}

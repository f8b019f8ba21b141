/**
 * A SOCKS5 proxy on loopback for tests (RFC 1928, RFC 1929), well-behaved or not, and what it was
 * asked for. Addresses of the documentation range lead to ports of this machine.
 */
import { Buffer } from "node:buffer";
import net from "node:net";

export interface ProxyScript {
  /** Asks for this login. */
  login?: { username: string; password: string };
  /** Reply code of CONNECT instead of connecting. */
  refuse?: number;
  /** Does this instead of the step of that name. */
  misbehave?: {
    at: "greeting" | "login" | "connect";
    /** `half`: sends the beginning of the reply and closes. */
    how: "hang" | "close" | "half" | "socks4" | "garbage";
  };
  /** Sends the reply to CONNECT together with what the host says first. */
  eager?: boolean;
  /** Where connections are made from. */
  localAddress?: string;
}

export class SocksProxy {
  /** What CONNECT asked for: "192.0.2.1:25", or a name, which must never be asked for. */
  readonly asked: string[] = [];
  readonly logins: string[] = [];
  readonly clients: string[] = [];
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();

  private constructor(
    readonly script: ProxyScript,
    readonly ports: ReadonlyMap<string, number>,
  ) {
    this.#server = net.createServer((socket) => {
      this.#keep(socket);
      this.clients.push(socket.remoteAddress ?? "");
      this.#serve(socket).catch(() => socket.destroy());
    });
  }

  /** @param ports of this machine by address */
  static async start(
    ports: ReadonlyMap<string, number>,
    script: ProxyScript = {},
  ): Promise<SocksProxy> {
    const proxy = new SocksProxy(script, ports);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as net.AddressInfo).port;
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #keep(socket: net.Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => this.#sockets.delete(socket));
  }

  /** True when the script has something else in mind for this step. */
  #misbehaves(step: string, socket: net.Socket): boolean {
    const { misbehave } = this.script;
    if (misbehave?.at !== step) return false;
    switch (misbehave.how) {
      case "close":
        socket.end();
        break;
      case "half":
        socket.end(Buffer.of(5));
        break;
      case "socks4":
        socket.write(Buffer.of(0, 0x5b, 0, 0, 0, 0, 0, 0));
        break;
      case "garbage":
        socket.write("HTTP/1.1 400 Bad Request\r\n\r\n");
        break;
      case "hang":
    }
    return true;
  }

  async #serve(socket: net.Socket): Promise<void> {
    const take = reader(socket);
    const { login, refuse, eager, localAddress } = this.script;
    const [, methods] = await take(2);
    const offered = await take(methods!);
    if (this.#misbehaves("greeting", socket)) return;
    const method = login ? 2 : 0;
    if (!offered.includes(method)) return void socket.end(Buffer.of(5, 0xff));
    socket.write(Buffer.of(5, method));
    if (login) {
      const username = await take((await take(2))[1]!);
      const password = await take((await take(1))[0]!);
      this.logins.push(username.toString());
      if (this.#misbehaves("login", socket)) return;
      const right = username.toString() === login.username &&
        password.toString() === login.password;
      if (!right) return void socket.end(Buffer.of(1, 1));
      socket.write(Buffer.of(1, 0));
    }
    const type = (await take(4))[3];
    const host = type === 1
      ? (await take(4)).join(".")
      : type === 3
      ? (await take((await take(1))[0]!)).toString()
      : new URL(`http://[${(await take(16)).toString("hex").replace(/(.{4})(?!$)/g, "$1:")}]`)
        .hostname.slice(1, -1);
    const port = (await take(2)).readUInt16BE();
    this.asked.push(`${host}:${port}`);
    if (this.#misbehaves("connect", socket)) return;
    const to = this.ports.get(host);
    const answer = (code: number) => Buffer.of(5, code, 0, 1, 127, 0, 0, 1, 0, 0);
    if (refuse !== undefined) return void socket.end(answer(refuse));
    if (to === undefined) return void socket.end(answer(5));
    const out = net.connect({
      host: "127.0.0.1",
      port: to,
      ...(localAddress === undefined ? {} : { localAddress }),
    });
    this.#keep(out);
    out.on("connect", () => {
      const relay = () => {
        out.pipe(socket);
        socket.pipe(out);
        socket.resume();
      };
      if (!eager) {
        socket.write(answer(0));
        return relay();
      }
      out.once("data", (first: Buffer) => {
        socket.write(Buffer.concat([answer(0), first]));
        relay();
      });
    });
    out.on("close", () => socket.destroy());
    socket.on("close", () => out.destroy());
  }
}

/** Reads so many octets; what comes after is left to the next reading. */
function reader(socket: net.Socket): (length: number) => Promise<Buffer> {
  return async (length) => {
    for (;;) {
      const octets = length === 0 ? Buffer.alloc(0) : socket.read(length) as Buffer | null;
      if (octets) return octets;
      if (socket.destroyed || socket.readableEnded) throw new Error("the client has gone");
      await new Promise<void>((resolve) => {
        const done = () => {
          socket.off("readable", done).off("close", done);
          resolve();
        };
        socket.on("readable", done).on("close", done);
      });
    }
  };
}

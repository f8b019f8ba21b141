/** A name server on loopback, UDP and TCP on one port, that answers as the test says. */
import { Buffer } from "node:buffer";
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { createServer, type Server, type Socket } from "node:net";
import type { AddressInfo } from "node:net";
// @ts-types="@types/dns-packet"
import { type Answer, decode, type DecodedPacket, encode, type Packet } from "dns-packet";

export interface Asked {
  readonly via: "udp" | "tcp";
  readonly packet: DecodedPacket;
  readonly name: string;
  readonly type: string;
  readonly port: number;
  /** Sends more datagrams, from the server's address or from another socket. */
  readonly send: (octets: Uint8Array, from?: UdpSocket) => void;
}

/** What to send back; undefined is silence. */
export type Handler = (asked: Asked) => Uint8Array | undefined | Promise<Uint8Array | undefined>;

export class DnsServer {
  readonly asked: Asked[] = [];
  readonly #udp: UdpSocket;
  readonly #tcp: Server;
  readonly #sockets = new Set<Socket>();
  #handler: Handler;
  port = 0;

  private constructor(handler: Handler) {
    this.#handler = handler;
    this.#udp = createSocket("udp4");
    this.#tcp = createServer((socket) => this.#accept(socket));
  }

  static async start(handler: Handler): Promise<DnsServer> {
    const server = new DnsServer(handler);
    await new Promise<void>((resolve) => server.#tcp.listen(0, "127.0.0.1", resolve));
    server.port = (server.#tcp.address() as AddressInfo).port;
    server.#udp.on("message", (message, from) => server.#datagram(message, from.port));
    await new Promise<void>((resolve) => server.#udp.bind(server.port, "127.0.0.1", resolve));
    return server;
  }

  get name(): string {
    return `127.0.0.1:${this.port}`;
  }

  async stop(): Promise<void> {
    this.#udp.close();
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#tcp.close(() => resolve()));
  }

  async #datagram(message: Buffer, port: number): Promise<void> {
    const send = (octets: Uint8Array, from = this.#udp) => from.send(octets, port, "127.0.0.1");
    const answer = await this.#ask(message, "udp", port, send);
    if (answer) send(answer);
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => this.#sockets.delete(socket));
    let received = Buffer.alloc(0);
    socket.on("data", async (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return;
      const answer = await this.#ask(received.subarray(2), "tcp", 0, () => {});
      if (!answer) return void socket.end();
      const prefix = Buffer.alloc(2);
      prefix.writeUInt16BE(answer.length);
      // In pieces, as TCP may deliver it.
      socket.write(prefix.subarray(0, 1));
      socket.write(Buffer.concat([prefix.subarray(1), answer.subarray(0, 5)]));
      socket.write(answer.subarray(5));
    });
  }

  async #ask(
    message: Buffer,
    via: "udp" | "tcp",
    port: number,
    send: Asked["send"],
  ): Promise<Uint8Array | undefined> {
    const packet = decode(message);
    const { name = "", type = "A" } = packet.questions?.[0] ?? {};
    const asked: Asked = { via, packet, name, type, port, send };
    this.asked.push(asked);
    return await this.#handler(asked);
  }
}

export const FLAGS = { tc: 1 << 9, ad: 1 << 5, rd: 1 << 8, ra: 1 << 7 };
export const RCODE = { formerr: 1, servfail: 2, nxdomain: 3, refused: 5 };

/** A response to what was asked, with records, flags (RCODE among them) and whatever else. */
export function reply(
  asked: Asked,
  answers: Answer[] = [],
  { flags = 0, ...more }: Partial<Packet> = {},
): Uint8Array {
  return encode({
    type: "response",
    id: asked.packet.id ?? 0,
    flags: FLAGS.rd | FLAGS.ra | flags,
    questions: asked.packet.questions ?? [],
    answers,
    ...more,
  });
}

export const soa = (name: string, ttl: number, minimum: number): Answer => ({
  type: "SOA",
  name,
  ttl,
  data: { mname: `ns.${name}`, rname: `john\\.doe.${name}`, serial: 1, minimum },
});

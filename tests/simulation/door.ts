/**
 * The way in over SMTP: the real session of the server over virtual sockets. Takes the place of
 * src/smtp/server.ts, which listens on real ones.
 */
import { Buffer } from "node:buffer";
import { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import type { BodyStore, Log, Submitter } from "../../actors/ports.ts";
import { Connection } from "../../src/smtp/server/connection.ts";
import { DEFAULT_SMTP_LIMITS } from "../../src/smtp/server/limits.ts";
import { Session } from "../../src/smtp/server/session.ts";
import { HOSTNAME } from "./configuration.ts";
import type { Process } from "./process.ts";
import type { Dice } from "./random.ts";

/** What the client at the other end of a socket hears. */
export interface ClientEnd {
  /** The process has handed octets to its system; they arrive later. */
  handedOver(text: string): void;
  octets(text: string): void;
  /** The server has ended the stream, or its process has died. */
  gone(): void;
}

export class Door {
  readonly #sessions = new Map<Connection, Session>();

  constructor(
    readonly process: Process,
    readonly dice: Dice,
    readonly ports: {
      submitter: Submitter;
      bodies: BodyStore;
      log: Log;
      /** A client has come, from that address and port. */
      connected: (peer: string) => void;
    },
  ) {}

  connect(client: ClientEnd): VirtualSocket {
    const socket = new VirtualSocket(this.process, this.dice, client);
    this.ports.connected(`${socket.remoteAddress}:${socket.remotePort}`);
    const listener = {
      ...this.ports,
      clock: this.process,
      name: "local",
      hostname: HOSTNAME,
      limits: DEFAULT_SMTP_LIMITS,
      implicitTls: false,
      loopback: true,
      tls: undefined,
      gate: undefined,
      counters: {
        connectionsAccepted: 0,
        connectionsRefused: 0,
        messagesAccepted: 0,
        messagesRefused: 0,
        tlsFailures: 0,
      },
    };
    // What of a socket the connection uses is all there.
    const connection = new Connection(socket as unknown as Socket, this.process, listener.limits);
    const session = new Session(listener, connection);
    this.#sessions.set(connection, session);
    Promise.all([connection.closed, session.run()]).then(() => this.#sessions.delete(connection));
    return socket;
  }

  /** As src/smtp/server.ts does it: content that is under way may end within the grace period. */
  async close(grace: number): Promise<void> {
    for (const session of this.#sessions.values()) session.stop();
    const cancel = this.process.timer(grace, () => {
      for (const connection of this.#sessions.keys()) connection.destroy();
    });
    while (this.#sessions.size > 0) {
      await new Promise<void>((resolve) => void this.process.timer(10, resolve));
    }
    cancel();
  }
}

/** The part of net.Socket that a session uses; `arrive`, `hangUp` and `reset` are the client's. */
export class VirtualSocket extends EventEmitter {
  readonly remoteAddress = "127.0.0.1";
  readonly remotePort: number;
  readonly writableLength = 0;
  #paused = false;
  #arrived: Uint8Array[] = [];
  #peerEnded = false;
  #ended = false;
  #destroyed = false;
  #toServerAt = 0;
  #toClientAt = 0;

  constructor(readonly process: Process, readonly dice: Dice, readonly client: ClientEnd) {
    super();
    this.remotePort = dice.int(1_024, 65_535);
    process.onDeath(this.#died);
  }

  setNoDelay(): void {}

  write(text: string): boolean {
    if (!this.process.alive || this.#destroyed || this.#ended) return true;
    this.process.boundary(this.process, "before a reply");
    if (!this.process.alive) return true;
    this.client.handedOver(text);
    this.#toClient(() => this.client.octets(text));
    this.process.boundary(this.process, "after a reply");
    return true;
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    const { time } = this.process;
    time.after(0, () => this.#drain());
  }

  end(): void {
    if (this.#ended || !this.process.alive) return;
    this.#ended = true;
    this.#toClient(() => this.client.gone());
    if (this.#peerEnded) this.destroy();
  }

  destroy(): void {
    if (this.#destroyed || !this.process.alive) return;
    this.#destroyed = true;
    this.process.forget(this.#died);
    if (!this.#ended) this.#toClient(() => this.client.gone());
    void this.process.timer(0, () => this.emit("close"));
  }

  // The client's end.

  arrive(octets: Uint8Array): void {
    this.#toServer(() => {
      this.#arrived.push(octets);
      this.#drain();
    });
  }

  hangUp(): void {
    this.#toServer(() => {
      this.#peerEnded = true;
      this.emit("end");
      if (this.#ended) this.destroy();
    });
  }

  reset(): void {
    this.#toServer(() => {
      this.emit("error", new Error("read ECONNRESET"));
      this.destroy();
    });
  }

  readonly #died = (): void => this.#toClient(() => this.client.gone());

  #drain(): void {
    while (!this.#paused && this.process.alive && !this.#destroyed) {
      const octets = this.#arrived.shift();
      if (!octets) return;
      this.emit("data", Buffer.from(octets));
    }
  }

  #toServer(run: () => void): void {
    const { time } = this.process;
    this.#toServerAt = Math.max(this.#toServerAt, time.monotonic() + this.dice.between(0, 30));
    time.after(this.#toServerAt - time.monotonic(), () => {
      if (this.process.alive && !this.#destroyed) run();
    });
  }

  #toClient(run: () => void): void {
    const { time } = this.process;
    this.#toClientAt = Math.max(this.#toClientAt, time.monotonic() + this.dice.between(0, 30));
    time.after(this.#toClientAt - time.monotonic(), run);
  }
}

/**
 * The virtual network: hosts that listen at addresses, and byte streams to them with latency,
 * fragments, resets and silence. The process under test sees it through the Dialer port.
 */
import { type Dialer, DialError, type Endpoint, type TlsClientOptions } from "../../src/ports.ts";
import type { Connection, TlsSession } from "../../src/ports.ts";
import type { VirtualTime } from "./clock.ts";
import type { Process } from "./process.ts";
import type { Dice } from "./random.ts";

/** What a host does with one connection. */
export interface Peer {
  /** Octets of the client have arrived. */
  octets(octets: Uint8Array): void;
  /** The client has closed, or its process has died. */
  gone(): void;
}

/** The host's end of a connection. */
export interface HostEnd {
  /** Sends octets; `seen` is called when the client's code has read the last of them. */
  send(octets: Uint8Array, seen?: () => void): void;
  /** Ends the stream in order, behind what was sent. */
  end(): void;
  /** Resets: what is under way in either direction is lost. */
  reset(): void;
  readonly process: Process;
  /** The address that was dialled. */
  readonly remote: Endpoint;
}

export interface Host {
  readonly name: string;
  /** How it answers an attempt to connect now. */
  reachable(): "open" | "refused" | "unreachable" | "silent";
  accept(end: HostEnd): Peer;
  /** Whether the next TLS handshake succeeds. */
  handshake(): boolean;
}

export interface NetworkObserver {
  dialled(process: Process, target: Endpoint): void;
  wrote(process: Process, target: Endpoint, octets: Uint8Array): void;
}

export class Network {
  readonly #hosts = new Map<string, Host>();

  constructor(
    readonly time: VirtualTime,
    readonly dice: Dice,
    readonly observer: NetworkObserver,
  ) {}

  listen(address: string, port: number, host: Host): void {
    this.#hosts.set(`${address} ${port}`, host);
  }

  /** The network as one process sees it. */
  dialer(process: Process): Dialer {
    return {
      connect: (target, signal) => this.#connect(process, target, signal),
    };
  }

  /** One-way latency in milliseconds. */
  latency(): number {
    return this.dice.chance(0.02) ? this.dice.between(100, 3_000) : this.dice.between(0.5, 60);
  }

  #connect(process: Process, target: Endpoint, signal: AbortSignal): Promise<Connection> {
    const { promise, resolve, reject } = Promise.withResolvers<Connection>();
    let settled = false;
    const aborted = () => {
      if (settled) return;
      settled = true;
      const { reason } = signal;
      reject(
        reason instanceof DialError ? reason : new DialError("canceled", "the dial was aborted"),
      );
    };
    if (signal.aborted) {
      aborted();
      return promise;
    }
    if (!process.alive) return promise;
    signal.addEventListener("abort", aborted, { once: true });
    this.observer.dialled(process, target);
    const host = this.#hosts.get(`${target.address} ${target.port}`);
    const answer = host ? host.reachable() : "unreachable";
    if (answer === "silent") return promise; // until the caller's signal aborts
    process.call(`connect ${target.address}`, 2 * this.latency(), () => {
      if (settled) return undefined;
      if (!host || answer !== "open") {
        throw new DialError(answer === "refused" ? "refused" : "unreachable", `${answer}`);
      }
      return new VirtualConnection(this, process, host, target);
    }).then((connection) => {
      if (settled) return connection?.close();
      settled = true;
      signal.removeEventListener("abort", aborted);
      if (connection) resolve(connection);
    }, (cause) => {
      if (settled) return;
      settled = true;
      signal.removeEventListener("abort", aborted);
      reject(cause);
    });
    return promise;
  }
}

interface Mark {
  readonly offset: number;
  readonly seen: () => void;
}

class VirtualConnection implements Connection, HostEnd {
  readonly local: Endpoint;
  readonly #peer: Peer;
  /** Octets that have arrived at the client and were not read. */
  #arrived: Uint8Array[] = [];
  #ended = false;
  #broken: Error | undefined;
  #wakeReader: (() => void) | undefined;
  #sent = 0;
  #read = 0;
  #marks: Mark[] = [];
  /** When the last octets in each direction arrive: what is sent later comes no earlier. */
  #toHostAt = 0;
  #toClientAt = 0;

  constructor(
    readonly network: Network,
    readonly process: Process,
    readonly host: Host,
    readonly remote: Endpoint,
  ) {
    this.local = { address: "192.0.2.1", port: network.dice.int(1_024, 65_535) };
    this.#peer = host.accept(this);
    process.onDeath(this.#hangUp);
  }

  // The client's end.

  async read(): Promise<Uint8Array | null> {
    while (this.#arrived.length === 0 && !this.#ended && !this.#broken) {
      await new Promise<void>((resolve) => this.#wakeReader = resolve);
    }
    if (!this.process.alive) return await new Promise(() => {});
    if (this.#broken) throw this.#broken;
    const octets = this.#arrived.shift();
    if (!octets) return null;
    this.#read += octets.length;
    while (this.#marks[0] && this.#marks[0].offset <= this.#read) this.#marks.shift()!.seen();
    return octets;
  }

  async write(octets: Uint8Array): Promise<void> {
    if (!this.process.alive) return await new Promise(() => {});
    if (this.#broken) throw this.#broken;
    this.network.observer.wrote(this.process, this.remote, octets);
    await this.process.call(`write to ${this.host.name}`, this.network.dice.between(0, 2), () => {
      if (this.#broken) throw this.#broken;
      for (const piece of this.#pieces(octets)) {
        this.#toHostAt = this.#later(this.#toHostAt);
        this.network.time.after(this.#toHostAt - this.network.time.monotonic(), () => {
          if (!this.#broken || this.#flying) this.#peer.octets(piece);
        });
      }
    });
  }

  async startTls(options: TlsClientOptions): Promise<TlsSession> {
    if (this.#broken) throw this.#broken;
    const works = this.host.handshake();
    return await this.process.call(`TLS with ${this.host.name}`, 4 * this.network.latency(), () => {
      this.#arrived = [];
      if (this.#broken) throw this.#broken;
      if (!works) {
        this.close();
        throw new Error(`handshake with ${options.serverName ?? this.host.name} failed`);
      }
      return {
        facts: { protocol: "TLSv1.3", cipher: "TLS_AES_256_GCM_SHA384" },
        chainTrusted: false,
        chainError: "self-signed certificate",
        chain: [],
      };
    });
  }

  close(): void {
    if (this.#broken) return;
    this.#breakWith("the connection was closed");
    if (this.process.alive) this.#tellHost(true);
  }

  // The host's end.

  send(octets: Uint8Array, seen?: () => void): void {
    if (this.#broken || this.#ended) return;
    this.#sent += octets.length;
    if (seen) this.#marks.push({ offset: this.#sent, seen });
    for (const piece of this.#pieces(octets)) {
      this.#toClient(() => this.#arrived.push(piece));
    }
  }

  end(): void {
    this.#toClient(() => this.#ended = true);
  }

  reset(): void {
    this.#toClientAt = 0;
    this.#toClient(() => this.#breakWith("the peer reset the connection"));
  }

  // Below.

  /** True while octets that a dead or closed client had sent still travel. */
  #flying = false;

  /** The process died: the system resets its connections, what was written may still arrive. */
  readonly #hangUp = (): void => {
    if (this.#broken) return;
    this.#breakWith("the process died");
    this.#tellHost(this.network.dice.chance(0.5));
  };

  #tellHost(arrives: boolean): void {
    this.#flying = arrives;
    this.#toHostAt = this.#later(this.#toHostAt);
    this.network.time.after(this.#toHostAt - this.network.time.monotonic(), () => {
      this.#flying = false;
      this.#peer.gone();
    });
  }

  #breakWith(why: string): void {
    this.#broken ??= Object.assign(new Error(why), { code: "ECONNRESET" });
    this.process.forget(this.#hangUp);
    this.#arrived = [];
    this.#wake();
  }

  #toClient(arrive: () => void): void {
    this.#toClientAt = this.#later(this.#toClientAt);
    this.network.time.after(this.#toClientAt - this.network.time.monotonic(), () => {
      if (this.#broken) return;
      arrive();
      this.#wake();
    });
  }

  #wake(): void {
    const wake = this.#wakeReader;
    this.#wakeReader = undefined;
    wake?.();
  }

  #later(earliest: number): number {
    return Math.max(earliest, this.network.time.monotonic() + this.network.latency());
  }

  /** Mostly whole, sometimes cut where no protocol expects it. */
  *#pieces(octets: Uint8Array): Iterable<Uint8Array> {
    const { dice } = this.network;
    let rest = octets.slice();
    while (rest.length > 1 && dice.chance(0.1)) {
      const cut = dice.int(1, rest.length - 1);
      yield rest.subarray(0, cut);
      rest = rest.subarray(cut);
    }
    for (let at = 0; at < rest.length; at += 65_536) yield rest.subarray(at, at + 65_536);
  }
}

/**
 * The Dialer over real sockets: TCP by node:net, STARTTLS by node:tls.
 *
 * The handshake judges nothing (RFC 7435): it reports what was negotiated and presented, and the
 * TLS policy of the caller decides. Reading is by pull: a peer that sends faster than it is read is
 * held back by TCP once 64 KiB wait.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import net from "node:net";
import tls from "node:tls";
import {
  type Connection,
  type Dialer,
  DialError,
  type Endpoint,
  type TlsClientOptions,
  type TlsSession,
} from "../ports.ts";

/** Octets that may wait to be read, and that one read gives. */
const READ_AHEAD = 64 * 1024;
/** Certificates that are taken of a peer's chain. */
const MAX_CHAIN = 16;

export class SocketDialer implements Dialer {
  async connect(
    target: Endpoint & { readonly localAddress?: string },
    signal: AbortSignal,
  ): Promise<Connection> {
    const { address, port } = target;
    return new SocketConnection(await openSocket(target, signal), { address, port });
  }
}

/**
 * A connected socket, which the caller owns from then on.
 * @throws DialError, also when `signal` aborts
 */
export function openSocket(
  target: Endpoint & { readonly localAddress?: string },
  signal: AbortSignal,
): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(aborted(signal));
    const { address: host, port, localAddress } = target;
    const socket = net.connect({ host, port, ...(localAddress ? { localAddress } : {}) });
    const settle = () => {
      signal.removeEventListener("abort", onAbort);
      socket.off("error", onError);
      socket.off("close", onClose);
    };
    const onAbort = () => {
      settle();
      socket.on("error", () => {}); // what a dying socket says interests nobody
      socket.destroy();
      reject(aborted(signal));
    };
    const onError = (error: Error & { code?: string }) => {
      settle();
      socket.destroy();
      const kind = KINDS[error.code ?? ""] ?? "error";
      reject(new DialError(kind, notOurs(error, localAddress) ?? error.message));
    };
    const onClose = () => {
      settle();
      reject(new DialError("error", "the connection was closed while it was being made"));
    };
    signal.addEventListener("abort", onAbort, { once: true });
    socket.once("error", onError);
    socket.once("close", onClose);
    socket.once("connect", () => {
      settle();
      socket.setNoDelay(true);
      resolve(socket);
    });
  });
}

const NOT_BOUND: ReadonlySet<string> = new Set(["EADDRNOTAVAIL", "EINVAL"]);

/** Words for an address that this machine does not have; the system has none that help. */
const notOurs = (error: { code?: string; syscall?: string }, local: string | undefined) =>
  local !== undefined && (NOT_BOUND.has(error.code ?? "") || error.syscall === "bind")
    ? `local_address ${local} cannot be bound (${error.code}): is it an address of this machine?`
    : undefined;

const KINDS: Readonly<Record<string, DialError["kind"]>> = {
  ECONNREFUSED: "refused",
  EHOSTUNREACH: "unreachable",
  ENETUNREACH: "unreachable",
  EHOSTDOWN: "unreachable",
  EADDRNOTAVAIL: "unreachable",
  EAFNOSUPPORT: "unreachable",
  ETIMEDOUT: "timeout",
};

/** The reason of an abort may be a DialError of its own, or AbortSignal.timeout's. */
export function aborted(signal: AbortSignal): DialError {
  const { reason } = signal;
  if (reason instanceof DialError) return reason;
  const timeout = reason instanceof DOMException && reason.name === "TimeoutError";
  return timeout
    ? new DialError("timeout", "no connection in time")
    : new DialError("canceled", "canceled while connecting");
}

interface Waiter {
  resolve(octets: Uint8Array | null): void;
  reject(error: Error): void;
}

export class SocketConnection implements Connection {
  readonly remote: Endpoint;
  readonly local: Endpoint;
  #socket: net.Socket;
  #queue: Uint8Array[] = [];
  #queued = 0;
  #reader: Waiter | undefined;
  #writers: { resolve(): void; reject(error: Error): void }[] = [];
  #ended = false;
  #failure: Error | undefined;

  constructor(socket: net.Socket, remote: Endpoint) {
    this.remote = remote;
    this.local = { address: socket.localAddress ?? "", port: socket.localPort ?? 0 };
    this.#socket = socket;
    this.#listen();
  }

  #listen(): void {
    this.#socket.on("data", this.#onData);
    this.#socket.on("end", this.#onEnd);
    this.#socket.on("drain", this.#onDrain);
    this.#socket.on("error", this.#onError);
    this.#socket.on("close", this.#onClose);
  }

  readonly #onData = (octets: Uint8Array): void => {
    for (let at = 0; at < octets.length; at += READ_AHEAD) {
      const piece = octets.length <= READ_AHEAD ? octets : octets.subarray(at, at + READ_AHEAD);
      const reader = this.#reader;
      if (reader) {
        this.#reader = undefined;
        reader.resolve(piece);
        continue;
      }
      this.#queue.push(piece);
      this.#queued += piece.length;
    }
    if (this.#queued >= READ_AHEAD) this.#socket.pause();
  };

  readonly #onEnd = (): void => {
    this.#ended = true;
    this.#reader?.resolve(null);
    this.#reader = undefined;
  };

  readonly #onDrain = (): void => {
    const writers = this.#writers;
    this.#writers = [];
    for (const writer of writers) writer.resolve();
  };

  readonly #onError = (error: Error & { code?: string }): void => this.#fail(error);

  readonly #onClose = (): void => this.#fail(new Error("the connection is closed"));

  #fail(error: Error & { code?: string }): void {
    this.#failure ??= error.code === "ECONNRESET"
      ? new Error("the host reset the connection")
      : error;
    this.#reader?.reject(this.#failure);
    this.#reader = undefined;
    const writers = this.#writers;
    this.#writers = [];
    for (const writer of writers) writer.reject(this.#failure);
  }

  read(): Promise<Uint8Array | null> {
    const octets = this.#queue.shift();
    if (octets) {
      this.#queued -= octets.length;
      if (this.#queued < READ_AHEAD && this.#socket.isPaused()) this.#socket.resume();
      return Promise.resolve(octets);
    }
    if (this.#ended) return Promise.resolve(null);
    if (this.#failure) return Promise.reject(this.#failure);
    if (this.#reader) return Promise.reject(new Error("a read is waiting already"));
    return new Promise((resolve, reject) => {
      this.#reader = { resolve, reject };
    });
  }

  write(octets: Uint8Array): Promise<void> {
    if (this.#failure) return Promise.reject(this.#failure);
    if (this.#socket.write(octets)) return Promise.resolve();
    return new Promise((resolve, reject) => this.#writers.push({ resolve, reject }));
  }

  async startTls(options: TlsClientOptions): Promise<TlsSession> {
    const plain = this.#socket;
    if (this.#failure) throw this.#failure;
    plain.off("data", this.#onData);
    plain.off("end", this.#onEnd);
    plain.off("drain", this.#onDrain);
    plain.off("close", this.#onClose);
    this.#queue = [];
    this.#queued = 0;
    // The listener for "error" stays on the socket below: an error of it must find somebody.
    const { serverName, ca, certificate } = options;
    const secure = tls.connect({
      socket: plain,
      rejectUnauthorized: false,
      // Names are judged by the policy, so that `authorized` speaks of the chain alone.
      checkServerIdentity: () => undefined,
      ...(serverName === undefined ? {} : { servername: serverName }),
      ...(ca === undefined ? {} : { ca: [...ca] }),
      ...(certificate === undefined ? {} : { cert: certificate.cert, key: certificate.key }),
    });
    this.#socket = secure;
    this.#listen();
    await new Promise<void>((resolve, reject) => {
      secure.once("secureConnect", resolve);
      secure.once("error", reject);
      for (const event of ["end", "close"]) {
        secure.once(event, () => reject(new Error("the host closed the connection")));
      }
    }).catch((error) => {
      this.close();
      throw error;
    });
    return describe(secure);
  }

  close(): void {
    this.#fail(new Error("the connection is closed"));
    this.#queue = [];
    this.#socket.destroy();
  }
}

function describe(socket: tls.TLSSocket): TlsSession {
  const chain: Uint8Array[] = [];
  const seen = new Set<string>();
  let fingerprint: string | undefined;
  // A server may send a certificate twice, and a root names itself as its issuer.
  let certificate: tls.DetailedPeerCertificate | undefined = socket.getPeerCertificate(true);
  while (certificate?.raw && chain.length < MAX_CHAIN) {
    const digest = createHash("sha256").update(certificate.raw).digest("hex");
    if (seen.has(digest)) break;
    seen.add(digest);
    fingerprint ??= digest;
    chain.push(Buffer.from(certificate.raw));
    certificate = certificate.issuerCertificate;
  }
  const reason: unknown = socket.authorizationError;
  return {
    facts: {
      protocol: socket.getProtocol() ?? "unknown",
      cipher: socket.getCipher()?.name ?? "unknown",
      ...(fingerprint === undefined ? {} : { fingerprint }),
    },
    chainTrusted: socket.authorized,
    ...(socket.authorized
      ? {}
      : { chainError: reason instanceof Error ? reason.message : String(reason) }),
    chain,
  };
}

/**
 * A Dialer through a SOCKS5 proxy (RFC 1928; user name and password: RFC 1929). The proxy is given
 * addresses, never names: names are resolved here, so that what DNS says of a host still holds.
 *
 * A failure of the proxy itself is told from one behind it: the first ends the attempt, after the
 * second the next address is tried.
 */
import { SocksClient } from "socks";
import type { Socket } from "node:net";
import type { Secret } from "../config/secret.ts";
import { type Connection, type Dialer, DialError, type Endpoint } from "../ports.ts";
import { aborted, openSocket, SocketConnection } from "./dialer.ts";

export interface SocksProxy extends Endpoint {
  readonly username?: string;
  readonly password?: Secret;
  /** Address of this machine that the proxy is dialled from. */
  readonly localAddress?: string;
}

/**
 * Milliseconds after which the library gives up. The caller's deadline, which comes as an abort, is
 * shorter; the library keeps its timer, and with it the socket, until then even on success.
 */
const LIBRARY_TIMEOUT = 40_000;

export class SocksDialer implements Dialer {
  readonly #proxy: SocksProxy;
  readonly #name: string;

  constructor(proxy: SocksProxy) {
    this.#proxy = proxy;
    this.#name = `proxy ${formatEndpoint(proxy)}`;
  }

  async connect(target: Endpoint, signal: AbortSignal): Promise<Connection> {
    const { address, port } = target;
    let socket: Socket;
    try {
      socket = await openSocket(this.#proxy, signal);
    } catch (error) {
      if (!(error instanceof DialError)) throw error;
      const { kind, message } = error;
      throw new DialError(kind, `${this.#name} cannot be reached: ${message}`, true);
    }
    await this.#ask(socket, target, signal);
    return new SocketConnection(socket, { address, port });
  }

  /** Has the proxy connect; the socket is closed when that fails. */
  async #ask(socket: Socket, { address, port }: Endpoint, signal: AbortSignal): Promise<void> {
    const { promise: abort, reject } = Promise.withResolvers<never>();
    const onAbort = () => {
      const { kind, message } = aborted(signal);
      // Silent from the start, it is the proxy that hangs; later it may be what it connects to.
      const silent = socket.bytesRead === 0;
      const what = silent ? "does not answer" : `did not connect us to ${address}:${port}`;
      reject(new DialError(kind, `${this.#name} ${what}: ${message}`, silent));
    };
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    const { username, password } = this.#proxy;
    const asked = SocksClient.createConnection({
      proxy: {
        ipaddress: this.#proxy.address,
        port: this.#proxy.port,
        type: 5,
        ...(username === undefined ? {} : { userId: username }),
        ...(password === undefined ? {} : { password: password.reveal() }),
      },
      command: "connect",
      destination: { host: address, port },
      existing_socket: socket,
      timeout: LIBRARY_TIMEOUT,
    });
    try {
      await Promise.race([asked, abort]);
    } catch (error) {
      asked.catch(() => {}); // the socket is closed below, of which nobody need hear
      socket.on("error", () => {});
      socket.destroy();
      // What the library throws carries the password along: only its words are taken.
      throw error instanceof DialError ? error : this.#failure(error, `${address}:${port}`);
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  #failure(error: unknown, target: string): DialError {
    const said = error instanceof Error ? error.message : String(error);
    const reply = / rejected connection - (\w+)$/.exec(said)?.[1];
    const known = reply === undefined ? undefined : REPLIES[reply];
    if (known) {
      return new DialError(known.kind, `${this.#name} says that ${target} ${known.words}`);
    }
    const words = HANDSHAKE.find(([pattern]) => pattern.test(said))?.[1] ?? `failed: ${said}`;
    const kind = /timed out/.test(said) ? "timeout" : "error";
    return new DialError(kind, `${this.#name} ${words}`, true);
  }
}

/** The replies of RFC 1928, section 6, by the names that the library has for them. */
const REPLIES: Readonly<Record<string, { kind: DialError["kind"]; words: string }>> = {
  Failure: { kind: "error", words: "cannot be connected to" },
  NotAllowed: { kind: "error", words: "is not allowed by its rules" },
  NetworkUnreachable: { kind: "unreachable", words: "is in a network that it cannot reach" },
  HostUnreachable: { kind: "unreachable", words: "cannot be reached" },
  ConnectionRefused: { kind: "refused", words: "refused the connection" },
  TTLExpired: { kind: "unreachable", words: "is too far away (TTL expired)" },
  CommandNotSupported: { kind: "error", words: "is not to be had: it does not know CONNECT" },
  AddressNotSupported: { kind: "error", words: "has an address of a type that it does not know" },
};

/** What goes wrong before the proxy is asked for a connection. */
const HANDSHAKE: readonly (readonly [RegExp, string])[] = [
  [/invalid socks version/, "does not speak SOCKS5 (it may be a SOCKS4 proxy)"],
  [/no accepted authentication/, "takes none of our ways to log in: it wants user and password"],
  [/unknown authentication/, "wants a way to log in that was not offered"],
  [/Authentication failed/i, "refuses our user name and password"],
  [/Socket closed/, "closed the connection before it was done"],
];

/** "192.0.2.1:1080", "[2001:db8::1]:1080". */
export const formatEndpoint = ({ address, port }: Endpoint): string =>
  address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;

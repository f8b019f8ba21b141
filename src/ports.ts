/**
 * The ports of the delivery code: byte streams, dialling and name resolution.
 *
 * Real ones: delivery/dialer.ts (node:net, node:tls), dns/resolver.ts. The simulation wires a
 * virtual network and DNS behind the same interfaces.
 */
import type { EventData } from "../events/catalogue.ts";

export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

/** A connected byte stream. After `close` every pending and later call rejects. */
export interface Connection {
  readonly remote: Endpoint;
  readonly local: Endpoint;
  /** The next octets, at least one and at most 64 KiB; null when the peer has ended the stream. */
  read(): Promise<Uint8Array | null>;
  /** Resolves when the octets are handed to the system and more may follow (back-pressure). */
  write(octets: Uint8Array): Promise<void>;
  /**
   * Runs the client side of a TLS handshake on the stream; the connection then carries TLS.
   * Octets that arrived before the handshake are discarded (RFC 3207, section 4.2).
   * @throws Error when the handshake fails; the connection is then closed
   */
  startTls(options: TlsClientOptions): Promise<TlsSession>;
  /** Closes at once. Never throws, may be called twice. */
  close(): void;
}

export interface TlsClientOptions {
  /** Server name indication; absent for address literals. */
  readonly serverName?: string;
  /** Trust anchors in PEM instead of the system's CA store. */
  readonly ca?: readonly string[];
  /** Our certificate, in PEM, for a server that asks for one. */
  readonly certificate?: ClientCertificate;
}

export interface ClientCertificate {
  /** The chain, leaf first. */
  readonly cert: string;
  readonly key: string;
}

/** The outcome of a handshake. The handshake never judges the certificate: its caller does. */
export interface TlsSession {
  readonly facts: NonNullable<EventData<"HostTried">["tls"]>;
  /** Whether the chain verifies against the trust anchors (names not considered). */
  readonly chainTrusted: boolean;
  /** Why not, in OpenSSL's words. */
  readonly chainError?: string;
  /** The chain as presented, leaf first, DER; duplicates removed. */
  readonly chain: readonly Uint8Array[];
}

export interface Dialer {
  /**
   * Connects to an address (never a name).
   * @throws DialError, also when `signal` aborts
   */
  connect(
    target: Endpoint & { readonly localAddress?: string },
    signal: AbortSignal,
  ): Promise<Connection>;
}

/** A connection could not be made: `refused`, `unreachable`, `timeout`, `canceled` or `error`. */
export class DialError extends Error {
  override readonly name = "DialError";
  constructor(
    readonly kind: "refused" | "unreachable" | "timeout" | "canceled" | "error",
    message: string,
    /** The proxy failed, not what lies behind it: no other address is worth a try. */
    readonly proxy = false,
  ) {
    super(message);
  }
}

export interface RecordData {
  readonly A: string;
  readonly AAAA: string;
  readonly CNAME: string;
  readonly MX: { readonly preference: number; readonly exchange: string };
  readonly TXT: readonly Uint8Array[];
  readonly PTR: string;
  /** RFC 6698, section 2.1; `matching` is the matching type, `data` the association data. */
  readonly TLSA: {
    readonly usage: number;
    readonly selector: number;
    readonly matching: number;
    readonly data: Uint8Array;
  };
}
export type RecordType = keyof RecordData;

/**
 * The answer to a DNS question. Names are lower-case A-labels without the trailing dot.
 * - `records`: at least one record of the type asked for, at the end of `cnames`
 * - `nodata`: the name exists (or ends a CNAME chain) and has no such records
 * - `nxdomain`: the name at the end of `cnames` does not exist
 */
export interface Answer<T extends RecordType> {
  readonly status: "records" | "nodata" | "nxdomain";
  readonly records: readonly RecordData[T][];
  /** The CNAMEs that the answer followed, in order: each name that the one before points at. */
  readonly cnames: readonly string[];
  /** Seconds that the answer may be kept. */
  readonly ttl: number;
  /** AD was set by a resolver that is trusted with it. */
  readonly authentic: boolean;
}

/** Answers questions; the only way to names. */
export interface Resolver {
  /**
   * @throws DnsError when there is no answer to rely on: SERVFAIL, REFUSED, timeout, garbage.
   *   Always temporary, never to be read as "does not exist".
   */
  query<T extends RecordType>(name: string, type: T, signal?: AbortSignal): Promise<Answer<T>>;
}

export class DnsError extends Error {
  override readonly name = "DnsError";
  constructor(
    readonly kind: "timeout" | "servfail" | "refused" | "malformed" | "badname" | "canceled",
    message: string,
    /** The resolver's extended error (RFC 8914), where it gave one. */
    readonly extended?: { readonly code: number; readonly text: string },
  ) {
    super(message);
  }
}

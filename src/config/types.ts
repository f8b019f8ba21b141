/**
 * The configuration as the rest of the program sees it: every default filled in, durations in
 * milliseconds, sizes in octets, paths absolute, names of domains as lower-case A-labels.
 *
 * A kind of listener, transport or criterion that a later version adds is a new member of the
 * union here, a new shape in schema.ts, and nothing else in this folder.
 */
import type { RetryPolicy } from "../../actors/retry.ts";
import type { DomainPattern } from "./domain_pattern.ts";

/** An IP address (without brackets) and a port; port 0 asks the system for a free one. */
export interface SocketAddress {
  readonly address: string;
  readonly port: number;
}

export interface Config {
  /** Absolute path of the file that it was read from; absent for the built-in configuration. */
  readonly file?: string;
  /** Name of this host in greetings, EHLO, Received and Message-ID. */
  readonly hostname: string;
  /** Absolute path of the data folder. */
  readonly dataDir: string;
  readonly dns: DnsConfig;
  readonly listeners: readonly ListenerConfig[];
  readonly queue: QueueConfig;
  readonly routes: RouteTable;
  /** By name; always has "direct". */
  readonly transports: ReadonlyMap<string, TransportConfig>;
}

export interface DnsConfig {
  /** Recursive resolvers in order of preference; empty: those of the system. */
  readonly servers: readonly SocketAddress[];
  /** Whether the AD bit of an answer is believed; "auto": from a loopback resolver only. */
  readonly trustAd: "auto" | boolean;
}

export type ListenerConfig = SmtpListenerConfig | HttpListenerConfig;

/** A certificate chain and its key, as paths of PEM files. */
export interface CertificateFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

export interface SmtpListenerConfig {
  readonly protocol: "smtp";
  readonly name: string;
  readonly listen: SocketAddress;
  /** Offered with STARTTLS; absent: STARTTLS is not offered. */
  readonly certificate?: CertificateFiles;
  readonly limits: SmtpLimits;
}

export interface SmtpLimits {
  /** Octets of a message, announced with SIZE. */
  readonly maxSize: number;
  /** Recipients of one message. */
  readonly maxRecipients: number;
  /** Sessions at a time, in all and from one address. */
  readonly maxConnections: number;
  readonly maxConnectionsPerAddress: number;
  /** Commands of a session since the last that got a message further. */
  readonly maxIdleCommands: number;
  /** Milliseconds without an octet from the client (RFC 5321, section 4.5.3.2.7: five minutes). */
  readonly idleTimeout: number;
}

export interface HttpListenerConfig {
  readonly protocol: "http";
  readonly name: string;
  readonly listen: SocketAddress;
}

export interface QueueConfig {
  readonly retry: RetryPolicy;
  /** Attempts running at a time, in all and per destination. */
  readonly concurrency: number;
  readonly destinationConcurrency: number;
}

/** A route: every criterion that it has must hold; one without criteria takes every message. */
export interface RouteConfig {
  /** Where it stands in the file, for people: `routes[2]`. */
  readonly path: string;
  /** Any of these matches the domain of the sender. */
  readonly fromDomain?: readonly DomainPattern[];
  /** Any of these matches the domain of the recipient. */
  readonly toDomain?: readonly DomainPattern[];
  /** Matches when at least this many attempts have been made before this one. */
  readonly minimumAttempts?: number;
  /** Name of the transport. */
  readonly transport: string;
}

/** Routes by scope. The account of a message is asked first, then its sender's domain, then all. */
export interface RouteTable {
  readonly accounts: ReadonlyMap<string, readonly RouteConfig[]>;
  readonly domains: ReadonlyMap<string, readonly RouteConfig[]>;
  readonly global: readonly RouteConfig[];
}

export type TransportConfig = DirectTransportConfig | SmtpTransportConfig;

/** Delivery to the MX hosts of the recipient's domain. */
export interface DirectTransportConfig {
  readonly type: "direct";
  readonly name: string;
  readonly port: number;
  readonly ipFamily: IpFamily;
  /** MX hosts at loopback addresses are dialled too: for tests and demonstrations only. */
  readonly allowLoopback: boolean;
}

/** Delivery to one configured host, over SMTP with STARTTLS as `tls` says. */
export interface SmtpTransportConfig {
  readonly type: "smtp";
  readonly name: string;
  /** Host name (A-labels) or IP address without brackets. */
  readonly host: string;
  readonly port: number;
  readonly tls: SmarthostTls;
}

export const IP_FAMILIES = ["any", "ipv4", "ipv6"] as const;
export type IpFamily = (typeof IP_FAMILIES)[number];

/**
 * - `none`: STARTTLS is not used even where offered
 * - `opportunistic`: used where offered, certificate not checked, plain text otherwise
 * - `required`: no mail without it, certificate not checked
 * - `verified`: no mail without it and a certificate for the host's name (PKIX)
 */
export const SMARTHOST_TLS = ["none", "opportunistic", "required", "verified"] as const;
export type SmarthostTls = (typeof SMARTHOST_TLS)[number];

/** The transport that is always there, and is used when no route matches. */
export const DIRECT = "direct";

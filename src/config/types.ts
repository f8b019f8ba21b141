/**
 * The configuration as the rest of the program sees it: every default filled in, durations in
 * milliseconds, sizes in octets, paths absolute, names of domains as lower-case A-labels.
 *
 * A kind of listener, transport or criterion that a later version adds is a new member of the
 * union here, a new shape in schema.ts, and nothing else in this folder.
 */
import type { RetryPolicy } from "../../actors/retry.ts";
import type { WebhookKind } from "../../actors/webhook_message.ts";
import type { AddressPattern } from "../accounts/address_pattern.ts";
import type { AccountLimits } from "../accounts/allowance.ts";
import type { DkimKey } from "../dkim/keys.ts";
import type { StoredCredentials } from "../smtp/sasl/credentials.ts";
import type { MechanismName } from "../smtp/sasl/mechanism.ts";
import type { DomainPattern } from "./domain_pattern.ts";
import type { Secret } from "./secret.ts";

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
  readonly tls: TlsConfig;
  readonly listeners: readonly ListenerConfig[];
  readonly queue: QueueConfig;
  /** Those that the config file holds; the data folder may hold more. */
  readonly accounts: readonly AccountConfig[];
  readonly routes: RouteTable;
  /** Keys that sign what leaves, by domain of the author; no domain without a key. */
  readonly dkim: ReadonlyMap<string, readonly DkimKeyConfig[]>;
  /** By name; always has "direct". */
  readonly transports: ReadonlyMap<string, TransportConfig>;
  /** Limits of destinations; the first that matches counts. */
  readonly destinations: readonly DestinationConfig[];
  /** What accounts change of the retry policy, by name. */
  readonly accountQueues: ReadonlyMap<string, RetryOverrides>;
  readonly webhooks: readonly WebhookConfig[];
  readonly suppression: SuppressionConfig;
  readonly retention: RetentionConfig;
  /** What the operator should know though the config is taken; a line each, absent for none. */
  readonly warnings?: readonly string[];
}

export interface DkimKeyConfig {
  /** One or more labels of a domain name. */
  readonly selector: string;
  /** Absolute path of a PKCS #8 PEM file, and what it holds. */
  readonly keyFile: string;
  readonly key: DkimKey;
}

/** TLS towards MX hosts and policy hosts. */
export interface TlsConfig {
  /** Trust anchors in PEM for MTA-STS, instead of those that come with Deno. */
  readonly ca?: readonly string[];
  /** Whether TLS reports (RFC 8460) are sent to the domains that ask for them. */
  readonly reports: boolean;
}

/** An endpoint that is told what became of messages. */
export interface WebhookConfig {
  readonly name: string;
  readonly url: string;
  readonly secret: Secret;
  /** Vouches as well, until every receiver has the new one. */
  readonly oldSecret?: Secret;
  readonly events: readonly WebhookKind[];
  /** Only what concerns these accounts; absent: everything. */
  readonly accounts?: readonly string[];
  /** Posts on their way to it at the same time, at most. */
  readonly concurrency: number;
  /** Milliseconds for which it may take nothing before it is parked. */
  readonly parkAfter: number;
}

export interface SuppressionConfig {
  /** Whether an address that its server does not know is refused from then on. */
  readonly automatic: boolean;
  /** Milliseconds for which; absent: until it is lifted. */
  readonly expire?: number;
}

export interface RetentionConfig {
  /** Milliseconds for which finished messages stay in the store; then they go to the archive. */
  readonly keep: number;
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
  readonly protocol: "smtp" | "submission" | "submissions";
  readonly name: string;
  readonly listen: SocketAddress;
  /** Whether mail takes a login; without one a listener is on a loopback address. */
  readonly auth: "none" | "required";
  /** Absent: TLS is not offered. */
  readonly certificate?: CertificateFiles;
  readonly limits: SmtpLimits;
}

/** Who may submit, as what, and how much. */
export interface AccountConfig {
  readonly name: string;
  readonly addresses: readonly AddressPattern[];
  /** Absent: nobody can log in. */
  readonly credentials?: StoredCredentials;
  /** Whether the authors in the From field have to be the account's too. */
  readonly checkHeaderFrom: boolean;
  /** Whether mail from the null reverse-path is taken: for programs that send reports. */
  readonly nullSender: boolean;
  readonly limits: AccountLimits;
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
  /** Milliseconds for which a client may have a message held (RFC 4865). */
  readonly maxHold: number;
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

/** What is different from the policy of the queue; durations in milliseconds. */
export type RetryOverrides = Partial<RetryPolicy>;

/** What a destination may be burdened with. One of `match`, `mx` and `transport` is there. */
export interface DestinationConfig {
  /** Any of these matches the domain of the recipient; each domain has the limits for itself. */
  readonly match?: readonly DomainPattern[];
  /** Any of these matches the best MX host; all domains behind them have the limits together. */
  readonly mx?: readonly DomainPattern[];
  /** Name of a smarthost transport. */
  readonly transport?: string;
  /** Attempts, and so connections, at a time. */
  readonly concurrency?: number;
  readonly messagesPerConnection?: number;
  readonly perMinute?: number;
  readonly perHour?: number;
  readonly retry: RetryOverrides;
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
  /** Any of these matches the name of any MX host of the recipient's domain. */
  readonly toMx?: readonly DomainPattern[];
  /** Matches messages of more octets than this. */
  readonly sizeOver?: number;
  readonly header?: HeaderCriterion;
  /** Name of the transport. */
  readonly transport: string;
}

/** A field that the header of the message must have. Compared without regard to ASCII case. */
export interface HeaderCriterion {
  readonly name: string;
  /** Its whole value, unfolded and trimmed; absent: any. */
  readonly value?: string;
}

/** Routes by scope. The account of a message is asked first, then its sender's domain, then all. */
export interface RouteTable {
  readonly accounts: ReadonlyMap<string, readonly RouteConfig[]>;
  readonly domains: ReadonlyMap<string, readonly RouteConfig[]>;
  readonly global: readonly RouteConfig[];
}

export type TransportConfig =
  | DirectTransportConfig
  | SmarthostTransportConfig
  | SocksTransportConfig;

/** Delivery to the MX hosts of the recipient's domain. */
export interface DirectTransportConfig {
  readonly type: "direct";
  readonly name: string;
  readonly port: number;
  readonly ipFamily: IpFamily;
  /** MX hosts at loopback addresses are dialled too: for tests and demonstrations only. */
  readonly allowLoopback: boolean;
  readonly localAddresses?: LocalAddresses;
}

/** Delivery to the MX hosts of the recipient's domain through a SOCKS5 proxy. */
export interface SocksTransportConfig {
  readonly type: "socks";
  readonly name: string;
  readonly proxy: SocketAddress;
  readonly username?: string;
  readonly password?: Secret;
  /** The addresses that receivers see; empty where they are not known. */
  readonly remoteIps: readonly string[];
  /** Our name in EHLO through this proxy; absent: that of this host. */
  readonly remoteHostname?: string;
  readonly port: number;
  /** What the families of `remoteIps` allow, where `ip_family` does not say. */
  readonly ipFamily: IpFamily;
  readonly allowLoopback: boolean;
  readonly localAddresses?: LocalAddresses;
}

/** Delivery to one configured host. */
export interface SmarthostTransportConfig {
  /** `submissions` is TLS from the first octet; the others are STARTTLS as `tls` says. */
  readonly type: "smtp" | "submission" | "submissions";
  readonly name: string;
  /** Host name (A-labels) or IP address without brackets. */
  readonly host: string;
  readonly port: number;
  readonly tls: SmarthostTls;
  readonly ipFamily: IpFamily;
  readonly localAddresses?: LocalAddresses;
  /** Trust anchors in PEM for `verified`, instead of the system's. */
  readonly ca?: readonly string[];
  readonly certificate?: ClientCertificateConfig;
  readonly auth?: AuthConfig;
}

/** Addresses of this machine to dial from; a family without one is left to the system. */
export interface LocalAddresses {
  readonly ipv4?: string;
  readonly ipv6?: string;
}

/** A certificate to show to servers that ask for one, in PEM. */
export interface ClientCertificateConfig {
  readonly cert: string;
  readonly key: Secret;
}

/** The login at a smarthost. */
export interface AuthConfig {
  readonly username: string;
  readonly secret:
    | { readonly kind: "password"; readonly value: Secret }
    | { readonly kind: "password_file" | "token_file"; readonly path: string }
    | { readonly kind: "token_command"; readonly argv: readonly string[] };
  /** Only these, in this order; absent: the most secure one that both sides have. */
  readonly mechanisms?: readonly MechanismName[];
  /** Passwords and tokens go even over what is not verified TLS. */
  readonly insecurePlain: boolean;
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

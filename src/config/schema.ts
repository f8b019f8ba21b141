/**
 * The shape of the config file, as zod sees it after `${NAME}` is filled in: strict everywhere,
 * with the defaults. What belongs to more than one section is checked in checks.ts.
 *
 * A setting of the documented format that this version cannot honour is refused by name: a config
 * never promises what is not done.
 */
import { z } from "zod";
import { AccountEntry } from "./accounts.ts";
import { AccountQueue, DestinationEntry, RetryWaits } from "./destinations.ts";
import { Retention, Suppression, Webhooks } from "./errands.ts";
import { notOneOf } from "./problems.ts";
import {
  DnsServer,
  DomainName,
  Duration,
  Host,
  IpAddress,
  Listen,
  Pattern,
  Port,
  Size,
  SocksProxyAddress,
} from "./scalars.ts";
import { MECHANISMS } from "../smtp/sasl/mechanism.ts";
import { isLoopback } from "../smtp/server/loopback.ts";
import { IP_FAMILIES, SMARTHOST_TLS } from "./types.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

/** Refuses a value whatever it is. */
const refused = (message: string) =>
  z.custom<undefined>((value) => value === undefined, { error: message }).optional();

/** Words for a variant that is not known; names those that this version has. */
const unknownVariant = (key: string, known: readonly string[]): z.core.$ZodErrorMap => (issue) =>
  issue.code === "invalid_union"
    ? notOneOf((issue.input as Readonly<Record<string, unknown>>)[key], known)
    : undefined;

const LoopbackOnly = Listen.refine(({ address }) => isLoopback(address), {
  error: "is not a loopback address; listen on 127.0.0.1 or [::1]",
});

const smtpListener = <P extends "smtp" | "submission" | "submissions">(
  protocol: P,
  auth: "none" | "required",
) =>
  z.strictObject({
    protocol: z.literal(protocol),
    address: Listen,
    auth: z.enum(["none", "required"]).default(auth),
    cert_file: z.string().min(1).optional(),
    key_file: z.string().min(1).optional(),
    max_size: Size.refine((octets) => octets >= 64 * 1024, {
      error: "is less than the 64 KiB that every server has to take (RFC 5321, section 4.5.3.1.7)",
    }).default(50 * 2 ** 20),
    max_recipients: z.int().min(100, {
      error: "is less than the 100 that every server has to take (RFC 5321, section 4.5.3.1.8)",
    }).max(10_000).default(100),
    max_connections: z.int().min(1).max(100_000).default(1_000),
    max_connections_per_address: z.int().min(1).max(100_000).default(200),
    max_idle_commands: z.int().min(1).max(10_000).default(50),
    idle_timeout: Duration.default(5 * MINUTE),
    max_hold: Duration.default(7 * 24 * HOUR),
  });

const HttpListener = z.strictObject({
  protocol: z.literal("http"),
  address: LoopbackOnly,
});

const Listener = z.discriminatedUnion("protocol", [
  smtpListener("smtp", "none"),
  smtpListener("submission", "required"),
  smtpListener("submissions", "required"),
  HttpListener,
], { error: unknownVariant("protocol", ["smtp", "submission", "submissions", "http"]) });

/** RFC 1929, section 2: one octet for the length. */
const SocksCredential = z.string().min(1).refine(
  (text) => new TextEncoder().encode(text).length <= 255,
  { error: "has more than the 255 octets that SOCKS5 allows (RFC 1929, section 2)" },
);

const Auth = z.strictObject({
  username: z.string().min(1).max(512),
  password: z.string().min(1).optional(),
  password_file: z.string().min(1).optional(),
  token_command: z.array(z.string()).min(1).max(100).optional(),
  token_file: z.string().min(1).optional(),
  mechanisms: z.array(z.enum(MECHANISMS)).min(1, {
    error: "allows no mechanism; name at least one, or leave it out",
  }).optional(),
  insecure_plain: z.boolean().default(false),
});

/** One address, or one of each family. */
const Local = z.union([IpAddress, z.array(IpAddress).min(1).max(2)], {
  error: 'is not an address of this machine, or a list of one IPv4 and one IPv6; write "192.0.2.1"',
});

const AllTransports = {
  ip_family: z.enum(IP_FAMILIES).optional(),
  local_address: Local.optional(),
};

const Smarthost = {
  ...AllTransports,
  host: Host,
  auth: Auth.optional(),
  ca_file: z.string().min(1).optional(),
  client_cert_file: z.string().min(1).optional(),
  client_key_file: z.string().min(1).optional(),
  starttls_insecure_skip_verify: z.boolean().default(false),
};

const NO_STARTTLS = "cannot be set: submissions is TLS from the first octet, without STARTTLS; " +
  'the type "submission" has it';

const Transport = z.discriminatedUnion("type", [
  z.strictObject({
    ...AllTransports,
    type: z.literal("direct"),
    port: Port.default(25),
    allow_loopback: z.boolean().default(false),
  }),
  z.strictObject({
    ...Smarthost,
    type: z.literal("smtp"),
    port: Port.default(25),
    tls: z.enum(SMARTHOST_TLS).optional(),
    no_starttls: z.boolean().default(false),
  }),
  z.strictObject({
    ...Smarthost,
    type: z.literal("submission"),
    port: Port.default(587),
    tls: z.enum(SMARTHOST_TLS).optional(),
    no_starttls: z.boolean().default(false),
  }),
  z.strictObject({
    ...Smarthost,
    type: z.literal("submissions"),
    port: Port.default(465),
    tls: z.enum(["required", "verified"]).optional(),
    no_starttls: refused(NO_STARTTLS),
  }),
  z.strictObject({
    ...AllTransports,
    type: z.literal("socks"),
    address: SocksProxyAddress,
    username: SocksCredential.optional(),
    password: SocksCredential.optional(),
    remote_ips: z.array(IpAddress).max(64).default([]),
    remote_hostname: DomainName.optional(),
    port: Port.default(25),
    allow_loopback: z.boolean().default(false),
  }),
], { error: unknownVariant("type", ["direct", "smtp", "submission", "submissions", "socks"]) });

const Patterns = z.array(Pattern).min(1, {
  error: "matches nothing; name at least one domain, or leave the criterion out",
}).max(10_000);

const Route = z.strictObject({
  from_domain: Patterns.optional(),
  to_domain: Patterns.optional(),
  minimum_attempts: z.int().min(1).optional(),
  to_mx: Patterns.optional(),
  size_over: Size.optional(),
  header: z.strictObject({
    name: z.string().regex(/^[!-9;-~]{1,100}$/, {
      error: 'is not the name of a header field; write it like "List-Id", without the colon',
    }),
    value: z.string().min(1).max(1_000).transform((value) => value.trim()).optional(),
  }).optional(),
  transport: z.string().min(1).default("direct"),
});
const Routes = z.array(Route).max(1_000).default([]);

export const ConfigFile = z.strictObject({
  hostname: DomainName.optional(),
  data_dir: z.string().min(1).default("./data"),
  dns: z.strictObject({
    servers: z.array(DnsServer).max(16).default([]),
    trust_ad: z.union([z.literal("auto"), z.boolean()], {
      error: 'is not "auto", true or false',
    }).default("auto"),
  }).prefault({}),
  tls: z.strictObject({
    ca_file: z.string().min(1).optional(),
    reports: z.boolean().default(true),
  }).prefault({}),
  listen: z.record(z.string(), Listener).default({}),
  queue: z.strictObject({
    retry: RetryWaits
      .default([
        7.5 * MINUTE,
        15 * MINUTE,
        30 * MINUTE,
        HOUR,
        2 * HOUR,
        4 * HOUR,
        8 * HOUR,
        16 * HOUR,
      ]),
    max_attempts: z.int().min(1).max(1_000).default(8),
    delay_notice_after: z.int().min(1).max(1_000).default(5),
    lifetime: Duration.default(5 * 24 * HOUR),
    concurrency: z.int().min(1).max(10_000).default(200),
    destination_concurrency: z.int().min(1).max(10_000).default(20),
  }).prefault({}),
  accounts: z.record(
    z.string(),
    AccountEntry.extend({ routes: Routes, queue: AccountQueue.optional() }),
  ).default({}),
  domains: z.record(
    z.string(),
    z.strictObject({
      dkim: z.array(z.strictObject({ selector: DomainName, key_file: z.string().min(1) })).max(8)
        .default([]),
      routes: Routes,
    }),
  ).default({}),
  routes: Routes,
  transports: z.record(z.string(), Transport).default({}),
  destinations: z.array(DestinationEntry).max(1_000).default([]),
  webhooks: Webhooks,
  suppression: Suppression,
  retention: Retention,
});

export type ConfigFile = z.infer<typeof ConfigFile>;
export type RouteEntry = z.infer<typeof Route>;

/**
 * The shape of the config file, as zod sees it after `${NAME}` is filled in: strict everywhere,
 * with the defaults. What belongs to more than one section is checked in checks.ts.
 *
 * A setting of the documented format that this version cannot honour is refused by name: a config
 * never promises what is not done.
 */
import { z } from "zod";
import { notOneOf } from "./problems.ts";
import { DnsServer, DomainName, Duration, Host, Listen, Pattern, Port, Size } from "./scalars.ts";
import { isLoopback } from "../smtp/server/loopback.ts";
import { IP_FAMILIES, SMARTHOST_TLS } from "./types.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

/** Refuses a value whatever it is. */
const refused = (message: string) =>
  z.custom<undefined>((value) => value === undefined, { error: message }).optional();

/** A variant that the format knows and this version does not: only its name is looked at. */
const refusedVariant = <K extends string, V extends string>(key: K, value: V, message: string) =>
  z.looseObject({ [key]: z.literal(value) } as { [P in K]: z.ZodLiteral<V> })
    .superRefine((_, context) => context.addIssue({ code: "custom", path: [key], message }));

/** Words for a variant that is not known; names those that this version has. */
const unknownVariant = (key: string, known: readonly string[]): z.core.$ZodErrorMap => (issue) =>
  issue.code === "invalid_union"
    ? notOneOf((issue.input as Readonly<Record<string, unknown>>)[key], known)
    : undefined;

const NO_LOGIN = "no login (AUTH) in this version";
const LoopbackOnly = Listen.refine(({ address }) => isLoopback(address), {
  error: `is not a loopback address: there is ${NO_LOGIN}, so anybody could use it; ` +
    "listen on 127.0.0.1 or [::1]",
});

const SmtpListener = z.strictObject({
  protocol: z.literal("smtp"),
  address: LoopbackOnly,
  auth: z.literal("none", {
    error: `cannot be had: there is ${NO_LOGIN}; write "none", which a loopback address allows`,
  }).default("none"),
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
});

const HttpListener = z.strictObject({
  protocol: z.literal("http"),
  address: LoopbackOnly,
});

const Listener = z.discriminatedUnion("protocol", [
  SmtpListener,
  HttpListener,
  refusedVariant(
    "protocol",
    "submission",
    `cannot be served: there is ${NO_LOGIN}; use "smtp" on a loopback address`,
  ),
  refusedVariant(
    "protocol",
    "submissions",
    `cannot be served: there is ${NO_LOGIN}; use "smtp" on a loopback address`,
  ),
], { error: unknownVariant("protocol", ["smtp", "http"]) });

const NOT_A_TRANSPORT_TYPE =
  'is a type of transport that this version does not have; it has "direct" and "smtp"';

const Transport = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("direct"),
    port: Port.default(25),
    ip_family: z.enum(IP_FAMILIES).default("any"),
    allow_loopback: z.boolean().default(false),
  }),
  z.strictObject({
    type: z.literal("smtp"),
    host: Host,
    port: Port.default(25),
    tls: z.enum(SMARTHOST_TLS).default("opportunistic"),
    auth: refused(`cannot be used: there is ${NO_LOGIN}`),
  }),
  refusedVariant("type", "submission", NOT_A_TRANSPORT_TYPE),
  refusedVariant("type", "submissions", NOT_A_TRANSPORT_TYPE),
  refusedVariant("type", "socks", NOT_A_TRANSPORT_TYPE),
], { error: unknownVariant("type", ["direct", "smtp"]) });

const Patterns = z.array(Pattern).min(1, {
  error: "matches nothing; name at least one domain, or leave the criterion out",
}).max(10_000);

const Route = z.strictObject({
  from_domain: Patterns.optional(),
  to_domain: Patterns.optional(),
  minimum_attempts: z.int().min(1).optional(),
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
  listen: z.record(z.string(), Listener).default({}),
  queue: z.strictObject({
    retry: z.array(Duration).min(1, { error: "has no wait; write at least one" }).max(1_000)
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
    concurrency: z.int().min(1).max(10_000).default(200),
    destination_concurrency: z.int().min(1).max(10_000).default(20),
  }).prefault({}),
  accounts: z.record(
    z.string(),
    z.strictObject({
      addresses: refused(`cannot be honoured: there is ${NO_LOGIN}; only routes can be set here`),
      password_hash: refused(
        `cannot be honoured: there is ${NO_LOGIN}; only routes can be set here`,
      ),
      routes: Routes,
    }),
  ).default({}),
  domains: z.record(
    z.string(),
    z.strictObject({
      dkim: refused("cannot be honoured: this version does not sign; only routes can be set here"),
      routes: Routes,
    }),
  ).default({}),
  routes: Routes,
  transports: z.record(z.string(), Transport).default({}),
});

export type ConfigFile = z.infer<typeof ConfigFile>;
export type RouteEntry = z.infer<typeof Route>;

/**
 * Reads a config file into a Config, or says everything that is wrong with it at once.
 *
 * TOML text → tree → `${NAME}` filled in → schema with defaults → checks between sections.
 * Paths in the file are relative to the folder of the file; without a file, to the working folder.
 */
import { parse as parseDotenv } from "@std/dotenv";
import { dirname, join, resolve } from "node:path";
import { parse as parseToml, TomlError } from "smol-toml";
import {
  checkListeners,
  checkQueue,
  checkRoutes,
  checkTransportNames,
  type PlacedRoute,
  type PlacedRoutes,
} from "./checks.ts";
import { accountsOf } from "./accounts.ts";
import { destinationsOf, retryOverrides } from "./destinations.ts";
import { dkimOf } from "./dkim.ts";
import { hostName } from "../dns/names.ts";
import { type Environment, fillIn } from "./environment.ts";
import { webhooksOf } from "./errands.ts";
import {
  ConfigError,
  describeIssue,
  formatPath,
  formatProblem,
  type Path,
  type Problem,
  problemsOf,
  reasonOf,
} from "./problems.ts";
import { ConfigFile, type RouteEntry } from "./schema.ts";
import { tlsOf } from "./tls.ts";
import { secretsInClear, transportsOf } from "./transports.ts";
import type { CertificateFiles, Config, HeaderCriterion, ListenerConfig } from "./types.ts";

export interface ConfigSource {
  /** The TOML file; without one the built-in configuration is used. */
  readonly file?: string;
  /** Where `${NAME}` is looked up first: `Deno.env`, or a Map. */
  readonly env: Environment;
  /** Data folder to use instead of the one in the file; relative to the working folder. */
  readonly dataDir?: string;
  /** Name of this host where the file does not say; Deno.hostname() by default. */
  readonly systemHostname?: () => string;
}

/** Nobody writes that much by hand; keeps a wrong path (a disk image, a log) out of memory. */
const MAX_FILE = 4 * 2 ** 20;

/** The built-in configuration: everything on loopback. */
const BUILT_IN = {
  listen: {
    local: { protocol: "smtp", address: "127.0.0.1:2525" },
    web: { protocol: "http", address: "127.0.0.1:8025" },
  },
};

/** @throws ConfigError with a line for every problem that was found */
export function loadConfig(source: ConfigSource): Config {
  const file = source.file === undefined ? undefined : resolve(source.file);
  const base = file === undefined ? Deno.cwd() : dirname(file);
  const tree = file === undefined ? BUILT_IN : readToml(file);
  const filled = fillIn(tree, file === undefined ? source.env : withDotenv(source.env, base));
  const parsed = ConfigFile.safeParse(filled.tree, { error: describeIssue });
  // A value with a reference that is not set is reported as that alone.
  const unset = new Set(filled.problems.map(({ path }) => formatPath(path)));
  const problems = [
    ...filled.problems,
    ...[
      ...(parsed.success ? [] : problemsOf(parsed.error)),
      ...checkTransportNames(filled.tree),
    ].filter(({ path }) => !unset.has(formatPath(path))),
  ];
  const built = parsed.success ? build(parsed.data, base) : undefined;
  problems.push(...built?.problems ?? []);
  if (!parsed.success || !built || problems.length > 0) {
    throw new ConfigError(problems.map((problem) => formatProblem(problem, tree)));
  }
  const data = parsed.data;
  const warnings = [...secretsInClear(data, tree), ...built.dkim.warnings];
  return {
    ...(file === undefined ? {} : { file }),
    hostname: data.hostname ?? systemHostname(source),
    dataDir: source.dataDir === undefined ? resolve(base, data.data_dir) : resolve(source.dataDir),
    dns: { servers: data.dns.servers, trustAd: data.dns.trust_ad },
    tls: built.tls,
    listeners: built.listeners,
    queue: {
      retry: {
        waits: data.queue.retry,
        maxAttempts: data.queue.max_attempts,
        lifetime: data.queue.lifetime,
        delayNoticeAfter: data.queue.delay_notice_after,
      },
      concurrency: data.queue.concurrency,
      destinationConcurrency: data.queue.destination_concurrency,
    },
    accounts: built.accounts,
    routes: built.routes,
    dkim: built.dkim.keys,
    transports: built.transports,
    destinations: built.destinations,
    accountQueues: built.accountQueues,
    webhooks: built.webhooks,
    suppression: {
      automatic: data.suppression.automatic,
      ...(data.suppression.expire === undefined ? {} : { expire: data.suppression.expire }),
    },
    retention: { keep: data.retention.keep },
    ...(warnings.length > 0 ? { warnings } : {}),
  };
}

/** @throws ConfigError when the file cannot be read, or is not TOML */
export function readToml(file: string): Record<string, unknown> {
  const fail = (why: string) => new ConfigError([`config: ${file}: ${why}`]);
  let text: string;
  try {
    const { isFile, size } = Deno.statSync(file);
    if (!isFile) throw fail("is not a file; name a TOML file");
    if (size > MAX_FILE) throw fail(`has ${size} octets, which is no config; name a TOML file`);
    text = new TextDecoder("utf-8", { fatal: true }).decode(Deno.readFileSync(file));
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    if (error instanceof TypeError) throw fail("is not UTF-8 text");
    throw fail(`cannot be read: ${reasonOf(error)}`);
  }
  try {
    return parseToml(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const [why] = error.message.replace(/^Invalid TOML document: /, "").split("\n");
    throw new ConfigError([`config: ${file}:${error.line}:${error.column}: not TOML: ${why}`]);
  }
}

/** The environment of the process, then `.env` beside the config. */
function withDotenv(env: Environment, folder: string): Environment {
  const file = join(folder, ".env");
  let dotenv: Record<string, string> | undefined;
  // Read when it is first asked for: most configs have no use for it.
  const read = (): Record<string, string> => {
    try {
      return parseDotenv(Deno.readTextFileSync(file));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return {};
      throw new ConfigError([`config: ${file}: cannot be read: ${reasonOf(error)}`]);
    }
  };
  return {
    get(name) {
      const value = env.get(name);
      if (value !== undefined) return value;
      dotenv ??= read();
      return Object.hasOwn(dotenv, name) ? dotenv[name] : undefined;
    },
  };
}

function systemHostname({ systemHostname = Deno.hostname }: ConfigSource): string {
  return hostName(systemHostname()) ?? "localhost";
}

function build(data: ConfigFile, base: string) {
  const problems: Problem[] = [];
  const listeners = Object.entries(data.listen).map(([name, entry]) =>
    listener(name, entry, base, problems)
  );
  const transports = transportsOf(data, base, problems);
  const tls = tlsOf(data.tls, base, problems);
  const routes = routesOf(data, problems);
  const accounts = accountsOf(data.accounts, problems);
  const dkim = dkimOf(data.domains, base, problems);
  const accountQueues = new Map(
    Object.entries(data.accounts).flatMap(([name, { queue }]) =>
      queue ? [[name, retryOverrides(queue)] as const] : []
    ),
  );
  const destinations = destinationsOf(
    data.destinations,
    transports,
    data.queue.concurrency,
    problems,
  );
  const mostAttempts = Math.max(
    data.queue.max_attempts,
    ...[...accountQueues.values(), ...destinations.map(({ retry }) => retry)]
      .map(({ maxAttempts = 0 }) => maxAttempts),
  );
  const { webhooks, problems: ofWebhooks } = webhooksOf(data.webhooks);
  problems.push(
    ...ofWebhooks,
    ...checkListeners(listeners),
    ...checkQueue(data.queue),
    ...checkRoutes(routes, mostAttempts),
  );
  return {
    listeners,
    tls,
    transports,
    destinations,
    accounts,
    accountQueues,
    routes,
    dkim,
    webhooks,
    problems,
  };
}

function listener(
  name: string,
  entry: ConfigFile["listen"][string],
  base: string,
  problems: Problem[],
): ListenerConfig {
  switch (entry.protocol) {
    case "http":
      return { protocol: "http", name, listen: entry.address };
    case "smtp":
    case "submission":
    case "submissions": {
      const certificate = certificateOf(entry, ["listen", name], base, problems);
      return {
        protocol: entry.protocol,
        name,
        listen: entry.address,
        auth: entry.auth,
        ...(certificate ? { certificate } : {}),
        limits: {
          maxSize: entry.max_size,
          maxRecipients: entry.max_recipients,
          maxConnections: entry.max_connections,
          maxConnectionsPerAddress: entry.max_connections_per_address,
          maxIdleCommands: entry.max_idle_commands,
          idleTimeout: entry.idle_timeout,
          maxHold: entry.max_hold,
        },
      };
    }
  }
}

function certificateOf(
  entry: { readonly cert_file?: string | undefined; readonly key_file?: string | undefined },
  at: Path,
  base: string,
  problems: Problem[],
): CertificateFiles | undefined {
  const { cert_file, key_file } = entry;
  if (cert_file === undefined && key_file === undefined) return undefined;
  if (cert_file === undefined || key_file === undefined) {
    const missing = cert_file === undefined ? "cert_file" : "key_file";
    problems.push({
      path: [...at, missing],
      message: "is missing; TLS takes both cert_file and key_file",
    });
    return undefined;
  }
  for (const [key, path] of [["cert_file", cert_file], ["key_file", key_file]] as const) {
    try {
      if (Deno.statSync(resolve(base, path)).isFile) continue;
      problems.push({ path: [...at, key], message: `${resolve(base, path)} is not a file` });
    } catch (error) {
      problems.push({ path: [...at, key], message: `${resolve(base, path)}: ${reasonOf(error)}` });
    }
  }
  return { certFile: resolve(base, cert_file), keyFile: resolve(base, key_file) };
}

function routesOf(data: ConfigFile, problems: Problem[]): PlacedRoutes {
  const place = (entries: readonly RouteEntry[], owner: Path): PlacedRoute[] =>
    entries.map((entry, n) => {
      const at = [...owner, "routes", n];
      return {
        at,
        path: formatPath(at),
        ...(entry.from_domain ? { fromDomain: entry.from_domain } : {}),
        ...(entry.to_domain ? { toDomain: entry.to_domain } : {}),
        ...(entry.minimum_attempts ? { minimumAttempts: entry.minimum_attempts } : {}),
        ...(entry.to_mx ? { toMx: entry.to_mx } : {}),
        ...(entry.size_over === undefined ? {} : { sizeOver: entry.size_over }),
        ...(entry.header ? { header: headerOf(entry.header) } : {}),
        transport: entry.transport,
      };
    });
  const accounts = new Map(
    Object.entries(data.accounts).map(([name, { routes }]) =>
      [name, place(routes, ["accounts", name])] as const
    ),
  );
  const domains = new Map<string, PlacedRoute[]>();
  for (const [name, { routes }] of Object.entries(data.domains)) {
    const path = ["domains", name];
    const domain = hostName(name);
    if (domain === undefined) {
      problems.push({ path, message: 'is not a domain name; write it like "example.com"' });
    } else if (domains.has(domain)) {
      problems.push({ path, message: `is ${domain} again; put its settings in one section` });
    } else domains.set(domain, place(routes, path));
  }
  return { accounts, domains, global: place(data.routes, []) };
}

const headerOf = ({ name, value }: NonNullable<RouteEntry["header"]>): HeaderCriterion => ({
  name,
  ...(value === undefined ? {} : { value }),
});

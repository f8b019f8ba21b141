/**
 * Where `send` hands messages over to: its config, and what holds without one: the queue's listener
 * of the built-in configuration, 127.0.0.1:2525.
 *
 *   hostname = "www.example.com"     # our name in EHLO; default: the system's
 *   domain = "example.com"           # what local names are completed with; default: hostname
 *   max_size = "50MiB"
 *
 *   [server]                         # like a transport of the queue's config
 *   type = "submission"
 *   host = "mail.example.com"
 *   auth = { username = "www", password_file = "/etc/postledger/www.password" }
 */
import { dirname, resolve } from "node:path";
import { z } from "zod";
import { type Environment, fillIn } from "../../config/environment.ts";
import { readToml } from "../../config/load.ts";
import { ConfigError, describeIssue, formatProblem, problemsOf } from "../../config/problems.ts";
import { DomainName, Size } from "../../config/scalars.ts";
import { ConfigFile } from "../../config/schema.ts";
import { transportsOf } from "../../config/transports.ts";
import type { SmarthostTransportConfig } from "../../config/types.ts";
import { hostName } from "../../dns/names.ts";

export const SETTINGS_FILE = "/etc/postledger/sendmail.toml";
/** Names another file. */
export const SETTINGS_VARIABLE = "POSTLEDGER_SENDMAIL";

export interface SendSettings {
  readonly hostname: string;
  readonly domain: string;
  /** Octets of a message. */
  readonly maxSize: number;
  readonly server: SmarthostTransportConfig;
}

const SettingsFile = z.strictObject({
  hostname: DomainName.optional(),
  domain: DomainName.optional(),
  max_size: Size.default(50 * 2 ** 20),
  server: z.custom<unknown>((value) => typeof value === "object" && value !== null, {
    error: "is not a section",
  }).optional(),
});

const LOCAL = { type: "smtp", host: "127.0.0.1", port: 2525, tls: "none" };

/**
 * @param file that was asked for; absent: the one of the environment, or of the system if there is one
 * @throws ConfigError
 */
export function loadSettings(
  file: string | undefined,
  env: Environment,
  systemHostname: () => string,
): SendSettings {
  const asked = file ?? env.get(SETTINGS_VARIABLE);
  const path = asked ?? (exists(SETTINGS_FILE) ? SETTINGS_FILE : undefined);
  const tree = path === undefined ? {} : readToml(resolve(path));
  const filled = fillIn(tree, env);
  const problems = [...filled.problems];
  const parsed = SettingsFile.safeParse(filled.tree, { error: describeIssue });
  if (!parsed.success) problems.push(...problemsOf(parsed.error));
  const base = path === undefined ? Deno.cwd() : dirname(resolve(path));
  const server = parsed.success ? serverOf(parsed.data.server ?? LOCAL, base, problems) : undefined;
  if (!parsed.success || !server || problems.length > 0) {
    const lines = problems.map((problem) => formatProblem(problem, tree));
    throw new ConfigError(path === undefined ? lines : lines.map((line) => `${path}: ${line}`));
  }
  const hostname = parsed.data.hostname ?? hostName(systemHostname()) ?? "localhost";
  return {
    hostname,
    domain: parsed.data.domain ?? hostname,
    maxSize: parsed.data.max_size,
    server,
  };
}

/** The server, read as the transport that it is. */
function serverOf(
  entry: unknown,
  base: string,
  problems: Parameters<typeof transportsOf>[2],
): SmarthostTransportConfig | undefined {
  const at = <T extends { readonly path: readonly PropertyKey[] }>(problem: T): T => ({
    ...problem,
    path: problem.path.slice(1), // "transports"
  });
  const parsed = ConfigFile.safeParse({ transports: { server: entry } }, { error: describeIssue });
  if (!parsed.success) {
    problems.push(...problemsOf(parsed.error).map(at));
    return undefined;
  }
  const found: typeof problems = [];
  const server = transportsOf(parsed.data, base, found).get("server");
  problems.push(...found.map(at));
  if (server?.type === "direct" || server?.type === "socks") {
    const message = "is not a server that takes mail: smtp, submission or submissions";
    problems.push({ path: ["server", "type"], message, showValue: true });
    return undefined;
  }
  return server;
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/**
 * The transports of a config: from the keys of the file to what the delivery works with, and what
 * of a transport does not fit together.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { resolve } from "node:path";
import type { MechanismName } from "../smtp/sasl/mechanism.ts";
import { formatPath, type Path, type Problem, reasonOf } from "./problems.ts";
import type { ConfigFile } from "./schema.ts";
import { Secret } from "./secret.ts";
import {
  type AuthConfig,
  type ClientCertificateConfig,
  DIRECT,
  type IpFamily,
  type LocalAddresses,
  type SmarthostTls,
  type SmarthostTransportConfig,
  type SocksTransportConfig,
  type TransportConfig,
} from "./types.ts";

type Entry = ConfigFile["transports"][string];
type SmarthostEntry = Extract<Entry, { type: SmarthostTransportConfig["type"] }>;
type SocksEntry = Extract<Entry, { type: "socks" }>;

/** Reads the transports; `base` is the folder that paths of files are relative to. */
export function transportsOf(
  data: ConfigFile,
  base: string,
  problems: Problem[],
): Map<string, TransportConfig> {
  const transports = new Map<string, TransportConfig>([[
    DIRECT,
    { type: "direct", name: DIRECT, port: 25, ipFamily: "any", allowLoopback: false },
  ]]);
  const spelled = new Map<string, string>();
  for (const [name, entry] of Object.entries(data.transports)) {
    const section = new Section(["transports", name], base, problems);
    const other = spelled.get(name.toLowerCase());
    spelled.set(name.toLowerCase(), name);
    if (other !== undefined) {
      section.problem([], `differs from ${formatPath(["transports", other])} in case alone`);
    }
    if (name === DIRECT && entry.type !== "direct") {
      const message = 'cannot be the type of the transport named "direct"; choose another name';
      section.problem(["type"], message, true);
    }
    transports.set(name, section.transport(name, entry));
  }
  return transports;
}

/** The warnings for secrets that stand in the file itself, `tree` as it was before `${NAME}`. */
export function secretsInClear(data: ConfigFile, tree: unknown): string[] {
  const raw = tree as { transports?: Record<string, Record<string, unknown>> };
  return Object.entries(data.transports).flatMap(([name, entry]) => {
    const found = raw.transports?.[name];
    const places: [Path, unknown][] = [
      [["transports", name, "password"], entry.type === "socks" ? found?.password : undefined],
      [
        ["transports", name, "auth", "password"],
        (found?.auth as { password?: unknown } | undefined)?.password,
      ],
    ];
    return places.flatMap(([path, value]) => {
      if (typeof value !== "string" || /(^|[^$])\$\{/.test(value)) return [];
      const variable = `${name.toUpperCase().replace(/[^A-Z0-9]+/g, "_")}_PASSWORD`;
      return [
        `config: ${formatPath(path)}: the password stands in the file for all who can read it; ` +
        `write password = "\${${variable}}" and set ${variable} in the environment, ` +
        "or in the file .env beside the config",
      ];
    });
  });
}

/** Reads one transport, and notes what is wrong with it. */
class Section {
  constructor(
    readonly path: Path,
    readonly base: string,
    readonly problems: Problem[],
  ) {}

  problem(at: Path, message: string, showValue = false): void {
    this.problems.push({ path: [...this.path, ...at], message, showValue });
  }

  transport(name: string, entry: Entry): TransportConfig {
    switch (entry.type) {
      case "direct": {
        const { type, port, ip_family: ipFamily = "any", allow_loopback: allowLoopback } = entry;
        return { type, name, port, ipFamily, allowLoopback, ...this.local(entry, ipFamily) };
      }
      case "socks":
        return this.socks(name, entry);
      default:
        return this.smarthost(name, entry);
    }
  }

  smarthost(name: string, entry: SmarthostEntry): SmarthostTransportConfig {
    const { type, host, port, ip_family: ipFamily = "any" } = entry;
    const tls = this.tls(entry);
    const ca = this.ca(entry, tls);
    const certificate = this.certificate(entry, tls);
    const auth = this.auth(entry, tls);
    const family = isIP(host);
    if (family !== 0 && ipFamily !== "any" && ipFamily !== `ipv${family}`) {
      this.problem(["ip_family"], `does not have ${host}, which is the host`, true);
    }
    return {
      type,
      name,
      host,
      port,
      tls,
      ipFamily,
      ...this.local(entry, ipFamily),
      ...(ca ? { ca } : {}),
      ...(certificate ? { certificate } : {}),
      ...(auth ? { auth } : {}),
    };
  }

  tls(entry: SmarthostEntry): SmarthostTls {
    const { tls, no_starttls, starttls_insecure_skip_verify } = entry;
    const said = [
      ...(tls === undefined ? [] : ["tls"]),
      ...(no_starttls ? ["no_starttls"] : []),
      ...(starttls_insecure_skip_verify ? ["starttls_insecure_skip_verify"] : []),
    ];
    if (said.length > 1) {
      this.problem([said[1]!], `and ${said[0]} say the same thing in two ways; keep one of them`);
    }
    if (no_starttls) return "none";
    if (starttls_insecure_skip_verify) return "required";
    return tls ?? (entry.type === "smtp" ? "opportunistic" : "verified");
  }

  ca({ ca_file }: SmarthostEntry, tls: SmarthostTls): string[] | undefined {
    if (ca_file === undefined) return undefined;
    if (tls !== "verified") {
      this.problem(
        ["ca_file"],
        'is never used: certificates are not checked; set tls = "verified"',
      );
      return undefined;
    }
    const pem = this.file(["ca_file"], ca_file);
    const found = pem?.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
    if (
      pem !== undefined && !this.reads(() => found.map((one) => new X509Certificate(one)).length)
    ) {
      this.problem(["ca_file"], "has no certificates in PEM");
    }
    return found;
  }

  certificate(entry: SmarthostEntry, tls: SmarthostTls): ClientCertificateConfig | undefined {
    const { client_cert_file: certFile, client_key_file: keyFile } = entry;
    if (certFile === undefined && keyFile === undefined) return undefined;
    if (certFile === undefined || keyFile === undefined) {
      const missing = certFile === undefined ? "client_cert_file" : "client_key_file";
      this.problem([missing], "is missing; a client certificate takes the certificate and its key");
      return undefined;
    }
    if (tls === "none") {
      this.problem(["client_cert_file"], "is never used: the transport is without TLS");
      return undefined;
    }
    const cert = this.file(["client_cert_file"], certFile);
    const key = this.file(["client_key_file"], keyFile);
    if (cert === undefined || key === undefined) return undefined;
    const leaf = this.reads(() => new X509Certificate(cert));
    const secret = this.reads(() => createPrivateKey(key));
    if (!leaf) this.problem(["client_cert_file"], "has no certificate in PEM");
    if (!secret) this.problem(["client_key_file"], "has no unencrypted private key in PEM");
    if (leaf && secret && !leaf.checkPrivateKey(secret)) {
      this.problem(["client_key_file"], "is not the key of the certificate in client_cert_file");
    }
    return { cert, key: new Secret(key) };
  }

  auth(entry: SmarthostEntry, tls: SmarthostTls): AuthConfig | undefined {
    if (!entry.auth) return undefined;
    const { username, mechanisms, insecure_plain: insecurePlain } = entry.auth;
    const { password, password_file, token_command, token_file } = entry.auth;
    const secrets: AuthConfig["secret"][] = [];
    if (password !== undefined) secrets.push({ kind: "password", value: new Secret(password) });
    if (password_file !== undefined) {
      secrets.push({ kind: "password_file", path: resolve(this.base, password_file) });
    }
    if (token_file !== undefined) {
      secrets.push({ kind: "token_file", path: resolve(this.base, token_file) });
    }
    if (token_command) secrets.push({ kind: "token_command", argv: token_command });
    const [secret, second] = secrets;
    if (!secret || second) {
      const keys = "password, password_file, token_command and token_file";
      const wrong = second ? "has more than one" : "has none";
      this.problem(["auth"], `${wrong} of ${keys}; a login takes exactly one`);
      return undefined;
    }
    const token = secret.kind.startsWith("token");
    if ("path" in secret) this.exists(["auth", secret.kind], secret.path);
    if (token && tls !== "verified" && !insecurePlain) {
      this.problem(["auth", secret.kind], `${NEEDS_VERIFIED}; ${HOW_TO_VERIFY}`);
    }
    mechanisms?.forEach((mechanism, n) => {
      const why = mechanisms.indexOf(mechanism) < n
        ? "is in the list already"
        : hindrance(mechanism, token, tls, insecurePlain);
      if (why !== undefined) this.problem(["auth", "mechanisms", n], why, true);
    });
    return { username, secret, insecurePlain, ...(mechanisms ? { mechanisms } : {}) };
  }

  socks(name: string, entry: SocksEntry): SocksTransportConfig {
    const { type, address: proxy, username, password, port } = entry;
    const { remote_ips: remoteIps, remote_hostname, allow_loopback: allowLoopback } = entry;
    if ((username === undefined) !== (password === undefined)) {
      const missing = username === undefined ? "username" : "password";
      this.problem([missing], "is missing; a login at the proxy takes user name and password");
    }
    const families = new Set(remoteIps.map((ip) => `ipv${isIP(ip)}` as IpFamily));
    const [only = "any"] = families.size === 1 ? families : [];
    const ipFamily = entry.ip_family ?? only;
    if (ipFamily !== "any" && families.size > 0 && !families.has(ipFamily)) {
      this.problem(["ip_family"], "is a family that remote_ips has no address of", true);
    }
    const local = this.local(entry, "any");
    const own = isIP(proxy.address) === 4 ? "ipv4" : "ipv6";
    if (local.localAddresses && local.localAddresses[own] === undefined) {
      this.problem(["local_address"], `has no address of the family of the proxy, ${own}`, true);
    }
    return {
      type,
      name,
      proxy,
      ...(username === undefined ? {} : { username }),
      ...(password === undefined ? {} : { password: new Secret(password) }),
      remoteIps,
      ...(remote_hostname === undefined ? {} : { remoteHostname: remote_hostname }),
      port,
      ipFamily,
      allowLoopback,
      ...local,
    };
  }

  local(
    { local_address }: { readonly local_address?: string | string[] | undefined },
    family: IpFamily,
  ): { localAddresses?: LocalAddresses } {
    if (local_address === undefined) return {};
    const found: { ipv4?: string; ipv6?: string } = {};
    for (const address of [local_address].flat()) {
      const own = isIP(address) === 4 ? "ipv4" : "ipv6";
      if (found[own] !== undefined) {
        this.problem(["local_address"], `has two addresses of ${own}; name one of each family`);
      }
      if (family !== "any" && family !== own) {
        const message = `has ${address}, which is never used: ip_family is ${family}`;
        this.problem(["local_address"], message);
      }
      found[own] = address;
    }
    return { localAddresses: found };
  }

  /** The text of a file; undefined, and a problem, when it cannot be read. */
  file(at: Path, name: string): string | undefined {
    const path = resolve(this.base, name);
    try {
      if (Deno.statSync(path).size <= MAX_PEM) return Deno.readTextFileSync(path);
      this.problem(at, `${path} has more than ${MAX_PEM} octets`);
    } catch (error) {
      this.problem(at, `${path}: ${reasonOf(error)}`);
    }
    return undefined;
  }

  exists(at: Path, path: string): void {
    try {
      if (!Deno.statSync(path).isFile) this.problem(at, `${path} is not a file`);
    } catch (error) {
      this.problem(at, `${path}: ${reasonOf(error)}`);
    }
  }

  /** What `read` gives; undefined when it throws or gives nothing. */
  reads<T>(read: () => T): T | undefined {
    try {
      return read() || undefined;
    } catch {
      return undefined;
    }
  }
}

const MAX_PEM = 2 ** 20;
const NEEDS_VERIFIED = "goes only over verified TLS, which this transport does not have";
const HOW_TO_VERIFY = 'set tls = "verified", or insecure_plain = true to send it all the same';

/** Why a mechanism can never be used with a transport; undefined when it can. */
function hindrance(
  mechanism: MechanismName,
  token: boolean,
  tls: SmarthostTls,
  insecurePlain: boolean,
): string | undefined {
  const takesToken = mechanism === "XOAUTH2" || mechanism === "OAUTHBEARER";
  if (takesToken !== token) {
    return takesToken
      ? "takes a token, and auth has a password"
      : "takes a password, and auth has a token";
  }
  const plain = mechanism === "PLAIN" || mechanism === "LOGIN";
  if (plain && tls !== "verified" && !insecurePlain) return `${NEEDS_VERIFIED}; ${HOW_TO_VERIFY}`;
  if (mechanism.endsWith("-PLUS") && tls === "none") {
    return "binds to TLS, and this transport is without";
  }
  return undefined;
}

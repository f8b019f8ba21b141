/** The config that quickstart writes: what `serve` takes as it is, and a person reads. */
import { isIPv6 } from "node:net";

export interface FirstConfig {
  readonly address: string;
  readonly domain: string;
  readonly hostname: string;
  /** Where mail clients come in. */
  readonly listen: string;
  readonly submissionPort: number;
  readonly submissionsPort: number;
  /** Port of SMTP and of HTTP for programs on this machine. */
  readonly localPort: number;
  readonly webPort: number;
  /** Relative to the config, as all paths. */
  readonly certFile: string;
  readonly keyFile: string;
  readonly dkim: readonly { readonly selector: string; readonly keyFile: string }[];
}

export function configText(config: FirstConfig): string {
  const { address, hostname, listen, submissionPort, submissionsPort, localPort, webPort } = config;
  const at = (port: number) => quoted(`${isIPv6(listen) ? `[${listen}]` : listen}:${port}`);
  const certificate = `cert_file = ${quoted(config.certFile)}
key_file = ${quoted(config.keyFile)}`;
  return `# Made by "deno task quickstart" for ${address}.

hostname = ${quoted(hostname)}
data_dir = "data"

# For programs on this machine: no login.
[listen.local]
protocol = "smtp"
address = "127.0.0.1:${localPort}"

[listen.web]
protocol = "http"
address = "127.0.0.1:${webPort}"

# For mail clients: they log in. The certificate is self-signed until a CA has answered the
# request in ${
    config.certFile.replace(/\.crt$/, ".csr")
  }; keep the key, and the TLSA records stay true.
[listen.submission]
protocol = "submission"
address = ${at(submissionPort)}
${certificate}

[listen.submissions]
protocol = "submissions"
address = ${at(submissionsPort)}
${certificate}

${dkimText(config.domain, config.dkim)}`;
}

/** The section that has mail of a domain signed. */
export const dkimText = (domain: string, keys: FirstConfig["dkim"]): string =>
  `[domains.${quoted(domain)}]
dkim = [
${
    keys.map(({ selector, keyFile }) =>
      `  { selector = ${quoted(selector)}, key_file = ${quoted(keyFile)} },\n`
    ).join("")
  }]
`;

/** A basic string of TOML. */
const quoted = (text: string): string =>
  `"${
    // deno-lint-ignore no-control-regex -- TOML wants them escaped
    text.replace(/["\\\x00-\x1f\x7f]/g, (character) =>
      character === '"' || character === "\\"
        ? `\\${character}`
        : `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`)}"`;

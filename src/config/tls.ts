/** The section `[tls]`: whom to trust instead of the CA store, and whether TLS reports are sent. */
import { X509Certificate } from "node:crypto";
import { resolve } from "node:path";
import { type Problem, reasonOf } from "./problems.ts";
import type { ConfigFile } from "./schema.ts";
import type { TlsConfig } from "./types.ts";

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

export function tlsOf(
  { ca_file, reports }: ConfigFile["tls"],
  base: string,
  problems: Problem[],
): TlsConfig {
  if (ca_file === undefined) return { reports };
  const file = resolve(base, ca_file);
  const problem = (message: string) => problems.push({ path: ["tls", "ca_file"], message });
  let text: string;
  try {
    text = Deno.readTextFileSync(file);
  } catch (error) {
    problem(`${file}: ${reasonOf(error)}`);
    return { reports };
  }
  const ca = text.match(CERTIFICATE) ?? [];
  try {
    for (const one of ca) new X509Certificate(one);
    if (ca.length === 0) problem("has no certificates in PEM");
  } catch {
    problem("has a certificate in PEM that cannot be read");
  }
  return { ca, reports };
}

/**
 * A certificate authority of the tests, on the openssl command line: keys on P-256, certificates
 * with whatever extensions and dates a case asks for.
 */
import { run } from "./postfix.ts";

export interface Issued {
  /** Paths. */
  readonly certificate: string;
  readonly key: string;
  readonly pem: string;
  readonly der: Uint8Array;
  /** SubjectPublicKeyInfo, DER. */
  readonly spki: Uint8Array;
}

export interface Request {
  readonly subject: string;
  /** Lines of an openssl extension section. */
  readonly extensions?: readonly string[];
  /** YYYYMMDDHHMMSSZ; by default from yesterday for a month. */
  readonly from?: string;
  readonly until?: string;
  /** Signs; absent: the certificate signs itself. */
  readonly issuer?: Issued;
  /** Uses the key of this one instead of a new key. */
  readonly keyOf?: Issued;
}

export const CA_EXTENSIONS = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"];
export const forHost = (...names: string[]): string[] => [
  "basicConstraints=CA:FALSE",
  `subjectAltName=${names.map((name) => `DNS:${name}`).join(",")}`,
];

const DAY = 86_400_000;
export const asn1Time = (ms: number): string =>
  `${new Date(ms).toISOString().replaceAll(/[-:T]/g, "").slice(0, 14)}Z`;

export class Pki {
  #serial = 0;

  private constructor(readonly directory: string) {}

  static async create(): Promise<Pki> {
    return new Pki(await Deno.makeTempDir({ prefix: "pki-" }));
  }

  async remove(): Promise<void> {
    await Deno.remove(this.directory, { recursive: true });
  }

  /**
   * Writes a certificate with its key, and what a server sends after it, into one file that
   * Postfix's processes can read. @returns the file
   */
  async chainFile(certificate: Issued, ...chain: readonly Issued[]): Promise<string> {
    const file = `${this.directory}/${++this.#serial}-chain.pem`;
    const pems = [certificate, ...chain].map(({ pem }) => pem);
    await Deno.writeTextFile(file, `${await Deno.readTextFile(certificate.key)}${pems.join("")}`);
    await Deno.chmod(file, 0o644);
    await Deno.chmod(this.directory, 0o755);
    return file;
  }

  async issue(request: Request): Promise<Issued> {
    const n = ++this.#serial;
    const path = (name: string) => `${this.directory}/${n}-${name}`;
    const { subject, issuer, keyOf, extensions = [] } = request;
    const key = keyOf?.key ?? path("key.pem");
    if (!keyOf) {
      // deno-fmt-ignore
      await run("openssl", ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key]);
    }
    const config = path("ca.cnf");
    await Deno.writeTextFile(path("index"), "");
    await Deno.writeTextFile(path("serial"), `${(0x1000 + n).toString(16)}\n`);
    await Deno.writeTextFile(
      config,
      `[req]
distinguished_name = name
[name]
[ca]
default_ca = this
[this]
database = ${path("index")}
serial = ${path("serial")}
new_certs_dir = ${this.directory}
default_md = sha256
policy = any
unique_subject = no
email_in_dn = no
[any]
commonName = optional
organizationName = optional
[extensions]
subjectKeyIdentifier = hash
${extensions.join("\n")}
`,
    );
    const csr = path("csr.pem");
    // deno-fmt-ignore
    await run("openssl", ["req", "-new", "-config", config, "-key", key, "-subj", subject, "-out", csr]);
    const certificate = path("cert.pem");
    const signer = issuer
      ? ["-cert", issuer.certificate, "-keyfile", issuer.key]
      : ["-selfsign", "-keyfile", key];
    // deno-fmt-ignore
    await run("openssl", [
      "ca", "-batch", "-notext", "-preserveDN", "-config", config, "-extensions", "extensions", ...signer,
      "-startdate", request.from ?? asn1Time(Date.now() - DAY),
      "-enddate", request.until ?? asn1Time(Date.now() + 30 * DAY),
      "-in", csr, "-out", certificate,
    ]);
    const pem = await Deno.readTextFile(certificate);
    const der = pemToDer(pem);
    const spki = pemToDer(await run("openssl", ["pkey", "-in", key, "-pubout"]));
    return { certificate, key, pem, der, spki };
  }
}

function pemToDer(pem: string): Uint8Array {
  const base64 = pem.replaceAll(/-----[^-]*-----|\s/g, "");
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

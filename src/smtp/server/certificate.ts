/**
 * The certificate of a listener: its chain and key from files, read again when they change. The
 * files are looked at when a client begins TLS, at most once a second. What they hold is taken
 * only when it is whole: chain and key that belong together, in their time. Otherwise the
 * certificate from before stays in use, and the log says why.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { createSecureContext, type SecureContext } from "node:tls";
import type { Clock, Log } from "../../../actors/ports.ts";
import { FileWatch } from "../../file_watch.ts";

/** Milliseconds. */
const LOOK_INTERVAL = 1_000;

/** Chain and key, PEM. */
export interface Pem {
  readonly cert: string;
  readonly key: string;
}

/** What a listener asks when a client begins TLS. */
export interface CertificateSource {
  context(): SecureContext;
}

/** The files hold no certificate that could be used; one line, which names the file. */
export class BadCertificate extends Error {
  override readonly name = "BadCertificate";
}

export interface CertificatePaths {
  readonly certFile: string;
  readonly keyFile: string;
}

/** A certificate that stays as it is. */
export function fixedCertificate({ cert, key }: Pem): CertificateSource {
  const context = createSecureContext({ cert, key, minVersion: "TLSv1.2" });
  return { context: () => context };
}

export class CertificateFiles implements CertificateSource {
  readonly #paths: CertificatePaths;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #watch: FileWatch;
  #current: Loaded;
  #warnedOf: Loaded | undefined;

  /** @throws BadCertificate; one that has expired is used, with a warning in the log */
  constructor(paths: CertificatePaths, ports: { readonly clock: Clock; readonly log: Log }) {
    this.#paths = paths;
    this.#clock = ports.clock;
    this.#log = ports.log;
    this.#watch = new FileWatch([paths.certFile, paths.keyFile], ports.clock, LOOK_INTERVAL);
    this.#current = load(paths);
    this.#lookAtTheTime();
  }

  context(): SecureContext {
    if (this.#watch.changed()) this.#readAgain();
    this.#lookAtTheTime();
    return this.#current.context;
  }

  /** Warns once of a certificate in use that clients will not take. */
  #lookAtTheTime(): void {
    if (this.#warnedOf === this.#current) return;
    const why = untimely(this.#current, this.#clock.now());
    if (!why) return;
    this.#warnedOf = this.#current;
    this.#log.warn("certificate not in its time", { file: this.#paths.certFile, why });
  }

  #readAgain(): void {
    const { certFile } = this.#paths;
    try {
      const found = load(this.#paths);
      const why = untimely(found, this.#clock.now());
      if (why) throw new BadCertificate(`${certFile}: the certificate ${why}`);
      this.#current = found;
      this.#log.info("certificate read again", {
        file: certFile,
        until: found.notAfter.toISOString(),
      });
    } catch (error) {
      if (!(error instanceof BadCertificate)) throw error;
      this.#log.error("certificate not read again; the one from before stays in use", {
        why: error.message,
      });
    }
  }
}

interface Loaded {
  readonly context: SecureContext;
  readonly notBefore: Date;
  readonly notAfter: Date;
}

function load({ certFile, keyFile }: CertificatePaths): Loaded {
  const cert = readText(certFile);
  const key = readText(keyFile);
  const leaf = orBad(
    `${certFile}: it holds no certificate in PEM`,
    () => new X509Certificate(block(cert, /CERTIFICATE/)),
  );
  const privateKey = orBad(
    `${keyFile}: it holds no private key in PEM without a passphrase`,
    () => createPrivateKey(block(key, /(?:EC |RSA )?PRIVATE KEY/)),
  );
  if (!leaf.checkPrivateKey(privateKey)) {
    throw new BadCertificate(`${certFile}: the certificate is not that of the key in ${keyFile}`);
  }
  const context = orBad(
    `${certFile}: TLS cannot use it`,
    () => createSecureContext({ cert, key, minVersion: "TLSv1.2" }),
  );
  return {
    context,
    notBefore: new Date(leaf.validFrom),
    notAfter: new Date(leaf.validTo),
  };
}

/** The first block of a kind: what stands around it (comments, parameters of curves) is allowed. */
function block(pem: string, kind: RegExp): string {
  const { source } = kind;
  const whole = new RegExp(`-----BEGIN (${source})-----[^-]*-----END \\1-----`).exec(pem);
  if (!whole) throw new Error("there is no such block");
  return `${whole[0]}\n`;
}

function untimely({ notBefore, notAfter }: Loaded, now: number): string | undefined {
  if (notAfter.getTime() < now) return `expired on ${notAfter.toISOString()}`;
  if (notBefore.getTime() > now) return `is valid only from ${notBefore.toISOString()} on`;
  return undefined;
}

function readText(file: string): string {
  try {
    return Deno.readTextFileSync(file);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new BadCertificate(`${file} cannot be read: ${why}`);
  }
}

function orBad<T>(line: string, make: () => T): T {
  try {
    return make();
  } catch (error) {
    // What the library says of a key that it cannot read may repeat parts of it.
    throw new BadCertificate(line, { cause: error });
  }
}

/**
 * DkimSigner: signs messages on their way in with the keys of their author's domain (RFC 6376; with
 * Ed25519, RFC 8463).
 *
 *   1. `begin` reads the header: whose mail it is, and which keys that means
 *   2. `body` takes the content as it flows by, and keeps nothing of it but a hash
 *   3. `finish` signs: a DKIM-Signature field per key, which stands before the message
 *
 * Written here rather than left to mailauth: that signs with node:crypto on the main thread (1.7 ms
 * for RSA-2048, in which nothing else is served), and does not oversign. WebCrypto signs beside the
 * main thread. The tests verify with mailauth and with dkimpy.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import type { Clock } from "../../actors/ports.ts";
import { authorsOf, BadAuthor } from "../accounts/header_from.ts";
import type { Config, DkimKeyConfig } from "../config/types.ts";
import { hostName } from "../dns/names.ts";
import { fieldsOf, RelaxedBodyHash, relaxedField } from "./canonical.ts";
import type { DkimKey } from "./keys.ts";
import { type Coverage, coverageOf, signedField, unsignedField } from "./signature.ts";

/** Keys by domain, in A-labels. */
export type DomainKeys = Config["dkim"];

/** A message that is being signed. */
export interface MessageSignature {
  /** The next octets of the body, which begins behind the empty line. */
  body(octets: Uint8Array): void;
  /** The fields, each with its CRLF, to be put before the message in this order. */
  finish(): Promise<string[]>;
}

export class DkimSigner {
  readonly #clock: Clock;
  #domains: DomainKeys;
  readonly #imported = new WeakMap<DkimKey, Promise<CryptoKey>>();

  constructor(clock: Clock, domains: DomainKeys) {
    this.#clock = clock;
    this.#domains = domains;
  }

  /** Messages that begin from now on are signed with these. */
  use(domains: DomainKeys): void {
    this.#domains = domains;
  }

  /**
   * @param header section of a message: whole lines, CRLF at each end
   * @returns undefined when there is nothing to sign with, or no telling whose message it is
   */
  begin(header: Uint8Array): MessageSignature | undefined {
    if (this.#domains.size === 0) return undefined;
    return this.#begin(header, authorDomains(header));
  }

  /** Like `begin`, for mail of this host itself: the keys of a domain above its own do too. */
  beginOwn(header: Uint8Array): MessageSignature | undefined {
    if (this.#domains.size === 0) return undefined;
    const [domain] = authorDomains(header);
    const labels = domain?.split(".") ?? [];
    const above = labels.map((_, n) => labels.slice(n).join("."));
    const nearest = above.find((name) => this.#domains.has(name));
    return this.#begin(header, nearest === undefined ? [] : [nearest]);
  }

  #begin(header: Uint8Array, domains: readonly string[]): MessageSignature | undefined {
    const keys = domains.flatMap((domain) =>
      (this.#domains.get(domain) ?? []).map((key) => ({ domain, ...key }))
    );
    if (keys.length === 0) return undefined;
    const coverage = coverageOf(fieldsOf(Buffer.from(header).toString("latin1")));
    const body = new RelaxedBodyHash();
    return {
      body: (octets) => body.update(octets),
      finish: () => {
        const bodyHash = body.digest();
        const time = Math.floor(this.#clock.now() / 1000);
        return Promise.all(keys.map((key) => this.#sign(key, coverage, bodyHash, time)));
      },
    };
  }

  async #sign(
    { domain, selector, key }: DkimKeyConfig & { readonly domain: string },
    { names, fields }: Coverage,
    bodyHash: string,
    time: number,
  ): Promise<string> {
    const algorithm = `${key.algorithm}-sha256` as const;
    const unsigned = unsignedField({ algorithm, domain, selector, time, names, bodyHash });
    const data = Buffer.from(
      [...fields, { name: "dkim-signature", text: unsigned }].map(relaxedField).join("\r\n"),
      "latin1",
    );
    const cryptoKey = await this.#cryptoKey(key);
    // RFC 8463, section 3: Ed25519 signs the hash, where RSA hashes by itself.
    const signature = key.algorithm === "ed25519"
      ? await crypto.subtle.sign("Ed25519", cryptoKey, sha256(data))
      : await crypto.subtle.sign("RSASSA-PKCS1-v1_5", cryptoKey, data);
    return signedField(unsigned, Buffer.from(signature).toString("base64"));
  }

  #cryptoKey(key: DkimKey): Promise<CryptoKey> {
    let imported = this.#imported.get(key);
    if (!imported) {
      const der = new Uint8Array(key.privateKey.export({ type: "pkcs8", format: "der" }));
      const algorithm = key.algorithm === "ed25519"
        ? { name: "Ed25519" }
        : { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
      imported = crypto.subtle.importKey("pkcs8", der, algorithm, false, ["sign"]);
      this.#imported.set(key, imported);
    }
    return imported;
  }
}

const sha256 = (data: Uint8Array): Uint8Array<ArrayBuffer> =>
  new Uint8Array(createHash("sha256").update(data).digest());

/** The domains of the authors, each once; none where the From field is not to be trusted. */
function authorDomains(header: Uint8Array): string[] {
  try {
    const domains = authorsOf(header).map(({ domain }) => hostName(domain));
    return [...new Set(domains)].filter((domain) => domain !== undefined);
  } catch (error) {
    if (error instanceof BadAuthor) return [];
    throw error;
  }
}

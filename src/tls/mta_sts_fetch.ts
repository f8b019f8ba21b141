/**
 * Gets a policy over HTTPS (RFC 8461, section 3.3): one GET to the well-known address, status 200,
 * `text/plain`, at most 64 KiB, within a minute; neither redirects nor HTTP caches have a say.
 */
import { HttpsError, type HttpsPorts, requestHttps } from "../https.ts";
import { MAX_POLICY, PolicyError } from "./mta_sts_policy.ts";

/** The port through which policies are had. */
export interface PolicyFetcher {
  /**
   * @param domain the policy domain, as A-labels in lower case
   * @returns the octets of the policy, not looked into
   * @throws PolicyError
   */
  fetch(domain: string, signal: AbortSignal): Promise<Uint8Array>;
}

/** Milliseconds for all of it (RFC 8461, section 3.3). */
export const FETCH_DEADLINE = 60_000;

export class HttpsPolicyFetcher implements PolicyFetcher {
  constructor(
    private readonly ports: HttpsPorts,
    private readonly options: { readonly port?: number; readonly deadline?: number } = {},
  ) {}

  async fetch(domain: string, signal: AbortSignal): Promise<Uint8Array> {
    const { port = 443, deadline = FETCH_DEADLINE } = this.options;
    const path = "/.well-known/mta-sts.txt";
    const host = `mta-sts.${domain}`;
    try {
      const { status, contentType, body } = await requestHttps(this.ports, {
        method: "GET",
        host,
        port,
        path,
        headers: { accept: "text/plain" },
        verify: true,
        limit: MAX_POLICY,
        deadline,
      }, signal);
      if (status !== 200) {
        const redirect = status >= 300 && status < 400 ? "; redirects are not followed" : "";
        throw new PolicyError(
          "sts-policy-fetch-error",
          `https://${host}${path} answered ${status} instead of 200${redirect}`,
        );
      }
      const [type = ""] = contentType.split(";");
      if (type.trim().toLowerCase() !== "text/plain") {
        const shown = type.trim().slice(0, 60).replaceAll(/[^!-~]/g, "?") || "nothing";
        throw new PolicyError(
          "sts-policy-invalid",
          `https://${host}${path} is ${shown}, not text/plain`,
        );
      }
      return body;
    } catch (error) {
      if (!(error instanceof HttpsError)) throw error;
      const type = error.kind === "certificate"
        ? "sts-webpki-invalid"
        : error.kind === "too-large"
        ? "sts-policy-invalid"
        : "sts-policy-fetch-error";
      throw new PolicyError(type, error.message);
    }
  }
}

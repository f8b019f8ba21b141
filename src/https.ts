/**
 * HTTPS requests to hosts of others, for MTA-STS policies (RFC 8461) and TLS reports (RFC 8460):
 * names through our own resolver, no proxies, no redirects, no kept connections, TLS 1.2 or later.
 * Bounded in time and in octets. The certificate is judged here, by CA store and dNSNames alone.
 */
import { Buffer } from "node:buffer";
import https from "node:https";
import type { IncomingMessage } from "node:http";
import type tls from "node:tls";
import type { Clock } from "../actors/ports.ts";
import { resolveAddresses } from "./dns/addresses.ts";
import type { Resolver } from "./ports.ts";
import { parseCertificate } from "./tls/certificate.ts";
import { matchingName, namesOf } from "./tls/names.ts";

export interface HttpsPorts {
  readonly clock: Pick<Clock, "timer">;
  readonly resolver: Resolver;
  /** Trust anchors in PEM instead of the CA store that comes with Deno. */
  readonly ca?: () => readonly string[] | undefined;
  /** Whether this very machine may be asked; else a foreign name could point at its services. */
  readonly allowLoopback?: () => boolean;
}

export interface HttpsRequest {
  readonly method: "GET" | "POST";
  /** A name, as A-labels in lower case. */
  readonly host: string;
  readonly port: number;
  /** Path and query. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  /** False: the request is made whatever the certificate is. */
  readonly verify: boolean;
  /** Octets of the answer that are taken. */
  readonly limit: number;
  /** Milliseconds for all of it. */
  readonly deadline: number;
}

export interface HttpsAnswer {
  readonly status: number;
  /** As the header field has it; empty where it is not there. */
  readonly contentType: string;
  readonly body: Uint8Array;
}

/** There is no answer. */
export class HttpsError extends Error {
  override readonly name = "HttpsError";
  constructor(
    readonly kind: "dns" | "connect" | "certificate" | "timeout" | "too-large" | "canceled",
    message: string,
  ) {
    super(message);
  }
}

/** Addresses that are tried, and milliseconds for connecting to one of them. */
const MAX_ADDRESSES = 4;
const CONNECT = 15_000;

/** @throws HttpsError */
export async function requestHttps(
  ports: HttpsPorts,
  request: HttpsRequest,
  signal: AbortSignal,
): Promise<HttpsAnswer> {
  const { host, deadline } = request;
  const stop = new AbortController();
  const pass = () => stop.abort(new HttpsError("canceled", "canceled"));
  if (signal.aborted) pass();
  else signal.addEventListener("abort", pass, { once: true });
  const disarm = ports.clock.timer(deadline, () => {
    stop.abort(new HttpsError("timeout", `${host}: no answer within ${deadline / 1_000} s`));
  });
  try {
    const allowLoopback = ports.allowLoopback?.() ?? false;
    const options = { allowLoopback, signal: stop.signal };
    const { addresses, failure } = await resolveAddresses(ports.resolver, host, options);
    stop.signal.throwIfAborted();
    if (failure) throw new HttpsError("dns", failure.reason);
    let last: unknown;
    for (const address of addresses.slice(0, MAX_ADDRESSES)) {
      try {
        return await exchange(ports, request, address, stop.signal);
      } catch (error) {
        stop.signal.throwIfAborted();
        // Only what did not get through to the host is tried at another address.
        if (!(error instanceof HttpsError) || error.kind !== "connect") throw error;
        last = error;
      }
    }
    throw last;
  } finally {
    disarm();
    signal.removeEventListener("abort", pass);
  }
}

function exchange(
  { clock, ca }: HttpsPorts,
  request: HttpsRequest,
  address: string,
  signal: AbortSignal,
): Promise<HttpsAnswer> {
  const { method, host, port, path, headers, body, verify, limit } = request;
  const where = `${host} [${address}]:${port}`;
  const anchors = ca?.();
  return new Promise((resolve, reject) => {
    let answered = false;
    const sent = https.request({
      host: address,
      port,
      path,
      method,
      servername: host,
      agent: false,
      minVersion: "TLSv1.2",
      rejectUnauthorized: verify,
      checkServerIdentity: (_, peer) => verify ? identityFault(peer, host) : undefined,
      headers: {
        host: port === 443 ? host : `${host}:${port}`,
        "user-agent": "Postledger",
        ...headers,
        ...(body ? { "content-length": String(body.length) } : {}),
      },
      ...(anchors ? { ca: [...anchors] } : {}),
    });
    const settle = (run: () => void) => {
      signal.removeEventListener("abort", abort);
      disarm();
      run();
      sent.destroy();
    };
    const fail = (error: unknown) => settle(() => reject(error));
    const abort = () => fail(signal.reason);
    const disarm = clock.timer(CONNECT, () => {
      if (!answered && !connected) fail(new HttpsError("connect", `${where}: no connection`));
    });
    let connected = false;
    sent.once("socket", (socket) => {
      socket.once("secureConnect", () => connected = true);
    });
    sent.once("finish", () => connected = true);
    signal.addEventListener("abort", abort, { once: true });
    sent.on("error", (error: Error & { code?: string }) => {
      const kind = CERTIFICATE.test(error.code ?? "") ? "certificate" : "connect";
      fail(new HttpsError(kind, `${where}: ${error.message}`));
    });
    sent.once("response", (response) => {
      answered = true;
      read(response, limit, where).then((octets) => {
        const { statusCode: status = 0, headers } = response;
        const contentType = headers["content-type"] ?? "";
        settle(() => resolve({ status, contentType, body: octets }));
      }, fail);
    });
    sent.end(body ? Buffer.from(body) : undefined);
  });
}

/** OpenSSL's verdicts over a chain, as node:tls names them, and our own over the names. */
const CERTIFICATE =
  /CERT|UNABLE_TO_|SELF_SIGNED|INVALID_(?:CA|PURPOSE)|PATH_LENGTH|HOSTNAME_MISMATCH|CRL_/;

/** RFC 8461, section 3.3: a dNSName (RFC 6125), and no common name instead of one. */
function identityFault(peer: tls.PeerCertificate, host: string): Error | undefined {
  let names: readonly string[] = [];
  try {
    names = namesOf(parseCertificate(peer.raw), false);
  } catch {
    // A certificate that cannot be read is for nobody.
  }
  if (matchingName(names, [host]) !== undefined) return undefined;
  const shown = names.slice(0, 4).join(", ") || "no name";
  const fault = new Error(`the certificate is for ${shown}, not ${host}`);
  return Object.assign(fault, { code: "ERR_TLS_CERT_ALTNAME_INVALID" });
}

function read(response: IncomingMessage, limit: number, where: string): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const chunks: Uint8Array[] = [];
    let size = 0;
    response.on("data", (chunk: Uint8Array) => {
      size += chunk.length;
      if (size <= limit) return chunks.push(chunk);
      reject(new HttpsError("too-large", `${where}: the answer has more than ${limit} octets`));
      response.destroy();
    });
    response.once("end", () => {
      if (response.complete) return resolve(Buffer.concat(chunks));
      reject(new HttpsError("connect", `${where}: the answer was cut off`));
    });
    const cut = () => reject(new HttpsError("connect", `${where}: the answer was cut off`));
    response.once("error", cut);
    response.once("close", cut);
  });
}

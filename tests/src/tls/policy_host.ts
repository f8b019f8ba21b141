/** A policy host on loopback: an HTTPS server that answers as a test says. */
import https from "node:https";
import type { AddressInfo } from "node:net";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { TlsOptions } from "node:tls";

const folder = new URL("../../../fixtures/tls/", import.meta.url);
export const pem = (name: string): string => Deno.readTextFileSync(new URL(name, folder));

export const POLICY_CA = pem("policy_ca.cert.pem");

export class HttpsHost {
  readonly requests: { method: string; url: string; host: string; body: Uint8Array }[] = [];
  #server: https.Server | undefined;

  /** @param certificate name of a certificate in fixtures/tls */
  async start(
    respond: (request: IncomingMessage, response: ServerResponse) => void,
    certificate = "policy_host",
    options: TlsOptions = {},
  ): Promise<number> {
    const own = { cert: pem(`${certificate}.cert.pem`), key: pem(`${certificate}.key.pem`) };
    const server = https.createServer({ ...own, ...options }, (request, response) => {
      const chunks: Uint8Array[] = [];
      request.on("data", (chunk: Uint8Array) => chunks.push(chunk));
      request.on("end", () => {
        const { method = "", url = "", headers: { host = "" } } = request;
        const body = new Uint8Array(chunks.flatMap((chunk) => [...chunk]));
        this.requests.push({ method, url, host, body });
        respond(request, response);
      });
    });
    server.on("tlsClientError", () => {});
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
    return (server.address() as AddressInfo).port;
  }

  async stop(): Promise<void> {
    const server = this.#server;
    if (!server) return;
    server.closeAllConnections();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }
}

/**
 * An HTTPS host of the small internet: answers as a test says, and keeps what it was sent.
 */
import { Buffer } from "node:buffer";
import https from "node:https";
import type { Issued } from "./pki.ts";

export interface HttpsMessage {
  readonly method: string;
  readonly host: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Uint8Array;
}

export interface HttpsReply {
  readonly status: number;
  readonly type?: string;
  readonly text?: string;
}

export interface HttpsHost {
  readonly requests: readonly HttpsMessage[];
  stop(): Promise<void>;
}

/** @param where an address, and 443 unless it says otherwise */
export async function startHttpsHost(
  where: { readonly address: string; readonly port?: number },
  { pem, key }: Issued,
  answer: (request: HttpsMessage) => HttpsReply,
): Promise<HttpsHost> {
  const requests: HttpsMessage[] = [];
  const server = https.createServer(
    { cert: pem, key: await Deno.readTextFile(key) },
    (request, response) => {
      const chunks: Uint8Array[] = [];
      request.on("data", (chunk: Uint8Array) => chunks.push(chunk));
      request.on("end", () => {
        const { method = "", url: path = "", headers } = request;
        const body = new Uint8Array(Buffer.concat(chunks));
        const message = { method, host: headers.host ?? "", path, headers, body };
        requests.push(message);
        const { status, type, text = "" } = answer(message);
        response.writeHead(status, type === undefined ? {} : { "content-type": type });
        response.end(text);
      });
    },
  );
  server.on("tlsClientError", () => {});
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(where.port ?? 443, where.address, () => resolve());
  });
  return {
    requests,
    stop: () => {
      server.closeAllConnections();
      return new Promise<void>((done) => server.close(() => done()));
    },
  };
}

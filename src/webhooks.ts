/**
 * The sender of webhooks: signs each message and posts it (actors/webhook_runner.ts says when).
 *
 *   POST url
 *   Content-Type: application/json
 *   Postledger-Id: STREAM:VERSION             the same whenever the event is told again
 *   Postledger-Signature: t=SECONDS,v1=HEX    HMAC-SHA-256 (RFC 2104) over "SECONDS.BODY"
 *
 * While a secret is being changed a second `,v1=HEX` follows, by the old one: either will do.
 * The time is that of the attempt: a receiver that refuses old ones cannot be played a recording.
 * Redirects are not followed, and an endpoint that hangs is left after 10 seconds. The answer is
 * its status alone; what else it says is dropped, and read only as far as it costs less than a new
 * connection would.
 */
import { createHmac } from "node:crypto";
import type { Clock } from "../actors/ports.ts";
import type { WebhookEndpoint, WebhookSender } from "../actors/webhook_endpoint.ts";
import type { WebhookMessage } from "../actors/webhook_message.ts";
import type { WebhookConfig } from "./config/types.ts";

/** Milliseconds until the head of the answer has to be there, and from there to its end. */
const ANSWER_WITHIN = 10_000;
const REST_WITHIN = 500;
/** Octets of an answer that are read. */
const MOST = 64 * 1024;

/** The value of Postledger-Signature. @param seconds since the epoch */
export function signature(secrets: readonly string[], seconds: number, body: string): string {
  const hmacs = secrets.map((secret) =>
    createHmac("sha256", secret).update(`${seconds}.${body}`).digest("hex")
  );
  return [`t=${seconds}`, ...hmacs.map((hex) => `v1=${hex}`)].join(",");
}

export const endpointOf = (config: WebhookConfig): WebhookEndpoint => ({
  name: config.name,
  url: config.url,
  events: config.events,
  ...(config.accounts ? { accounts: config.accounts } : {}),
  concurrency: config.concurrency,
  parkAfter: config.parkAfter,
});

export class WebhookPoster implements WebhookSender {
  #configs = new Map<string, WebhookConfig>();

  constructor(
    private readonly clock: Clock,
    configs: readonly WebhookConfig[],
    private readonly within = ANSWER_WITHIN,
  ) {
    this.use(configs);
  }

  use(configs: readonly WebhookConfig[]): void {
    this.#configs = new Map(configs.map((config) => [config.name, config]));
  }

  async send(
    { name, url }: WebhookEndpoint,
    { id, body }: WebhookMessage,
    signal: AbortSignal,
  ): Promise<number> {
    const config = this.#configs.get(name);
    if (!config) throw new Error("the endpoint is not in the config any more");
    const secrets = [config.secret, ...(config.oldSecret ? [config.oldSecret] : [])];
    const stop = new AbortController();
    const pass = () => stop.abort();
    if (signal.aborted) pass();
    else signal.addEventListener("abort", pass, { once: true });
    let late = false;
    let disarm = this.clock.timer(this.within, () => {
      late = true;
      stop.abort();
    });
    try {
      const response = await fetch(url, {
        method: "POST",
        redirect: "manual",
        headers: {
          "content-type": "application/json",
          "user-agent": "Postledger",
          "postledger-id": id,
          "postledger-signature": signature(
            secrets.map((secret) => secret.reveal()),
            Math.floor(this.clock.now() / 1_000),
            body,
          ),
        },
        body,
        signal: stop.signal,
      });
      disarm();
      disarm = this.clock.timer(REST_WITHIN, pass);
      await drop(response.body);
      return response.status;
    } catch (cause) {
      if (late) throw new Error(`no answer within ${this.within / 1_000} s`);
      throw new Error(`no answer: ${reasonOf(cause, url)}`);
    } finally {
      disarm();
      signal.removeEventListener("abort", pass);
    }
  }
}

/** Reads a short answer to its end: its connection serves the next post. A long one is cut off. */
async function drop(body: Response["body"]): Promise<void> {
  if (!body) return;
  let octets = 0;
  try {
    // Leaving the loop cancels the rest.
    for await (const chunk of body) if ((octets += chunk.length) > MOST) return;
  } catch {
    // What it answered is known.
  }
}

/** fetch says what happened in the cause of its error, and where: a URL may hold a token. */
function reasonOf(error: unknown, url: string): string {
  const { origin, pathname, search } = new URL(url);
  const said = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const text = said instanceof Error ? said.message : String(said);
  return text.replaceAll(`${origin}${pathname}${search}`, origin);
}

/**
 * The sender of webhooks: signs each message and posts it (actors/webhook_runner.ts says when).
 *
 *   POST url
 *   Content-Type: application/json
 *   Postledger-Id: STREAM:VERSION             the same whenever the event is told again
 *   Postledger-Signature: t=SECONDS,v1=HEX    HMAC-SHA-256 (RFC 2104) over "SECONDS.BODY"
 *
 * The time is that of the attempt: a receiver that refuses old ones cannot be played a recording.
 * Redirects are not followed, the answer is its status alone (what it says is not read), and an
 * endpoint that hangs is left after 10 seconds.
 */
import { createHmac } from "node:crypto";
import type { Clock } from "../actors/ports.ts";
import type { WebhookEndpoint, WebhookSender } from "../actors/webhook_endpoint.ts";
import type { WebhookMessage } from "../actors/webhook_message.ts";
import type { WebhookConfig } from "./config/types.ts";

/** Milliseconds until the head of the answer has to be there. */
const ANSWER_WITHIN = 10_000;

/** The value of Postledger-Signature. @param seconds since the epoch */
export function signature(secret: string, seconds: number, body: string): string {
  const hmac = createHmac("sha256", secret).update(`${seconds}.${body}`).digest("hex");
  return `t=${seconds},v1=${hmac}`;
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
    const secret = this.#configs.get(name)?.secret;
    if (!secret) throw new Error("the endpoint is not in the config any more");
    const stop = new AbortController();
    const pass = () => stop.abort();
    if (signal.aborted) pass();
    else signal.addEventListener("abort", pass, { once: true });
    let late = false;
    const disarm = this.clock.timer(this.within, () => {
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
            secret.reveal(),
            Math.floor(this.clock.now() / 1_000),
            body,
          ),
        },
        body,
        signal: stop.signal,
      });
      // Whatever it has to say, and however much: the connection is closed on it.
      await response.body?.cancel().catch(() => {});
      return response.status;
    } catch (cause) {
      if (late) throw new Error(`no answer within ${this.within / 1_000} s`);
      throw new Error(`no answer: ${reasonOf(cause)}`);
    } finally {
      disarm();
      signal.removeEventListener("abort", pass);
    }
  }
}

/** fetch says what happened in the cause of its error. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? error.cause.message : error.message;
}

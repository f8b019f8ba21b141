/** A webhook endpoint: who is told what, and the port through which one message is sent to it. */
import type { WebhookKind, WebhookMessage } from "./webhook_message.ts";

export interface WebhookEndpoint {
  readonly name: string;
  readonly url: string;
  readonly events: readonly WebhookKind[];
  /** Only what concerns these accounts; absent: everything. */
  readonly accounts?: readonly string[];
  /** Posts on their way to it at the same time, at most; of one message never more than one. */
  readonly concurrency: number;
  /** Milliseconds for which it may take nothing before it is parked. */
  readonly parkAfter: number;
}

/** Sends one message; the real one signs it and posts it (src/webhooks.ts). */
export interface WebhookSender {
  /**
   * Resolves with the status of the answer. Bounds its own time.
   * @throws Error when there was no answer that could be read
   */
  send(endpoint: WebhookEndpoint, message: WebhookMessage, signal: AbortSignal): Promise<number>;
}

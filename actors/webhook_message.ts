/**
 * What a webhook says: which events of the log are told, and the JSON that tells them. An id is
 * the same whenever an event is told again, so that receivers can drop what they have.
 */
import type { StoredEvent } from "../events/catalogue.ts";
import type { EventStore } from "./ports.ts";

/**
 * - `delivered`: a server took the message
 * - `delayed`: an attempt failed and another one follows
 * - `failed`: the message failed for good
 * - `suppressed`: new mail to an address is refused from now on
 */
export const WEBHOOK_KINDS = ["delivered", "delayed", "failed", "suppressed"] as const;
export type WebhookKind = (typeof WEBHOOK_KINDS)[number];

export interface WebhookMessage {
  readonly id: string;
  readonly account: string | null;
  /** JSON. */
  readonly body: string;
}

export function webhookKind(event: StoredEvent): WebhookKind | undefined {
  switch (event.type) {
    case "Delivered":
      return "delivered";
    case "Failed":
      return event.data.permanent ? "failed" : "delayed";
    case "AddressSuppressed":
      return "suppressed";
    default:
      return undefined;
  }
}

/**
 * Undefined when it concerns a report.
 * @throws Error when the message is not in the store any more
 */
export async function webhookMessage(
  store: Pick<EventStore, "readStream">,
  kind: WebhookKind,
  event: StoredEvent,
): Promise<WebhookMessage | undefined> {
  const id = `${event.stream}:${event.version}`;
  const head = { id, type: kind, time: event.time };
  if (event.type === "AddressSuppressed") {
    const { address, account = null, cause, who, why, message, expires } = event.data;
    const suppression = { address, account, cause, who, why, message, expires };
    return { id, account, body: JSON.stringify({ ...head, suppression }) };
  }
  const history = await store.readStream(event.stream);
  const [enqueued] = history;
  if (enqueued?.type !== "Enqueued") throw new Error(`${event.stream} has left the store`);
  // Reports are our own: whoever is told of the failure need not be told of them too.
  const { kind: from } = enqueued.data.source;
  if (from === "dsn" || from === "tlsrpt") return undefined;
  const { account, submission, mailFrom, rcptTo, messageId, metadata } = enqueued.data;
  const attempts =
    history.filter(({ type, version }) => type === "AttemptStarted" && version < event.version)
      .length;
  const message = {
    id: event.stream,
    submission,
    account,
    from: mailFrom,
    to: rcptTo,
    messageId,
    metadata,
    attempts,
  };
  return { id, account, body: JSON.stringify({ ...head, message, ...outcome(event) }) };
}

/** Messages that are remembered. */
const RECENT = 500;

/** Makes a message once for all endpoints that are told of an event at about the same time. */
export class WebhookMessages {
  /** By position of the event. */
  readonly #recent = new Map<number, Promise<WebhookMessage | undefined>>();

  constructor(private readonly store: Pick<EventStore, "readStream">) {}

  /** As webhookMessage. */
  of(kind: WebhookKind, event: StoredEvent): Promise<WebhookMessage | undefined> {
    const { position } = event;
    const known = this.#recent.get(position);
    if (known) return known;
    const message = webhookMessage(this.store, kind, event);
    message.catch(() => this.#recent.delete(position));
    this.#recent.set(position, message);
    for (const oldest of this.#recent.keys()) {
      if (this.#recent.size <= RECENT) break;
      this.#recent.delete(oldest);
    }
    return message;
  }
}

function outcome(event: StoredEvent): Record<string, unknown> {
  switch (event.type) {
    case "Delivered": {
      const { host, address, reply, tls: { mode, verifiedBy }, queued } = event.data;
      return { delivery: { host, address, reply, tls: { mode, verifiedBy }, queued } };
    }
    case "Failed": {
      const { class: kind, reason, code, enhanced, remoteMTA, reply, next } = event.data;
      return { failure: { class: kind, reason, code, enhanced, remoteMTA, reply, next } };
    }
    default:
      return {};
  }
}

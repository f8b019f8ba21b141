/**
 * The webhooks projection: one row per endpoint, how far in the log it has been told. The log
 * itself is the outbox: what lies behind the position waits to be sent, and an event is in the
 * outbox from the very transaction that wrote it.
 */
import type { StoredEvent } from "../catalogue.ts";
import type { Projection } from "../projection.ts";

export type WebhookRow = {
  readonly endpoint: string;
  /** Position of the log up to which it has been told. */
  readonly position: number;
  /** Events that it took, and that were given up, in all. */
  readonly told: number;
  readonly given_up: number;
  /** Why nothing is sent to it; null while it is in use. */
  readonly parked: string | null;
  /** Epoch milliseconds. */
  readonly parked_since: number | null;
  /** Stream of its latest event. */
  readonly stream: string;
};

export const webhooksProjection: Projection<WebhookRow> = {
  name: "webhooks",
  version: 1,
  columns: {
    endpoint: "TEXT",
    position: "INTEGER",
    told: "INTEGER",
    given_up: "INTEGER",
    parked: "TEXT",
    parked_since: "INTEGER",
    stream: "TEXT",
  },
  indexes: {},
  key: (event) =>
    event.type === "WebhookAdvanced" || event.type === "WebhookParked" ||
      event.type === "WebhookResumed"
      ? event.data.endpoint
      : undefined,
  apply,
};

function apply(row: WebhookRow | undefined, event: StoredEvent): WebhookRow | undefined {
  const { stream } = event;
  switch (event.type) {
    case "WebhookAdvanced": {
      const { endpoint, upTo: position, told, givenUp: given_up } = event.data;
      return {
        ...(row ?? { parked: null, parked_since: null }),
        endpoint,
        position,
        told,
        given_up,
        stream,
      };
    }
    case "WebhookParked":
      return row &&
        { ...row, parked: event.data.why, parked_since: Date.parse(event.time), stream };
    case "WebhookResumed": {
      if (!row) return undefined;
      const position = event.data.skipTo ?? row.position;
      return { ...row, position, parked: null, parked_since: null, stream };
    }
    default:
      return row;
  }
}

/** The stream of an endpoint's events of a day (RFC 3339, UTC): none grows for ever. */
export const webhookStream = (endpoint: string, now: number): string =>
  `webhook ${endpoint} ${new Date(now).toISOString().slice(0, 10)}`;

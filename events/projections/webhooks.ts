/**
 * The webhooks projection: one row per endpoint, how far in the log it has been told. The log
 * itself is the outbox: what lies behind the position waits to be sent, and an event is in the
 * outbox from the very transaction that wrote it.
 */
import type { StoredEvent } from "../catalogue.ts";
import { dayStream } from "../day_streams.ts";
import type { Projection } from "../projection.ts";

export type WebhookRow = {
  readonly endpoint: string;
  /** Position of the log up to which it has been told. */
  readonly position: number;
  /** Events that it took, and that were given up, in all. */
  readonly told: number;
  readonly given_up: number;
  /** How far it has been told beyond that, as WebhookAdvanced has it, in JSON. */
  readonly beyond: string | null;
  /** Why nothing is sent to it; null while it is in use. */
  readonly parked: string | null;
  /** Epoch milliseconds. */
  readonly parked_since: number | null;
  /** The stream from which on its events give this row. */
  readonly stream: string;
};

const KIND = "webhook";

/** The stream of what happens to an endpoint now. */
export const webhookStream = (endpoint: string, now: number, row?: WebhookRow): string =>
  dayStream(KIND, endpoint, now, row?.stream);

export const webhooksProjection: Projection<WebhookRow> = {
  name: "webhooks",
  version: 3,
  columns: {
    endpoint: "TEXT",
    position: "INTEGER",
    told: "INTEGER",
    given_up: "INTEGER",
    beyond: "TEXT",
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
  days: { kind: KIND, from: "stream" },
};

function apply(row: WebhookRow | undefined, event: StoredEvent): WebhookRow | undefined {
  switch (event.type) {
    case "WebhookAdvanced": {
      const { endpoint, upTo: position, told, givenUp: given_up, beyond: open } = event.data;
      const beyond = open ? JSON.stringify(open) : null;
      const known = row ?? { parked: null, parked_since: null };
      // That it is parked was said by an event before this one.
      const stream = row && row.parked !== null ? row.stream : event.stream;
      return { ...known, endpoint, position, told, given_up, beyond, stream };
    }
    case "WebhookParked":
      return row &&
        { ...row, parked: event.data.why, parked_since: Date.parse(event.time) };
    case "WebhookResumed": {
      if (!row) return undefined;
      const { skipTo } = event.data;
      const where = skipTo === undefined ? {} : { position: skipTo, beyond: null };
      return { ...row, ...where, parked: null, parked_since: null };
    }
    default:
      return row;
  }
}

/**
 * Messages as JSON: what the API answers and what `--json` prints, one shape for both.
 * Times are RFC 3339 in UTC; absent facts are null, so that every message has the same keys.
 */
import type { EventData, StoredEvent } from "../../events/catalogue.ts";
import type { QueueRow } from "../../events/projections/queue.ts";

export interface MessageJson {
  readonly id: string;
  readonly state: QueueRow["state"];
  readonly submission: string;
  readonly account: string | null;
  readonly from: string;
  readonly to: string;
  readonly domain: string;
  /** Octets. */
  readonly size: number;
  /** Attempts started. */
  readonly attempts: number;
  readonly transport: string | null;
  readonly transportOverride: string | null;
  readonly lastError: string | null;
  /** When the next attempt is due, or would be if the running one fails. */
  readonly nextAttempt: string | null;
  readonly created: string;
  readonly updated: string;
  readonly finished: string | null;
  readonly version: number;
}

const iso = (milliseconds: number): string => new Date(milliseconds).toISOString();
const isoOrNull = (milliseconds: number | null): string | null =>
  milliseconds === null ? null : iso(milliseconds);

export function messageJson(row: QueueRow): MessageJson {
  return {
    id: row.stream,
    state: row.state,
    submission: row.submission,
    account: row.account,
    from: row.sender,
    to: row.recipient,
    domain: row.domain,
    size: row.size,
    attempts: row.attempts,
    transport: row.transport,
    transportOverride: row.override,
    lastError: row.last_error,
    nextAttempt: isoOrNull(row.due),
    created: iso(row.created),
    updated: iso(row.updated),
    finished: isoOrNull(row.finished),
    version: row.version,
  };
}

export interface HostJson extends EventData<"HostTried"> {
  readonly time: string;
}

/** One attempt, from its start to its outcome. */
export interface AttemptJson {
  readonly attempt: number;
  readonly started: string;
  /** When the attempt after it is due should it fail. */
  readonly next: string;
  /** It was due since then, and its destination was down. */
  readonly waited?: EventData<"AttemptStarted">["waited"];
  readonly transport: EventData<"TransportChosen"> | null;
  readonly destinations: EventData<"DestinationsResolved"> | null;
  /** What each host was found to be, and how much proof of it was asked for. */
  readonly gathered: readonly EventData<"TLSAGathered">[];
  readonly hosts: readonly HostJson[];
  /** Null while it runs. */
  readonly outcome:
    | ({ readonly type: "Delivered"; readonly time: string } & EventData<"Delivered">)
    | ({ readonly type: "Failed"; readonly time: string } & EventData<"Failed">)
    | null;
}

/** What happened beside the attempts: reports to the sender, acts of operators, a time that ended. */
export interface NoteJson {
  readonly type: StoredEvent["type"];
  readonly time: string;
  readonly data: Readonly<Record<string, unknown>>;
}

export interface MessageDetailJson extends MessageJson {
  /** The file of the archive that it is in; null while it is in the store. */
  readonly archived: string | null;
  readonly envelope: Omit<EventData<"Enqueued">, "account" | "mailFrom" | "rcptTo" | "size">;
  readonly history: readonly AttemptJson[];
  readonly notes: readonly NoteJson[];
}

export interface DetailOptions {
  /** Whether the SMTP dialogues are part of it. */
  readonly transcripts: boolean;
  readonly archived: string | null;
}

type Growing<T> = { -readonly [K in keyof T]: T[K] };
type GrowingAttempt = Growing<AttemptJson> & {
  hosts: HostJson[];
  gathered: EventData<"TLSAGathered">[];
};

/** A message with its history. The stream has at least its Enqueued. */
export function messageDetailJson(
  row: QueueRow,
  events: readonly StoredEvent[],
  { transcripts, archived }: DetailOptions,
): MessageDetailJson {
  let envelope: MessageDetailJson["envelope"] | undefined;
  const history: GrowingAttempt[] = [];
  const notes: NoteJson[] = [];
  for (const event of events) {
    const { time } = event;
    const attempt = history.at(-1);
    switch (event.type) {
      case "Enqueued": {
        const { account: _, mailFrom: _from, rcptTo: _to, size: _size, ...rest } = event.data;
        envelope = rest;
        break;
      }
      case "AttemptStarted":
        history.push({
          attempt: event.data.attempt,
          started: time,
          next: event.data.next,
          ...(event.data.waited ? { waited: event.data.waited } : {}),
          transport: null,
          destinations: null,
          gathered: [],
          hosts: [],
          outcome: null,
        });
        break;
      case "TransportChosen":
        if (attempt) attempt.transport = event.data;
        break;
      case "DestinationsResolved":
        if (attempt) attempt.destinations = event.data;
        break;
      case "TLSAGathered":
        attempt?.gathered.push(event.data);
        break;
      case "HostTried": {
        const { transcript, ...data } = event.data;
        attempt?.hosts.push({
          time,
          ...data,
          ...(transcripts && transcript ? { transcript } : {}),
        });
        break;
      }
      case "Delivered":
        if (attempt) attempt.outcome = { type: event.type, time, ...event.data };
        break;
      case "Failed":
        if (attempt?.outcome === null) {
          attempt.outcome = { type: event.type, time, ...event.data };
        } else notes.push({ type: event.type, time, data: event.data }); // its time ended
        break;
      default:
        notes.push({ type: event.type, time, data: event.data });
    }
  }
  if (!envelope) throw new Error(`stream ${row.stream} has no Enqueued`);
  return { ...messageJson(row), archived, envelope, history, notes };
}

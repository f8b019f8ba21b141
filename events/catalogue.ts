/**
 * The catalogue: every event Postledger can write, with the schema of its data.
 *
 * An event is a fact in the past tense and is never rewritten. When the shape of an event's data
 * changes, its `schema` number goes up by one and an upcaster is added that turns the data of the
 * version before into the new one; readers see only the newest shape, the log keeps the old one.
 *
 * Schemas are strict: a key that the catalogue does not know means that a newer program wrote the
 * log, and such a log is not trusted by an older one.
 */
import type { z } from "zod";
import * as installation from "./schemas/installation.ts";
import * as message from "./schemas/message.ts";

/** Turns the data of one schema version into that of the next. */
export type Upcaster = (data: Record<string, unknown>) => Record<string, unknown>;

interface Entry<S extends z.ZodType> {
  /** Schema version that is written today. */
  readonly schema: number;
  readonly data: S;
  /** upcasters[n] turns schema n into n + 1; one for every version below `schema`. */
  readonly upcasters: Readonly<Record<number, Upcaster>>;
}

const entry = <S extends z.ZodType>(
  schema: number,
  data: S,
  upcasters: Record<number, Upcaster> = {},
): Entry<S> => ({ schema, data, upcasters });

/** What stands on the streams of messages. */
const MESSAGE_EVENTS = {
  Enqueued: entry(1, message.Enqueued),
  AttemptStarted: entry(1, message.AttemptStarted),
  TransportChosen: entry(1, message.TransportChosen),
  DestinationsResolved: entry(1, message.DestinationsResolved),
  TLSAGathered: entry(1, message.TLSAGathered),
  HostTried: entry(1, message.HostTried),
  Delivered: entry(1, message.Delivered),
  Failed: entry(1, message.Failed),
  DSNPostponed: entry(1, message.DSNPostponed),
  DSNSent: entry(1, message.DSNSent),
  Held: entry(1, message.Held),
  Released: entry(1, message.Released),
  Rescheduled: entry(1, message.Rescheduled),
  TransportAssigned: entry(1, message.TransportAssigned),
  Cancelled: entry(1, message.Cancelled),
} as const;

/** What stands on the streams of everything else: destinations, policies, endpoints, the archive. */
const INSTALLATION_EVENTS = {
  HoldRuleAdded: entry(1, installation.HoldRuleAdded),
  HoldRuleRemoved: entry(1, installation.HoldRuleRemoved),
  IntakePaused: entry(1, installation.IntakePaused),
  IntakeResumed: entry(1, installation.IntakeResumed),
  DestinationDown: entry(1, installation.DestinationDown),
  DestinationUp: entry(1, installation.DestinationUp),
  MtaStsPolicyStored: entry(1, installation.MtaStsPolicyStored),
  TLSReportStarted: entry(1, installation.TLSReportStarted),
  TLSReportSent: entry(1, installation.TLSReportSent),
  AddressSuppressed: entry(1, installation.AddressSuppressed),
  SuppressionLifted: entry(1, installation.SuppressionLifted),
  WebhookAdvanced: entry(1, installation.WebhookAdvanced),
  WebhookParked: entry(1, installation.WebhookParked),
  WebhookResumed: entry(1, installation.WebhookResumed),
  StreamsArchived: entry(1, installation.StreamsArchived),
  StreamsPruned: entry(1, installation.StreamsPruned),
} as const;

export const CATALOGUE = { ...MESSAGE_EVENTS, ...INSTALLATION_EVENTS } as const;

export type EventType = keyof typeof CATALOGUE;
export type EventData<T extends EventType> = z.infer<(typeof CATALOGUE)[T]["data"]>;

/** A fact that is about to be appended: type and data, in the newest schema. */
export type Fact = {
  [T in EventType]: { readonly type: T; readonly data: EventData<T> };
}[EventType];
export type FactOf<T extends EventType> = Extract<Fact, { type: T }>;

/** The envelope of a stored event without type and data. */
export interface Envelope {
  /** Place in the whole log, from 1, strictly increasing. */
  readonly position: number;
  readonly stream: string;
  /** Place in the stream: 1, 2, 3 … */
  readonly version: number;
  /** Schema version that `data` was written with (`data` itself has been upcast to the newest). */
  readonly schema: number;
  readonly time: string;
  readonly prev: string;
  readonly hash: string;
}

export type StoredEvent = Envelope & Fact;
export type StoredEventOf<T extends EventType> = Envelope & FactOf<T>;
/** What folds of messages know: a new event of messages does not compile where they overlook it. */
export type StoredMessageEvent = StoredEventOf<keyof typeof MESSAGE_EVENTS>;

export const isMessageEvent = (event: StoredEvent): event is StoredMessageEvent =>
  Object.hasOwn(MESSAGE_EVENTS, event.type);

/** An event that this program cannot read: unknown type, newer schema, or data out of shape. */
export class UnreadableEvent extends Error {
  override readonly name = "UnreadableEvent";
}

export const isEventType = (type: string): type is EventType => Object.hasOwn(CATALOGUE, type);

/**
 * Checks the data of a fact against the newest schema.
 * @throws UnreadableEvent naming the type and the first field that is off
 */
export function checkFact(fact: Fact): Fact {
  return read(fact.type, CATALOGUE[fact.type].schema, fact.data as Record<string, unknown>);
}

/**
 * Reads data as it stands in the log: upcasts it to the newest schema and checks it.
 * @throws UnreadableEvent for an unknown type, a schema newer than this program's, or bad data
 */
export function read(type: string, schema: number, data: Record<string, unknown>): Fact {
  if (!isEventType(type)) {
    throw new UnreadableEvent(`event type "${type}" is not in the catalogue of this version`);
  }
  const known: Entry<z.ZodType> = CATALOGUE[type];
  if (schema > known.schema) {
    throw new UnreadableEvent(
      `${type} has schema ${schema}, this version knows up to ${known.schema}: written by a newer one`,
    );
  }
  let shaped = data;
  for (let from = schema; from < known.schema; from++) {
    const upcast = known.upcasters[from];
    if (!upcast) throw new UnreadableEvent(`${type} has no upcaster from schema ${from}`);
    shaped = upcast(shaped);
  }
  const checked = known.data.safeParse(shaped);
  if (!checked.success) {
    const issue = checked.error.issues[0];
    throw new UnreadableEvent(
      `${type}: ${issue?.path.join(".") || "data"}: ${issue?.message ?? "does not fit the schema"}`,
    );
  }
  return { type, data: checked.data } as Fact;
}

/**
 * The shapes of what the API answers, for the OpenAPI document. What the events of a message hold
 * comes from the catalogue.
 */
import { z } from "zod";
import { HoldFilter } from "../../events/schemas/installation.ts";
import {
  Delivered,
  DestinationsResolved,
  Enqueued,
  Failed,
  HostTried,
  TransportChosen,
} from "../../events/schemas/message.ts";
import { Timestamp } from "../../events/schemas/scalars.ts";
import { QUEUE_STATES } from "../../events/projections/queue.ts";

const Count = z.int().min(0);

export const MessageShape = z.strictObject({
  id: z.string(),
  state: z.enum(QUEUE_STATES),
  submission: z.string(),
  account: z.string().nullable(),
  from: z.string(),
  to: z.string(),
  domain: z.string(),
  size: Count,
  attempts: Count,
  transport: z.string().nullable(),
  transportOverride: z.string().nullable(),
  lastError: z.string().nullable(),
  nextAttempt: Timestamp.nullable(),
  created: Timestamp,
  updated: Timestamp,
  finished: Timestamp.nullable(),
  version: Count,
});

/** What other parts of the program add to a message is let through. */
const Message = z.looseObject(MessageShape.shape);

export const MessageList = z.strictObject({
  messages: z.array(Message),
  /** Cursor of the next page. */
  next: z.string().nullable(),
  total: Count.optional(),
});

const Outcome = z.union([
  z.strictObject({ type: z.literal("Delivered"), time: Timestamp, ...Delivered.shape }),
  z.strictObject({ type: z.literal("Failed"), time: Timestamp, ...Failed.shape }),
]);

export const MessageDetail = z.looseObject({
  ...MessageShape.shape,
  /** The file of the archive that it is in. */
  archived: z.string().nullable(),
  envelope: Enqueued.omit({ account: true, mailFrom: true, rcptTo: true, size: true }),
  history: z.array(z.looseObject({
    attempt: z.int().min(1),
    started: Timestamp,
    next: Timestamp,
    transport: TransportChosen.nullable(),
    destinations: DestinationsResolved.nullable(),
    hosts: z.array(z.strictObject({ time: Timestamp, ...HostTried.shape })),
    outcome: Outcome.nullable(),
  })),
  notes: z.array(z.strictObject({
    type: z.string(),
    time: Timestamp,
    data: z.record(z.string(), z.unknown()),
  })),
});

export const EventList = z.strictObject({
  events: z.array(z.looseObject({
    position: z.int().min(1),
    stream: z.string(),
    version: z.int().min(1),
    type: z.string(),
    schema: z.int().min(1),
    time: Timestamp,
    data: z.unknown(),
    prev: z.string(),
    hash: z.string(),
  })),
  archived: z.string().nullable(),
});

export const Accepted = z.strictObject({
  submission: z.string(),
  /** One per recipient, in order. */
  messages: z.array(z.strictObject({ id: z.string(), to: z.string() })),
});

export const ActReport = z.strictObject({
  dryRun: z.boolean(),
  /** Messages that were acted on; in a dry run: all that would be. */
  matched: Count,
  done: Count,
  results: z.array(z.union([
    z.strictObject({ id: z.string(), done: z.literal(true), state: z.enum(QUEUE_STATES) }),
    z.strictObject({ id: z.string(), done: z.literal(false), why: z.string() }),
  ])),
  /** To be given as `after` for the messages that follow; null when there are none. */
  next: z.string().nullable(),
});
export type ActReport = z.output<typeof ActReport>;

export const HoldRuleShape = z.strictObject({
  id: z.string(),
  filter: HoldFilter,
  who: z.string(),
  why: z.string(),
  since: Timestamp,
});
export const HoldRuleList = z.strictObject({ rules: z.array(HoldRuleShape) });

export const IntakeState = z.strictObject({
  paused: z.strictObject({ who: z.string(), why: z.string(), since: Timestamp }).nullable(),
  /** Nothing is due and nothing is being attempted. */
  idle: z.boolean(),
  attempting: Count,
  queued: Count,
  held: Count,
  /** When the next attempt is due; null when none is. */
  nextAttempt: Timestamp.nullable(),
});
export type IntakeState = z.output<typeof IntakeState>;

export const ProblemShape = z.strictObject({
  title: z.string(),
  status: z.int(),
  detail: z.string().optional(),
  errors: z.array(z.strictObject({
    pointer: z.string().optional(),
    parameter: z.string().optional(),
    header: z.string().optional(),
    detail: z.string(),
  })).optional(),
});

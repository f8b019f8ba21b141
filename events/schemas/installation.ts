/**
 * What happens to the installation, beside messages: the data of events on streams of their own,
 * about admission, destinations, policies, reports, suppression, webhooks and retention.
 */
import { z } from "zod";
import { Reply } from "./message.ts";
import { Act, Count, Sha256, Timestamp } from "./scalars.ts";

/** New mail that meets all of these is held. Addresses whole, domain without what is below it. */
export const HoldFilter = z.strictObject({
  from: z.string().optional(),
  to: z.string().optional(),
  toDomain: z.string().optional(),
  account: z.string().optional(),
});
export const HoldRuleAdded = z.strictObject({ ...Act, id: z.string(), filter: HoldFilter });
export const HoldRuleRemoved = z.strictObject({ ...Act, id: z.string() });
/** New mail is turned away, while what is in the queue goes out. */
export const IntakePaused = z.strictObject({ ...Act });
export const IntakeResumed = z.strictObject({ ...Act });

/** A next hop cannot be reached; its messages wait until a probe gets an answer. */
export const DestinationDown = z.strictObject({
  destination: z.string(),
  since: Timestamp,
  /** When it is probed next. */
  until: Timestamp,
  why: z.string(),
});
export const DestinationUp = z.strictObject({ destination: z.string(), since: Timestamp });

/**
 * The MTA-STS policy of a domain was fetched (RFC 8461, section 3.3), on the stream
 * `mta-sts DOMAIN DAY`; it may be used for `maxAge` seconds from then on.
 */
export const MtaStsPolicyStored = z.strictObject({
  domain: z.string(),
  /** Of the TXT record. */
  id: z.string(),
  mode: z.enum(["enforce", "testing", "none"]),
  mx: z.array(z.string()),
  maxAge: Count,
});

const Day = z.string().regex(/^\d{4}-\d\d-\d\d$/);
/** The TLS report (RFC 8460) to a domain about a day is being handed over by HTTPS. */
export const TLSReportStarted = z.strictObject({ domain: z.string(), day: Day });
/** What became of that report; on the stream `tls-report DOMAIN DAY`. There is no second one. */
export const TLSReportSent = z.strictObject({
  domain: z.string(),
  day: Day,
  reportId: z.string().optional(),
  /** Each place that the domain named, and how it went; a message names its stream. */
  to: z.array(z.strictObject({
    uri: z.string(),
    message: z.string().optional(),
    failed: z.string().optional(),
  })),
  /** Why there was nowhere to send it. */
  notSent: z.string().optional(),
});

/**
 * New mail to an address is refused from now on: of one account, or (absent) of everybody. On the
 * stream `suppression ADDRESS DAY`; the address is in the form in which addresses are compared.
 */
export const AddressSuppressed = z.strictObject({
  ...Act,
  address: z.string(),
  account: z.string().optional(),
  cause: z.enum(["bounce", "complaint", "manual"]),
  /** For a bounce: the stream of the message that failed, and what the server said. */
  message: z.string().optional(),
  reply: Reply.optional(),
  /** When it ends by itself; absent: never. */
  expires: Timestamp.optional(),
});
export const SuppressionLifted = z.strictObject({
  ...Act,
  address: z.string(),
  account: z.string().optional(),
});

/**
 * A webhook endpoint has been told of all that concerns it up to a position of the log. These
 * three stand on the streams `webhook NAME DAY`.
 */
export const WebhookAdvanced = z.strictObject({
  endpoint: z.string(),
  upTo: Count,
  /** Events that it took, and that were given up, in all. */
  told: Count,
  givenUp: Count,
  /** It has been told further, but for the events at these positions, which it refused so far. */
  beyond: z.strictObject({ upTo: Count, open: z.array(Count) }).optional(),
});
/** Nothing more is sent to it until somebody resumes it. */
export const WebhookParked = z.strictObject({ ...Act, endpoint: z.string() });
/**
 * `skipTo`: what happened up to this position is not told any more. `archived`: streams that have
 * left the store while it was parked, and with them what it was not told of.
 */
export const WebhookResumed = z.strictObject({
  ...Act,
  endpoint: z.string(),
  skipTo: Count.optional(),
  archived: Count.optional(),
});

/**
 * Finished streams have been written to a file of the archive, durably, on the stream `retention`.
 * They are pruned from the store from then on.
 */
export const StreamsArchived = z.strictObject({
  /** Name in the folder `archive`. */
  file: z.string().regex(/^\d{4}-\d\d-\d\d-\d{6}\.jsonl\.gz$/),
  /** Over the octets of the file. */
  sha256: Sha256,
  octets: Count,
  streams: Count,
  events: Count,
  /** What was finished before this could leave. */
  until: Timestamp,
  /** The first and the last of the streams, in the order of their names. */
  first: z.string(),
  last: z.string(),
  /** Positions of the first and the last of the events; others lie between them. */
  from: Count,
  to: Count,
});
/** The events that this file holds are in the store no more. */
export const StreamsPruned = z.strictObject({
  file: z.string(),
  /** Streams that were left because they have grown since. */
  left: Count,
});

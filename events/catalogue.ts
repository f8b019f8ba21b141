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
import { z } from "zod";

/** RFC 3339, UTC, milliseconds: `2026-01-31T09:30:00.000Z`. Sorts as text. */
export const Timestamp = z.string().regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
const Sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const Count = z.int().min(0);

/** TLS as it was negotiated, on a session that came in or went out. */
export const TlsFacts = z.strictObject({
  protocol: z.string(), // "TLSv1.3"
  cipher: z.string(),
  /** SHA-256 over the peer's certificate in DER, hex; absent when it presented none. */
  fingerprint: Sha256.optional(),
});

/**
 * How much TLS an attempt asked of a host.
 * - `none`: plain text was asked for, or was fallen back to
 * - `opportunistic`: STARTTLS where offered, certificate not verified (RFC 7435)
 * - `required`: no mail without TLS, certificate not verified
 * - `verified`: no mail without TLS and a certificate that `verifiedBy` accepts
 */
export const TlsMode = z.enum(["none", "opportunistic", "required", "verified"]);

/** What vouched for the certificate of the host; `none` where nothing was asked to. */
export const VerifiedBy = z.enum(["none", "pkix", "mta-sts", "dane"]);

/**
 * How a connection, an attempt or a session ended.
 * `temperror` and `permerror` are replies of the server (4xx, 5xx); `error` is everything that is
 * not a reply (refused, reset, TLS failure, nonsense); `canceled` is our own doing.
 */
export const Result = z.enum(["ok", "timeout", "canceled", "temperror", "permerror", "error"]);

/** DSN parameters of RFC 3461, sections 4.1 to 4.4, decoded from xtext where it applies. */
export const DsnParameters = z.strictObject({
  ret: z.enum(["FULL", "HDRS"]).optional(),
  envid: z.string().optional(),
  notify: z.array(z.enum(["NEVER", "SUCCESS", "FAILURE", "DELAY"])).optional(),
  /** As given, "rfc822;user@example.org": address type, semicolon, decoded address. */
  orcpt: z.string().optional(),
});

/** Where a message came from. */
export const Source = z.strictObject({
  kind: z.enum(["smtp", "http", "sendmail", "dsn", "tlsrpt"]),
  listener: z.string().optional(),
  /** Address and port of the client. */
  peer: z.string().optional(),
  helo: z.string().optional(),
  login: z.string().optional(),
  tls: TlsFacts.optional(),
  /** For a DSN: the stream of the message it reports on. */
  of: z.string().optional(),
});

/** What is wrong with TLS, in the words of RFC 8460, section 4.3. */
export const TLS_RESULT_TYPES = [
  "starttls-not-supported",
  "certificate-host-mismatch",
  "certificate-expired",
  "certificate-not-trusted",
  "validation-failure",
  "tlsa-invalid",
  "dnssec-invalid",
  "dane-required",
  "sts-policy-fetch-error",
  "sts-policy-invalid",
  "sts-webpki-invalid",
] as const;

/** A session as the TLS report to a domain counts it, under each policy that it was made under. */
export const TlsReportEntry = z.strictObject({
  /** Domain of the recipient: whose report it stands in. */
  domain: z.string(),
  results: z.array(z.strictObject({
    type: z.enum(["tlsa", "sts", "no-policy-found"]),
    /** Whose policy: the TLSA base domain, or the domain of the recipient. */
    domain: z.string(),
    /** The policy as published, a line each. */
    lines: z.array(z.string()),
    /** Of an MTA-STS policy: its patterns. */
    mx: z.array(z.string()).optional(),
    /** Absent: success. */
    failure: z.enum(TLS_RESULT_TYPES).optional(),
  })),
});

/** A reply of a remote server: code, enhanced code (RFC 3463) where given, text with LF. */
export const Reply = z.strictObject({
  code: z.int().min(200).max(599),
  enhanced: z.string().optional(),
  text: z.string(),
});

export const Enqueued = z.strictObject({
  account: z.string().nullable(),
  mailFrom: z.string(), // "" is the null reverse-path
  rcptTo: z.string(),
  size: Count, // octets of the stored message, trace header included
  body: Sha256,
  messageId: z.string().nullable(),
  has8bit: z.boolean(),
  smtputf8: z.boolean(),
  requireTLS: z.boolean(),
  /** The header has `TLS-Required: No` (RFC 8689, section 5). */
  tlsOptional: z.boolean().optional(),
  dsn: DsnParameters,
  submission: z.string(),
  /** How many recipients the submission had; absent: one. */
  recipients: z.int().min(2).optional(),
  source: Source,
  due: Timestamp,
  /** Of MT-PRIORITY (RFC 6710): the higher the sooner; absent where none was asked for, like 0. */
  priority: z.int().min(-9).max(9).optional(),
  /** After this time it is not tried any more: the deadline that the submitter set. */
  expires: Timestamp.optional(),
  /** DKIM-Signature fields, each with its CRLF, that are sent before the stored message. */
  signatures: z.array(z.string()).optional(),
  /** What the submitter wants to find it by; shown, and never sent. */
  metadata: z.record(z.string(), z.string()).optional(),
  /** The key that makes a repeated request the same one, and SHA-256 over that request. */
  idempotency: z.strictObject({ key: z.string(), request: Sha256 }).optional(),
});

export const AttemptStarted = z.strictObject({
  attempt: z.int().min(1),
  /** When the next attempt is due should this one fail. */
  next: Timestamp,
  /** It was due since then, and its destination was down for that reason. */
  waited: z.strictObject({ since: Timestamp, why: z.string() }).optional(),
});

export const TransportChosen = z.strictObject({
  transport: z.string(),
  type: z.enum(["direct", "smtp", "submission", "submissions", "socks"]),
  because: z.discriminatedUnion("kind", [
    z.strictObject({
      kind: z.literal("route"),
      scope: z.enum(["account", "domain", "global"]),
      /** The account or domain that owns the route; absent for global routes. */
      owner: z.string().optional(),
      index: Count,
      /** Each criterion of the route with the value that met it. */
      matched: z.record(z.string(), z.string()),
    }),
    z.strictObject({ kind: z.literal("override"), who: z.string() }),
    z.strictObject({ kind: z.literal("default") }),
  ]),
  /** Criteria that could not be evaluated, with why, one line each; they count as not met. */
  undecided: z.array(z.string()).optional(),
});

/** `secure`: authentic by DNSSEC; `insecure`: provably or simply not; `unchecked`: not asked for. */
export const DnssecStatus = z.enum(["secure", "insecure", "unchecked"]);

export const DestinationsResolved = z.strictObject({
  nextHop: z.string(),
  /** The name at the end of the CNAMEs of `nextHop`; the same where there are none. */
  expanded: z.string(),
  dnssec: z.strictObject({ nextHop: DnssecStatus, expanded: DnssecStatus }),
  /** How the hosts were found: MX records, the domain itself, an address literal, the config. */
  by: z.enum(["mx", "implicit", "literal", "configured"]),
  hosts: z.array(z.strictObject({ host: z.string(), preference: z.int() })),
  /** The next hop with its labels in Unicode, where it has such (RFC 5890). */
  unicode: z.string().optional(),
  /** MX records that were left out, and why. */
  ignored: z.array(z.string()).optional(),
  /** The MTA-STS policy of the recipient's domain, or why there is none (RFC 8461). */
  mtaSts: z.discriminatedUnion("status", [
    z.strictObject({ status: z.literal("none"), domain: z.string(), why: z.string() }),
    z.strictObject({
      status: z.literal("policy"),
      domain: z.string(),
      mode: z.enum(["enforce", "testing", "none"]),
      id: z.string(),
      mx: z.array(z.string()),
      /** Seconds. */
      maxAge: Count,
      from: z.enum(["cache", "fetched"]),
      why: z.string().optional(),
      failure: z.enum(TLS_RESULT_TYPES).optional(),
    }),
    z.strictObject({
      status: z.literal("error"),
      domain: z.string(),
      why: z.string(),
      failure: z.enum(TLS_RESULT_TYPES).optional(),
    }),
    z.strictObject({ status: z.literal("temporary"), domain: z.string(), reason: z.string() }),
  ]).optional(),
});

/** A TLSA record (RFC 6698, section 2.1), and why it cannot be used where it cannot. */
export const TlsaRecord = z.strictObject({
  usage: z.int().min(0).max(255),
  selector: z.int().min(0).max(255),
  matching: z.int().min(0).max(255),
  /** Hex. */
  data: z.string(),
  unusable: z.string().optional(),
});

/** What a host was found to be, and what followed from it for the session with it. */
export const TLSAGathered = z.strictObject({
  host: z.string(),
  /** The host with its labels in Unicode, where it has such. */
  unicode: z.string().optional(),
  /** The name at the end of its CNAMEs; the same where there are none. */
  expanded: z.string(),
  dnssec: z.strictObject({ host: DnssecStatus, expanded: DnssecStatus }),
  /** In the order in which they were found. */
  addresses: z.array(z.string()),
  dualStack: z.boolean(),
  /**
   * Whether there are TLSA records to go by.
   * - `not-asked`: the question was not asked, because an answer would have proved nothing
   * - `none`: there are none, or not authentic ones
   * - `failed`: no answer to rely on
   * - `records`: `records` are authentic
   */
  tlsa: z.enum(["not-asked", "none", "failed", "records"]),
  /** TLSA base domain. */
  base: z.string().optional(),
  records: z.array(TlsaRecord),
  /** Some record is usable, so that nothing but a session verified by DANE will do. */
  daneRequired: z.boolean(),
  /** `skip`: passed over for its MTA-STS policy; `fail`: not dialled, the host has failed. */
  verdict: z.enum(["try", "skip", "fail"]),
  tlsMode: TlsMode,
  verifiedBy: VerifiedBy,
  /** Names of which the certificate must bear one; empty where names are not looked at. */
  names: z.array(z.string()),
  /** How each of this followed, in words. */
  why: z.array(z.string()),
  /** For a host that is not dialled because of its policies. */
  tlsReport: TlsReportEntry.optional(),
});

/** One line of the SMTP dialogue; `at` is milliseconds since the connection was begun. */
export const TranscriptLine = z.strictObject({
  at: Count,
  who: z.enum(["C", "S"]), // client: us; server: them
  line: z.string(),
});

export const HostTried = z.strictObject({
  host: z.string(),
  /** Absent when no address was found, or none could be asked for. */
  address: z.string().optional(),
  port: z.int().optional(),
  local: z.string().optional(),
  /** Address and port of the SOCKS proxy that was dialled instead. */
  proxy: z.string().optional(),
  /** True when a session of an earlier message was reused. */
  reused: z.boolean().optional(),
  tlsMode: TlsMode,
  tls: TlsFacts.optional(),
  verifiedBy: VerifiedBy,
  /** The login that the session carries: SASL mechanism, and as whom. */
  login: z.strictObject({ mechanism: z.string(), username: z.string() }).optional(),
  /** What vouched for the certificate: the TLSA record, or the CA store, and for which name. */
  proof: z.string().optional(),
  /** What an MTA-STS policy in mode testing would have said of the session. */
  testing: z.strictObject({
    ok: z.boolean(),
    detail: z.string(),
    type: z.enum(TLS_RESULT_TYPES).optional(),
  }).optional(),
  /** What was wrong with TLS, in the words of RFC 8460, section 4.3. */
  tlsFailure: z.string().optional(),
  /** Absent where no TLS session was tried to be made, or none that is reported on. */
  tlsReport: TlsReportEntry.optional(),
  /** The connection was made in plain text because TLS had failed on the one before. */
  fallback: z.boolean().optional(),
  /** Keywords that the server announced after the last EHLO. */
  extensions: z.array(z.string()).optional(),
  reply: Reply.optional(),
  result: Result,
  /** What went wrong, in words, where it was not (only) the reply. */
  error: z.string().optional(),
  /** Milliseconds per phase of the session: connect, greeting, tls, envelope, data, … */
  phases: z.record(z.string(), Count),
  transcript: z.array(TranscriptLine).optional(),
});

export const Delivered = z.strictObject({
  host: z.string(),
  address: z.string(),
  reply: Reply,
  tls: z.strictObject({
    mode: TlsMode,
    verifiedBy: VerifiedBy,
    facts: TlsFacts.optional(),
    proof: z.string().optional(),
  }),
  /** Milliseconds from Enqueued to the final reply. */
  queued: Count,
  /** When the sender is told so, where other recipients may share the report. */
  reportDue: Timestamp.optional(),
});

/**
 * What a failure means, for views, metrics and the suppression list:
 * - `unknown-user`: there is no such mailbox (any more); asking again will not help
 * - `mailbox-full`: the mailbox is there and takes nothing now
 * - `policy`: the host does not want this from us: blocklist, reputation, relaying, local rules
 * - `rate-limited`: too much, too fast, or greylisted; later will do
 * - `authentication`: SPF, DKIM, DMARC or reverse DNS do not vouch for us
 * - `content`: this message is not wanted or cannot be taken: spam, virus, size, form
 * - `login`: our account at a smarthost is refused
 * - `dns`: names could not be resolved, or say that no mail is taken
 * - `tls`: the proof or protection that was required could not be had
 * - `network`: nobody answered, or the connection broke
 * - `other`: none of these
 */
export const FAILURE_CLASSES = [
  "unknown-user",
  "mailbox-full",
  "policy",
  "rate-limited",
  "authentication",
  "content",
  "login",
  "dns",
  "tls",
  "network",
  "other",
] as const;

export const Failed = z.strictObject({
  permanent: z.boolean(),
  result: Result,
  class: z.enum(FAILURE_CLASSES).optional(),
  reason: z.string(),
  code: z.int().optional(),
  enhanced: z.string().optional(),
  /** The host whose word ended the attempt. */
  remoteMTA: z.string().optional(),
  /** That word, as it was said. */
  reply: Reply.optional(),
  /** When it is tried again; absent when it is not. */
  next: Timestamp.optional(),
  /** Seconds for which the reply asked us to wait; `next` is not before that. */
  retryAfter: Count.optional(),
  /** When the sender is told so, where other recipients may share the report. */
  reportDue: Timestamp.optional(),
  /** Stack of a fault in our own code, for whoever has to mend it. */
  stack: z.string().optional(),
});

export const DSNSent = z.strictObject({
  kind: z.enum(["delayed", "failed", "delivered", "relayed"]),
  /** Stream of the report … */
  dsn: z.string().optional(),
  /** … or why there is none. */
  notSent: z.string().optional(),
});

const Act = { who: z.string(), why: z.string() };

export const Held = z.strictObject({ ...Act, stack: z.string().optional() });
export const Released = z.strictObject({ ...Act, due: Timestamp });
export const Rescheduled = z.strictObject({ ...Act, due: Timestamp });
export const TransportAssigned = z.strictObject({ ...Act, transport: z.string().nullable() });
export const Cancelled = z.strictObject({ ...Act });

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
 * `mta-sts DOMAIN`; it may be used for `maxAge` seconds from then on.
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
/** What became of that report; on the stream `tls-report DOMAIN`. There is no second one. */
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
 * stream `suppression ADDRESS`; the address is in the form in which addresses are compared.
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
});
/** Nothing more is sent to it until somebody resumes it. */
export const WebhookParked = z.strictObject({ ...Act, endpoint: z.string() });
/** `skipTo`: what happened up to this position is not told any more. */
export const WebhookResumed = z.strictObject({
  ...Act,
  endpoint: z.string(),
  skipTo: Count.optional(),
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

export const CATALOGUE = {
  Enqueued: entry(1, Enqueued),
  AttemptStarted: entry(1, AttemptStarted),
  TransportChosen: entry(1, TransportChosen),
  DestinationsResolved: entry(1, DestinationsResolved),
  TLSAGathered: entry(1, TLSAGathered),
  HostTried: entry(1, HostTried),
  Delivered: entry(1, Delivered),
  Failed: entry(1, Failed),
  DSNSent: entry(1, DSNSent),
  Held: entry(1, Held),
  Released: entry(1, Released),
  Rescheduled: entry(1, Rescheduled),
  TransportAssigned: entry(1, TransportAssigned),
  Cancelled: entry(1, Cancelled),
  HoldRuleAdded: entry(1, HoldRuleAdded),
  HoldRuleRemoved: entry(1, HoldRuleRemoved),
  IntakePaused: entry(1, IntakePaused),
  IntakeResumed: entry(1, IntakeResumed),
  DestinationDown: entry(1, DestinationDown),
  DestinationUp: entry(1, DestinationUp),
  MtaStsPolicyStored: entry(1, MtaStsPolicyStored),
  TLSReportStarted: entry(1, TLSReportStarted),
  TLSReportSent: entry(1, TLSReportSent),
  AddressSuppressed: entry(1, AddressSuppressed),
  SuppressionLifted: entry(1, SuppressionLifted),
  WebhookAdvanced: entry(1, WebhookAdvanced),
  WebhookParked: entry(1, WebhookParked),
  WebhookResumed: entry(1, WebhookResumed),
  StreamsArchived: entry(1, StreamsArchived),
  StreamsPruned: entry(1, StreamsPruned),
} as const;

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

/**
 * What happens to a message: the data of the events on its stream, from Enqueued to DSNSent, and of
 * the acts of operators on it.
 */
import { z } from "zod";
import { Act, Count, Sha256, Timestamp } from "./scalars.ts";

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

/**
 * The report on a delay waits for other recipients of the submission. It is only sent while nothing
 * else has happened to the message: a new attempt, a hold and the end take it back, and the next
 * failure decides anew.
 */
export const DSNPostponed = z.strictObject({
  kind: z.literal("delayed"),
  due: Timestamp,
  /** Until when the message is tried, as the report will say. */
  until: Timestamp,
  /** What it waits for, where it is not attempted for the time being. */
  why: z.string().optional(),
});

export const Held = z.strictObject({ ...Act, stack: z.string().optional() });
export const Released = z.strictObject({ ...Act, due: Timestamp });
export const Rescheduled = z.strictObject({ ...Act, due: Timestamp });
export const TransportAssigned = z.strictObject({ ...Act, transport: z.string().nullable() });
export const Cancelled = z.strictObject({ ...Act });

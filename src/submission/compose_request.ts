/**
 * A message as JSON, as clients hand it in: the shape, and everything in it that can be wrong.
 *
 * Whatever ends up in a header field is refused with a control character in it, since a line
 * break would begin a field of its own (RFC 5322, section 2.2).
 */
import { domainToASCII } from "node:url";
import { z } from "zod";
import { BadAddress, formatMailbox, isAscii, type Mailbox, parseMailbox } from "../smtp/address.ts";

export const MAX_RECIPIENTS = 1_000;
export const MAX_METADATA = 20;
const MAX_ATTACHMENTS = 100;
const MAX_HEADERS = 50;

// deno-lint-ignore no-control-regex -- controls are what it keeps out
const NO_CONTROLS = /^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$/;
const HEADER_TEXT = "contains a control character or a line break, which no header field can carry";

/** Text for a header field. */
const headerText = (most: number) =>
  z.string().max(most).regex(NO_CONTROLS, { error: HEADER_TEXT })
    .refine((text) => text.isWellFormed(), { error: "contains half of a character" });

const bodyText = z.string().refine((text) => !text.includes("\0"), { error: "contains a NUL" })
  .refine((text) => text.isWellFormed(), { error: "contains half of a character" });

export interface NamedAddress {
  readonly name: string;
  readonly address: string;
}

/** `ann@example.com`, `Ann Lee <ann@example.com>`, `"Lee, Ann" <ann@example.com>`. */
const MAILBOX = /^\s*(?:"((?:[^"\\]|\\.)*)"|([^<>"@,;:\\()[\]]*?))\s*<([^<>]*)>\s*$/;

const AddressText = headerText(1_000);
const AddressObject = z.strictObject({ name: headerText(500).optional(), address: AddressText });

/** An address with the name to show; transformed into one with a checked, formatted address. */
export const Address = z.union([AddressText, AddressObject], {
  // Both shapes were tried; the one that fits the value says what is wrong with it.
  error: (issue) => {
    const input = issue.input;
    if (typeof input === "string") {
      return AddressText.safeParse(input).error?.issues[0]?.message;
    }
    if (typeof input !== "object" || input === null || Array.isArray(input)) {
      return "is neither an address as text nor an object with name and address";
    }
    const first = AddressObject.safeParse(input).error?.issues[0];
    return `${first?.path.join(".") || "the object"}: ${first?.message ?? "cannot be read"}`;
  },
}).transform((value, context): NamedAddress => {
  const given = typeof value === "string" ? fromText(value) : { name: "", ...value };
  try {
    return { name: given.name ?? "", address: asciiDomain(parseMailbox(given.address)) };
  } catch (error) {
    if (!(error instanceof BadAddress)) throw error;
    context.addIssue({ code: "custom", message: `is not an address: ${error.message}` });
    return z.NEVER;
  }
});

/** With A-labels, so that the message needs SMTPUTF8 only where a local part is not ASCII. */
function asciiDomain({ localPart, domain }: Mailbox): string {
  const ascii = isAscii(domain) ? domain : domainToASCII(domain) || domain;
  return formatMailbox({ localPart, domain: ascii });
}

function fromText(text: string): NamedAddress {
  const match = MAILBOX.exec(text);
  if (!match) return { name: "", address: text.trim() };
  const [, quoted, bare, address] = match;
  return { name: quoted?.replace(/\\(.)/g, "$1") ?? bare ?? "", address: address! };
}

/** Fields that the composer, the queue or a signature writes. */
const OURS = new Set([
  "from",
  "to",
  "cc",
  "bcc",
  "subject",
  "date",
  "message-id",
  "mime-version",
  "received",
  "return-path",
  "delivered-to",
  "dkim-signature",
  "authentication-results",
]);

const HeaderName = z.string().regex(/^[A-Za-z][A-Za-z0-9_-]{0,75}$/, {
  error: "is not the name of a header field",
}).refine(
  (name) => !OURS.has(name.toLowerCase()) && !/^(content|resent|arc)-/i.test(name),
  { error: "is a field that is written here; leave it out" },
);

const atMost = (most: number) => (fields: Readonly<Record<string, unknown>>) =>
  Object.keys(fields).length <= most;

export const Metadata = z.record(
  z.string().regex(/^[A-Za-z0-9._-]{1,64}$/, {
    error: "is not a key of up to 64 letters, digits, dots, dashes and underscores",
  }),
  headerText(256),
).refine(atMost(MAX_METADATA), { error: `has more than ${MAX_METADATA} entries` });

const TOKEN = "[A-Za-z0-9!#$&^_.+-]+";
const MEDIA_TYPE = new RegExp(
  `^${TOKEN}/${TOKEN}(?:\\s*;\\s*${TOKEN}=(?:${TOKEN}|"[^"\\\\\\x00-\\x1f\\x7f]*"))*$`,
);

const Attachment = z.strictObject({
  filename: headerText(255).optional(),
  content: z.string().regex(/^[A-Za-z0-9+/]*={0,2}$/, { error: "is not base64" })
    .refine((text) => text.length % 4 === 0, { error: "is not base64: it was cut off" }),
  contentType: z.string().max(255).regex(MEDIA_TYPE, { error: "is not a media type" })
    .refine((type) => !/^(multipart|message)\//i.test(type), {
      error: "cannot be attached: only types that can be in base64 (RFC 2046, section 5)",
    }).optional(),
  cid: z.string().regex(/^[A-Za-z0-9!#$%&'*+/=?^_`{|}~.@-]{1,255}$/, {
    error: "is not a content id",
  }).optional(),
});

const addresses = z.array(Address).max(MAX_RECIPIENTS);

export const ComposeRequest = z.strictObject({
  from: Address,
  to: addresses.optional(),
  cc: addresses.optional(),
  bcc: addresses.optional(),
  subject: headerText(2_000).optional(),
  text: bodyText.optional(),
  html: bodyText.optional(),
  attachments: z.array(Attachment).max(MAX_ATTACHMENTS).optional(),
  headers: z.record(HeaderName, headerText(8_000))
    .refine(atMost(MAX_HEADERS), { error: `has more than ${MAX_HEADERS} fields` }).optional(),
  metadata: Metadata.optional(),
  requireTLS: z.boolean().optional(),
  expires: z.iso.datetime({ offset: true }).optional(),
}).check((context) => {
  const { to = [], cc = [], bcc = [], text, html, attachments = [] } = context.value;
  const recipients = to.length + cc.length + bcc.length;
  const issue = (path: string[], message: string) =>
    context.issues.push({ code: "custom", path, message, input: context.value });
  if (recipients === 0) issue(["to"], "there is no recipient; name one in to, cc or bcc");
  if (recipients > MAX_RECIPIENTS) {
    issue(["to"], `there are more than ${MAX_RECIPIENTS} recipients in to, cc and bcc`);
  }
  if (text === undefined && html === undefined && attachments.length === 0) {
    issue([], "there is no content; give text, html or attachments");
  }
});
export type ComposeRequest = z.output<typeof ComposeRequest>;

/** The addresses that the message goes to, each once. */
export const recipientsOf = ({ to = [], cc = [], bcc = [] }: ComposeRequest): string[] => [
  ...new Set([...to, ...cc, ...bcc].map(({ address }) => address)),
];

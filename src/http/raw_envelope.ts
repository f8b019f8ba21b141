/**
 * The envelope of a message that is handed in as it is: what the query of POST /messages says, since
 * the content is not to be read for it.
 */
import { z } from "zod";
import { BadAddress, formatMailbox, parseMailbox } from "../smtp/address.ts";
import { MAX_METADATA, MAX_RECIPIENTS, Metadata } from "../submission/compose_request.ts";
import { fieldProblems } from "./body.ts";
import { IDEMPOTENCY_HEADER } from "./idempotency.ts";
import { flag, type Parameter, type Query, valueOf } from "./operation.ts";
import { badParameter } from "./problem.ts";

export const RAW = "message/rfc822";

const text = { type: "string" };
export const SUBMIT_PARAMETERS: readonly Parameter[] = [
  {
    name: "from",
    in: "query",
    about: `envelope sender; for ${RAW}, where it is required (empty: the null reverse-path)`,
    schema: text,
  },
  {
    name: "to",
    in: "query",
    about: `envelope recipient, up to ${MAX_RECIPIENTS} times; for ${RAW}, where it is required`,
    schema: text,
    repeated: true,
  },
  {
    name: "metadata",
    in: "query",
    about: `KEY:VALUE to find the message by, up to ${MAX_METADATA} times; for ${RAW}`,
    schema: text,
    repeated: true,
  },
  {
    name: "require-tls",
    in: "query",
    about: `REQUIRETLS (RFC 8689); for ${RAW}`,
    schema: { type: "boolean", default: false },
  },
  {
    name: "expires",
    in: "query",
    about: `time (RFC 3339) after which it is not tried any more; for ${RAW}`,
    schema: { type: "string", format: "date-time" },
  },
  {
    name: IDEMPOTENCY_HEADER,
    in: "header",
    about: "a request that is repeated with the same key within a day is the same request",
    schema: { type: "string", pattern: "^[\\x21-\\x7e]{1,255}$" },
  },
];

/** What is known of a message before its content. */
export interface Envelope {
  readonly mailFrom: string;
  readonly recipients: readonly string[];
  readonly requireTLS: boolean;
  readonly metadata?: Readonly<Record<string, string>>;
  /** Epoch milliseconds after which it is not tried any more. */
  readonly expires?: number;
}

const Time = z.iso.datetime({ offset: true });

function expiry(text: string | undefined): Pick<Envelope, "expires"> {
  if (text === undefined) return {};
  if (Time.safeParse(text).success) return { expires: Date.parse(text) };
  throw badParameter("expires", 'it takes a time like "2026-03-01T12:00:00Z"');
}

/** @throws RequestProblem 400 */
export function rawEnvelope(query: Query): Envelope {
  const from = valueOf(query, "from");
  if (from === undefined) throw badParameter("from", "it is missing; it is the envelope sender");
  const to = query.get("to") ?? [];
  if (to.length === 0) throw badParameter("to", "it is missing; name at least one recipient");
  if (to.length > MAX_RECIPIENTS) {
    throw badParameter("to", `there are more than ${MAX_RECIPIENTS} recipients`);
  }
  const metadata = Metadata.safeParse(Object.fromEntries((query.get("metadata") ?? []).map(pair)));
  if (!metadata.success) {
    const [first] = fieldProblems(metadata.error);
    throw badParameter("metadata", `${first?.pointer ?? ""} ${first?.detail ?? "cannot be read"}`);
  }
  return {
    mailFrom: from === "" || from === "<>" ? "" : address("from", from),
    recipients: [...new Set(to.map((one) => address("to", one)))],
    requireTLS: flag(query, "require-tls"),
    metadata: metadata.data,
    ...expiry(valueOf(query, "expires")),
  };
}

function pair(entry: string): [string, string] {
  const colon = entry.indexOf(":");
  if (colon < 0) throw badParameter("metadata", "it takes KEY:VALUE");
  return [entry.slice(0, colon), entry.slice(colon + 1)];
}

function address(parameter: string, text: string): string {
  try {
    return formatMailbox(parseMailbox(text));
  } catch (error) {
    if (!(error instanceof BadAddress)) throw error;
    throw badParameter(parameter, `it is not an address: ${error.message}`);
  }
}

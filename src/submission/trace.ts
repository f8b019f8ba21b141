/**
 * The fields that a message gets on its way in: Received (RFC 5321, section 4.4) always, Date and
 * Message-ID (RFC 6409, section 8) where they are missing. What stands in them was checked where
 * it came in; a value that could end the line or close a comment is refused here once more.
 */
import { isIPv6 } from "node:net";
import type { EventData } from "../../events/catalogue.ts";

export interface Trace {
  /** The client: the name it gave and its address. Absent when the message came from this host. */
  readonly from?: { readonly name: string; readonly address: string };
  /** Our host name. */
  readonly by: string;
  /** The protocol: RFC 3848, RFC 6531 section 4.3, or another word of the IANA registry. */
  readonly with: string;
  readonly tls?: NonNullable<EventData<"Enqueued">["source"]["tls"]>;
  /** Submission id. */
  readonly id: string;
  /** The recipient; only where there is exactly one, so that none learns of another. */
  readonly for?: string;
  /** As the client asked with MT-PRIORITY (RFC 6710). */
  readonly priority?: number;
  /** Epoch milliseconds. */
  readonly at: number;
}

/** Where the client's name contributes nothing, such as after `HELO [192.0.2.1]`, it still stands. */
export function receivedField(trace: Trace): string {
  const lines: string[] = [];
  if (trace.from) lines.push(`from ${trace.from.name} (${addressLiteral(trace.from.address)})`);
  lines.push(`by ${trace.by} with ${trace.with}`);
  if (trace.tls) lines.push(`(${trace.tls.protocol} ${trace.tls.cipher})`);
  lines.push(`id ${trace.id}`);
  if (trace.for !== undefined) lines.push(`for <${trace.for}>`);
  if (trace.priority !== undefined) lines.push(`priority ${trace.priority}`);
  return field("Received", `${lines.join("\r\n\t")};\r\n\t${dateTime(trace.at)}`);
}

export function dateField(at: number): string {
  return field("Date", dateTime(at));
}

/** The Message-ID that a message without one gets. */
export function newMessageId(submission: string, hostname: string): string {
  return `<${submission}@${hostname}>`;
}

export function messageIdField(id: string): string {
  return field("Message-ID", id);
}

function field(name: string, body: string): string {
  // Each line break above is followed by a tab; any other would begin a field of its own.
  // deno-lint-ignore no-control-regex -- controls are what it looks for
  if (/[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n|\n(?!\t)/.test(body)) {
    throw new TypeError(`a value for the field ${name} contains a line break or a control`);
  }
  return `${name}: ${body}\r\n`;
}

/** `[192.0.2.1]` or `[IPv6:2001:db8::1]`, RFC 5321, section 4.1.3. */
function addressLiteral(address: string): string {
  const bare = address.replace(/%.*$/, ""); // the zone of a link-local address is ours alone
  return isIPv6(bare) ? `[IPv6:${bare}]` : `[${bare}]`;
}

/** RFC 5322, section 3.3, in UTC. */
function dateTime(at: number): string {
  return new Date(at).toUTCString().replace("GMT", "+0000");
}

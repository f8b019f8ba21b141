/**
 * What the client says of a message before its content: MAIL and RCPT with the parameters that the
 * server announced, and whether the server can take the message at all.
 *
 * SIZE (RFC 1870), 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531), DSN (RFC 3461), REQUIRETLS (RFC 8689).
 * Nothing gets into a command that could end it: `commandLines` is the only way to a command.
 */
import { domainToASCII } from "node:url";
import type { EventData } from "../../events/catalogue.ts";
import { encodeXtext } from "./xtext.ts";

type DsnParameters = EventData<"Enqueued">["dsn"];

/** A message as the dialogue needs to know it. */
export interface Envelope {
  /** "" is the null reverse-path. */
  readonly mailFrom: string;
  readonly recipients: readonly { readonly rcptTo: string; readonly dsn: DsnParameters }[];
  /** Octets of the content, before dot-stuffing. */
  readonly size: number;
  readonly has8bit: boolean;
  readonly smtputf8: boolean;
  readonly requireTLS: boolean;
}

/** Service extensions by keyword, upper case, with their parameters as given. */
export type Extensions = ReadonlyMap<string, string>;

/** The extensions of an EHLO reply: every line but the first (RFC 5321, section 4.1.1.1). */
export function parseExtensions(lines: readonly string[]): Extensions {
  const extensions = new Map<string, string>();
  for (const line of lines.slice(1)) {
    const match = /^([A-Za-z0-9][A-Za-z0-9-]{0,63})(?:[ =]+(.*))?$/.exec(line.slice(4).trim());
    if (match) extensions.set(match[1]!.toUpperCase(), match[2] ?? "");
  }
  return extensions;
}

/** Why a message must not go to this server, as a status of RFC 3463 with words. */
export interface Unfit {
  readonly enhanced: string;
  readonly error: string;
}

// deno-lint-ignore no-control-regex -- control characters are what it looks for
const NON_ASCII = /[^\x00-\x7f]/;
const PRINTABLE = /^[ -~]+$/;

/** Whether SMTPUTF8 is needed and not merely asked for: something is not ASCII (RFC 6531, 3.3). */
function needsUtf8(envelope: Envelope): boolean {
  if (!envelope.smtputf8) return false;
  return envelope.has8bit || NON_ASCII.test(envelope.mailFrom) ||
    envelope.recipients.some(({ rcptTo }) => NON_ASCII.test(rcptTo));
}

/**
 * Judges a message by what the server announced; undefined when it may be sent.
 * @param verified the server's certificate was verified
 */
export function unfit(
  envelope: Envelope,
  extensions: Extensions,
  verified: boolean,
): Unfit | undefined {
  const limit = Number(extensions.get("SIZE") ?? 0); // 0 and nonsense: no limit given
  if (limit > 0 && envelope.size > limit) {
    return {
      enhanced: "5.3.4",
      error: `the message has ${envelope.size} octets, the host takes ${limit}`,
    };
  }
  if (needsUtf8(envelope) && !extensions.has("SMTPUTF8")) {
    return {
      enhanced: "5.6.7",
      error: "the host does not offer SMTPUTF8, which the message needs",
    };
  }
  if (envelope.has8bit && !extensions.has("8BITMIME")) {
    return {
      enhanced: "5.6.3",
      error: "the host does not offer 8BITMIME, which the message needs",
    };
  }
  if (envelope.requireTLS && !(verified && extensions.has("REQUIRETLS"))) {
    const lacking = verified ? "does not offer REQUIRETLS" : "has no verified certificate";
    return { enhanced: "5.7.30", error: `the sender asked for REQUIRETLS and the host ${lacking}` };
  }
  return undefined;
}

/**
 * The address checks that need no server; undefined when every command can be written.
 * Outside a quoted string nothing may stand that could end the path or begin a parameter.
 */
export function unsafeEnvelope(envelope: Envelope): Unfit | undefined {
  if (envelope.mailFrom !== "" && !isSafePath(envelope.mailFrom)) {
    return { enhanced: "5.1.7", error: "the sender's address cannot be put in a command" };
  }
  if (!envelope.recipients.every(({ rcptTo }) => isSafePath(rcptTo))) {
    return { enhanced: "5.1.3", error: "the recipient's address cannot be put in a command" };
  }
  return undefined;
}

// An unquoted run without specials, or a quoted string; over and over.
// deno-lint-ignore no-control-regex -- control characters are what it keeps out
const SAFE_PATH = /^(?:[^\x00-\x20\x7f<>"\\]|"(?:[^\x00-\x1f\x7f"\\]|\\[\x20-\x7e])*")+$/;

function isSafePath(address: string): boolean {
  return address.length <= 1024 && SAFE_PATH.test(address);
}

/** MAIL, with one RCPT per recipient. */
export interface EnvelopeCommands {
  readonly mail: string;
  readonly rcpt: readonly string[];
}

/** Composes the commands for a message that `unfit` and `unsafeEnvelope` let pass. */
export function envelopeCommands(envelope: Envelope, extensions: Extensions): EnvelopeCommands {
  const utf8 = needsUtf8(envelope);
  const path = (address: string) => `<${utf8 ? address : asciiDomain(address)}>`;
  const dsn = extensions.has("DSN");
  let mail = `MAIL FROM:${path(envelope.mailFrom)}`;
  if (extensions.has("SIZE")) mail += ` SIZE=${envelope.size}`;
  if (envelope.has8bit) mail += " BODY=8BITMIME";
  if (utf8) mail += " SMTPUTF8";
  if (envelope.requireTLS) mail += " REQUIRETLS";
  const { ret, envid } = envelope.recipients[0]?.dsn ?? {};
  if (dsn && ret) mail += ` RET=${ret}`;
  if (dsn && envid && PRINTABLE.test(envid)) mail += ` ENVID=${encodeXtext(envid)}`;
  const rcpt = envelope.recipients.map(({ rcptTo, dsn: { notify, orcpt } }) => {
    let command = `RCPT TO:${path(rcptTo)}`;
    if (dsn && notify?.length) command += ` NOTIFY=${notify.join(",")}`;
    const original = dsn && orcpt ? encodeOrcpt(orcpt) : undefined;
    return original ? `${command} ORCPT=${original}` : command;
  });
  return { mail, rcpt };
}

/** A domain of Unicode labels goes out as A-labels where the transaction is not SMTPUTF8. */
function asciiDomain(address: string): string {
  const at = address.lastIndexOf("@");
  const domain = address.slice(at + 1);
  if (at < 0 || !NON_ASCII.test(domain)) return address;
  return `${address.slice(0, at)}@${domainToASCII(domain) || domain}`;
}

/** "rfc822;address" in xtext, "utf-8;address" in utf-8-addr-xtext (RFC 6533, section 3). */
function encodeOrcpt(orcpt: string): string | undefined {
  const [, type, address] = /^([A-Za-z0-9-]+);(.+)$/s.exec(orcpt) ?? [];
  if (type === undefined || address === undefined) return undefined;
  if (type.toLowerCase() === "utf-8") {
    const escaped = address.replace(/[^\x21-\x2a\x2c-\x3c\x3e-\x5b\x5d-\x7e]/gu, (char) => {
      return `\\x{${char.codePointAt(0)!.toString(16).toUpperCase()}}`;
    });
    return `${type};${escaped}`;
  }
  return PRINTABLE.test(address) ? `${type};${encodeXtext(address)}` : undefined;
}

/** A command held a CR, LF or NUL: sending it would have let its author speak for us. */
export class UnsafeCommand extends Error {
  override readonly name = "UnsafeCommand";
}

const encoder = new TextEncoder();
// deno-lint-ignore no-control-regex -- control characters are what it keeps out
const ENDS_COMMAND = /[\x00\r\n]/;

/**
 * The octets of one or several commands, each with its CRLF; all commands are written through here.
 * @throws UnsafeCommand
 */
export function commandLines(commands: readonly string[]): Uint8Array {
  for (const command of commands) {
    if (ENDS_COMMAND.test(command)) {
      throw new UnsafeCommand(`a command holds CR, LF or NUL: ${JSON.stringify(command)}`);
    }
  }
  return encoder.encode(commands.join("\r\n") + "\r\n");
}

/**
 * The third part of a report: the header of the original message, or all of it where the sender
 * asked for that (RET=FULL; RFC 3461, sections 4.3 and 6.3). Reads no more of the body than it
 * may show.
 */
import { Buffer } from "node:buffer";
import { BodyMissing, type BodyReader } from "../../events/store.ts";
import type { BodyStore } from "../../actors/ports.ts";
import { quotedPrintable } from "./quoted_printable.ts";
import { MAX_LINE } from "./safe_text.ts";

/** Octets of the header that are shown. */
export const MAX_HEADER = 64 * 1024;

/** Octets of a message that is sent back whole; of a larger one the header is. */
export const MAX_FULL = 1024 * 1024;

export interface OriginalPart {
  readonly contentType: string;
  readonly encoding: "7bit" | "8bit" | "quoted-printable";
  /** The part's content, CRLF throughout. */
  readonly content: Buffer;
}

export interface OriginalRequest {
  readonly sha256: string;
  /** The message went by RFC 6531: its header may be UTF-8. */
  readonly smtputf8: boolean;
  /** RET=FULL was asked for and applies. */
  readonly full: boolean;
  /** The report itself goes by RFC 6531, so that 8 bits need no encoding. */
  readonly unicodeReport: boolean;
}

/** The part, or undefined when the body is not in the store any more. */
export async function originalPart(
  bodies: BodyStore,
  request: OriginalRequest,
): Promise<OriginalPart | undefined> {
  let reader: BodyReader;
  try {
    reader = await bodies.open(request.sha256);
  } catch (error) {
    if (error instanceof BodyMissing) return undefined;
    throw error;
  }
  const full = request.full && reader.size <= MAX_FULL;
  const octets = await read(reader, full ? MAX_FULL : MAX_HEADER);
  const header = headerOf(octets);
  return (full ? fullPart(octets, header, request) : undefined) ?? headerPart(header, request);
}

async function read(reader: BodyReader, limit: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of reader.chunks()) {
    chunks.push(chunk.subarray(0, limit - size));
    size += chunk.length;
    if (size >= limit) break;
  }
  return Buffer.concat(chunks);
}

/** The header with the CRLF of its last line; cut at a line where it has no end. */
function headerOf(octets: Buffer): Buffer {
  const within = octets.subarray(0, MAX_HEADER);
  if (within[0] === 0x0d && within[1] === 0x0a) return Buffer.alloc(0);
  const end = within.indexOf("\r\n\r\n");
  const last = end === -1 ? within.lastIndexOf("\r\n") : end;
  return last === -1 ? within : within.subarray(0, last + 2);
}

const has8bit = (octets: Buffer): boolean => octets.some((octet) => octet > 0x7f);

/** Strict CRLF, no NUL, no overlong line: such octets may stand in a message as they are. */
function isClean(octets: Buffer): boolean {
  let start = 0;
  for (let at = 0; at < octets.length; at++) {
    const octet = octets[at];
    if (octet === 0) return false;
    if (octet === 0x0a) return false;
    if (octet === 0x0d) {
      if (octets[at + 1] !== 0x0a || at - start > MAX_LINE) return false;
      start = at + 2;
      at++;
    }
  }
  return octets.length - start <= MAX_LINE;
}

/** message/rfc822 must not be encoded (RFC 2046, section 5.2.1): what is not clean is not sent back. */
function fullPart(
  octets: Buffer,
  header: Buffer,
  { smtputf8, unicodeReport }: OriginalRequest,
): OriginalPart | undefined {
  if (smtputf8 && has8bit(header)) {
    // message/global may be encoded, RFC 6532, section 3.7.
    return withEncoding("message/global", octets, unicodeReport);
  }
  if (!isClean(octets)) return undefined;
  const encoding = has8bit(octets) ? "8bit" : "7bit";
  return { contentType: "message/rfc822", encoding, content: octets };
}

function headerPart(header: Buffer, { smtputf8, unicodeReport }: OriginalRequest): OriginalPart {
  const type = smtputf8 && has8bit(header) ? "message/global-headers" : "text/rfc822-headers";
  return withEncoding(type, header, unicodeReport);
}

function withEncoding(contentType: string, octets: Buffer, unicodeReport: boolean): OriginalPart {
  if (isClean(octets) && (unicodeReport || !has8bit(octets))) {
    return { contentType, encoding: has8bit(octets) ? "8bit" : "7bit", content: octets };
  }
  const content = Buffer.from(quotedPrintable(octets), "latin1");
  return { contentType, encoding: "quoted-printable", content };
}

/**
 * The fields of a stored message's header that routes ask for (RFC 5322, section 2.2), read from
 * the beginning of the body and no further than needed. Bounded, whatever the message holds.
 */
import { Buffer } from "node:buffer";
import type { BodyReader } from "../../actors/ports.ts";

/** Values by field name in lower case, each unfolded and trimmed, in the order of the header. */
export type HeaderFields = ReadonlyMap<string, readonly string[]>;

/** Octets of a header that are looked at; what stands behind them counts as not there. */
export const MAX_HEADER = 256 * 1024;
/** Values kept of one field, and characters of one value. */
const MAX_VALUES = 100;
const MAX_VALUE = 2_000;

/** @param names of the fields wanted, in lower case */
export async function readFields(
  reader: BodyReader,
  names: ReadonlySet<string>,
): Promise<HeaderFields> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of reader.chunks()) {
    chunks.push(chunk);
    size += chunk.length;
    // The end of the header may lie across two chunks.
    const [before, last] = chunks.slice(-2);
    const tail = last ? Buffer.concat([before!.subarray(-3), last]) : Buffer.from(before!);
    if (size >= MAX_HEADER || tail.includes("\r\n\r\n")) break;
  }
  const head = Buffer.concat(chunks).subarray(0, MAX_HEADER).toString("utf8");
  return fieldsOf(head.startsWith("\r\n") ? "" : head.split("\r\n\r\n", 1)[0]!, names);
}

function fieldsOf(header: string, names: ReadonlySet<string>): HeaderFields {
  const found = new Map<string, string[]>();
  for (const field of header.split(/\r\n(?![ \t])/)) {
    const colon = field.indexOf(":");
    if (colon < 1) continue;
    const name = field.slice(0, colon).trimEnd().toLowerCase();
    if (!names.has(name)) continue;
    const values = found.get(name) ?? [];
    found.set(name, values);
    if (values.length < MAX_VALUES) values.push(valueOf(field.slice(colon + 1)));
  }
  return found;
}

/** Unfolded: a fold is the blank that it stands for (RFC 5322, section 2.2.3). */
const valueOf = (text: string): string =>
  text.slice(0, MAX_VALUE).replace(/\r\n[ \t]+/g, " ").trim();

/**
 * Exports as JSON lines. The first line says what the export holds, `{"export": {…}}`; then comes
 * one line per event, its whole envelope, and one per checkpoint, `{"checkpoint": {…}}`, in the
 * order of the trail. Such a file can be verified far from its log, with the public key alone.
 */
import { z } from "zod";
import { canonicalJson } from "../chain.ts";
import { messageOf } from "../decode.ts";
import type { RawEvent, RawLog } from "../engine.ts";
import { trail, type TrailEntry, type TrailFilter } from "./trail.ts";

const FORMAT = 1;
/** Octets of the longest line that is read back. Events are far smaller. */
const LONGEST_LINE = 16 * 1024 * 1024;

/** Yields the lines, each with its LF. */
export async function* exportJsonLines(
  log: RawLog,
  filter: TrailFilter = {},
): AsyncGenerator<string> {
  yield exportHeader(filter);
  for await (const entry of trail(log, filter)) {
    yield "event" in entry ? `${eventLine(entry.event)}\n` : `${canonicalJson(entry)}\n`;
  }
}

/** The first line of an export. */
export const exportHeader = (filter: TrailFilter): string =>
  `${canonicalJson({ export: { format: FORMAT, filter } })}\n`;

/** Data that is not canonical JSON, which only tampering leaves behind, goes as a string. */
export function eventLine(event: RawEvent): string {
  try {
    const data = JSON.parse(event.data);
    if (typeof data === "object") {
      const line = canonicalJson({ ...event, data });
      if (canonicalJson(data) === event.data) return line;
    }
  } catch {
    // As below.
  }
  return canonicalJson(event);
}

const Filter = z.strictObject({
  since: z.string().optional(),
  until: z.string().optional(),
  message: z.string().optional(),
});
const Header = z.strictObject({
  export: z.strictObject({ format: z.literal(FORMAT), filter: Filter }),
});
const CheckpointLine = z.strictObject({
  checkpoint: z.strictObject({
    number: z.int(),
    from: z.int(),
    to: z.int(),
    count: z.int(),
    root: z.string(),
    prev: z.string(),
    time: z.string(),
    signature: z.string(),
  }),
});
const EventLine = z.strictObject({
  position: z.int(),
  stream: z.string(),
  version: z.int(),
  type: z.string(),
  schema: z.int(),
  time: z.string(),
  data: z.unknown(),
  prev: z.string(),
  hash: z.string(),
});

/** A line that cannot be read as part of an export. `line` counts from 1. */
export interface BadLine {
  readonly bad: { readonly line: number; readonly what: string };
}

export type ExportEntry = TrailEntry | BadLine | { readonly filter: TrailFilter };

/** Reads an export back. Never throws for what is in it: bad lines are entries too. */
export async function* parseJsonLines(
  octets: AsyncIterable<Uint8Array>,
): AsyncGenerator<ExportEntry> {
  let line = 0;
  for await (const text of lines(octets)) {
    line += 1;
    if (text === undefined) {
      yield { bad: { line, what: `longer than ${LONGEST_LINE} octets` } };
      continue;
    }
    try {
      yield parseLine(text, line);
    } catch (error) {
      yield { bad: { line, what: `not part of an export: ${firstLine(messageOf(error))}` } };
    }
  }
}

function parseLine(text: string, line: number): ExportEntry {
  const value: unknown = JSON.parse(text);
  const has = (member: string) =>
    typeof value === "object" && value !== null && Object.hasOwn(value, member);
  if (has("export")) {
    if (line > 1) throw new Error("a second header");
    return { filter: Header.parse(value).export.filter };
  }
  if (has("checkpoint")) return CheckpointLine.parse(value);
  const { data, ...envelope } = EventLine.parse(value);
  const event = { ...envelope, data: typeof data === "string" ? data : canonicalJson(data) };
  return { event };
}

/** The lines without LF; undefined for one that is too long. */
async function* lines(octets: AsyncIterable<Uint8Array>): AsyncGenerator<string | undefined> {
  const decoder = new TextDecoder();
  let parts: Uint8Array[] = [];
  let length = 0;
  const take = () => {
    const text = length > LONGEST_LINE
      ? undefined
      : parts.map((part) => decoder.decode(part, { stream: true })).join("") + decoder.decode();
    parts = [];
    length = 0;
    return text;
  };
  const put = (part: Uint8Array) => {
    length += part.length;
    if (length > LONGEST_LINE) parts = [];
    else parts.push(part);
  };
  for await (const chunk of octets) {
    let rest = chunk;
    for (let end = rest.indexOf(LF); end >= 0; end = rest.indexOf(LF)) {
      put(rest.subarray(0, end));
      yield take();
      rest = rest.subarray(end + 1);
    }
    if (rest.length > 0) put(rest.slice());
  }
  if (length > 0) yield take();
}

const LF = 0x0a;

const firstLine = (text: string): string => text.split("\n", 1)[0]!.slice(0, 200);

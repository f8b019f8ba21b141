/** From a raw event of the log to a typed one: parse, upcast, check. */
import { read, type StoredEvent } from "./catalogue.ts";
import { type Link, linkFindings } from "./chain.ts";
import type { RawEvent } from "./engine.ts";
import { UnreadableStream } from "./store.ts";

/** @throws UnreadableStream naming stream and version, and what about the event is unreadable */
export function decode(raw: RawEvent): StoredEvent {
  const { data, type, ...envelope } = raw;
  try {
    return { ...envelope, ...read(type, raw.schema, JSON.parse(data)) };
  } catch (cause) {
    throw new UnreadableStream(raw.stream, raw.version, messageOf(cause));
  }
}

/** The events that can be read: one that cannot stops its own stream, and no reader of the log. */
export function decodeReadable(raws: readonly RawEvent[]): StoredEvent[] {
  return raws.flatMap((raw) => {
    try {
      return [decode(raw)];
    } catch (cause) {
      if (cause instanceof UnreadableStream) return [];
      throw cause;
    }
  });
}

/**
 * All events of a stream, of which each must carry on the chain: nothing is done on the word of a
 * stream that was changed behind our back.
 * @throws UnreadableStream naming the first event that is off
 */
export function decodeStream(raws: readonly RawEvent[]): StoredEvent[] {
  let before: Link | undefined;
  return raws.map((raw) => {
    const [broken] = linkFindings(raw, before);
    if (broken !== undefined) throw new UnreadableStream(raw.stream, raw.version, broken);
    before = raw;
    return decode(raw);
  });
}

export const messageOf = (cause: unknown): string =>
  cause instanceof Error ? cause.message : String(cause);

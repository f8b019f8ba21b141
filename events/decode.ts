/** From a raw event of the log to a typed one: parse, upcast, check. */
import { read, type StoredEvent } from "./catalogue.ts";
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

export const messageOf = (cause: unknown): string =>
  cause instanceof Error ? cause.message : String(cause);

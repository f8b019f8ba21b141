/**
 * The log as it is read from outside, store and archive, through `deno task audit export`.
 */
import { type Server, taskLines } from "../peers/serve.ts";

export interface LogEvent {
  readonly position: number;
  readonly stream: string;
  readonly version: number;
  readonly type: string;
  /** RFC 3339. */
  readonly time: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** Takes events in the order of the log. */
export type LogReader = (event: LogEvent) => void;

/**
 * Reads the whole log once, for all readers.
 * @returns how many events it has
 * @throws Error when the export fails
 */
export async function readLog(server: Server, readers: readonly LogReader[]): Promise<number> {
  let events = 0;
  for await (
    const text of taskLines("audit", ["export", "--format", "jsonl", "--data", server.data])
  ) {
    if (text === "") continue;
    const event = JSON.parse(text) as Partial<LogEvent>;
    if (event.stream === undefined || event.data === undefined) continue; // header, checkpoint
    events++;
    for (const read of readers) read(event as LogEvent);
  }
  return events;
}

export const domainOf = (address: unknown): string => String(address).split("@")[1] ?? "";

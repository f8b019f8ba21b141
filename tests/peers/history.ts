/**
 * Reads the history of a message back, in all the ways that there are: the audit export, the
 * replay, and the verification of the chain.
 */
import assert from "node:assert/strict";
import { type Server, taskLines } from "./serve.ts";
import { until } from "./wait.ts";

export interface LoggedEvent {
  readonly stream: string;
  readonly version: number;
  readonly type: string;
  readonly data: Record<string, unknown>;
}

/** All events of the log, in order, from `deno task audit export`. */
export async function exportedEvents(server: Pick<Server, "data">): Promise<LoggedEvent[]> {
  const events: LoggedEvent[] = [];
  for await (
    const text of taskLines("audit", ["export", "--format", "jsonl", "--data", server.data])
  ) {
    const line = text === "" ? {} : JSON.parse(text) as Partial<LoggedEvent>;
    if (line.stream !== undefined && line.data !== undefined) events.push(line as LoggedEvent);
  }
  return events;
}

/** The events of the one message to `recipient`, once one of them is of type `until`. */
export async function historyOf(
  server: Server,
  recipient: string,
  last: string,
): Promise<LoggedEvent[]> {
  return await until(`${last} in the log of the message to ${recipient}`, 20_000, async () => {
    const events = await exportedEvents(server);
    const first = events.find(({ type, data }) => type === "Enqueued" && data.rcptTo === recipient);
    const own = events.filter(({ stream }) => stream === first?.stream);
    return own.some(({ type }) => type === last) ? own : undefined;
  });
}

/** The replay of a message tells each of its events, and the log as a whole verifies. */
export async function assertReplayable(
  server: Server,
  events: readonly LoggedEvent[],
): Promise<void> {
  const stream = events[0]?.stream;
  assert.ok(stream);
  const replay = await server.command("replay", stream);
  assert.equal(replay.code, 0, replay.stderr);
  for (const { type } of events) {
    assert.ok(replay.stdout.includes(type), `the replay does not tell of ${type}`);
  }
  const verified = await server.command("audit", "verify");
  assert.equal(verified.code, 0, verified.stdout + verified.stderr);
}

/** The data of the first event of a type. */
export function dataOf(events: readonly LoggedEvent[], type: string): Record<string, unknown> {
  const found = events.find((event) => event.type === type);
  assert.ok(found, `there is no ${type}`);
  return found.data;
}

/**
 * Patience: what becomes of messages that wait for a destination that is down. They are not
 * attempted, so nothing else would tell their senders of the delay, or give up in the end. What a
 * row shows is enough to find them; the message itself knows whether it has waited long enough.
 */
import { losePatienceWith, type MessagePorts } from "./message_actor.ts";
import type { QueueRow, QueueView, RoutingFacts } from "./ports.ts";
import { delayNoticeAge } from "./retry.ts";

/** Rows read at once. */
const PAGE = 500;

/** What a route may ask, from the row of a waiting message. */
export const factsOf = (row: QueueRow): RoutingFacts => ({
  account: row.account,
  mailFrom: row.sender,
  rcptTo: row.recipient,
  size: row.size,
  attempt: row.attempts + 1,
  ...(row.override === null ? {} : { override: { transport: row.override, who: "" } }),
});

/**
 * Looks at every message that is due, and so is waiting.
 * @throws StoreUnavailable
 */
export async function losePatience(
  ports: MessagePorts & { readonly view: QueueView },
  { downFor, gone }: {
    /** Why the destination of a message is down; undefined when it is not. */
    readonly downFor: (
      facts: RoutingFacts,
    ) => { readonly why: string; readonly destination: string } | undefined;
    readonly gone: AbortSignal;
  },
): Promise<void> {
  const { clock, view, policy } = ports;
  const now = clock.now();
  let after: { due: number; stream: string } | undefined;
  while (!gone.aborted) {
    const rows = await view.due(now, PAGE, after);
    for (const row of rows) {
      const down = downFor(factsOf(row));
      if (!down) continue;
      const { lifetime, ...rest } = policy({ account: row.account, destination: down.destination });
      const age = now - row.created;
      const act = row.expires !== null && now >= row.expires
        ? "missDeadline"
        : age >= lifetime
        ? "expire"
        : age >= delayNoticeAge({ lifetime, ...rest }) && !row.delay_reported
        ? "tellOfDelay"
        : undefined;
      if (act) await losePatienceWith(ports, row.stream, act, down.why, gone);
    }
    const last = rows.at(-1);
    if (!last || rows.length < PAGE) return;
    after = { due: last.due!, stream: last.stream };
  }
}

/**
 * Patience: senders of messages that wait for a destination which is down hear of the delay. Their
 * messages are not attempted, so nothing else would tell them. What a row shows is enough to find
 * them; the message itself knows whether it has waited long enough.
 */
import { StoreUnavailable } from "../events/store.ts";
import { losePatienceWith, type MessagePorts } from "./message_actor.ts";
import type { QueueRow, RoutingFacts } from "./ports.ts";
import { delayNoticeAge } from "./retry.ts";

/** Rows read at once. */
const PAGE = 500;
/** How often those are looked at who wait, milliseconds. */
const CHECK = 300_000;

/** What a route may ask, from the row of a waiting message. */
export const factsOf = (row: QueueRow): RoutingFacts => ({
  account: row.account,
  mailFrom: row.sender,
  rcptTo: row.recipient,
  size: row.size,
  attempt: row.attempts + 1,
  ...(row.override === null ? {} : { override: { transport: row.override, who: "" } }),
});

/** What is known of destinations. */
export interface Outages {
  readonly anyDown: () => boolean;
  /** Why the destination of a message is down, and which it is; undefined when it is not. */
  downFor(
    facts: RoutingFacts,
  ): { readonly why: string; readonly destination: string } | undefined;
  /** Looking ended with this, for good. */
  failed(cause: unknown): void;
  readonly gone: AbortSignal;
}

/** Now and then, and only while a destination is down, looks at who has waited too long for it. */
export class Patience {
  readonly #ports: MessagePorts;
  readonly #outages: Outages;
  #running = false;
  #cancel = () => {};

  constructor(ports: MessagePorts, outages: Outages) {
    this.#ports = ports;
    this.#outages = outages;
  }

  start(): void {
    this.#running = true;
    this.#await();
  }

  stop(): void {
    this.#running = false;
    this.#cancel();
  }

  #await(): void {
    const { anyDown, failed } = this.#outages;
    this.#cancel = this.#ports.clock.timer(CHECK, async () => {
      try {
        if (anyDown()) await this.#lookAtAll();
      } catch (cause) {
        failed(cause);
        if (!(cause instanceof StoreUnavailable)) return;
      }
      if (this.#running) this.#await();
    });
  }

  /**
   * Looks at every message that is due, and so is waiting.
   * @throws StoreUnavailable
   */
  async #lookAtAll(): Promise<void> {
    const { clock, view, policy } = this.#ports;
    const { downFor, gone } = this.#outages;
    const now = clock.now();
    let after: { due: number; stream: string } | undefined;
    while (!gone.aborted) {
      const rows = await view.due(now, PAGE, after);
      for (const row of rows) {
        if (row.delay_reported || row.report_due !== null) continue;
        const down = downFor(factsOf(row));
        if (!down) continue;
        const retry = policy({ account: row.account, destination: down.destination });
        if (now - row.ages_from < delayNoticeAge(retry)) continue;
        await losePatienceWith(this.#ports, row.stream, "tellOfDelay", down.why, gone);
      }
      const last = rows.at(-1);
      if (!last || rows.length < PAGE) return;
      after = { due: last.due!, stream: last.stream };
    }
  }
}

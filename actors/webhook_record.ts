/**
 * What is durable of an endpoint: its events on the streams `webhook NAME DAY`, and above all its
 * position, which is written
 *
 *   - within a second when events were taken or given up: what a crash cuts off is told again;
 *   - every 20,000 positions that concern nobody: a start does not read the whole log again;
 *   - when the telling ends, if events were taken.
 *
 * While an endpoint is told, its runner alone writes; acts of operators find none running.
 */
import type { EventData, Fact } from "../events/catalogue.ts";
import { type WebhookRow, webhookStream } from "../events/projections/webhooks.ts";
import { WrongVersion } from "../events/store.ts";
import type { Clock, EventStore, Log } from "./ports.ts";

export interface RecordPorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly store: EventStore;
  readonly row: (endpoint: string) => WebhookRow | undefined;
}

/** How far an endpoint has been told, and how many events in all. */
export type Progress = Omit<EventData<"WebhookAdvanced">, "endpoint">;

/** Milliseconds between two records of a position that moves. */
const RECORD_EVERY = 1_000;
/** Positions that concern nobody, after which the position is recorded all the same. */
const RECORD_LAG = 20_000;

/** @throws StoreUnavailable */
export async function recordFact(
  { store, row }: Pick<RecordPorts, "store" | "row">,
  endpoint: string,
  fact: Fact,
): Promise<void> {
  for (let again = 0;; again++) {
    const stream = webhookStream(endpoint, store.dayTime(), row(endpoint));
    const expectedVersion = await store.version(stream);
    try {
      await store.append([{ stream, expectedVersion, facts: [fact] }]);
      return;
    } catch (cause) {
      // A write that failed before may have come to the disk all the same.
      if (!(cause instanceof WrongVersion) || again === 3) throw cause;
    }
  }
}

export class PositionRecord {
  #written: Progress;
  #cancel: (() => void) | undefined;
  #writing: Promise<void> | undefined;
  #closed = false;

  constructor(
    private readonly ports: RecordPorts,
    private readonly endpoint: string,
    row: WebhookRow,
    private readonly progress: () => Progress,
  ) {
    this.#written = { upTo: row.position, told: row.told, givenUp: row.given_up };
  }

  /** The progress may have changed. */
  moved(): void {
    if (this.#closed || this.#cancel || this.#writing) return;
    const lag = this.progress().upTo - this.#written.upTo;
    if (!this.#unwritten() && lag <= RECORD_LAG) return;
    this.#cancel = this.ports.clock.timer(RECORD_EVERY, () => {
      this.#cancel = undefined;
      this.#writing = this.#write().finally(() => {
        this.#writing = undefined;
        this.moved();
      });
    });
  }

  /** Nothing is written any more when this resolves. The telling must be over. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#cancel?.();
    await this.#writing;
    if (this.#unwritten()) await this.#write();
  }

  #unwritten(): boolean {
    const { told, givenUp } = this.progress();
    return told + givenUp > this.#written.told + this.#written.givenUp;
  }

  /** A disk that does not take it is asked again later: an older position costs a repetition. */
  async #write(): Promise<void> {
    const { endpoint, ports } = this;
    const progress = this.progress();
    try {
      await recordFact(ports, endpoint, {
        type: "WebhookAdvanced",
        data: { endpoint, ...progress },
      });
      this.#written = progress;
    } catch (cause) {
      ports.log.warn("webhook: position not recorded", { endpoint, reason: String(cause) });
    }
  }
}

/**
 * The outbox of one endpoint: a window on the log. It holds what concerns the endpoint from the
 * first event that was not taken yet up to where the log has been read, and no more than there is
 * room for, however long the log is.
 *
 *   log:   … done │ item · item done item · item │ not read yet …
 *         position┘                          read┘
 */
import type { StoredEvent } from "../events/catalogue.ts";
import { type WebhookKind, webhookKind } from "./webhook_message.ts";

/** An event on its way to an endpoint. */
export interface OutboxItem {
  readonly event: StoredEvent;
  readonly kind: WebhookKind;
  /** Monotonic time of the first attempt that failed. */
  failing: number | undefined;
  attempts: number;
  /** Monotonic time before which it is not sent. */
  notBefore: number;
  sending: boolean;
}

export class Outbox {
  /** By position, in order. */
  readonly #window = new Map<number, OutboxItem>();
  #read: number;

  /**
   * @param after the position behind which it begins
   * @param room items that it holds, but for those of the page that was read last
   */
  constructor(
    after: number,
    private readonly kinds: readonly WebhookKind[],
    private readonly room: number,
  ) {
    this.#read = after;
  }

  /** Everything up to here is in the window, or done, or concerns nobody. */
  get read(): number {
    return this.#read;
  }

  /** Everything up to here is done. */
  get position(): number {
    const [first] = this.#window.keys();
    return first === undefined ? this.#read : first - 1;
  }

  get size(): number {
    return this.#window.size;
  }

  /** It is time to read on. */
  get wanting(): boolean {
    return this.#window.size < this.room / 2;
  }

  /** Takes events as they were committed, if they follow what was read and there is room. */
  offer(events: readonly StoredEvent[]): void {
    if (events[0]?.position !== this.#read + 1) return;
    const concerning = events.filter((event) => this.#kind(event) !== undefined).length;
    if (this.#window.size + concerning <= this.room) this.take(events, events.at(-1)!.position);
  }

  /** Takes the events behind `read`, in order; up to `upTo` there are no others. */
  take(events: readonly StoredEvent[], upTo: number): void {
    for (const event of events) {
      const kind = this.#kind(event);
      if (kind === undefined) continue;
      this.#window.set(event.position, {
        event,
        kind,
        failing: undefined,
        attempts: 0,
        notBefore: 0,
        sending: false,
      });
    }
    this.#read = upTo;
  }

  /** Of each message the first item, unless that is being sent. */
  *heads(): Generator<OutboxItem> {
    const seen = new Set<string>();
    for (const item of this.#window.values()) {
      const { stream } = item.event;
      if (seen.has(stream)) continue;
      seen.add(stream);
      if (!item.sending) yield item;
    }
  }

  done({ event }: OutboxItem): void {
    this.#window.delete(event.position);
  }

  #kind(event: StoredEvent): WebhookKind | undefined {
    const kind = webhookKind(event);
    return kind !== undefined && this.kinds.includes(kind) ? kind : undefined;
  }
}

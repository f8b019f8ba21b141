/**
 * The outbox of one endpoint: a window on the log. It holds what concerns the endpoint from the
 * first event that was not taken yet up to where the log has been read, and no more than there is
 * room for, however long the log is.
 *
 *   log:   … done │ refused · refused done │ item done item · item │ not read yet …
 *         position┘              beyond.upTo┘                  read┘
 *
 * An event that is refused for days holds the position back, and others are taken meanwhile. So
 * that they are not told again after a crash, the progress says which events are open before the
 * first that was not tried yet. A start reads those, and then goes on behind.
 */
import type { EventData, StoredEvent } from "../events/catalogue.ts";
import type { WebhookRow } from "../events/projections/webhooks.ts";
import { type WebhookKind, webhookKind } from "./webhook_message.ts";

/** An event on its way to an endpoint. */
export interface OutboxItem {
  readonly event: StoredEvent;
  readonly kind: WebhookKind;
  /** Monotonic time of the first attempt that failed. */
  failing: number | undefined;
  /** That failed; of one that was open at the start not all are known. */
  attempts: number;
  /** Monotonic time before which it is not sent. */
  notBefore: number;
  sending: boolean;
}

type Beyond = NonNullable<EventData<"WebhookAdvanced">["beyond"]>;

export class Outbox {
  /** By position, in order. */
  readonly #window = new Map<number, OutboxItem>();
  /** Positions of events that were open at the start, and have not been read yet. */
  readonly #open: number[];
  /** Everything up to here is in the window, or open, or done, or concerns nobody. */
  #read: number;

  /** @param room items that it holds, but for those of the page that was read last */
  constructor(
    { position, beyond }: Pick<WebhookRow, "position" | "beyond">,
    private readonly kinds: readonly WebhookKind[],
    private readonly room: number,
  ) {
    const known: Beyond | undefined = beyond === null ? undefined : JSON.parse(beyond);
    this.#open = [...known?.open ?? []];
    this.#read = known?.upTo ?? position;
  }

  /** Everything up to here is done. */
  get position(): number {
    const [first = Infinity] = this.#window.keys();
    const [open = Infinity] = this.#open;
    return Math.min(first - 1, open - 1, this.#read);
  }

  /** What is done behind the position, if events that were refused hold it back. */
  get beyond(): Beyond | undefined {
    const open: number[] = [];
    let upTo = this.#read;
    for (const [position, { attempts }] of this.#window) {
      if (attempts === 0) {
        upTo = position - 1;
        break;
      }
      open.push(position);
    }
    open.push(...this.#open);
    return open.length > 0 ? { upTo, open } : undefined;
  }

  /** Behind which position to read on, and whether that one event alone; undefined: not now. */
  next(head: number): { readonly after: number; readonly one: boolean } | undefined {
    const [open] = this.#open;
    if (open !== undefined) return { after: open - 1, one: true };
    if (this.#read >= head || this.#window.size >= this.room / 2) return undefined;
    return { after: this.#read, one: false };
  }

  /** Takes events as they are committed, if they follow what was read and there is room. */
  offer(events: readonly StoredEvent[]): void {
    if (this.#open.length > 0 || events[0]?.position !== this.#read + 1) return;
    const concerning = events.filter((event) => this.#kind(event) !== undefined).length;
    if (this.#window.size + concerning <= this.room) this.take(events, events.at(-1)!.position);
  }

  /** Takes the next events of the log, in order; up to `upTo` there are no others. */
  take(events: readonly StoredEvent[], upTo: number): void {
    for (const event of events) this.#add(event);
    this.#read = upTo;
  }

  /**
   * Takes the event that was open at the start, the first at its position or behind.
   * @returns false when that is another: it has left the store
   */
  takeOpen(event: StoredEvent | undefined): boolean {
    if (event?.position !== this.#open.shift()) return false;
    this.#add(event!, 1);
    return true;
  }

  #add(event: StoredEvent, attempts = 0): void {
    const kind = this.#kind(event);
    if (kind === undefined) return;
    this.#window.set(event.position, {
      event,
      kind,
      failing: undefined,
      attempts,
      notBefore: 0,
      sending: false,
    });
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

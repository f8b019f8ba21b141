/**
 * The runner of one endpoint tells it what its outbox holds:
 *
 *  1. It reads the log on while the outbox has room; what is committed meanwhile comes as it is.
 *  2. Of each message the first event that was not taken is sent; the next one waits for it. So
 *     events of a message come in order, and messages do not wait for each other.
 *  3. Posts go in parallel: one at first, one more for each that is taken, up to `concurrency`. A
 *     failure makes it one again.
 *  4. An event that is not taken is tried again with growing waits, 5 seconds to an hour. One that
 *     is refused for three days, while others are taken, is given up.
 *  5. After two failures in a row the endpoint is probed with one event at a time, with growing
 *     waits too; with what was tried least, lest events that it refuses stop all others. What was
 *     on its way when it failed does not count again.
 *  6. One that has taken nothing for `parkAfter`, in ten probes at least, or says that it is gone,
 *     is dead: whoever made the runner is told, and parks it.
 *
 * How long something fails is monotonic time: a clock that is set parks nobody.
 */
import type { WebhookRow } from "../events/projections/webhooks.ts";
import { StoreUnavailable } from "../events/store.ts";
import type { StoredEvent } from "../events/catalogue.ts";
import type { Random } from "./ports.ts";
import type { WebhookEndpoint, WebhookSender } from "./webhook_endpoint.ts";
import type { WebhookMessage, WebhookMessages } from "./webhook_message.ts";
import { Outbox, type OutboxItem } from "./webhook_outbox.ts";
import { PositionRecord, type RecordPorts } from "./webhook_record.ts";

export interface RunnerPorts extends RecordPorts {
  readonly random: Random;
  readonly messages: Pick<WebhookMessages, "of">;
  readonly sender: WebhookSender;
}

/** Events of the outbox for each post that may be on its way; some wait for others to be taken. */
const ROOM_EACH = 4;
const LEAST_ROOM = 200;
const PAGE = 500;
export const FIRST_WAIT = 5_000;
const LONGEST_WAIT = 3_600_000;
/** An endpoint is not parked for fewer failures in a row than this. */
const FEWEST_FAILURES = 10;
/** Milliseconds after which an event is given up that is refused while others are taken. */
const GIVE_UP = 3 * 86_400_000;

export class WebhookRunner {
  readonly #outbox: Outbox;
  readonly #record: PositionRecord;
  readonly #stop = new AbortController();
  readonly #sending = new Set<Promise<void>>();
  #reading: Promise<void> | undefined;
  #cancelWake: (() => void) | undefined;
  #dead = false;
  #told: number;
  #givenUp: number;
  /** Posts that may be on their way at the same time. */
  #width = 1;
  #failures = 0;
  /** Failures that were counted, ever: a post that was sent before the last one adds none. */
  #round = 0;
  #lastError: string | null = null;
  /** Monotonic time since which nothing was taken, and before which nothing is sent. */
  #failingSince = 0;
  #notBefore = 0;

  /** @param dead told once, when the endpoint is to be parked, why; nothing is sent any more */
  constructor(
    readonly endpoint: WebhookEndpoint,
    row: WebhookRow,
    private readonly ports: RunnerPorts,
    private readonly dead: (why: string) => void,
  ) {
    const { name, events, concurrency } = endpoint;
    this.#outbox = new Outbox(row, events, Math.max(LEAST_ROOM, ROOM_EACH * concurrency));
    this.#told = row.told;
    this.#givenUp = row.given_up;
    this.#record = new PositionRecord(ports, name, row, () => {
      const { position: upTo, beyond } = this.#outbox;
      const counts = { told: this.#told, givenUp: this.#givenUp };
      return { upTo, ...counts, ...(beyond ? { beyond } : {}) };
    });
  }

  /** Everything up to here was told, or concerns nobody. */
  get position(): number {
    return this.#outbox.position;
  }
  get told(): number {
    return this.#told;
  }
  get givenUp(): number {
    return this.#givenUp;
  }
  /** In a row; 0 while it takes what it is sent. */
  get failures(): number {
    return this.#failures;
  }
  get lastError(): string | null {
    return this.#lastError;
  }

  /** Takes what was committed as it comes; what there is no room for is read later. */
  committed(events: readonly StoredEvent[]): void {
    if (!this.#reading) this.#outbox.offer(events);
    this.wake();
  }

  /** Sends what may be sent, and sees to it that the rest is looked at in time. */
  wake(): void {
    if (this.#dead || this.#stop.signal.aborted) return;
    this.#fill();
    this.#cancelWake?.();
    this.#cancelWake = undefined;
    const now = this.ports.clock.monotonic();
    // Much may be in the outbox of an endpoint that is down: it is not looked through in vain.
    const next = this.#notBefore > now ? this.#notBefore : this.#sendReady(now);
    // Whatever is on its way wakes it when it ends.
    if (next < Infinity && this.#sending.size === 0) this.#wakeIn(next - now);
    this.#record.moved();
  }

  /** @returns when something may be sent next, of what has to wait */
  #sendReady(now: number): number {
    let next = Infinity;
    for (const item of this.#candidates()) {
      if (this.#sending.size >= this.#width) break;
      if (item.notBefore <= now) this.#send(item);
      else next = Math.min(next, item.notBefore);
    }
    return next;
  }

  /** In the order of the log; for a probe what was tried least: it may be that some are refused. */
  #candidates(): Iterable<OutboxItem> {
    const heads = this.#outbox.heads();
    return this.#failures === 0 ? heads : [...heads].sort((a, b) => a.attempts - b.attempts);
  }

  /** Ends what is on its way; when this resolves, what was told is recorded. */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#cancelWake?.();
    await Promise.all([...this.#sending, this.#reading]);
    await this.#record.close();
  }

  #wakeIn(ms: number): void {
    this.#cancelWake ??= this.ports.clock.timer(ms, () => {
      this.#cancelWake = undefined;
      this.wake();
    });
  }

  #fill(): void {
    const { store, log } = this.ports;
    // Asked before it reads: what is committed while it does lies behind this.
    const head = store.head();
    const next = this.#reading ? undefined : this.#outbox.next(head);
    if (!next) return;
    this.#reading = this.#read(next, head).then(() => {
      this.#reading = undefined;
      this.wake();
    }, (cause) => {
      this.#reading = undefined;
      const { name } = this.endpoint;
      log.warn("webhook: the log cannot be read", { endpoint: name, reason: String(cause) });
      if (!this.#stop.signal.aborted) this.#wakeIn(FIRST_WAIT);
    });
  }

  async #read(next: NonNullable<ReturnType<Outbox["next"]>>, head: number): Promise<void> {
    const events = await this.ports.store.readAll(next.after, next.one ? 1 : PAGE);
    if (next.one) {
      if (!this.#outbox.takeOpen(events[0])) this.#lost(next.after + 1);
      return;
    }
    // None: those up to the head have left the store, or cannot be read.
    this.#outbox.take(events, events.at(-1)?.position ?? head);
  }

  #lost(position: number): void {
    const { name: endpoint } = this.endpoint;
    this.ports.log.warn("webhook: an event has left the store untold", { endpoint, position });
    this.#givenUp += 1;
  }

  #send(item: OutboxItem): void {
    item.sending = true;
    const sent = this.#attempt(item).catch((cause) => this.#later(item, cause)).finally(() => {
      item.sending = false;
      this.#sending.delete(sent);
      this.wake();
    });
    this.#sending.add(sent);
  }

  async #attempt(item: OutboxItem): Promise<void> {
    const { messages, log } = this.ports;
    const { name: endpoint, accounts } = this.endpoint;
    const round = this.#round;
    let message: WebhookMessage | undefined;
    try {
      message = await messages.of(item.kind, item.event);
    } catch (cause) {
      if (cause instanceof StoreUnavailable) throw cause;
      const { position } = item.event;
      log.error("webhook: an event cannot be told", { endpoint, position, reason: String(cause) });
      return this.#giveUp(item);
    }
    if (!message || (accounts && !accounts.includes(message.account ?? ""))) {
      return this.#outbox.done(item);
    }
    const answer = await this.#post(message);
    if (typeof answer === "string") return this.#failed(item, round, answer);
    if (answer === 410) return this.#die("the endpoint says that it is gone (410)");
    if (answer !== undefined) this.#taken(item);
  }

  /** @returns 2xx or 410; or why it was not taken; undefined when it was cut off */
  async #post(message: WebhookMessage): Promise<number | string | undefined> {
    const { signal } = this.#stop;
    try {
      const status = await this.ports.sender.send(this.endpoint, message, signal);
      if ((status >= 200 && status < 300) || status === 410) return status;
      const redirect = status >= 300 && status < 400;
      return `the answer is ${status}${redirect ? ": redirects are not followed" : ""}`;
    } catch (cause) {
      if (signal.aborted) return undefined;
      return cause instanceof Error ? cause.message : String(cause);
    }
  }

  #taken(item: OutboxItem): void {
    this.#told += 1;
    this.#width = Math.min(this.#width + 1, this.endpoint.concurrency);
    this.#failures = 0;
    this.#notBefore = 0;
    this.#lastError = null;
    this.#outbox.done(item);
  }

  #failed(item: OutboxItem, round: number, why: string): void {
    const now = this.ports.clock.monotonic();
    this.#postpone(item);
    item.failing ??= now;
    if (round === this.#round) this.#worse(why, now);
    if (this.#failures <= 1 && now - item.failing >= GIVE_UP) {
      const { log } = this.ports;
      const { position } = item.event;
      log.warn("webhook: an event is given up", {
        endpoint: this.endpoint.name,
        position,
        reason: why,
      });
      this.#giveUp(item);
    }
  }

  /** The endpoint failed once more. */
  #worse(why: string, now: number): void {
    const { name: endpoint, parkAfter } = this.endpoint;
    this.#round += 1;
    this.#failures += 1;
    this.#width = 1;
    this.#lastError = why;
    if (this.#failures === 1) {
      this.#failingSince = now;
      this.ports.log.warn("webhook: not taken", { endpoint, reason: why });
      return;
    }
    this.#notBefore = now + this.#wait(this.#failures - 1);
    if (this.#failures >= FEWEST_FAILURES && now - this.#failingSince >= parkAfter) {
      this.#die(`${this.#failures} failures in a row, the last: ${why}`);
    }
  }

  #die(why: string): void {
    if (this.#dead || this.#stop.signal.aborted) return;
    this.#dead = true;
    this.dead(why);
  }

  #giveUp(item: OutboxItem): void {
    this.#givenUp += 1;
    this.#outbox.done(item);
  }

  /** Not the endpoint's failure. */
  #later(item: OutboxItem, cause: unknown): void {
    const { name: endpoint } = this.endpoint;
    const { position } = item.event;
    this.ports.log.warn("webhook: told later", { endpoint, position, reason: String(cause) });
    this.#postpone(item);
  }

  #postpone(item: OutboxItem): void {
    item.attempts += 1;
    item.notBefore = this.ports.clock.monotonic() + this.#wait(item.attempts);
  }

  /** With some chance in it, so that endpoints on one host are not asked all at once. */
  #wait(attempts: number): number {
    const wait = Math.min(FIRST_WAIT * 2 ** Math.min(attempts - 1, 20), LONGEST_WAIT);
    return wait * (0.75 + this.ports.random.next() / 2);
  }
}

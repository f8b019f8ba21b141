/**
 * Webhooks: endpoints that are told by HTTP what became of messages.
 *
 * The log is the outbox. Each endpoint has a position in it, durable as an event of its own
 * (events/projections/webhooks.ts); what concerns it behind that position is sent, at least once,
 * and in order for each message. Of what a crash cut off, the last second is sent again.
 *
 * At most so many events of an endpoint are in its window: read, and not taken yet. An event that
 * is not taken is tried again with growing waits, while others go on; an endpoint that takes
 * nothing is probed with one event at a time, and parked when that has lasted too long: nothing
 * more is sent until somebody resumes it. What happened meanwhile is still in the log,
 * but for what retention has taken out of the store: it waits for endpoints that are not parked.
 */
import type { StoredEvent } from "../events/catalogue.ts";
import { type WebhookRow, webhookStream } from "../events/projections/webhooks.ts";
import { StoreUnavailable, WrongVersion } from "../events/store.ts";
import { CommandRefused } from "./message.ts";
import type { Clock, EventStore, Log, Random } from "./ports.ts";
import {
  type WebhookKind,
  webhookKind,
  type WebhookMessage,
  webhookMessage,
} from "./webhook_message.ts";

export interface WebhookEndpoint {
  readonly name: string;
  readonly url: string;
  readonly events: readonly WebhookKind[];
  /** Only what concerns these accounts; absent: everything. */
  readonly accounts?: readonly string[];
  /** Milliseconds for which it may take nothing before it is parked. */
  readonly parkAfter: number;
}

/** Sends one message; the real one signs it and posts it (src/webhooks.ts). */
export interface WebhookSender {
  /**
   * Resolves with the status of the answer. Bounds its own time.
   * @throws Error when there was no answer that could be read
   */
  send(endpoint: WebhookEndpoint, message: WebhookMessage, signal: AbortSignal): Promise<number>;
}

export interface WebhooksPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly store: EventStore;
  readonly row: (endpoint: string) => WebhookRow | undefined;
  readonly sender: WebhookSender;
}

/** An endpoint as operators see it. */
export interface WebhookState {
  readonly name: string;
  readonly url: string;
  readonly events: readonly string[];
  readonly parked: { readonly why: string; readonly since: string } | null;
  readonly position: number;
  readonly behind: number;
  readonly told: number;
  readonly givenUp: number;
  readonly failures: number;
  readonly lastError: string | null;
}

export interface WebhookAct {
  readonly act: "park" | "resume";
  readonly who: string;
  readonly why: string;
  /** Resumed, it is told of nothing that happened until now. */
  readonly skip?: boolean;
}

/** Events of an endpoint that were read and not taken yet. */
const WINDOW = 200;
const AT_ONCE = 4;
const PAGE = 500;
/** Milliseconds between two records of a position that moves. */
const RECORD_EVERY = 1_000;
/** Positions that concern nobody, after which the position is recorded all the same. */
const RECORD_LAG = 20_000;
const FIRST_WAIT = 5_000;
const LONGEST_WAIT = 3_600_000;
/** An endpoint is not parked for fewer failures in a row than this. */
const FEWEST_FAILURES = 10;
/** Milliseconds after which an event is given up that is refused while others are taken. */
const GIVE_UP = 3 * 86_400_000;

export class Webhooks {
  readonly #ports: WebhooksPorts;
  readonly #runners = new Map<string, Runner>();
  #endpoints: readonly WebhookEndpoint[];
  #running = false;
  #cancelLater: (() => void) | undefined;
  #unsubscribe: (() => void) | undefined;

  constructor(endpoints: readonly WebhookEndpoint[], ports: WebhooksPorts) {
    this.#endpoints = endpoints;
    this.#ports = ports;
  }

  /** A disk that takes no writes is waited for: nothing else has to wait for webhooks. */
  async start(): Promise<void> {
    this.#running = true;
    await this.#syncOrLater();
  }

  async #syncOrLater(): Promise<void> {
    try {
      await this.#sync();
    } catch (cause) {
      if (!(cause instanceof StoreUnavailable)) throw cause;
      const { clock, log } = this.#ports;
      log.warn("webhooks begin when the store takes writes", { reason: cause.message });
      this.#cancelLater?.();
      this.#cancelLater = clock.timer(FIRST_WAIT, () => {
        if (this.#running) void this.#syncOrLater();
      });
    }
  }

  async stop(): Promise<void> {
    this.#running = false;
    this.#cancelLater?.();
    this.#unsubscribe?.();
    this.#unsubscribe = undefined;
    const runners = [...this.#runners.values()];
    this.#runners.clear();
    await Promise.all(runners.map((runner) => runner.stop()));
  }

  /** Puts other endpoints in force; those that stay as they are go on. */
  async use(endpoints: readonly WebhookEndpoint[]): Promise<void> {
    this.#endpoints = endpoints;
    if (this.#running) await this.#syncOrLater();
  }

  list(): WebhookState[] {
    return this.#endpoints.map((endpoint) =>
      stateOf(endpoint, this.#ports, this.#runners.get(endpoint.name))
    );
  }

  /**
   * The position up to which the log is needed no more: every endpoint that is not parked has been
   * told, or is to be told nothing. Infinity when there is none.
   */
  get toldUpTo(): number {
    const positions = this.#endpoints.map(({ name }) => {
      const row = this.#ports.row(name);
      if (!row || row.parked !== null) return Infinity;
      return this.#runners.get(name)?.position ?? row.position;
    });
    return Math.min(Infinity, ...positions);
  }

  /**
   * @throws CommandRefused when it does not fit
   * @throws StoreUnavailable
   */
  async act(name: string, { act, who, why, skip }: WebhookAct): Promise<void> {
    const row = this.#ports.row(name);
    if (!row) throw new CommandRefused("nothing was ever sent to this endpoint");
    try {
      if (act === "park") {
        if (row.parked !== null) throw new CommandRefused(`it is parked already: ${row.parked}`);
        await append(this.#ports, name, {
          type: "WebhookParked",
          data: { endpoint: name, who, why },
        });
      } else {
        if (row.parked === null) throw new CommandRefused("it is not parked");
        const skipTo = skip ? { skipTo: this.#ports.store.head() } : {};
        const data = { endpoint: name, who, why, ...skipTo };
        await append(this.#ports, name, { type: "WebhookResumed", data });
      }
    } finally {
      // A write that failed may be on disk all the same: the row says.
      if (this.#running) await this.#sync(name);
    }
  }

  /** Runners as the endpoints are now; the named one is made anew. */
  async #sync(again?: string): Promise<void> {
    for (const [name, runner] of this.#runners) {
      const endpoint = this.#endpoints.find((one) => one.name === name);
      if (name !== again && endpoint && sameEndpoint(endpoint, runner.endpoint)) continue;
      this.#runners.delete(name);
      await runner.stop();
    }
    for (const endpoint of this.#endpoints) {
      if (!this.#running || this.#runners.has(endpoint.name)) continue;
      const row = this.#ports.row(endpoint.name) ?? await this.#begin(endpoint.name);
      if (row.parked !== null) continue;
      const runner = new Runner(endpoint, row, this.#ports);
      this.#runners.set(endpoint.name, runner);
      runner.wake();
    }
    // Nobody listens to commits for endpoints that are not there.
    if (this.#runners.size > 0) {
      this.#unsubscribe ??= this.#ports.store.subscribe((events) => {
        for (const runner of this.#runners.values()) runner.committed(events);
      });
    }
  }

  /** A new endpoint is told of what happens from now on. */
  async #begin(endpoint: string): Promise<WebhookRow> {
    const data = { endpoint, upTo: this.#ports.store.head(), told: 0, givenUp: 0 };
    await append(this.#ports, endpoint, { type: "WebhookAdvanced", data });
    return this.#ports.row(endpoint)!;
  }
}

const sameEndpoint = (a: WebhookEndpoint, b: WebhookEndpoint): boolean =>
  JSON.stringify(a) === JSON.stringify(b);

type WebhookFact = Parameters<EventStore["append"]>[0][number]["facts"][number];

async function append(
  { store, clock }: Pick<WebhooksPorts, "store" | "clock">,
  endpoint: string,
  fact: WebhookFact,
): Promise<void> {
  for (let again = 0;; again++) {
    const stream = webhookStream(endpoint, clock.now());
    const expectedVersion = await store.version(stream);
    try {
      await store.append([{ stream, expectedVersion, facts: [fact] }]);
      return;
    } catch (cause) {
      if (!(cause instanceof WrongVersion) || again === 3) throw cause;
    }
  }
}

function stateOf(
  { name, url, events }: WebhookEndpoint,
  { row: rowOf, store }: WebhooksPorts,
  runner: Runner | undefined,
): WebhookState {
  const row = rowOf(name);
  const position = runner?.position ?? row?.position ?? store.head();
  return {
    name,
    url,
    events,
    parked: row?.parked == null
      ? null
      : { why: row.parked, since: new Date(row.parked_since!).toISOString() },
    position,
    behind: Math.max(0, store.head() - position),
    told: runner?.told ?? row?.told ?? 0,
    givenUp: runner?.givenUp ?? row?.given_up ?? 0,
    failures: runner?.failures ?? 0,
    lastError: runner?.lastError ?? null,
  };
}

/** An event on its way to an endpoint. */
interface Item {
  readonly event: StoredEvent;
  readonly kind: WebhookKind;
  /** Wall time of the first attempt that failed. */
  failing: number | undefined;
  attempts: number;
  /** Monotonic time before which it is not sent. */
  notBefore: number;
  sending: boolean;
}

/** What is sent to one endpoint. */
class Runner {
  /** By position, in order. */
  readonly #window = new Map<number, Item>();
  readonly #stop = new AbortController();
  readonly #sending = new Set<Promise<void>>();
  /** Everything up to here is in the window, or done, or concerns nobody. */
  #read: number;
  #recorded: { position: number; done: number };
  #reading: Promise<void> | undefined;
  #recording: Promise<void> | undefined;
  #cancelWake: (() => void) | undefined;
  #cancelRecord: (() => void) | undefined;
  told: number;
  givenUp: number;
  failures = 0;
  lastError: string | null = null;
  /** Wall time since which nothing was taken. */
  #failingSince = 0;
  /** Monotonic. */
  #notBefore = 0;

  constructor(
    readonly endpoint: WebhookEndpoint,
    row: WebhookRow,
    private readonly ports: WebhooksPorts,
  ) {
    this.#read = row.position;
    this.told = row.told;
    this.givenUp = row.given_up;
    this.#recorded = { position: row.position, done: row.told + row.given_up };
  }

  /** Everything up to here is done. */
  get position(): number {
    const [first] = this.#window.keys();
    return first === undefined ? this.#read : first - 1;
  }

  /** Takes what was committed as it comes; what there is no room for is read later. */
  committed(events: readonly StoredEvent[]): void {
    const room = this.#window.size + events.length <= WINDOW;
    if (!this.#reading && room && events[0]!.position === this.#read + 1) this.#take(events);
    this.wake();
  }

  #take(events: readonly StoredEvent[]): void {
    for (const event of events) {
      this.#read = event.position;
      const kind = webhookKind(event);
      if (kind === undefined || !this.endpoint.events.includes(kind)) continue;
      this.#window.set(event.position, {
        event,
        kind,
        failing: undefined,
        attempts: 0,
        notBefore: 0,
        sending: false,
      });
    }
  }

  /** Sends what may be sent, and sees to it that the rest is looked at in time. */
  wake(): void {
    if (this.#stop.signal.aborted) return;
    this.#fill();
    this.#cancelWake?.();
    this.#cancelWake = undefined;
    const now = this.ports.clock.monotonic();
    const atOnce = this.failures > 0 ? 1 : AT_ONCE;
    const before = new Set<string>();
    let next = Infinity;
    for (const item of this.#window.values()) {
      if (this.#sending.size >= atOnce) break;
      const { stream } = item.event;
      const first = !before.has(stream);
      before.add(stream);
      if (item.sending || !first) continue;
      const at = Math.max(item.notBefore, this.#notBefore);
      if (at <= now) this.#send(item);
      else next = Math.min(next, at);
    }
    if (next !== Infinity && this.#sending.size === 0) {
      this.#cancelWake = this.ports.clock.timer(next - now, () => this.wake());
    }
    this.#record();
  }

  #fill(): void {
    const { store, log, clock } = this.ports;
    if (this.#reading || this.#read >= store.head() || this.#window.size >= WINDOW / 2) return;
    const signal = this.#stop.signal;
    this.#reading = (async () => {
      const events = await store.readAll(this.#read, PAGE);
      // Pruned events leave gaps at the end, too: then there is nothing more to be told.
      if (events.length === 0) this.#read = store.head();
      else this.#take(events);
    })().then(() => true, (cause) => {
      log.warn("webhook: the log cannot be read", {
        endpoint: this.endpoint.name,
        reason: String(cause),
      });
      return false;
    }).then((well) => {
      this.#reading = undefined;
      if (signal.aborted) return;
      if (well) this.wake();
      else this.#cancelWake ??= clock.timer(FIRST_WAIT, () => this.wake());
    });
  }

  #send(item: Item): void {
    item.sending = true;
    const sent = this.#attempt(item).finally(() => {
      item.sending = false;
      this.#sending.delete(sent);
      this.wake();
    });
    this.#sending.add(sent);
  }

  async #attempt(item: Item): Promise<void> {
    const { store, sender, log } = this.ports;
    const { name } = this.endpoint;
    const { signal } = this.#stop;
    let message: WebhookMessage | undefined;
    try {
      message = await webhookMessage(store, item.kind, item.event);
    } catch (cause) {
      if (cause instanceof StoreUnavailable) return this.#later(item);
      log.error("webhook: an event cannot be told", {
        endpoint: name,
        position: item.event.position,
        reason: String(cause),
      });
      this.givenUp += 1;
      return this.#done(item);
    }
    const { accounts } = this.endpoint;
    if (!message || (accounts && !accounts.includes(message.account ?? ""))) {
      return this.#done(item);
    }
    let why: string;
    try {
      const status = await sender.send(this.endpoint, message, signal);
      if (status >= 200 && status < 300) {
        this.told += 1;
        this.failures = 0;
        this.#notBefore = 0;
        this.lastError = null;
        return this.#done(item);
      }
      if (status === 410) return await this.#park("the endpoint says that it is gone (410)");
      why = status >= 300 && status < 400
        ? `the answer is ${status}: redirects are not followed`
        : `the answer is ${status}`;
    } catch (cause) {
      if (signal.aborted) return;
      why = cause instanceof Error ? cause.message : String(cause);
    }
    await this.#failed(item, why);
  }

  #done(item: Item): void {
    this.#window.delete(item.event.position);
  }

  #later(item: Item): void {
    item.attempts += 1;
    item.notBefore = this.ports.clock.monotonic() + this.#wait(item.attempts);
  }

  async #failed(item: Item, why: string): Promise<void> {
    const { clock, log } = this.ports;
    const now = clock.now();
    this.#later(item);
    item.failing ??= now;
    if (this.failures === 0) {
      this.#failingSince = now;
      log.warn("webhook: not taken", { endpoint: this.endpoint.name, reason: why });
    }
    this.failures += 1;
    this.lastError = why;
    if (this.failures > 1) {
      this.#notBefore = clock.monotonic() + this.#wait(this.failures - 1);
    }
    const dead = now - this.#failingSince >= this.endpoint.parkAfter;
    if (this.failures >= FEWEST_FAILURES && dead) {
      return await this.#park(`${this.failures} failures in a row, the last: ${why}`);
    }
    if (this.failures === 1 && now - item.failing >= GIVE_UP) {
      log.warn("webhook: an event is given up", {
        endpoint: this.endpoint.name,
        position: item.event.position,
        reason: why,
      });
      this.givenUp += 1;
      this.#done(item);
    }
  }

  /** With some chance in it, so that endpoints on one host are not asked all at once. */
  #wait(attempts: number): number {
    const wait = Math.min(FIRST_WAIT * 2 ** Math.min(attempts - 1, 20), LONGEST_WAIT);
    return wait * (0.75 + this.ports.random.next() / 2);
  }

  async #park(why: string): Promise<void> {
    const { log } = this.ports;
    const endpoint = this.endpoint.name;
    try {
      await append(this.ports, endpoint, {
        type: "WebhookParked",
        data: { endpoint, who: "supervisor", why: why.slice(0, 500) },
      });
    } catch (cause) {
      if (!(cause instanceof StoreUnavailable)) throw cause;
      this.#notBefore = this.ports.clock.monotonic() + FIRST_WAIT;
      return; // it fails again, and is parked then
    }
    log.error("webhook parked; `webhooks resume` ends that", { endpoint, reason: why });
    this.#stop.abort();
  }

  // The position: recorded once a second while it moves.

  #record(): void {
    const moved = this.told + this.givenUp > this.#recorded.done ||
      this.position - this.#recorded.position > RECORD_LAG;
    if (!moved || this.#cancelRecord || this.#recording) return;
    this.#cancelRecord = this.ports.clock.timer(RECORD_EVERY, () => {
      this.#cancelRecord = undefined;
      this.#recording = this.#writePosition().finally(() => {
        this.#recording = undefined;
        if (!this.#stop.signal.aborted) this.#record();
      });
    });
  }

  async #writePosition(): Promise<void> {
    const { told, givenUp, position: upTo } = this;
    const endpoint = this.endpoint.name;
    try {
      await append(this.ports, endpoint, {
        type: "WebhookAdvanced",
        data: { endpoint, upTo, told, givenUp },
      });
      this.#recorded = { position: upTo, done: told + givenUp };
    } catch (cause) {
      const { log } = this.ports;
      log.warn("webhook: position not recorded", { endpoint, reason: String(cause) });
    }
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    this.#cancelWake?.();
    this.#cancelRecord?.();
    this.#cancelRecord = undefined;
    await Promise.all([...this.#sending, this.#reading, this.#recording]);
    if (this.told + this.givenUp > this.#recorded.done) await this.#writePosition();
  }
}

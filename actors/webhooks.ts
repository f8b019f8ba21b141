/**
 * Webhooks: endpoints that are told by HTTP what became of messages. The log is the outbox; each
 * endpoint has a position in it, durable as an event of its own (events/projections/webhooks.ts),
 * and is told of what concerns it behind that, at least once, and in order for each message.
 *
 *   webhook_endpoint.ts   what an endpoint is, and the port to it
 *   webhook_outbox.ts     its window on the log
 *   webhook_runner.ts     tells it what the outbox holds, and finds out that it is dead
 *   webhook_record.ts     writes its position
 *   webhook_message.ts    what it is told
 *   this file             all endpoints, and what operators do to them
 *
 * An endpoint that is new begins at the head of the log. One that is dead is parked: it has no
 * runner until somebody resumes it, and goes on where it stopped. What happened meanwhile is still
 * in the log, but for what retention has taken out of the store: it waits for endpoints that are
 * not parked, and the event of the resumption says how much has gone. One that leaves the config keeps its position.
 *
 * An act comes to an endpoint in this order: its runner is stopped, which records the position; the
 * event is written; the row says whether there is a runner again. One act at a time, so that
 * nobody writes a position that another has left behind.
 */
import { RETENTION_STREAM } from "../events/archive.ts";
import type { WebhookRow } from "../events/projections/webhooks.ts";
import { StoreUnavailable, UnreadableStream } from "../events/store.ts";
import { CommandRefused } from "./message.ts";
import type { WebhookEndpoint } from "./webhook_endpoint.ts";
import { WebhookMessages } from "./webhook_message.ts";
import { recordFact } from "./webhook_record.ts";
import { FIRST_WAIT, type RunnerPorts, WebhookRunner } from "./webhook_runner.ts";

export interface WebhooksPorts extends Omit<RunnerPorts, "messages"> {
  readonly row: (endpoint: string) => WebhookRow | undefined;
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

export class Webhooks {
  readonly #ports: WebhooksPorts & RunnerPorts;
  readonly #runners = new Map<string, WebhookRunner>();
  /** Why endpoints are to be parked, until that is on disk. */
  readonly #dead = new Map<string, string>();
  #endpoints: readonly WebhookEndpoint[];
  #running = false;
  /** Ends when everything that was begun has ended. */
  #turn: Promise<unknown> = Promise.resolve();
  #cancelAgain: (() => void) | undefined;
  #unsubscribe: (() => void) | undefined;

  constructor(endpoints: readonly WebhookEndpoint[], ports: WebhooksPorts) {
    this.#endpoints = endpoints;
    this.#ports = { ...ports, messages: new WebhookMessages(ports.store) };
  }

  /** A disk that takes no writes is waited for: nothing else has to wait for webhooks. */
  async start(): Promise<void> {
    this.#running = true;
    await this.#inTurn(() => this.#sync());
  }

  async stop(): Promise<void> {
    this.#running = false;
    this.#cancelAgain?.();
    await this.#inTurn(async () => {
      this.#unsubscribe?.();
      this.#unsubscribe = undefined;
      await Promise.all([...this.#runners.keys()].map((name) => this.#halt(name)));
    });
  }

  /** Puts other endpoints in force; those that stay as they are go on. */
  async use(endpoints: readonly WebhookEndpoint[]): Promise<void> {
    this.#endpoints = endpoints;
    await this.#inTurn(() => this.#sync());
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
   * @throws StoreUnavailable; the act may have taken effect all the same: the list says
   */
  act(name: string, { act, who, why, skip }: WebhookAct): Promise<void> {
    return this.#inTurn(async () => {
      const row = this.#ports.row(name);
      if (!row) throw new CommandRefused("nothing was ever sent to this endpoint");
      if (act === "park" && row.parked !== null) {
        throw new CommandRefused(`it is parked already: ${row.parked}`);
      }
      if (act === "resume" && row.parked === null) throw new CommandRefused("it is not parked");
      await this.#halt(name);
      const data = { endpoint: name, who, why };
      try {
        if (act === "park") await recordFact(this.#ports, name, { type: "WebhookParked", data });
        else {
          const how = skip
            ? { skipTo: this.#ports.store.head() }
            : await this.#lost(name, row.position);
          const resumed = { type: "WebhookResumed", data: { ...data, ...how } } as const;
          await recordFact(this.#ports, name, resumed);
        }
      } finally {
        // A write that failed may be on disk all the same: the row says.
        await this.#sync();
      }
    });
  }

  /** What has left the store behind the position of an endpoint that was parked. */
  async #lost(endpoint: string, position: number): Promise<{ readonly archived?: number }> {
    const { store, log } = this.#ports;
    const retention = await store.readStream(RETENTION_STREAM).catch((cause) => {
      if (!(cause instanceof UnreadableStream)) throw cause;
      log.warn("webhook resumed; what went into the archive is not known", { endpoint });
      return [];
    });
    const archived = retention
      .map(({ type, data }) => type === "StreamsArchived" && data.to > position ? data.streams : 0)
      .reduce((sum, streams) => sum + streams, 0);
    if (archived === 0) return {};
    log.warn("webhook resumed; messages went into the archive untold", { endpoint, archived });
    return { archived };
  }

  /** One after the other, in the order in which they were asked for. */
  #inTurn<T>(run: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(run);
    this.#turn = done.catch(() => {});
    return done;
  }

  /** Runners as the endpoints and their rows are now; what the disk does not take is tried again. */
  async #sync(): Promise<void> {
    for (const [name, { endpoint }] of this.#runners) {
      const now = this.#endpoints.find((one) => one.name === name);
      if (!now || JSON.stringify(now) !== JSON.stringify(endpoint)) await this.#halt(name);
    }
    let unavailable: StoreUnavailable | undefined;
    for (const endpoint of this.#endpoints) {
      if (!this.#running) return;
      if (this.#runners.has(endpoint.name)) continue;
      try {
        await this.#begin(endpoint);
      } catch (cause) {
        if (!(cause instanceof StoreUnavailable)) throw cause;
        unavailable = cause;
      }
    }
    if (unavailable) this.#again(unavailable.message);
    // Nobody listens to commits for endpoints that are not there.
    if (this.#runners.size === 0) return;
    this.#unsubscribe ??= this.#ports.store.subscribe((events) => {
      for (const runner of this.#runners.values()) runner.committed(events);
    });
  }

  #again(reason: string): void {
    const { clock, log } = this.#ports;
    log.warn("webhooks go on when the store takes writes", { reason });
    this.#cancelAgain?.();
    this.#cancelAgain = clock.timer(FIRST_WAIT, () => this.#syncSoon());
  }

  /** Where nobody waits for it. */
  #syncSoon(): void {
    this.#inTurn(() => this.#sync()).catch((cause) => {
      const reason = String(cause);
      this.#ports.log.error("webhooks: endpoints are not as configured", { reason });
    });
  }

  /** @throws StoreUnavailable */
  async #begin(endpoint: WebhookEndpoint): Promise<void> {
    const { row, store } = this.#ports;
    const { name } = endpoint;
    if (!row(name)) {
      // A new endpoint is told of what happens from now on.
      const data = { endpoint: name, upTo: store.head(), told: 0, givenUp: 0 };
      await recordFact(this.#ports, name, { type: "WebhookAdvanced", data });
    }
    await this.#parkDead(name);
    const now = row(name)!;
    if (now.parked !== null || !this.#running) return;
    const runner: WebhookRunner = new WebhookRunner(
      endpoint,
      now,
      this.#ports,
      (why) => this.#died(runner, why),
    );
    this.#runners.set(name, runner);
    runner.wake();
  }

  /** @throws StoreUnavailable; it stays dead then */
  async #parkDead(endpoint: string): Promise<void> {
    const why = this.#dead.get(endpoint)?.slice(0, 500);
    if (why === undefined) return;
    if (this.#ports.row(endpoint)?.parked === null) {
      const data = { endpoint, who: "supervisor", why };
      await recordFact(this.#ports, endpoint, { type: "WebhookParked", data });
      const { log } = this.#ports;
      log.error("webhook parked; `webhooks resume` ends that", { endpoint, reason: why });
    }
    this.#dead.delete(endpoint);
  }

  #died(runner: WebhookRunner, why: string): void {
    const { name } = runner.endpoint;
    void this.#inTurn(async () => {
      if (this.#runners.get(name) !== runner) return;
      await this.#halt(name);
      this.#dead.set(name, why);
    });
    this.#syncSoon();
  }

  async #halt(name: string): Promise<void> {
    const runner = this.#runners.get(name);
    // Gone from the list first: it hears of no commits while it ends.
    this.#runners.delete(name);
    await runner?.stop();
  }
}

function stateOf(
  { name, url, events }: WebhookEndpoint,
  { row: rowOf, store }: WebhooksPorts,
  runner: WebhookRunner | undefined,
): WebhookState {
  const row = rowOf(name);
  const position = runner?.position ?? row?.position ?? store.head();
  return {
    name,
    url: url.replace(/\?.*$/s, "?…"), // a query may hold a token
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

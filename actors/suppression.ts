/**
 * The suppression list: addresses that new mail is refused to, because mail to them bounced for
 * good, somebody complained, or an operator said so. Every change is an event with who and why on
 * the stream `suppression ADDRESS DAY`; what is in force is a projection (events/projections).
 *
 * Addresses are compared with domain and local part in lower case. RFC 5321, section 2.4, leaves
 * the case of a local part to its host; no host of today keeps two mailboxes apart by it, and a
 * list that did would be passed by writing an address in another way.
 *
 * A bounce counts from the time of the failure. It shortens no entry that stands, and undoes
 * nothing that somebody did with the address since.
 *
 * The list costs nothing while it is empty: whether it is, is kept in memory.
 */
import { domainToASCII } from "node:url";
import type { EventData, FactOf, StoredEvent, StoredEventOf } from "../events/catalogue.ts";
import {
  suppressionProjection,
  type SuppressionRow,
  suppressionStream,
  type SuppressionView,
} from "../events/projections/suppression.ts";
import { StoreUnavailable, WrongVersion } from "../events/store.ts";
import { CommandRefused } from "./message.ts";
import type { Clock, EventStore, Log } from "./ports.ts";

export type Suppress = Omit<EventData<"AddressSuppressed">, "expires"> & {
  /** Milliseconds for which it counts; absent: until it is lifted. */
  readonly lasts?: number;
};

/** What the list does by itself. */
export interface SuppressionPolicy {
  /** Whether an address that a server does not know is put on the list. */
  readonly automatic: boolean;
  /** Milliseconds for which such an entry counts; absent: until it is lifted. */
  readonly lasts?: number;
}

export interface SuppressionPorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly store: EventStore;
  readonly view: SuppressionView;
  readonly policy: () => SuppressionPolicy;
  /** Failures that wait in memory, at most; others are read from the log when it is their turn. */
  readonly mostWaiting?: number;
}

/** Of failures that come faster than they can be recorded, no more wait in memory. */
const MOST_WAITING = 10_000;
/** Failures that are looked at together. */
const AT_ONCE = 100;
/** Events that are read at once. */
const PAGE = 500;
/** Events behind which a start looks for failures that a crash left without their consequence. */
const LOOK_BACK = 2_000;
const AGAIN = 5_000;

/** The form in which addresses are compared. */
export function comparable(address: string): string {
  const at = address.lastIndexOf("@");
  const domain = address.slice(at + 1).toLowerCase();
  // deno-lint-ignore no-control-regex -- ASCII is what it looks for
  const ascii = /^[\x00-\x7f]*$/.test(domain) ? domain : domainToASCII(domain) || domain;
  return `${address.slice(0, at).toLowerCase()}@${ascii}`;
}

export class Suppressions {
  readonly #ports: SuppressionPorts;
  /** Undefined: not known. */
  #empty: boolean | undefined;
  #unsubscribe: (() => void) | undefined;
  /** Failures whose consequence is not recorded yet, by message. */
  readonly #waiting = new Map<string, StoredEventOf<"Failed">>();
  /** While some wait: positions of the last acts on addresses, as far as they are for everybody. */
  readonly #acts = new Map<string, number>();
  /** The position behind which the log is still to be read; undefined: it is told as it grows. */
  #unread: number | undefined;
  #working: Promise<void> | undefined;
  #cancel: (() => void) | undefined;
  #running = false;

  constructor(ports: SuppressionPorts) {
    this.#ports = ports;
    ports.store.subscribe((events) => {
      if (events.some(changesList)) this.#empty = undefined;
    });
  }

  /**
   * Up to `limit` entries in the order of their ids, behind that one.
   * @throws StoreUnavailable
   */
  list(limit: number, after?: string): SuppressionRow[] {
    return this.#read((view) => view.list(limit, after));
  }

  /**
   * The entry that stands against new mail to an address, if any.
   * @throws StoreUnavailable when the list cannot be read
   */
  against(rcptTo: string, account: string | null): SuppressionRow | undefined {
    this.#empty ??= this.list(1).length === 0;
    if (this.#empty) return undefined;
    const address = comparable(rcptTo);
    const now = this.#ports.clock.now();
    const counts = (of: string | null) => {
      const row = this.#read((view) => view.get(address, of));
      return row && (row.expires === null || row.expires > now) ? row : undefined;
    };
    return counts(null) ?? (account === null ? undefined : counts(account));
  }

  #read<T>(ask: (view: SuppressionView) => T): T {
    try {
      return ask(this.#ports.view);
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new StoreUnavailable(`the suppression list cannot be read: ${why}`, { cause });
    }
  }

  /**
   * Puts an address on the list; one that is on it gets the new reason and time.
   * @throws StoreUnavailable when it could not be recorded
   */
  async add({ lasts, ...entry }: Suppress): Promise<SuppressionRow> {
    const address = comparable(entry.address);
    const added = await this.#append(address, entry.account, () => {
      const expires = lasts === undefined ? undefined : this.#ports.clock.now() + lasts;
      return { type: "AddressSuppressed", data: { ...entry, address, ...expiring(expires) } };
    });
    return suppressionProjection.apply(undefined, added!)!;
  }

  /**
   * @throws CommandRefused when the address is not on the list
   * @throws StoreUnavailable when it could not be recorded
   */
  async lift(entry: EventData<"SuppressionLifted">): Promise<void> {
    const address = comparable(entry.address);
    await this.#append(address, entry.account, (row) => {
      if (!row) {
        const whose = entry.account === undefined ? "" : ` of account ${entry.account}`;
        throw new CommandRefused(`the address is not on the suppression list${whose}`);
      }
      return { type: "SuppressionLifted", data: { ...entry, address } };
    });
  }

  /** @param decide what to do with the row as it is; undefined: nothing */
  async #append(
    address: string,
    account: string | undefined,
    decide: (row: SuppressionRow | undefined) => ListFact | undefined,
  ): Promise<StoredEvent | undefined> {
    const { store } = this.#ports;
    const row = () => this.#read((view) => view.get(address, account ?? null));
    for (let again = 0;; again++) {
      const stream = suppressionStream(address, store.dayTime(), row());
      const expectedVersion = await store.version(stream);
      const fact = decide(row());
      if (!fact) return undefined;
      try {
        const [stored] = await store.append([{ stream, expectedVersion, facts: [fact] }]);
        return stored;
      } catch (cause) {
        // It may be on disk all the same.
        this.#empty = undefined;
        if (!(cause instanceof WrongVersion) || again === 3) throw cause;
      }
    }
  }

  // What feeds it: permanent failures of the kind "no such user".

  /** Begins to watch for bounces, those included that a crash left without their consequence. */
  start(): void {
    const { store } = this.#ports;
    this.#running = true;
    this.#unsubscribe = store.subscribe((events) => {
      for (const event of events) this.#look(event);
    });
    this.#unread = Math.max(0, store.head() - LOOK_BACK);
    this.#work();
  }

  async stop(): Promise<void> {
    this.#running = false;
    this.#unsubscribe?.();
    this.#cancel?.();
    this.#cancel = undefined;
    await this.#working;
  }

  /** Reads what is to be read of the log, as far as it may wait in memory. */
  async #readOn(): Promise<void> {
    const { store, policy, mostWaiting = MOST_WAITING } = this.#ports;
    while (this.#unread !== undefined && policy().automatic) {
      const events = await store.readAll(this.#unread, PAGE);
      if (this.#waiting.size >= mostWaiting) return;
      this.#unread = events.at(-1)?.position;
      for (const event of events) this.#note(event);
    }
    this.#unread = undefined;
  }

  #look(event: StoredEvent): void {
    if (this.#note(event)) this.#work();
  }

  /** Returns whether there is something to be done. */
  #note(event: StoredEvent): boolean {
    const matters = this.#waiting.size > 0 || this.#unread !== undefined;
    if (matters && changesList(event)) {
      const { address, account } = event.data;
      // The log may be read from two places at once: the later act counts.
      const known = this.#acts.get(address) ?? 0;
      if (account === undefined) this.#acts.set(address, Math.max(known, event.position));
    }
    if (!isBounce(event) || !this.#ports.policy().automatic) return false;
    const { mostWaiting = MOST_WAITING } = this.#ports;
    if (this.#waiting.size < mostWaiting) this.#waiting.set(event.stream, event);
    else this.#unread = Math.min(this.#unread ?? Infinity, event.position - 1);
    return true;
  }

  #work(): void {
    this.#working ??= this.#record().catch((cause) => {
      const { clock, log } = this.#ports;
      log.warn("a bounce is not on the suppression list yet", { reason: String(cause) });
      if (!this.#running) return;
      this.#cancel?.();
      this.#cancel = clock.timer(AGAIN, () => this.#work());
    }).finally(() => {
      this.#working = undefined;
    });
  }

  async #record(): Promise<void> {
    for (;;) {
      await this.#readOn();
      if (this.#waiting.size === 0) break;
      while (this.#waiting.size > 0) {
        if (!this.#running) return;
        const some = this.#waiting.entries().take(AT_ONCE).map((one) => this.#recordOne(one));
        const lost = (await Promise.allSettled(some)).find((one) => one.status === "rejected");
        if (lost) throw lost.reason;
      }
    }
    this.#acts.clear();
  }

  /** @throws StoreUnavailable: it waits on */
  async #recordOne([stream, failed]: [string, StoredEventOf<"Failed">]): Promise<void> {
    try {
      await this.#bounced(stream, failed);
    } catch (cause) {
      if (cause instanceof StoreUnavailable) throw cause;
      const reason = String(cause);
      this.#ports.log.error("a bounce cannot be put on the suppression list", { stream, reason });
    }
    this.#waiting.delete(stream);
  }

  async #bounced(stream: string, failed: StoredEventOf<"Failed">): Promise<void> {
    const { clock, store, policy } = this.#ports;
    const { data: { reply }, position, time } = failed;
    const history = await store.readStream(stream);
    const [enqueued] = history;
    if (enqueued?.type !== "Enqueued" || !refusedAtRcpt(history, reply)) return;
    const address = comparable(enqueued.data.rcptTo);
    const { lasts = Infinity } = policy();
    const until = Date.parse(time) + lasts;
    const why = `${reply!.code} ${reply!.enhanced ?? ""} ${reply!.text}`;
    await this.#append(address, undefined, (row) => {
      // That it was recorded before a crash is an act as well.
      if ((this.#acts.get(address) ?? 0) > position || until <= clock.now()) return undefined;
      if (row && (row.expires ?? Infinity) >= until) return undefined;
      return {
        type: "AddressSuppressed",
        data: {
          who: "supervisor",
          why: why.replace(/\s+/g, " ").slice(0, 500),
          address,
          cause: "bounce",
          message: stream,
          reply: reply!,
          ...expiring(until),
        },
      };
    });
  }
}

type ListFact = FactOf<"AddressSuppressed"> | FactOf<"SuppressionLifted">;

/** @param until epoch milliseconds; Infinity or absent: never */
const expiring = (until = Infinity): { readonly expires?: string } =>
  until === Infinity ? {} : { expires: new Date(until).toISOString() };

function changesList(
  event: StoredEvent,
): event is StoredEventOf<"AddressSuppressed"> | StoredEventOf<"SuppressionLifted"> {
  return event.type === "AddressSuppressed" || event.type === "SuppressionLifted";
}

/** A server said for good that there is no such user. */
function isBounce(event: StoredEvent): event is StoredEventOf<"Failed"> {
  if (event.type !== "Failed") return false;
  const { permanent, class: kind, reply } = event.data;
  return permanent && kind === "unknown-user" && (reply?.code ?? 0) >= 500;
}

/**
 * It was the address that was refused, and not the content: the session ended before any was sent,
 * or (where other recipients were taken) the reply came before the server asked for it.
 */
function refusedAtRcpt(history: readonly StoredEvent[], reply: EventData<"Failed">["reply"]) {
  const tried = history.findLast((event) => event.type === "HostTried");
  if (!tried) return false;
  const { phases, transcript = [] } = tried.data;
  if (phases["data"] === undefined) return true;
  const said = transcript.filter(({ who }) => who === "S").map(({ line }) => line);
  const asked = said.findIndex((line) => line.startsWith("354"));
  const refused = said.findIndex((line) => line.startsWith(String(reply?.code)));
  return refused >= 0 && refused < asked;
}

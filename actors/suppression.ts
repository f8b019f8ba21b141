/**
 * The suppression list: addresses that new mail is refused to, because mail to them bounced for
 * good, somebody complained, or an operator said so. Every change is an event with who and why on
 * the stream `suppression ADDRESS DAY`; what is in force is a projection (events/projections).
 *
 * Addresses are compared with domain and local part in lower case. RFC 5321, section 2.4, leaves
 * the case of a local part to its host; no host of today keeps two mailboxes apart by it, and a
 * list that did would be passed by writing an address in another way.
 *
 * The list costs nothing while it is empty: whether it is, is kept in memory.
 */
import { domainToASCII } from "node:url";
import type { EventData, StoredEvent, StoredEventOf } from "../events/catalogue.ts";
import {
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
}

/** Of failures that come faster than they can be recorded, no more wait in memory. */
const MOST_WAITING = 10_000;
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
  #empty: boolean;
  #unsubscribe: (() => void) | undefined;
  /** Failures whose consequence is not recorded yet, by message. */
  readonly #waiting = new Map<string, StoredEventOf<"Failed">>();
  #working: Promise<void> | undefined;
  #cancel: (() => void) | undefined;
  #running = false;

  constructor(ports: SuppressionPorts) {
    this.#ports = ports;
    this.#empty = ports.view.list(1).length === 0;
    ports.store.subscribe((events) => {
      if (events.some(changesList)) this.#empty = ports.view.list(1).length === 0;
    });
  }

  /** Up to `limit` entries in the order of their ids, behind that one. */
  list(limit: number, after?: string): SuppressionRow[] {
    return this.#ports.view.list(limit, after);
  }

  /** The entry that stands against new mail to an address, if any. */
  against(rcptTo: string, account: string | null): SuppressionRow | undefined {
    if (this.#empty) return undefined;
    const address = comparable(rcptTo);
    const { view, clock } = this.#ports;
    const counts = (row: SuppressionRow | undefined) =>
      row && (row.expires === null || row.expires > clock.now()) ? row : undefined;
    return counts(view.get(address, null)) ??
      (account === null ? undefined : counts(view.get(address, account)));
  }

  /**
   * Puts an address on the list; one that is on it gets the new reason and time.
   * @throws StoreUnavailable when it could not be recorded
   */
  async add({ lasts, ...entry }: Suppress): Promise<SuppressionRow> {
    const { clock, view } = this.#ports;
    const address = comparable(entry.address);
    await this.#append(address, entry.account, () => ({
      type: "AddressSuppressed",
      data: {
        ...entry,
        address,
        ...(lasts === undefined ? {} : { expires: new Date(clock.now() + lasts).toISOString() }),
      },
    }));
    return view.get(address, entry.account ?? null)!;
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

  async #append(
    address: string,
    account: string | undefined,
    fact: (row: SuppressionRow | undefined) =>
      | { readonly type: "AddressSuppressed"; readonly data: EventData<"AddressSuppressed"> }
      | { readonly type: "SuppressionLifted"; readonly data: EventData<"SuppressionLifted"> },
  ): Promise<void> {
    const { clock, store, view } = this.#ports;
    for (let again = 0;; again++) {
      const row = () => view.get(address, account ?? null);
      const stream = suppressionStream(address, clock.now(), row());
      const expectedVersion = await store.version(stream);
      try {
        await store.append([{ stream, expectedVersion, facts: [fact(row())] }]);
        return;
      } catch (cause) {
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
    this.#work(() => this.#lookBack());
  }

  async stop(): Promise<void> {
    this.#running = false;
    this.#unsubscribe?.();
    this.#cancel?.();
    this.#cancel = undefined;
    await this.#working;
  }

  async #lookBack(): Promise<void> {
    if (!this.#ports.policy().automatic) return;
    const { store } = this.#ports;
    for (let after = Math.max(0, store.head() - LOOK_BACK);;) {
      const events = await store.readAll(after, 500);
      for (const event of events) {
        if (isBounce(event)) this.#waiting.set(event.stream, event);
        else this.#recorded(event);
      }
      if (events.length < 500) return;
      after = events.at(-1)!.position;
    }
  }

  /** Its consequence is in the log, whatever has become of that since. */
  #recorded(event: StoredEvent): void {
    if (event.type !== "AddressSuppressed" || event.data.message === undefined) return;
    this.#waiting.delete(event.data.message);
  }

  #look(event: StoredEvent): void {
    this.#recorded(event);
    if (!isBounce(event) || !this.#ports.policy().automatic) return;
    if (this.#waiting.size >= MOST_WAITING) return;
    this.#waiting.set(event.stream, event);
    this.#work();
  }

  #work(first: () => Promise<void> = () => Promise.resolve()): void {
    this.#working ??= first().then(() => this.#record()).catch((cause) => {
      const { clock, log } = this.#ports;
      log.warn("a bounce is not on the suppression list yet", { reason: String(cause) });
      if (!this.#running) return;
      this.#cancel = clock.timer(AGAIN, () => this.#work());
    }).finally(() => {
      this.#working = undefined;
    });
  }

  async #record(): Promise<void> {
    for (const [stream, failed] of this.#waiting) {
      if (!this.#running) return;
      try {
        await this.#bounced(stream, failed);
      } catch (cause) {
        if (cause instanceof StoreUnavailable) throw cause;
        this.#ports.log.error("a bounce cannot be put on the suppression list", {
          stream,
          reason: String(cause),
        });
      }
      this.#waiting.delete(stream);
    }
  }

  async #bounced(stream: string, { data }: StoredEventOf<"Failed">): Promise<void> {
    const { store, view, policy } = this.#ports;
    const history = await store.readStream(stream);
    const [enqueued] = history;
    if (enqueued?.type !== "Enqueued" || !refusedAtRcpt(history, data.reply)) return;
    const address = comparable(enqueued.data.rcptTo);
    // By a write that failed and is on disk all the same.
    if (view.get(address, null)?.message === stream) return;
    const { lasts } = policy();
    const { reply } = data;
    await this.add({
      who: "supervisor",
      why: `${reply!.code} ${reply!.enhanced ?? ""} ${reply!.text}`.replace(/\s+/g, " ")
        .slice(0, 500),
      address,
      cause: "bounce",
      message: stream,
      reply: reply!,
      ...(lasts === undefined ? {} : { lasts }),
    });
  }
}

const changesList = ({ type }: StoredEvent): boolean =>
  type === "AddressSuppressed" || type === "SuppressionLifted";

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

/**
 * The suppression list in books of the checker's own:
 *
 *   - the door refuses a recipient exactly while a durable entry counts: not lifted, not over
 *   - what was on the list when a session or a request began, and still is, is not taken by it
 *   - a server that did not know a user, on the wire, brings the address onto the list once, for as
 *     long as the policy says from then on; unless an entry stands that lasts as long, or somebody
 *     has acted on the address since
 *   - nothing else brings an address onto the list by itself
 *   - rows are the fold of the events, and what counts does not leave for the archive
 */
import type { EventData, StoredEvent, StoredEventOf } from "../../events/catalogue.ts";
import {
  suppressionId,
  suppressionProjection,
  type SuppressionRow,
} from "../../events/projections/suppression.ts";
import { Violation } from "./invariants.ts";
import { UNKNOWN_USER } from "./smtp_host.ts";
import type { World } from "./world.ts";

interface Entry {
  /** Wall time; Infinity: until it is lifted. */
  readonly until: number;
  /** Monotonic time at which it became durable. */
  readonly since: number;
}

/** A moment, on both clocks. */
interface Moment {
  readonly monotonic: number;
  readonly offset: number;
}

interface Bounce {
  readonly address: string;
  readonly until: number;
  /** Its consequence has come, or there is to be none. */
  settled: boolean;
  mayCome: boolean;
}

export class SuppressionBooks {
  readonly #entries = new Map<string, Entry>();
  readonly #rows = new Map<string, SuppressionRow>();
  /** When a session or a request began, by its peer or its submission. */
  readonly #began = new Map<string, Moment>();
  readonly #bounces = new Map<string, Bounce>();
  /** Recipients that a server did not know, on the wire. */
  readonly #unknown = new Set<string>();
  /** Rows that the transaction that is looked at has changed. */
  readonly #changed = new Set<string>();

  constructor(readonly world: World) {}

  get addresses(): readonly { readonly address: string; readonly account: string | null }[] {
    return [...this.#rows.values()];
  }

  /** A session (by its peer) or a request (by its submission) begins. */
  begins(who: string): void {
    if (!this.#began.has(who)) this.#began.set(who, this.#now());
  }

  /** A server said that it does not know a user. */
  refused(rcptTo: string): void {
    this.#unknown.add(small(rcptTo));
  }

  /** The door was asked, and has answered. */
  asked(rcptTo: string, account: string | null, answer: object | undefined): void {
    const now = this.world.time.now();
    const counts = this.#against(rcptTo, account).some(({ until }) => until > now);
    if (counts === (answer !== undefined)) return;
    throw new Violation(
      counts ? `${rcptTo} is suppressed, and let in` : `${rcptTo} is refused, and not suppressed`,
    );
  }

  /** A message was taken. */
  taken(stream: string, { rcptTo, account, source, submission }: EventData<"Enqueued">): void {
    const began = this.#began.get(source.kind === "smtp" ? source.peer! : submission);
    const now = this.#now();
    if (!began || Math.abs(began.offset - now.offset) > 2) return; // somebody set the clock
    const wall = now.monotonic + now.offset;
    for (const { since, until } of this.#against(rcptTo, account)) {
      if (since >= began.monotonic || until <= wall + 1) continue;
      throw new Violation(`${stream} was taken, and ${rcptTo} has been suppressed for a while`);
    }
  }

  act(event: StoredEventOf<"AddressSuppressed"> | StoredEventOf<"SuppressionLifted">): void {
    const { address, account = null } = event.data;
    if (address !== small(address)) throw new Violation(`${address} is not in its one form`);
    const id = suppressionId(address, account);
    if (event.type === "SuppressionLifted") {
      if (!this.#entries.delete(id)) {
        throw new Violation(`${address} was lifted, and is not listed`);
      }
    } else {
      if (event.data.cause === "bounce") this.#recorded(event);
      const { expires } = event.data;
      const until = expires === undefined ? Infinity : Date.parse(expires);
      this.#entries.set(id, { until, since: this.world.time.monotonic() });
    }
    if (account === null) {
      // It outweighs what had happened before.
      for (const bounce of this.#bounces.values()) {
        if (bounce.address !== address || bounce.settled) continue;
        bounce.settled = true;
        bounce.mayCome = false;
      }
    }
    this.#fold(id, event);
  }

  /** An attempt has failed. */
  failed({ stream, time, data }: StoredEventOf<"Failed">): void {
    const { policy } = this.world.desk;
    const { reply, permanent } = data;
    if (!permanent || reply?.code !== 550 || reply.text !== UNKNOWN_USER) return;
    const { rcptTo } = this.world.invariants.streams.get(stream)!.message.enqueued;
    const address = small(rcptTo);
    const until = policy.lasts === undefined ? Infinity : Date.parse(time) + policy.lasts;
    const stands = this.#entries.get(suppressionId(address, null));
    const comes = policy.automatic && !(stands !== undefined && stands.until >= until);
    this.#bounces.set(stream, { address, until, settled: !comes, mayCome: comes });
  }

  /** All events of a transaction have been looked at, and these streams leave with it. */
  settle(pruned: readonly string[]): void {
    for (const stream of pruned) this.#leaves(stream);
    const table = this.world.disk.tables.get(suppressionProjection.name);
    if (table?.done) { for (const id of this.#changed) this.#compare(id, this.#rows.get(id)); }
    this.#changed.clear();
  }

  end(): void {
    const table = this.world.disk.tables.get(suppressionProjection.name);
    if (table && table.rows.size !== this.#rows.size) {
      throw new Violation(`6: ${table.rows.size} rows of suppression, not ${this.#rows.size}`);
    }
    for (const [id, row] of this.#rows) this.#compare(id, row);
    for (const [stream, { address, settled, until }] of this.#bounces) {
      const { broken } = this.world.invariants.streams.get(stream)!;
      if (settled || broken || until <= this.world.time.latest()) continue;
      throw new Violation(`${address} is unknown to its server (${stream}), and not suppressed`);
    }
  }

  /** What the archive has is no row any more; what counts has to stay. */
  #leaves(stream: string): void {
    if (!stream.startsWith("suppression ")) return;
    for (const [id, row] of this.#rows) {
      if (row.stream !== stream) continue;
      if ((row.expires ?? Infinity) > this.world.time.latest()) {
        throw new Violation(`${row.address} is suppressed, and its stream leaves: ${stream}`);
      }
      this.#rows.delete(id);
      this.#entries.delete(id);
      this.#changed.add(id);
    }
  }

  /** An entry that came by itself. */
  #recorded({ data }: StoredEventOf<"AddressSuppressed">): void {
    const { address, message = "none", expires, who, account } = data;
    const bounce = this.#bounces.get(message);
    const until = expires === undefined ? Infinity : Date.parse(expires);
    const right = bounce?.mayCome && bounce.address === address && until === bounce.until &&
      who === "supervisor" && account === undefined && this.#unknown.has(address);
    if (!right) throw new Violation(`${address} was suppressed for ${message}, against the policy`);
    bounce.settled = true;
    bounce.mayCome = false;
  }

  #fold(id: string, event: StoredEvent): void {
    const row = suppressionProjection.apply(this.#rows.get(id), event);
    if (row) this.#rows.set(id, row);
    else this.#rows.delete(id);
    this.#changed.add(id);
  }

  #compare(id: string, row: SuppressionRow | undefined): void {
    const kept = this.world.disk.tables.get(suppressionProjection.name)?.rows.get(id);
    if (JSON.stringify(kept) === JSON.stringify(row)) return;
    throw new Violation(`6: the row of suppression of ${id.trim()} is not the fold of its events`);
  }

  #against(rcptTo: string, account: string | null): Entry[] {
    const address = small(rcptTo);
    const ids = [suppressionId(address, null), suppressionId(address, account)];
    return ids.flatMap((id) => this.#entries.get(id) ?? []);
  }

  #now(): Moment {
    const monotonic = this.world.time.monotonic();
    return { monotonic, offset: this.world.time.now() - monotonic };
  }
}

const small = (address: string): string => address.toLowerCase();

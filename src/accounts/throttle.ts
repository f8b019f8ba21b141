/**
 * LoginThrottle: makes guessing passwords slow, and never locks an owner out.
 *
 * Failed logins are counted in three places:
 *
 * - per source (an IPv4 address, or the /64 of an IPv6 address): from the fourth failure on each
 *   login waits, twice as long each time; after the tenth none is let through for a quarter of an
 *   hour, and longer after each further one
 * - per source and account, for a source from which that account has logged in before: such a pair
 *   is judged by its own failures alone, so a neighbour behind the same address cannot shut it out
 * - per account over all sources: guesses that come from everywhere at once make logins from
 *   sources that the account was never seen at wait, and are never a reason to refuse one
 *
 * A login counts as soon as it begins, so that guesses side by side do not slip through together.
 * A success takes back the failures of that source with that account, and no others: whoever has
 * an account cannot wash away guesses at another's. Everything is held in maps of bounded size.
 */
import { createHash } from "node:crypto";
import { isIPv6 } from "node:net";
import type { Clock } from "../../actors/ports.ts";
import { Lru } from "./lru.ts";

/** Failures without consequence; everybody mistypes. */
export const FREE_FAILURES = 3;
/** From this many failures on, a source is refused for a while. */
export const MOST_FAILURES = 10;
/** Logins of a source under way at once that do not slow each other. */
export const FREE_PARALLEL = 16;
/** Failures of an account over all sources before logins from unknown ones have to wait. */
export const FREE_ACCOUNT_FAILURES = 20;
/** The longest wait, milliseconds: shorter than clients wait for a reply. */
export const LONGEST_WAIT = 8_000;
/** How long a source is refused at first, and at most; milliseconds. */
export const FIRST_REFUSAL = 15 * 60_000;
export const LONGEST_REFUSAL = 60 * 60_000;
/** Failures are forgotten when none came for so long, milliseconds. */
export const MEMORY = 24 * 60 * 60_000;

const MOST_ENTRIES = 10_000;

interface Failures {
  count: number;
  /** Monotonic milliseconds. */
  latest: number;
}

interface Source extends Failures {
  /** Logins under way. */
  pending: number;
}

/** A login that may be tried after `wait` milliseconds; then `refused` has to be asked again. */
export interface Attempt {
  readonly wait: number;
  /** Milliseconds for which it is refused; undefined when it may be tried. */
  refused(): number | undefined;
  succeeded(): void;
  failed(): void;
  /** It was not the client's fault. */
  withdrawn(): void;
}

/** What counts as one source: an IPv4 address, or the /64 of an IPv6 address. */
export function sourceOf(address: string): string {
  const bare = address.replace(/%.*$/, "").toLowerCase();
  if (!isIPv6(bare)) return bare;
  const [head = "", tail] = bare.split("::");
  const groups = head === "" ? [] : head.split(":");
  if (tail !== undefined) {
    const after = tail === "" ? [] : tail.split(":");
    // An IPv4 address at the end stands for two groups.
    const length = after.length + (after.at(-1)?.includes(".") ? 1 : 0);
    while (groups.length + length < 8) groups.push("0");
    groups.push(...after);
  }
  return `${groups.slice(0, 4).map((group) => parseInt(group, 16).toString(16)).join(":")}::/64`;
}

const doubling = (first: number, times: number, most: number): number =>
  Math.min(first * 2 ** Math.min(times, 30), most);

/** Names are as long as clients make them; what is kept of them is not. */
const digest = (text: string): string =>
  createHash("sha256").update(text).digest("base64").slice(0, 22);

export class LoginThrottle {
  readonly #sources = new Lru<Source>(MOST_ENTRIES);
  readonly #pairs = new Lru<Failures>(MOST_ENTRIES);
  readonly #accounts = new Lru<Failures>(MOST_ENTRIES);
  /** Pairs of source and account that have logged in: nobody fills this map without an account. */
  readonly #known = new Lru<true>(MOST_ENTRIES);

  constructor(private readonly clock: Clock) {}

  /**
   * A login begins.
   * @param address of the client
   * @param account the name that the client gives, whether or not there is such an account
   */
  begin(address: string, account: string): Attempt {
    const from = sourceOf(address);
    const who = digest(account);
    const pairKey = `${from} ${who}`;
    const known = this.#known.get(pairKey) !== undefined;
    const source = this.#source(from);
    const judged = (): Failures => known ? this.#failures(this.#pairs, pairKey) : source;
    const refused = () => this.#refusal(judged());
    const crowd = known ? 0 : Math.max(0, source.pending - FREE_PARALLEL);
    const everywhere = known ? 0 : this.#failures(this.#accounts, who).count;
    const wait = Math.max(
      waitAfter(judged().count + crowd - FREE_FAILURES),
      waitAfter(everywhere - FREE_ACCOUNT_FAILURES),
    );
    source.pending++;
    let open = true;
    const close = (then?: () => void) => () => {
      if (!open) return;
      open = false;
      source.pending--;
      then?.();
    };
    return {
      wait,
      refused,
      withdrawn: close(),
      failed: close(() => {
        this.#fail(source);
        this.#add(this.#pairs, pairKey);
        if (!known) this.#add(this.#accounts, who);
      }),
      succeeded: close(() => {
        const own = this.#pairs.get(pairKey)?.count ?? 0;
        source.count = Math.max(0, source.count - own);
        this.#pairs.delete(pairKey);
        this.#known.set(pairKey, true);
      }),
    };
  }

  #source(key: string): Source {
    let source = this.#sources.get(key);
    if (!source) this.#sources.set(key, source = { count: 0, latest: -Infinity, pending: 0 });
    this.#forget(source);
    return source;
  }

  #failures(map: Lru<Failures>, key: string): Failures {
    const failures = map.get(key);
    if (!failures) return { count: 0, latest: -Infinity };
    this.#forget(failures);
    return failures;
  }

  #forget(failures: Failures): void {
    if (this.clock.monotonic() - failures.latest > MEMORY) failures.count = 0;
  }

  #fail(failures: Failures): void {
    failures.count++;
    failures.latest = this.clock.monotonic();
  }

  #add(map: Lru<Failures>, key: string): void {
    const failures = this.#failures(map, key);
    this.#fail(failures);
    map.set(key, failures);
  }

  #refusal({ count, latest }: Failures): number | undefined {
    if (count < MOST_FAILURES) return undefined;
    const whole = doubling(FIRST_REFUSAL, count - MOST_FAILURES, LONGEST_REFUSAL);
    const left = latest + whole - this.clock.monotonic();
    return left > 0 ? left : undefined;
  }
}

/** Milliseconds to wait: nothing up to zero, then a quarter of a second, doubling. */
const waitAfter = (failures: number): number =>
  failures <= 0 ? 0 : doubling(250, failures - 1, LONGEST_WAIT);

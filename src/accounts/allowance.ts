/**
 * Allowance: how many messages and recipients an account may submit per hour and per day.
 *
 * Counts are kept in buckets of five minutes, and a window begins with the bucket that holds its
 * beginning: it is up to five minutes longer than it says, and holds at most 289 buckets. What an
 * account submitted before this process began is counted from the queue, when the account first
 * asks; so a restart gives nobody a new allowance.
 */
import type { Clock } from "../../actors/ports.ts";

/** Messages and recipients that were taken in. */
export interface Use {
  readonly messages: number;
  readonly recipients: number;
}

/** Use in the bucket that begins at `at`, epoch milliseconds. */
export interface BucketUse extends Use {
  readonly at: number;
}

export interface AccountLimits {
  readonly messagesPerHour: number;
  readonly messagesPerDay: number;
  readonly recipientsPerHour: number;
  readonly recipientsPerDay: number;
}

/** What an account has submitted since a time, in buckets of `bucket` milliseconds. */
export type UseSince = (account: string, since: number, bucket: number) => Promise<BucketUse[]>;

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
export const BUCKET = 5 * 60_000;

const WINDOWS = [
  ["messages", "hour", HOUR, "messagesPerHour"],
  ["recipients", "hour", HOUR, "recipientsPerHour"],
  ["messages", "day", DAY, "messagesPerDay"],
  ["recipients", "day", DAY, "recipientsPerDay"],
] as const;

/** A limit that stands in the way. */
export interface Reached {
  readonly what: "messages" | "recipients";
  readonly per: "hour" | "day";
  readonly limit: number;
}

type Buckets = Map<number, { messages: number; recipients: number }>;

export class Allowance {
  readonly #accounts = new Map<string, Promise<Buckets>>();

  constructor(private readonly clock: Clock, private readonly useSince: UseSince) {}

  /**
   * The limit that a message to so many recipients would exceed; undefined when there is none.
   * @throws StoreUnavailable when the queue cannot be read
   */
  async check(
    account: string,
    limits: AccountLimits,
    recipients: number,
  ): Promise<Reached | undefined> {
    return this.#check(await this.#of(account), limits, { messages: 1, recipients });
  }

  /**
   * Counts a message, unless it would exceed a limit: that is then returned.
   * @throws StoreUnavailable when the queue cannot be read
   */
  async take(
    account: string,
    limits: AccountLimits,
    recipients: number,
  ): Promise<Reached | { readonly giveBack: () => void }> {
    const buckets = await this.#of(account);
    const reached = this.#check(buckets, limits, { messages: 1, recipients });
    if (reached) return reached;
    const at = bucketOf(this.clock.now());
    let bucket = buckets.get(at);
    if (!bucket) buckets.set(at, bucket = { messages: 0, recipients: 0 });
    const counted = bucket;
    counted.messages++;
    counted.recipients += recipients;
    return {
      giveBack() {
        counted.messages--;
        counted.recipients -= recipients;
      },
    };
  }

  #check(buckets: Buckets, limits: AccountLimits, more: Use): Reached | undefined {
    const now = this.clock.now();
    for (const at of buckets.keys()) if (at < bucketOf(now - DAY)) buckets.delete(at);
    for (const [what, per, length, name] of WINDOWS) {
      let used = more[what];
      for (const [at, use] of buckets) if (at >= bucketOf(now - length)) used += use[what];
      if (used > limits[name]) return { what, per, limit: limits[name] };
    }
    return undefined;
  }

  #of(account: string): Promise<Buckets> {
    let buckets = this.#accounts.get(account);
    if (!buckets) {
      this.#accounts.set(account, buckets = this.#load(account));
      buckets.catch(() => this.#accounts.delete(account));
    }
    return buckets;
  }

  async #load(account: string): Promise<Buckets> {
    const since = bucketOf(this.clock.now() - DAY);
    const uses = await this.useSince(account, since, BUCKET);
    return new Map(uses.map(({ at, messages, recipients }) => [at, { messages, recipients }]));
  }
}

const bucketOf = (time: number): number => Math.floor(time / BUCKET) * BUCKET;

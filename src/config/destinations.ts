/**
 * What a destination may be burdened with: `[[destinations]]`, and the retry policies that it and
 * `[accounts.NAME.queue]` change. As with routes, the first entry that matches counts, and an entry
 * that nothing reaches is refused.
 */
import { z } from "zod";
import type { RetryPolicy } from "../../actors/retry.ts";
import { coversDomain, type DomainPattern } from "./domain_pattern.ts";
import type { Path, Problem } from "./problems.ts";
import { Duration, Pattern } from "./scalars.ts";
import type { DestinationConfig, RetryOverrides, TransportConfig } from "./types.ts";

const Patterns = z.array(Pattern).min(1, { error: "matches nothing; name at least one domain" })
  .max(10_000);
const Attempts = z.int().min(1).max(1_000);
export const RetryWaits = z.array(Duration).min(1, { error: "has no wait; write at least one" })
  .max(1_000);
const Rate = z.int().min(1).max(1_000_000);

/** `[accounts.NAME.queue]`. */
export const AccountQueue = z.strictObject({
  retry: RetryWaits.optional(),
  max_attempts: Attempts.optional(),
  delay_notice_after: Attempts.optional(),
  lifetime: Duration.optional(),
});

export const DestinationEntry = z.strictObject({
  match: Patterns.optional(),
  mx: Patterns.optional(),
  transport: z.string().min(1).optional(),
  concurrency: z.int().min(1).max(10_000).optional(),
  messages_per_connection: z.int().min(1).max(100).optional(),
  messages_per_minute: Rate.optional(),
  messages_per_hour: Rate.optional(),
  retry: RetryWaits.optional(),
  max_attempts: Attempts.optional(),
  lifetime: Duration.optional(),
});
type DestinationEntry = z.infer<typeof DestinationEntry>;

export function retryOverrides(
  entry: z.infer<typeof AccountQueue> | DestinationEntry,
): RetryOverrides {
  const { retry, max_attempts, lifetime } = entry;
  const notice = "delay_notice_after" in entry ? entry.delay_notice_after : undefined;
  return {
    ...(retry ? { waits: retry } : {}),
    ...(max_attempts === undefined ? {} : { maxAttempts: max_attempts }),
    ...(lifetime === undefined ? {} : { lifetime }),
    ...(notice === undefined ? {} : { delayNoticeAfter: notice }),
  };
}

/**
 * The policy for a message. Waits are what the receiver is to be asked at, so a destination's come
 * before an account's; of attempts and lifetime the least that either sets counts.
 */
export function retryPolicy(
  base: RetryPolicy,
  account: RetryOverrides = {},
  destination: RetryOverrides = {},
): RetryPolicy {
  const least = (key: "maxAttempts" | "lifetime"): number => {
    const set = [account[key], destination[key]].filter((value) => value !== undefined);
    return set.length > 0 ? Math.min(...set) : base[key];
  };
  return {
    waits: destination.waits ?? account.waits ?? base.waits,
    maxAttempts: least("maxAttempts"),
    lifetime: least("lifetime"),
    delayNoticeAfter: account.delayNoticeAfter ?? base.delayNoticeAfter,
  };
}

const CRITERIA = ["match", "mx", "transport"] as const;

export function destinationsOf(
  entries: readonly DestinationEntry[],
  transports: ReadonlyMap<string, TransportConfig>,
  concurrency: number,
  problems: Problem[],
): DestinationConfig[] {
  const list: DestinationConfig[] = [];
  for (const [n, entry] of entries.entries()) {
    const path = ["destinations", n];
    const set = CRITERIA.filter((name) => entry[name] !== undefined);
    if (set.length !== 1) {
      const found = set.length === 0 ? "none is there" : `there are ${set.join(" and ")}`;
      problems.push({ path, message: `takes one of match, mx and transport; ${found}` });
      continue;
    }
    if (Object.keys(entry).length === 1) {
      problems.push({
        path,
        message: "sets nothing for what it matches; set a limit or remove it",
      });
    }
    if ((entry.concurrency ?? 0) > concurrency) {
      problems.push({
        path: [...path, "concurrency"],
        message: `is more than queue.concurrency, which is ${concurrency}; lower it or raise that`,
        showValue: true,
      });
    }
    if (entry.transport !== undefined) {
      problems.push(...transportProblems(entry.transport, transports, [...path, "transport"]));
    }
    const config = destinationOf(entry);
    const earlier = list.findIndex((other) => covers(other, config));
    if (earlier >= 0) {
      problems.push({
        path,
        message:
          `can never match: destinations[${earlier}] comes first and matches all that this ` +
          "one would; move this one up or remove it",
      });
    }
    list.push(config);
  }
  return list;
}

function transportProblems(
  name: string,
  transports: ReadonlyMap<string, TransportConfig>,
  path: Path,
): Problem[] {
  const type = transports.get(name)?.type;
  if (type === undefined) {
    const known = [...transports.keys()].join(", ");
    return [{ path, message: `is not a transport; there are ${known}`, showValue: true }];
  }
  if (type !== "direct" && type !== "socks") return [];
  return [{
    path,
    message:
      "delivers to many destinations, each with limits of its own; name them with match or mx",
    showValue: true,
  }];
}

function destinationOf(entry: DestinationEntry): DestinationConfig {
  const { match, mx, transport, concurrency } = entry;
  const perConnection = entry.messages_per_connection;
  return {
    ...(match ? { match } : {}),
    ...(mx ? { mx } : {}),
    ...(transport === undefined ? {} : { transport }),
    ...(concurrency === undefined ? {} : { concurrency }),
    ...(perConnection === undefined ? {} : { messagesPerConnection: perConnection }),
    ...(entry.messages_per_minute === undefined ? {} : { perMinute: entry.messages_per_minute }),
    ...(entry.messages_per_hour === undefined ? {} : { perHour: entry.messages_per_hour }),
    retry: retryOverrides(entry),
  };
}

/** Whether all that an entry matches is matched by another, which comes first. */
function covers(wide: DestinationConfig, narrow: DestinationConfig): boolean {
  if (narrow.transport !== undefined) return wide.transport === narrow.transport;
  const all = (wide: readonly DomainPattern[] | undefined, narrow?: readonly DomainPattern[]) =>
    wide !== undefined && narrow !== undefined &&
    narrow.every((one) => wide.some((other) => coversDomain(other, one)));
  return all(wide.match, narrow.match) || all(wide.mx, narrow.mx);
}

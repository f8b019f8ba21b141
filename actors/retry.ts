/**
 * When a message is tried again: the schedule of the `[queue]` section, as pure functions.
 * All times and durations are milliseconds.
 */

export interface RetryPolicy {
  /** Wait after attempt 1, 2, 3 …; the last one serves for all attempts beyond. Never empty. */
  readonly waits: readonly number[];
  /** A temporary failure of this attempt (or a later one) is permanent. */
  readonly maxAttempts: number;
  /** The sender hears of the delay after this attempt. */
  readonly delayNoticeAfter: number;
  /** A message older than this is given up with the next failure, or while it waits. */
  readonly lifetime: number;
}

/** The policy for a message of an account at a destination (its key). */
export type RetryPolicies = (
  message: { readonly account: string | null; readonly destination: string },
) => RetryPolicy;

/** At most this much is added to a wait, so that messages that failed together spread out. */
export const MAX_JITTER = 5_000;

/** A tenth of the wait at most: compressed schedules (tests, demo) stay what they are. */
const JITTER_SHARE = 0.1;

const waitAfter = (policy: RetryPolicy, attempt: number): number =>
  policy.waits[Math.min(attempt, policy.waits.length) - 1] ?? 0;

/** When the attempt after `attempt` is due, if that one starts at `now` and fails. */
export function nextAttemptAt(
  policy: RetryPolicy,
  attempt: number,
  now: number,
  random: number,
): number {
  const wait = waitAfter(policy, attempt);
  return Math.round(now + wait + random * Math.min(MAX_JITTER, wait * JITTER_SHARE));
}

/**
 * When the last attempt is due (without jitter), if the one after `attempt` is due at `due` and the
 * lifetime of the message counts from `agesFrom`.
 */
export function lastAttemptAt(
  policy: RetryPolicy,
  attempt: number,
  due: number,
  agesFrom: number,
): number {
  const end = agesFrom + policy.lifetime;
  let at = due;
  for (let n = attempt + 1; n < policy.maxAttempts && at < end; n++) at += waitAfter(policy, n);
  return Math.min(at, Math.max(due, end));
}

/**
 * The age at which the sender of a message hears of the delay if it has not been attempted that
 * often, because its destination is down: when the attempts would have been made by the schedule.
 */
export function delayNoticeAge(policy: RetryPolicy): number {
  let age = 0;
  for (let n = 1; n <= policy.delayNoticeAfter; n++) age += waitAfter(policy, n);
  return age;
}

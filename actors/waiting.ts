/** Waits that end: after a time, with a signal, or when what was waited for ignores the signal. */
import type { Clock } from "./ports.ts";

/** Resolves after `ms` milliseconds, or as soon as the signal aborts. */
export function pause(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const stop = () => {
      cancel();
      resolve();
    };
    const cancel = clock.timer(ms, () => {
      signal.removeEventListener("abort", stop);
      resolve();
    });
    signal.addEventListener("abort", stop, { once: true });
  });
}

/** How long after being aborted a delivery may take to end, milliseconds. */
export const ABORT_GRACE = 30_000;

/**
 * What a delivery comes to; one that does not end within ABORT_GRACE of being aborted is given up
 * on.
 * @throws Error when it is
 */
export async function endsOnAbort<T>(
  clock: Clock,
  signal: AbortSignal,
  delivery: Promise<T>,
): Promise<T> {
  let cancel = () => {};
  let watch = () => {};
  const overdue = new Promise<never>((_, reject) => {
    watch = () => {
      cancel = clock.timer(ABORT_GRACE, () => {
        reject(new Error(`the delivery did not end within ${ABORT_GRACE} ms of being aborted`));
      });
    };
  });
  if (signal.aborted) watch();
  else signal.addEventListener("abort", watch, { once: true });
  try {
    return await Promise.race([delivery, overdue]);
  } finally {
    signal.removeEventListener("abort", watch);
    cancel();
  }
}

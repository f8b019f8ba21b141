/** What was thrown, in words: for the log, and for the event that records it. */

/** Message and stack of whatever was thrown, within bounds. */
export function describe(cause: unknown): { message: string; stack: string } {
  let message: string;
  let stack: string | undefined;
  try {
    message = cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause);
    stack = cause instanceof Error ? cause.stack : undefined;
  } catch {
    message = "something was thrown that cannot be described";
  }
  return { message: message.slice(0, 1_000), stack: (stack ?? message).slice(0, 8_000) };
}

/**
 * Streams of days. What happens beside messages (to a destination, a policy, a report, an address,
 * a webhook) stands on streams `KIND KEY DAY`, a day being one of UTC: none grows for ever, and each
 * leaves for the archive when its day is over for long enough.
 *
 * Those of one kind and key are a series, and leave it from the oldest on: what the events of a
 * later one undo (a suppression that was lifted, an endpoint that was resumed) has left before.
 * A projection whose rows come from them says which one a row needs (`Projection.days`).
 */

/**
 * The stream of a moment (epoch milliseconds).
 * @param notBefore a stream of the same series: where the clock was set back, what follows it does
 *   not come to stand before it
 */
export function dayStream(kind: string, key: string, now: number, notBefore = ""): string {
  const stream = `${kind} ${key} ${new Date(now).toISOString().slice(0, 10)}`;
  return notBefore > stream ? notBefore : stream;
}

/** When the day of a stream begins, in epoch milliseconds; NaN when it names none. */
export const dayOf = (stream: string): number => Date.parse(stream.slice(-10));

/** What the streams of one kind and key have in common. */
export const seriesOf = (stream: string): string => stream.slice(0, -10);

/** Facts that no row is made of. */
export const DESTINATION_DAYS = "destination";

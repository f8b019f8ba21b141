/**
 * Reads values and histograms out of a Prometheus exposition (text format 0.0.4).
 */

export interface Histogram {
  readonly name: string;
  readonly count: number;
  readonly sum: number;
  /** Observations per bucket (not cumulative), by upper bound. */
  readonly buckets: readonly { readonly upTo: string; readonly count: number }[];
}

/** All values of a metric, by its label text: `{state="queued"}` → 3; "" for no labels. */
export function samples(text: string, name: string): ReadonlyMap<string, number> {
  const found = new Map<string, number>();
  for (const line of text.split("\n")) {
    const match = /^([A-Za-z_:][\w:]*)(\{.*\})? (\S+)/.exec(line);
    if (match && match[1] === name) found.set(match[2] ?? "", Number(match[3]));
  }
  return found;
}

/** A histogram without labels. @throws Error when there is none of that name */
export function histogram(text: string, name: string): Histogram {
  const count = samples(text, `${name}_count`).get("");
  const sum = samples(text, `${name}_sum`).get("");
  if (count === undefined || sum === undefined) throw new Error(`there is no metric ${name}`);
  let below = 0;
  const buckets = [...samples(text, `${name}_bucket`)].map(([labels, total]) => {
    const own = total - below;
    below = total;
    return { upTo: /le="([^"]*)"/.exec(labels)?.[1] ?? "?", count: own };
  });
  return { name, count, sum, buckets };
}

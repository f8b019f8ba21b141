/**
 * What was written lately: the heads of streams and the rows of projections, so that the next event
 * of a message finds them without asking the engine. Only the log writes either, so what is here
 * is what the engine has; after a commit that failed nobody knows, and all of it is forgotten.
 */
import type { MaybePromise, RowChange, StreamHead } from "./engine.ts";
import type { ReadRows } from "./fold.ts";
import type { Row } from "./projection.ts";

/** Heads and rows that are remembered, each: some megabytes. */
const HEADS = 20_000;
const ROWS = 10_000;

export class Recent {
  // The oldest first.
  readonly #heads = new Map<string, StreamHead>();
  readonly #rows = new Map<string, Row>();

  head(stream: string): StreamHead | undefined {
    return this.#heads.get(stream);
  }

  /** Rows of a projection, those that are not remembered as `engine` reads them. */
  rows(
    projection: string,
    keys: readonly string[],
    engine: ReadRows,
  ): MaybePromise<readonly (Row | undefined)[]> {
    const found = keys.map((key) => this.#rows.get(nameOf(projection, key)));
    const missing = keys.filter((_, i) => !found[i]);
    if (missing.length === 0) return found;
    const filled = (read: readonly (Row | undefined)[]) => {
      let next = 0;
      return found.map((row) => row ?? read[next++]);
    };
    const read = engine(projection, missing);
    return read instanceof Promise ? read.then(filled) : filled(read);
  }

  committed(heads: ReadonlyMap<string, StreamHead>, rows: readonly RowChange[]): void {
    for (const [stream, head] of heads) put(this.#heads, stream, head, HEADS);
    for (const { projection, key, row } of rows) {
      put(this.#rows, nameOf(projection, key), row, ROWS);
    }
  }

  /** Streams have left the store, and these rows have changed with it. */
  pruned(streams: readonly string[], rows: readonly RowChange[]): void {
    for (const stream of streams) this.#heads.delete(stream);
    this.committed(new Map(), rows);
  }

  forget(): void {
    this.#heads.clear();
    this.#rows.clear();
  }
}

/** The newest goes to the end; beyond `most` the oldest goes. */
function put<V>(map: Map<string, V>, key: string, value: V | undefined, most: number): void {
  map.delete(key);
  if (value === undefined) return;
  map.set(key, value);
  if (map.size > most) map.delete(map.keys().next().value!);
}

/** Names of projections have no blank. */
const nameOf = (projection: string, key: string): string => `${projection} ${key}`;

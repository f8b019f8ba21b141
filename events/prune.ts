/**
 * Prepares that streams leave the store: which of them can, and what that means for the rows of
 * projections and for bodies. Writes nothing; the log commits.
 */
import type { StoredEvent } from "./catalogue.ts";
import { decodeStream } from "./decode.ts";
import type { RawEvent, Transaction, WholeStream } from "./engine.ts";
import { bodyChanges, forget, type ReadRows } from "./fold.ts";
import type { Projection, Row } from "./projection.ts";

export interface Pruning {
  /** Undefined when nothing is to be written. */
  readonly transaction: (Transaction & { readonly prune: readonly string[] }) | undefined;
  /** How many streams stay: they have grown, or cannot be read. */
  readonly left: number;
}

export async function preparePruning(
  streams: readonly WholeStream[],
  projections: readonly Projection<Row>[],
  readStream: (stream: string) => Promise<RawEvent[]>,
  readRows: ReadRows,
): Promise<Pruning> {
  const prune: string[] = [];
  const events: StoredEvent[] = [];
  let left = 0;
  for (const { stream, version } of streams) {
    const raws = await readStream(stream);
    if (raws.length === 0) continue; // gone before a crash
    if (raws.length !== version) {
      left += 1;
      continue;
    }
    try {
      events.push(...decodeStream(raws));
      prune.push(stream);
    } catch {
      left += 1; // what cannot be read is not known to be finished
    }
  }
  if (prune.length === 0) return { transaction: undefined, left };
  const { rows, counts, uses } = await forget(projections, events, readRows);
  return { transaction: { events: [], rows, counts, bodies: bodyChanges(uses, []), prune }, left };
}

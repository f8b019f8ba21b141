/**
 * Brings projections in step with the log at start: those that are new, or of another version, or
 * whose rebuild was cut short. Streams the log in bounded pieces; each piece is one transaction.
 */
import type { StoredEvent } from "./catalogue.ts";
import { decode } from "./decode.ts";
import type { StorageEngine } from "./engine.ts";
import { fold } from "./fold.ts";
import type { Projection, Row } from "./projection.ts";
import { UnreadableStream } from "./store.ts";

const PIECE = 2000;

/**
 * An event that cannot be read is left out and told to `onUnreadable`: its stream is broken (and
 * says so to whoever reads it), and the others go on.
 */
export async function bringInStep(
  engine: Pick<StorageEngine, "prepare" | "readAll" | "rows" | "rebuild">,
  projection: Projection<Row>,
  onUnreadable?: (broken: UnreadableStream) => void,
): Promise<void> {
  let position = await engine.prepare(projection);
  while (position !== undefined) {
    const raws = await engine.readAll(position, PIECE);
    const events: StoredEvent[] = [];
    for (const raw of raws) {
      try {
        events.push(decode(raw));
      } catch (broken) {
        if (!(broken instanceof UnreadableStream)) throw broken;
        onUnreadable?.(broken);
      }
    }
    const done = raws.length < PIECE;
    position = raws.at(-1)?.position ?? position;
    const { rows, counts } = await fold(
      [projection],
      events,
      (name, keys) => engine.rows(name, keys),
    );
    await engine.rebuild(projection, { rows, counts, position, done });
    if (done) return;
  }
}

/**
 * What a start checks before anything is delivered, at a cost that goes with what is recent and
 * waiting, and not with the history (which is what `audit verify` and `doctor` go through):
 *
 *   - the last checkpoint: its signature, the one before it, and the events that it covers
 *   - every event behind it, and that no position is missing
 *   - streams that wait to be delivered, the first so many; the others are checked when they are due
 *   - that the rows which schedule agree with the events and with one another
 *   - that the files of large bodies are there
 *
 * What concerns one stream breaks that stream alone. What concerns the log as a whole is a
 * DataFolderError: nothing is delivered on the word of a log that was changed.
 */
import type { KeyObject } from "node:crypto";
import { chainFindings } from "./chain.ts";
import { checkpointHash, signedBy } from "./checkpoints.ts";
import { DataFolderError, keyPath } from "./data_folder.ts";
import { decodeStream } from "./decode.ts";
import type { Checkpoint, RawEvent } from "./engine.ts";
import { MerkleTree } from "./merkle.ts";
import type { Projection, Row } from "./projection.ts";
import { queueProjection, type QueueRow } from "./projections/queue.ts";
import type { SqliteEngine } from "./sqlite_engine.ts";
import { UnreadableStream } from "./store.ts";

/** Waiting streams that a start reads; at 20 µs an event they take a fraction of a second. */
const MOST_STREAMS = 2_000;
const PAGE = 1_000;

/**
 * Checks the end of the log.
 * @returns the streams that are broken there
 * @throws DataFolderError when the log as a whole cannot be trusted
 */
export function trustLog(
  engine: SqliteEngine,
  dataDir: string,
  publicKey: KeyObject,
): UnreadableStream[] {
  const last = engine.lastCheckpoint();
  if (last && !signedBy(last, publicKey)) {
    throw new DataFolderError(
      `${keyPath(dataDir)} did not sign checkpoint ${last.number} of the log: the key is another ` +
        `installation's, or the log was changed; put both back from one backup`,
    );
  }
  const broken = new Map<string, UnreadableStream>();
  let tree = MerkleTree.EMPTY;
  let position = (last?.from ?? 1) - 1;
  for (const event of eventsAfter(engine, position)) {
    if (event.position !== position + 1) {
      throw changed(dataDir, `the event at position ${position + 1} is missing`);
    }
    position = event.position;
    if (last && position <= last.to) tree = tree.add([event.hash]);
    const [finding] = chainFindings(event, linkBefore(engine, event));
    if (finding !== undefined && !broken.has(event.stream)) {
      broken.set(event.stream, new UnreadableStream(event.stream, event.version, finding));
    }
  }
  if (last) trustCheckpoint(engine, dataDir, last, { tree, position, anyBroken: broken.size > 0 });
  return [...broken.values()];
}

function trustCheckpoint(
  engine: SqliteEngine,
  dataDir: string,
  last: Checkpoint,
  found: { readonly tree: MerkleTree; readonly position: number; readonly anyBroken: boolean },
): void {
  if (last.number > 1) {
    const [before] = engine.checkpoints(last.number - 2, 1);
    if (!before || checkpointHash(before) !== last.prev) {
      throw changed(dataDir, `checkpoint ${last.number - 1} is not the one that was signed`);
    }
  }
  if (found.position < last.to) {
    throw changed(
      dataDir,
      `checkpoint ${last.number} covers events up to position ${last.to}, they end at ` +
        `${found.position}`,
    );
  }
  // An event that is broken changes the root too, and is its own stream's affair.
  if (!found.anyBroken && found.tree.root() !== last.root) {
    throw changed(
      dataDir,
      `the events from position ${last.from} to ${last.to} are not those that checkpoint ` +
        `${last.number} was signed over`,
    );
  }
}

const changed = (dataDir: string, what: string): DataFolderError =>
  new DataFolderError(
    `data folder ${dataDir}: ${what}: the log was changed and is not delivered from; "deno task ` +
      `doctor --data ${dataDir}" shows more; put the folder back from a backup`,
  );

function* eventsAfter(engine: SqliteEngine, after: number): Generator<RawEvent> {
  for (;;) {
    const page = engine.readAll(after, PAGE);
    yield* page;
    if (page.length < PAGE) return;
    after = page.at(-1)!.position;
  }
}

function linkBefore(engine: SqliteEngine, { stream, version }: RawEvent) {
  return engine.db.prepare("SELECT version, hash FROM events WHERE stream = ? AND version = ?")
    .get(stream, version - 1) as { version: number; hash: string } | undefined;
}

/**
 * Checks the rows that schedule, and the first streams that they name; the projection must be in
 * step.
 * @returns the streams that are broken
 * @throws DataFolderError when rows do not say what the events do
 */
export function trustQueue(
  engine: SqliteEngine,
  dataDir: string,
  projections: readonly Projection<Row>[],
): UnreadableStream[] {
  const { db } = engine;
  const queue = projections.find(({ name }) => name === queueProjection.name);
  if (!queue) return [];
  const count = (sql: string) => (db.prepare(sql).get() as { n: number | null }).n ?? 0;
  const kept = (...states: string[]) =>
    count(
      `SELECT sum(n) AS n FROM counts WHERE projection = 'queue'
       AND value IN (${states.map((state) => `'${state}'`).join()})`,
    );
  const pending = count("SELECT count(*) AS n FROM queue WHERE finished IS NULL");
  const due = count(
    "SELECT count(*) AS n FROM queue INDEXED BY queue_due WHERE state = 'queued'",
  );
  if (pending !== kept("queued", "attempting", "held") || due !== kept("queued")) {
    throw differs(dataDir, "its rows, their indexes and their counters do not agree");
  }
  const rows = db.prepare(
    "SELECT * FROM queue WHERE finished IS NULL ORDER BY stream LIMIT ?",
  ).all(MOST_STREAMS) as unknown as QueueRow[];
  const broken: UnreadableStream[] = [];
  for (const row of rows) {
    try {
      const wanted = decodeStream(engine.readStream(row.stream))
        .reduce<Row | undefined>(queue.apply, undefined);
      if (!same(row, wanted)) throw differs(dataDir, `the row of message ${row.stream} is wrong`);
    } catch (error) {
      if (!(error instanceof UnreadableStream)) throw error;
      if (row.state !== "held") broken.push(error);
    }
  }
  return broken;
}

const differs = (dataDir: string, what: string): DataFolderError =>
  new DataFolderError(
    `data folder ${dataDir}: the queue is not what its events say: ${what}; run "deno task doctor ` +
      `--repair --data ${dataDir}", which writes it anew from the log`,
  );

const same = (row: Row, wanted: Row | undefined): boolean =>
  wanted !== undefined && Object.keys(row).every((column) => row[column] === wanted[column]);

/** A large body that a message needs and that cannot be delivered. */
export interface LostBody {
  readonly sha256: string;
  readonly path: string;
  readonly why: string;
}

/** Looks for the files of all large bodies, without reading them. */
export async function missingBodies(engine: SqliteEngine, dir: string): Promise<LostBody[]> {
  const lost: LostBody[] = [];
  const files = engine.db.prepare(
    "SELECT sha256, size FROM bodies INDEXED BY bodies_in_files WHERE octets IS NULL",
  ).all() as { sha256: string; size: number }[];
  for (const { sha256, size } of files) {
    const path = `${dir}/${sha256.slice(0, 2)}/${sha256}`;
    try {
      const found = (await Deno.stat(path)).size;
      if (found === size) continue;
      lost.push({ sha256, path, why: `has ${found} octets, not ${size}` });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      lost.push({ sha256, path, why: "is missing" });
    }
  }
  return lost;
}

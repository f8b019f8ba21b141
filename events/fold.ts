/**
 * Folds a batch of events into the rows of all projections: which rows change, and what follows
 * for the counters and for the bodies that rows need. Writes nothing; the caller commits.
 */
import type { StoredEvent } from "./catalogue.ts";
import type { BodyChange, CountChange, MaybePromise, RowChange } from "./engine.ts";
import type { Projection, Row } from "./projection.ts";
import type { StagedBody } from "./store.ts";

/** Reads rows as they stand before the batch. */
export type ReadRows = (
  projection: string,
  keys: readonly string[],
) => MaybePromise<readonly (Row | undefined)[]>;

export interface Folded {
  readonly rows: RowChange[];
  readonly counts: CountChange[];
  /** Change of the number of rows that need a body, by SHA-256. */
  readonly uses: Map<string, number>;
}

export async function fold(
  projections: readonly Projection<Row>[],
  events: readonly StoredEvent[],
  read: ReadRows,
): Promise<Folded> {
  const folded: Folded = { rows: [], counts: [], uses: new Map() };
  for (const projection of projections) {
    await foldOne(projection, events, read, folded);
  }
  return folded;
}

/** The same for events that leave the store: what rows are without them. */
export async function forget(
  projections: readonly Projection<Row>[],
  events: readonly StoredEvent[],
  read: ReadRows,
): Promise<Folded> {
  const folded: Folded = { rows: [], counts: [], uses: new Map() };
  for (const projection of projections) {
    const apply = projection.forget ?? forgetDay(projection);
    if (apply) await foldOne({ ...projection, apply }, events, read, folded, true);
  }
  return folded;
}

/** Nothing of the row's own is left of the series when the stream goes that it needs. */
const forgetDay = ({ days }: Projection<Row>): Projection<Row>["forget"] =>
  days && ((row, { stream }) => row?.[days.from] === stream ? undefined : row);

async function foldOne(
  projection: Projection<Row>,
  events: readonly StoredEvent[],
  read: ReadRows,
  folded: Folded,
  known = false,
): Promise<void> {
  const rows = new Map<string, { readonly before: Row | undefined; after: Row | undefined }>();
  const touched: { event: StoredEvent; key: string }[] = [];
  const unread = new Set<string>();
  for (const event of events) {
    const key = projection.key(event);
    if (key === undefined) continue;
    touched.push({ event, key });
    if (rows.has(key) || unread.has(key)) continue;
    // A row of its own stream cannot be there before the stream's first event.
    if (!known && event.version === 1 && key === event.stream) {
      rows.set(key, { before: undefined, after: undefined });
    } else unread.add(key);
  }
  const keys = [...unread];
  const found = keys.length > 0 ? await read(projection.name, keys) : [];
  keys.forEach((key, i) => rows.set(key, { before: found[i], after: found[i] }));

  for (const { event, key } of touched) {
    const row = rows.get(key)!;
    row.after = projection.apply(row.after, event);
  }

  const counts = new Map<string, number>();
  for (const [key, { before, after }] of rows) {
    if (before === after) continue;
    folded.rows.push({
      projection: projection.name,
      key,
      fresh: before === undefined,
      before,
      row: after,
    });
    const column = projection.counted;
    if (column) shift(counts, before?.[column], after?.[column]);
    if (projection.body) shift(folded.uses, before?.[projection.body], after?.[projection.body]);
  }
  for (const [value, delta] of counts) {
    if (delta !== 0) folded.counts.push({ projection: projection.name, value, delta });
  }
}

/** One row less has the old value, one more the new one. */
function shift(
  sums: Map<string, number>,
  before: Row[string] | undefined,
  after: Row[string] | undefined,
): void {
  if (before === after) return;
  if (before !== null && before !== undefined) {
    sums.set(String(before), (sums.get(String(before)) ?? 0) - 1);
  }
  if (after !== null && after !== undefined) {
    sums.set(String(after), (sums.get(String(after)) ?? 0) + 1);
  }
}

/** What changes about bodies: those that rows need more or less, with their octets if staged. */
export function bodyChanges(
  uses: ReadonlyMap<string, number>,
  staged: readonly StagedBody[],
): BodyChange[] {
  const bySha = new Map(staged.map((body) => [body.sha256, body]));
  const changes: BodyChange[] = [];
  for (const [sha256, delta] of uses) {
    if (delta === 0) continue;
    const body = delta > 0 ? bySha.get(sha256) : undefined;
    changes.push(body ? { sha256, uses: delta, staged: body } : { sha256, uses: delta });
  }
  return changes;
}

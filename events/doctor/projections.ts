/**
 * Projections against their events: the rows that are kept and the rows that the log gives, side by
 * side in the order of their keys, and the counters. Repairs by taking over the rows that differ.
 */
import { Buffer } from "node:buffer";
import type { DatabaseSync } from "node:sqlite";
import type { Projection, Row } from "../projection.ts";
import type { Report } from "./finding.ts";
import type { Scratch } from "./scratch.ts";

/** Rows that are repaired in one transaction. */
const PIECE = 1000;

/** True when the rows are kept in step; others are rebuilt by the next start anyway. */
export function inStep(db: DatabaseSync, { name, version }: Projection<Row>): boolean {
  const known = db.prepare("SELECT version, position FROM projections WHERE name = ?").get(name) as
    | { version: number; position: number | null }
    | undefined;
  return known?.version === version && known.position === null;
}

export function examineProjection(
  db: DatabaseSync,
  projection: Projection<Row>,
  scratch: Scratch,
  report: Report,
): void {
  for (const { key, kept, wanted } of differences(db, projection, scratch)) {
    const columns = Object.keys(projection.columns).filter((c) => kept?.[c] !== wanted?.[c]);
    report({
      kind: "projection",
      where: `${projection.name}, row ${key}`,
      what: !kept
        ? "is missing"
        : !wanted
        ? "is there, but no event says so"
        : `differs from its events: ${
          columns.map((c) => `${c} is ${show(kept[c])}, not ${show(wanted[c])}`).join("; ")
        }`,
      means: "a message is not listed, not tried, or tried at the wrong time",
      repair: "write the row that the events give",
    });
  }
  for (const { value, kept, wanted } of counterDifferences(db, projection)) {
    report({
      kind: "counter",
      where: `${projection.name}, ${projection.counted} ${value}`,
      what: `is counted as ${kept}, there are ${wanted}`,
      means: "depths and metrics are wrong",
      repair: "count anew",
    });
  }
}

/** Writes the rows that differ, and counts anew. Events are not touched. */
export function repairProjection(
  db: DatabaseSync,
  projection: Projection<Row>,
  scratch: Scratch,
): void {
  const { name } = projection;
  const columns = Object.keys(projection.columns);
  const drop = db.prepare(`DELETE FROM "${name}" WHERE "${columns[0]}" = ?`);
  const insert = db.prepare(`INSERT INTO "${name}" VALUES (${columns.map(() => "?").join()})`);
  for (let after = "", more = true; more;) {
    const piece: Difference[] = [];
    for (const difference of differences(db, projection, scratch, after)) {
      piece.push(difference);
      if (piece.length === PIECE) break;
    }
    more = piece.length === PIECE;
    after = piece.at(-1)?.key ?? after;
    inTransaction(db, () => {
      for (const { key, wanted } of piece) {
        drop.run(key);
        if (wanted) insert.run(...columns.map((column) => wanted[column] ?? null));
      }
    });
  }
  const { counted } = projection;
  if (counted === undefined || counterDifferences(db, projection).length === 0) return;
  inTransaction(db, () => {
    db.prepare("DELETE FROM counts WHERE projection = ?").run(name);
    db.prepare(
      `INSERT INTO counts SELECT ?, "${counted}", count(*) FROM "${name}"
       WHERE "${counted}" IS NOT NULL GROUP BY 2`,
    ).run(name);
  });
}

interface Difference {
  readonly key: string;
  readonly kept: Row | undefined;
  readonly wanted: Row | undefined;
}

/**
 * Two ordered readings, merged. Rows of streams that are broken are passed over: nobody can say
 * what they ought to be.
 */
function* differences(
  db: DatabaseSync,
  projection: Projection<Row>,
  scratch: Scratch,
  after = "",
): Generator<Difference> {
  const keyColumn = keyOf(projection);
  const columns = Object.keys(projection.columns);
  const read = (from: DatabaseSync) =>
    from.prepare(
      `SELECT * FROM "${projection.name}" WHERE "${keyColumn}" > ?
       ORDER BY "${keyColumn}"`,
    ).iterate(after) as unknown as Iterator<Row, undefined>;
  const anyBroken = scratch.anyBroken;
  const ownStream = keyColumn === "stream";
  const [keptRows, wantedRows] = [read(db), read(scratch.rebuilt)];
  try {
    let kept = keptRows.next().value;
    let wanted = wantedRows.next().value;
    while (kept || wanted) {
      const order = kept && wanted ? compare(kept[keyColumn], wanted[keyColumn]) : kept ? -1 : 1;
      const pair: Difference = {
        key: String((order <= 0 ? kept : wanted)![keyColumn]),
        kept: order <= 0 ? kept : undefined,
        wanted: order >= 0 ? wanted : undefined,
      };
      const differs = !pair.kept || !pair.wanted ||
        columns.some((column) => pair.kept![column] !== pair.wanted![column]);
      // A row that no event gives may be that of an event which cannot be read.
      const unsure = anyBroken && (ownStream ? scratch.isBroken(pair.key) : !pair.wanted);
      if (differs && !unsure) yield pair;
      if (order <= 0) kept = keptRows.next().value;
      if (order >= 0) wanted = wantedRows.next().value;
    }
  } finally {
    keptRows.return?.();
    wantedRows.return?.();
  }
}

function counterDifferences(db: DatabaseSync, { name, counted }: Projection<Row>) {
  if (counted === undefined) return [];
  return db.prepare(
    `SELECT value, sum(kept) AS kept, sum(wanted) AS wanted FROM (
       SELECT value, n AS kept, 0 AS wanted FROM counts WHERE projection = ?
       UNION ALL
       SELECT "${counted}", 0, count(*) FROM "${name}" WHERE "${counted}" IS NOT NULL GROUP BY 1
     ) GROUP BY value HAVING sum(kept) <> sum(wanted)`,
  ).all(name) as unknown as { value: string; kept: number; wanted: number }[];
}

export function inTransaction(db: DatabaseSync, write: () => void): void {
  db.exec("BEGIN IMMEDIATE");
  try {
    write();
    db.exec("COMMIT");
  } catch (error) {
    if (db.isTransaction) db.exec("ROLLBACK");
    throw error;
  }
}

const keyOf = (projection: Projection<Row>): string => Object.keys(projection.columns)[0]!;

/** As SQLite orders text: by its octets in UTF-8. */
const compare = (a: Row[string] | undefined, b: Row[string] | undefined): number =>
  Buffer.compare(Buffer.from(String(a)), Buffer.from(String(b)));

const show = (value: Row[string] | undefined): string => JSON.stringify(value ?? null).slice(0, 80);

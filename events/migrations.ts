/**
 * The schema of the embedded database, as numbered migrations: PRAGMA user_version says how many
 * of them a database has seen. Each runs once, at start, in a transaction of its own. A migration
 * that was released is never changed; what has to change becomes the next one.
 *
 * Tables of projections are not here: they are made from the projection (sqlite_projections.ts).
 */
import type { DatabaseSync } from "node:sqlite";

/** "PLDG", in the header of every database of this program. */
export const APPLICATION_ID = 0x504c4447;

const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    stream   TEXT NOT NULL,
    version  INTEGER NOT NULL,
    type     TEXT NOT NULL,
    schema   INTEGER NOT NULL,
    time     TEXT NOT NULL,
    data     TEXT NOT NULL,
    prev     TEXT NOT NULL,
    hash     TEXT NOT NULL
  ) STRICT;
  CREATE UNIQUE INDEX events_stream ON events (stream, version);
  CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
    BEGIN SELECT raise(ABORT, 'events are never rewritten'); END;
  -- Streams that leave for the archive in the transaction that is under way; empty else.
  CREATE TABLE pruning (stream TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
  CREATE TRIGGER events_are_not_dropped BEFORE DELETE ON events
    WHEN NOT EXISTS (SELECT 1 FROM pruning WHERE stream = OLD.stream)
    BEGIN SELECT raise(ABORT, 'events are never dropped'); END;

  CREATE TABLE bodies (
    sha256 TEXT PRIMARY KEY,
    size   INTEGER NOT NULL,
    uses   INTEGER NOT NULL,
    octets BLOB
  ) STRICT;
  CREATE INDEX bodies_in_files ON bodies (sha256, size) WHERE octets IS NULL;
  CREATE INDEX bodies_unused ON bodies (sha256) WHERE uses <= 0;

  CREATE TABLE checkpoints (
    number        INTEGER PRIMARY KEY,
    from_position INTEGER NOT NULL,
    to_position   INTEGER NOT NULL,
    count         INTEGER NOT NULL,
    root          TEXT NOT NULL,
    prev          TEXT NOT NULL,
    time          TEXT NOT NULL,
    signature     TEXT NOT NULL
  ) STRICT;

  -- position: events up to it are folded; NULL when the rows are in step with the log.
  CREATE TABLE projections (
    name     TEXT PRIMARY KEY,
    version  INTEGER NOT NULL,
    position INTEGER
  ) STRICT;

  CREATE TABLE counts (
    projection TEXT NOT NULL,
    value      TEXT NOT NULL,
    n          INTEGER NOT NULL,
    PRIMARY KEY (projection, value)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE probe (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    n  INTEGER NOT NULL
  ) STRICT;
  INSERT INTO probe VALUES (1, 0);
  `,
];

export const NEWEST_SCHEMA = MIGRATIONS.length;

/** The database is not one that this program may touch; the message says why and what to do. */
export class ForeignDatabase extends Error {
  override readonly name = "ForeignDatabase";
}

/**
 * Looks at a database without changing it. Returns the number of migrations that it has seen.
 * @throws ForeignDatabase when it is another program's, or a newer version's
 */
export function inspect(db: DatabaseSync, path: string): number {
  const version = pragma(db, "user_version");
  const application = pragma(db, "application_id");
  const tables = db.prepare("SELECT count(*) AS n FROM sqlite_schema").get() as { n: number };
  if (application !== APPLICATION_ID && (application !== 0 || version !== 0 || tables.n > 0)) {
    throw new ForeignDatabase(`${path} is not a Postledger database; it was left untouched`);
  }
  if (version > NEWEST_SCHEMA) {
    throw new ForeignDatabase(
      `${path} has schema ${version}, this version knows up to ${NEWEST_SCHEMA}: it was written ` +
        `by a newer Postledger and was left untouched; start that version instead`,
    );
  }
  return version;
}

/** Applies the migrations that the database has not seen. */
export function migrate(db: DatabaseSync, path: string): void {
  for (let version = inspect(db, path); version < NEWEST_SCHEMA; version++) {
    db.exec("BEGIN IMMEDIATE");
    try {
      db.exec(MIGRATIONS[version]!);
      db.exec(`PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${version + 1}`);
      db.exec("COMMIT");
    } catch (error) {
      db.exec("ROLLBACK");
      throw error;
    }
  }
}

function pragma(db: DatabaseSync, name: string): number {
  const row = db.prepare(`PRAGMA ${name}`).get() as Record<string, number> | undefined;
  return row?.[name] ?? 0;
}

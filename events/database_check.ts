/**
 * Whether a database file can be trusted, found out without changing an octet of it: the WAL beside
 * it, its length, SQLite's own check, and that its tables are ours. Start and doctor both ask.
 */
import { DatabaseSync } from "node:sqlite";
import { messageOf } from "./decode.ts";
import { inspect, migrate, NEWEST_SCHEMA } from "./migrations.ts";
import { PROJECTIONS } from "./projections/all.ts";
import { createTable } from "./sqlite_projections.ts";
import { inspectWal, type WalState } from "./wal.ts";

export interface DatabaseFinding {
  /** The file. */
  readonly where: string;
  readonly what: string;
  /** Its tables or indexes are not as this program makes them; the octets are in order. */
  readonly foreign?: boolean;
  /** Only indexes disagree with their tables: they can be made anew. */
  readonly index?: boolean;
}

export interface DatabaseCheck {
  /** Octets up to which the pages are read and checked; larger ones are left to whoever reads. */
  readonly upTo: number;
  /** Compare indexes with their tables too, and mind what harms nobody yet. */
  readonly thorough: boolean;
  /** Findings after which the check gives up. */
  readonly most: number;
}

/** What a start can afford: the pages of a small database, well under a second. */
export const AT_START: DatabaseCheck = { upTo: 128 * 1024 * 1024, thorough: false, most: 1 };
export const THOROUGH: DatabaseCheck = { upTo: Infinity, thorough: true, most: 100 };

/**
 * Checks the database at `path`, which must be there and not be empty.
 * @throws ForeignDatabase when it is another program's or a newer version's
 */
export async function checkDatabase(
  path: string,
  check: DatabaseCheck,
): Promise<DatabaseFinding[]> {
  const wal = await inspectWal(`${path}-wal`);
  if (wal.damage !== undefined) return [{ where: `${path}-wal`, what: wal.damage }];
  const short = await missingPages(path, wal);
  if (short !== undefined) return [{ where: path, what: short }];
  const { size } = await Deno.stat(path);
  const db = new DatabaseSync(path, { readOnly: true, timeout: 5000 });
  try {
    const version = inspect(db, path);
    const findings: DatabaseFinding[] = [];
    if (size <= check.upTo) findings.push(...pageFindings(db, path, check));
    if (findings.some(({ index }) => !index)) return findings;
    if (version === NEWEST_SCHEMA) {
      for (const what of schemaFindings(db)) {
        // Without them everything goes on as before; that they are gone is for the doctor to say.
        if (!check.thorough && /^trigger \S+ is missing$/.test(what)) continue;
        findings.push({ where: path, what, foreign: true });
      }
    }
    return findings;
  } finally {
    db.close();
  }
}

/**
 * A file that was cut short still opens when the pages that are gone are not asked for; its header
 * says how many there ought to be (sqlite.org/fileformat2.html, 1.3).
 */
async function missingPages(path: string, wal: WalState): Promise<string | undefined> {
  const header = new DataView(new ArrayBuffer(100));
  using file = await Deno.open(path);
  const read = await file.read(new Uint8Array(header.buffer));
  const { size } = await file.stat();
  if (read !== 100) return `is cut short: ${size} octets are less than a header`;
  const pageSize = header.getUint16(16) === 1 ? 65_536 : header.getUint16(16);
  const pages = wal.databasePages ?? header.getUint32(28);
  const inFile = Math.floor(size / pageSize);
  // A header that is damaged itself is for SQLite to refuse.
  if (pageSize < 512 || pages > inFile + wal.frames + 0xff_ffff) return undefined;
  let missing = 0;
  for (let page = inFile + 1; page <= pages; page++) if (!wal.pages.has(page)) missing += 1;
  return missing === 0
    ? undefined
    : `is cut short: ${missing} of its ${pages} pages are missing (${size} octets are there)`;
}

function pageFindings(db: DatabaseSync, path: string, check: DatabaseCheck): DatabaseFinding[] {
  const pragma = check.thorough ? "integrity_check" : "quick_check";
  let rows: Record<string, string>[];
  try {
    rows = db.prepare(`PRAGMA ${pragma}(${check.most})`).all() as Record<string, string>[];
  } catch (cause) {
    return [{ where: path, what: messageOf(cause) }];
  }
  return rows.map((row) => Object.values(row)[0]!).filter((what) => what !== "ok")
    .flatMap((what) => what.split("\n")).filter((what) => !what.startsWith("***"))
    .map((what) => ({ where: path, what, ...(AN_INDEX.test(what) ? { index: true } : {}) }));
}

/** What integrity_check says of an index alone. */
const AN_INDEX =
  /^(row \d+ missing from index|wrong # of entries in index|non-unique entry in index)/;

/** Tables, indexes and triggers as they ought to be, against those that are there. */
export function schemaFindings(db: DatabaseSync): string[] {
  const ours = new DatabaseSync(":memory:");
  try {
    migrate(ours, "memory");
    const kept = db.prepare("SELECT version FROM projections WHERE name = ?");
    const foreign: string[] = [];
    const own = new Set<string>();
    for (const projection of PROJECTIONS) {
      const known = kept.get(projection.name) as { version: number } | undefined;
      // One of another version, or none yet, is made anew at start.
      if (known?.version === projection.version) createTable(ours, projection);
      else for (const name of tableAndIndexes(db, projection.name)) own.add(name);
    }
    const wanted = schemaOf(ours);
    const found = schemaOf(db);
    for (const [name, sql] of wanted) {
      if (!found.has(name)) foreign.push(`${name} is missing`);
      else if (found.get(name) !== sql) foreign.push(`${name} is not as this version makes it`);
    }
    for (const name of found.keys()) {
      if (!wanted.has(name) && !own.has(name)) foreign.push(`${name} is not ours`);
    }
    return foreign;
  } finally {
    ours.close();
  }
}

function tableAndIndexes(db: DatabaseSync, table: string): string[] {
  const rows = db.prepare(
    "SELECT type || ' ' || name AS name FROM sqlite_schema WHERE tbl_name = ?",
  )
    .all(table) as { name: string }[];
  return rows.map(({ name }) => name);
}

function schemaOf(db: DatabaseSync): Map<string, string> {
  const rows = db.prepare(
    `SELECT type || ' ' || name AS name, sql FROM sqlite_schema
     WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_stat%'`,
  ).all() as { name: string; sql: string }[];
  return new Map(rows.map(({ name, sql }) => [name, sql]));
}

/** SQLITE_CORRUPT and SQLITE_NOTADB, with whatever their extended codes add: not a full disk, or a lock. */
export function isDamage(cause: unknown): boolean {
  const { errcode } = cause as { errcode?: number };
  return errcode !== undefined && [11, 26].includes(errcode & 0xff);
}

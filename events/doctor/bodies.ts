/**
 * Message content: what rows of the queue need against what is there, in the database and in files.
 * Every octet is read, since only its hash can say that it is the one that was taken in.
 */
import { createHash } from "node:crypto";
import type { DatabaseSync } from "node:sqlite";
import { bodiesPath } from "../data_folder.ts";
import { inTransaction } from "./projections.ts";
import type { Report } from "./finding.ts";

interface Kept {
  readonly sha256: string;
  readonly size: number;
  readonly uses: number;
  readonly octets: Uint8Array | null;
}
interface Needed {
  readonly body: string;
  readonly n: number;
}

const NAME = /^[0-9a-f]{64}$/;
const HELD = "the message is held when it is due; nobody can deliver it";
const REMEDY = "put the content back from a backup, then release the message; or drop it";

/** @param sure every Enqueued of the log can be read, so that it is known what is needed */
export async function examineBodies(
  db: DatabaseSync,
  dataDir: string,
  sure: boolean,
  report: Report,
): Promise<void> {
  const dir = bodiesPath(dataDir);
  for (const { needed, kept } of pairs(db)) {
    const sha256 = (needed?.body ?? kept?.sha256)!;
    // Looked up only for what is wrong: there is no index by body.
    const named = () => `body ${sha256}${needed ? `, message ${messagesWith(db, sha256)}` : ""}`;
    if (!kept) {
      report({ kind: "body", where: named(), what: "is missing", means: HELD, remedy: REMEDY });
      continue;
    }
    const wrong = needed && await damage(kept, `${dir}/${sha256.slice(0, 2)}/${sha256}`);
    if (wrong) report({ kind: "body", where: named(), what: wrong, means: HELD, remedy: REMEDY });
    if (kept.uses === (needed?.n ?? 0)) {
      if (needed) continue;
    } else if (needed) {
      report({
        kind: "counter",
        where: `body ${sha256}`,
        what: `is counted as needed by ${kept.uses} messages, it is by ${needed.n}`,
        means: "it is dropped too early, or never",
        repair: "count anew",
      });
      continue;
    }
    reportUnneeded(`body ${sha256}`, sure, report);
  }
  await examineFiles(db, dir, report);
}

function reportUnneeded(where: string, sure: boolean, report: Report): void {
  report({
    kind: "orphan",
    where,
    what: "is needed by no message",
    means: "it takes room and nothing else",
    ...(sure
      ? { repair: "drop it" }
      : { remedy: "kept, because a message that cannot be read may need it" }),
  });
}

async function damage(body: Kept, path: string): Promise<string | undefined> {
  const { sha256, size, octets } = body;
  if (octets) return hash(octets) === sha256 ? undefined : "is damaged: its hash is another";
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) return `cannot be read: ${path}: ${error}`;
    return `is missing: there is no file ${path}`;
  }
  const sum = createHash("sha256");
  let length = 0;
  for await (const chunk of file.readable) {
    sum.update(chunk);
    length += chunk.length;
  }
  if (length !== size) return `is damaged: ${path} has ${length} octets, not ${size}`;
  return sum.digest("hex") === sha256
    ? undefined
    : `is damaged: ${path} does not have the hash that it is named for`;
}

async function examineFiles(db: DatabaseSync, dir: string, report: Report): Promise<void> {
  for await (const { path, name, kind } of files(dir)) {
    if (kind === "body" && fileIsKnown(db, name)) continue;
    report({
      kind: kind === "foreign" ? "folder" : "orphan",
      where: path,
      what: kind === "foreign"
        ? "is nothing that this program makes"
        : kind === "temporary"
        ? "is a body that was never finished"
        : "is a body that the database does not know",
      means: kind === "foreign" ? "it is left alone" : "it takes room; the next start removes it",
      ...(kind === "foreign" ? { note: true } : { repair: "remove it" }),
    });
  }
}

/** Counts anew what messages need, and removes what none does. */
export async function repairBodies(
  db: DatabaseSync,
  dataDir: string,
  sure: boolean,
): Promise<void> {
  inTransaction(db, () => {
    const count = db.prepare("UPDATE bodies SET uses = ? WHERE sha256 = ?");
    const drop = db.prepare("DELETE FROM bodies WHERE sha256 = ?");
    // Read to the end first: a table is not changed while it is walked through.
    const wrong = [...misjudged(db)];
    for (const { sha256, n } of wrong) {
      if (n > 0) count.run(n, sha256);
      else if (sure) drop.run(sha256);
    }
  });
  for await (const { path, name, kind } of files(bodiesPath(dataDir))) {
    if (kind === "temporary" || (kind === "body" && !fileIsKnown(db, name))) {
      await Deno.remove(path);
    }
  }
}

const NEEDED = "SELECT body, count(*) AS n FROM queue WHERE body IS NOT NULL GROUP BY body";

function misjudged(db: DatabaseSync): Iterable<{ readonly sha256: string; readonly n: number }> {
  return db.prepare(
    `SELECT b.sha256, coalesce(needed.n, 0) AS n FROM bodies AS b
     LEFT JOIN (${NEEDED}) AS needed ON needed.body = b.sha256
     WHERE b.uses <> coalesce(needed.n, 0) OR needed.n IS NULL`,
  ).iterate() as unknown as Iterable<{ sha256: string; n: number }>;
}

/** What is needed and what is kept, side by side in the order of the hashes. */
function* pairs(db: DatabaseSync): Generator<{ needed?: Needed; kept?: Kept }> {
  const neededRows = db.prepare(`${NEEDED} ORDER BY body`).iterate() as unknown as Iterator<
    Needed,
    undefined
  >;
  const keptRows = db.prepare("SELECT sha256, size, uses, octets FROM bodies ORDER BY sha256")
    .iterate() as unknown as Iterator<Kept, undefined>;
  let needed = neededRows.next().value;
  let kept = keptRows.next().value;
  while (needed || kept) {
    if (!kept || (needed && needed.body < kept.sha256)) {
      yield { needed: needed! };
      needed = neededRows.next().value;
    } else if (!needed || kept.sha256 < needed.body) {
      yield { kept };
      kept = keptRows.next().value;
    } else {
      yield { needed, kept };
      needed = neededRows.next().value;
      kept = keptRows.next().value;
    }
  }
}

/** The first messages that need a body, for the operator. */
function messagesWith(db: DatabaseSync, sha256: string): string {
  const rows = db.prepare("SELECT stream FROM queue WHERE body = ? ORDER BY stream LIMIT 4")
    .all(sha256) as { stream: string }[];
  const names = rows.slice(0, 3).map(({ stream }) => stream).join(", ");
  return rows.length > 3 ? `${names} and others` : names;
}

interface FoundFile {
  readonly path: string;
  readonly name: string;
  readonly kind: "body" | "temporary" | "foreign";
}

async function* files(dir: string): AsyncGenerator<FoundFile> {
  for await (const { name, isFile, isDirectory } of entries(dir)) {
    const path = `${dir}/${name}`;
    if (isDirectory && /^[0-9a-f]{2}$/.test(name)) {
      for await (const inner of entries(path)) {
        const body = inner.isFile && NAME.test(inner.name) && inner.name.startsWith(name);
        yield {
          path: `${path}/${inner.name}`,
          name: inner.name,
          kind: body ? "body" : "foreign",
        };
      }
    } else yield { path, name, kind: isFile && name.startsWith("tmp-") ? "temporary" : "foreign" };
  }
}

async function* entries(dir: string): AsyncGenerator<Deno.DirEntry> {
  try {
    yield* Deno.readDir(dir);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

function fileIsKnown(db: DatabaseSync, sha256: string): boolean {
  return db.prepare("SELECT 1 FROM bodies WHERE sha256 = ? AND octets IS NULL").get(sha256) !==
    undefined;
}

const hash = (octets: Uint8Array): string => createHash("sha256").update(octets).digest("hex");

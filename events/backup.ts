/**
 * A backup of a data folder as one tar file (POSIX.1-2001), while a queue runs on it or not.
 *
 *   1. One read transaction pins the database as it is at one moment.
 *   2. The files of the large bodies that it names are hard-linked into a scratch folder beside
 *      them. A queue that runs removes a file as soon as its message is delivered; what has a
 *      second name stays. Where one was gone before it was linked, a later moment is taken.
 *   3. SQLite's online backup copies the pinned database, which is then checked, as are the links'
 *      octets while they are written.
 *   4. Everything goes into FILE.part, which is fsynced and then gets its name.
 *
 * The queue is never held up; its WAL grows for as long as the database is copied.
 * Unpacked into an empty folder, it is a data folder: `tar -xpf FILE -C DIR`.
 */
import { createHash } from "node:crypto";
import { backup as copyDatabase, DatabaseSync } from "node:sqlite";
import { basename, dirname } from "node:path";
import { type ArchiveFile, archivePath, RETENTION_STREAM } from "./archive.ts";
import { publicKeyPath } from "./checkpoint_key.ts";
import { AT_START, checkDatabase } from "./database_check.ts";
import { bodiesPath, databasePath, keyPath, syncDirectory } from "./data_folder.ts";
import { inspect } from "./migrations.ts";
import { TarWriter } from "./tar.ts";

export interface BackupOptions {
  /** Replace a file that is there. */
  readonly force?: boolean;
  /** Files beside those of events that belong to the folder: the token of the HTTP interface. */
  readonly also?: readonly string[];
}

export interface BackedUp {
  /** Events in the copy. */
  readonly events: number;
  /** Large bodies that came along as files. */
  readonly files: number;
  readonly octets: number;
}

/** The backup could not be made; nothing was left at its name. */
export class BackupError extends Error {
  override readonly name = "BackupError";
}

/** Moments that are tried until one is met at which every body could be linked. */
const MOMENTS = 50;
/** Pages copied between two turns of the event loop: 4 MiB. */
const PAGES = 1024;

/** @throws BackupError, or whatever the disk or the database says */
export async function backUp(
  dataDir: string,
  file: string,
  options: BackupOptions = {},
): Promise<BackedUp> {
  if (!options.force && await isThere(file)) {
    throw new BackupError(`${file} is there already; --force replaces it`);
  }
  if (!await isThere(databasePath(dataDir))) {
    throw new BackupError(`there is no queue in ${dataDir}: ${databasePath(dataDir)} is missing`);
  }
  // Links must be on the disk of the bodies; the copy is where there is room for the backup.
  const links = `${dataDir}/backup-${crypto.randomUUID()}`;
  const copies = await Deno.makeTempDir({ dir: dirname(file), prefix: `.${basename(file)}-` });
  const part = `${file}.part-${crypto.randomUUID()}`;
  try {
    await Deno.mkdir(links, { mode: 0o700 });
    const copy = `${copies}/postledger.db`;
    const { bodies, events } = await copyOf(dataDir, copy, links);
    const [finding] = await checkDatabase(copy, { ...AT_START, upTo: Infinity });
    if (finding) throw new BackupError(`the copy is not sound: ${finding.what}`);
    const archived = archivedIn(copy);
    const octets = await writeTar(part, dataDir, copy, links, bodies, archived, options.also ?? []);
    await Deno.rename(part, file);
    await syncDirectory(dirname(file));
    return { events, files: bodies.length, octets };
  } finally {
    for (const path of [links, copies, part]) {
      await Deno.remove(path, { recursive: true }).catch(() => {}); // doctor finds what stays
    }
  }
}

interface Body {
  readonly sha256: string;
  readonly size: number;
}

/** Copies the database as it is at a moment at which all its large bodies could be linked. */
async function copyOf(
  dataDir: string,
  copy: string,
  links: string,
): Promise<{ bodies: Body[]; events: number }> {
  const db = new DatabaseSync(databasePath(dataDir), { readOnly: true, timeout: 5000 });
  try {
    inspect(db, databasePath(dataDir));
    for (let moment = 1; moment <= MOMENTS; moment++) {
      db.exec("BEGIN");
      const { events } = db.prepare("SELECT count(*) AS events FROM events").get() as {
        events: number;
      };
      const bodies = db.prepare("SELECT sha256, size FROM bodies WHERE octets IS NULL")
        .all() as unknown as Body[];
      const gone = await linkAll(dataDir, links, bodies);
      if (gone === undefined) {
        await Deno.create(copy).then((made) => made.close());
        await Deno.chmod(copy, 0o600);
        await copyDatabase(db, copy, { rate: PAGES });
        db.exec("COMMIT");
        return { bodies, events };
      }
      db.exec("COMMIT");
      // Delivered meanwhile, or lost: the next moment tells which.
      if (stillNeeded(db, gone) && !await isThere(pathOf(bodiesPath(dataDir), gone))) {
        throw new BackupError(
          `body ${gone} is needed and has no file; "deno task doctor --data ${dataDir}" shows more`,
        );
      }
    }
    throw new BackupError(`bodies came and went too fast to be copied; try again`);
  } finally {
    db.close();
  }
}

/** Links what is not linked yet; returns the first body that has no file (any more). */
async function linkAll(
  dataDir: string,
  links: string,
  bodies: readonly Body[],
): Promise<string | undefined> {
  for (const { sha256 } of bodies) {
    try {
      await Deno.link(pathOf(bodiesPath(dataDir), sha256), `${links}/${sha256}`);
    } catch (error) {
      if (error instanceof Deno.errors.AlreadyExists) continue;
      if (error instanceof Deno.errors.NotFound) return sha256;
      throw error;
    }
  }
  return undefined;
}

const stillNeeded = (db: DatabaseSync, sha256: string): boolean =>
  db.prepare("SELECT 1 FROM bodies WHERE sha256 = ?").get(sha256) !== undefined;

/** The files of the archive that a copy names: their events are in no database. */
function archivedIn(copy: string): ArchiveFile[] {
  const db = new DatabaseSync(copy, { readOnly: true });
  try {
    const rows = db.prepare(
      "SELECT data FROM events WHERE stream = ? AND type = 'StreamsArchived' ORDER BY version",
    ).all(RETENTION_STREAM) as { data: string }[];
    return rows.map(({ data }) => JSON.parse(data) as ArchiveFile);
  } finally {
    db.close();
  }
}

async function writeTar(
  part: string,
  dataDir: string,
  copy: string,
  links: string,
  bodies: readonly Body[],
  archived: readonly ArchiveFile[],
  also: readonly string[],
): Promise<number> {
  const { uid, gid } = await Deno.stat(dataDir);
  const time = Math.floor(((await Deno.stat(copy)).mtime?.getTime() ?? 0) / 1000);
  using out = await Deno.open(part, { write: true, createNew: true, mode: 0o600 });
  const tar = new TarWriter(out, { uid: uid ?? 0, gid: gid ?? 0, time });
  await tar.add("postledger.db", copy, 0o600);
  await tar.add(basename(keyPath(dataDir)), keyPath(dataDir), 0o600);
  await tar.add(basename(publicKeyPath(dataDir)), publicKeyPath(dataDir), 0o644);
  for (const name of also) {
    if (await isThere(`${dataDir}/${name}`)) await tar.add(name, `${dataDir}/${name}`, 0o600);
  }
  await tar.folder("bodies", 0o700);
  const folders = new Set<string>();
  for (const { sha256 } of bodies) {
    const folder = `bodies/${sha256.slice(0, 2)}`;
    if (!folders.has(folder)) await tar.folder(folder, 0o700);
    folders.add(folder);
    const hash = createHash("sha256");
    const add = (piece: Uint8Array) => void hash.update(piece);
    await tar.add(`${folder}/${sha256}`, `${links}/${sha256}`, 0o600, add);
    if (hash.digest("hex") !== sha256) {
      throw new BackupError(
        `body ${sha256} is damaged; "deno task doctor --data ${dataDir}" shows more`,
      );
    }
  }
  if (await isThere(archivePath(dataDir))) {
    await tar.folder("archive", 0o700);
    for (const { file } of archived) {
      await tar.add(`archive/${file}`, `${archivePath(dataDir)}/${file}`, 0o600);
    }
  }
  await tar.end();
  await out.sync();
  return tar.octets;
}

const pathOf = (dir: string, sha256: string): string => `${dir}/${sha256.slice(0, 2)}/${sha256}`;

async function isThere(path: string): Promise<boolean> {
  try {
    await Deno.lstat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

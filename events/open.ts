/**
 * Opens the embedded store of a data folder: for the queue (alone, writing) or for a reader beside
 * it. Everything that stands in the way is a DataFolderError with one clear line.
 */
import { createPublicKey, type KeyObject } from "node:crypto";
import {
  type ArchiveDamaged,
  archiveFiles,
  archivePath,
  DirectoryArchiveFiles,
  SpanningLog,
} from "./archive.ts";
import { ArchiveLookup } from "./archive_lookup.ts";
import { Bodies } from "./bodies.ts";
import { DirectoryBodyFiles } from "./body_files.ts";
import { loadKey, loadPublicKey, publicKeyPath } from "./checkpoint_key.ts";
import { signerOf } from "./checkpoints.ts";
import {
  bodiesPath,
  databasePath,
  DataFolderError,
  keyPath,
  lockDataFolder,
  makeDataFolder,
  syncDirectory,
} from "./data_folder.ts";
import { AT_START, checkDatabase, type DatabaseFinding, isDamage } from "./database_check.ts";
import { decode, messageOf } from "./decode.ts";
import type { StoredEvent } from "./catalogue.ts";
import type { RawLog } from "./engine.ts";
import { EventLog, type LogOptions } from "./log.ts";
import { ForeignDatabase } from "./migrations.ts";
import type { Projection, Row } from "./projection.ts";
import { PROJECTIONS } from "./projections/all.ts";
import type { QueueView, SubmissionCounts } from "./projections/queue.ts";
import { rawLog } from "./raw_log.ts";
import { Retention } from "./retention.ts";
import { SqliteEngine } from "./sqlite_engine.ts";
import { SqliteQueueView } from "./sqlite_queue_view.ts";
import { sqliteArchiveView, sqliteRetentionView } from "./sqlite_retention_view.ts";
import type { UnreadableStream } from "./store.ts";
import { ThreadedEngine } from "./threaded_engine.ts";
import { type LostBody, missingBodies, trustLog, trustQueue } from "./trust.ts";

export interface OpenOptions extends
  Pick<
    LogOptions,
    "clock" | "schedule" | "onCommit" | "onListenerError" | "onUnreadable" | "projections"
  > {
  readonly dataDir: string;
  /** Commits on a thread of their own, for a process that has more to do than to wait for them. */
  readonly commitThread?: boolean;
}

export interface OpenStore {
  readonly store: EventLog;
  readonly bodies: Bodies;
  readonly view: QueueView & SubmissionCounts;
  /** Store and archive together. */
  readonly raw: RawLog;
  /** Lets go of what is finished. */
  readonly retention: Retention;
  /** Finds what has left. */
  readonly archive: ArchiveLookup;
  /** The row of a projection; undefined when there is none. @throws when it cannot be read */
  row<R extends Row>(projection: Projection<R>, key: string): R | undefined;
  /** Up to `limit` rows with a greater key, by key. @throws when they cannot be read */
  page<R extends Row>(projection: Projection<R>, after: string, limit: number): R[];
  /** Verifies the checkpoints of this installation. */
  readonly publicKey: KeyObject;
  /** Streams that were found broken: to be quarantined. */
  readonly broken: readonly UnreadableStream[];
  /** Large bodies whose files are gone: their messages cannot be delivered. */
  readonly lostBodies: readonly LostBody[];
  /** Writes what waits, closes everything and gives the folder free. May be called twice. */
  close(): Promise<void>;
}

/** What a reader sees of a data folder: each call the newest that is on disk. */
export interface StoreReader {
  readonly view: QueueView;
  readonly bodies: Pick<Bodies, "open">;
  /** Store and archive together. */
  readonly raw: RawLog;
  /** Finds what has left. */
  readonly archive: ArchiveLookup;
  /** Files of the archive that were found damaged while `raw` was read. */
  readonly damaged: readonly ArchiveDamaged[];
  /** @throws UnreadableStream */
  readStream(stream: string): Promise<StoredEvent[]>;
  /** @throws UnreadableStream */
  readAll(after: number, limit: number): Promise<StoredEvent[]>;
  publicKey(): Promise<KeyObject>;
  close(): void;
}

/**
 * Opens the store for the one process that writes: locks the folder, checks whether it can be
 * trusted, migrates, brings projections in step, sweeps orphaned bodies.
 * @throws DataFolderError
 */
export async function openStore(options: OpenOptions): Promise<OpenStore> {
  const { dataDir } = options;
  await makeDataFolder(dataDir);
  const unlock = await lockDataFolder(dataDir);
  let engine: SqliteEngine | undefined;
  let threaded: ThreadedEngine | undefined;
  try {
    await refuseDamaged(dataDir);
    engine = openDatabase(dataDir, false);
    const key = await loadKey(dataDir, engine.lastCheckpoint() !== undefined);
    const publicKey = createPublicKey(key);
    const broken = trustLog(engine, dataDir, publicKey);
    await syncDirectory(dataDir);
    const bodies = new Bodies(engine, new DirectoryBodyFiles(bodiesPath(dataDir)));
    const database = engine;
    const projections = options.projections ?? PROJECTIONS;
    let unreadable = false;
    if (options.commitThread) threaded = new ThreadedEngine(engine, databasePath(dataDir));
    const store = await EventLog.open({
      ...options,
      projections,
      engine: threaded ?? engine,
      signer: signerOf(key),
      bodies,
      onUnreadable: (one) => {
        unreadable = true;
        options.onUnreadable?.(one);
      },
    });
    broken.push(...trustQueue(engine, dataDir, projections));
    // What an event that cannot be read needs is not known to be unneeded.
    if (!unreadable && broken.length === 0) engine.dropUnusedBodies();
    await bodies.sweep();
    const lostBodies = await missingBodies(engine, bodiesPath(dataDir));
    const archive = new DirectoryArchiveFiles(archivePath(dataDir));
    let closing: Promise<void> | undefined;
    const close = async () => {
      await store.close();
      await bodies.settled();
      unlock();
    };
    return {
      store,
      bodies,
      view: new SqliteQueueView(engine),
      raw: new SpanningLog(rawLog(engine), archive),
      retention: new Retention({
        clock: options.clock,
        log: store,
        raw: rawLog(engine),
        view: sqliteRetentionView(() => database.db),
        files: archive,
      }),
      archive: new ArchiveLookup(sqliteArchiveView(() => database.db), archive),
      row: <R extends Row>(projection: Projection<R>, key: string) =>
        database.rows(projection.name, [key])[0] as R | undefined,
      page: <R extends Row>(projection: Projection<R>, after: string, limit: number) =>
        database.page(projection.name, after, limit) as unknown as R[],
      publicKey,
      broken: [...new Map(broken.map((one) => [one.stream, one])).values()],
      lostBodies,
      close: () => closing ??= close(),
    };
  } catch (cause) {
    await (threaded ?? engine)?.close();
    const obstacle = await obstacleTo(dataDir);
    unlock();
    if (obstacle !== undefined) {
      throw new DataFolderError(`data folder ${dataDir}: ${obstacle} (${messageOf(cause)})`, {
        cause,
      });
    }
    if (cause instanceof DataFolderError) throw cause;
    throw new DataFolderError(`data folder ${dataDir}: ${messageOf(cause)}`, { cause });
  }
}

/**
 * Opens a data folder for reading only, whether a queue runs on it or not.
 * @throws DataFolderError
 */
export function openReader(dataDir: string): StoreReader {
  let engine: SqliteEngine;
  try {
    engine = openDatabase(dataDir, true);
  } catch (cause) {
    if (cause instanceof DataFolderError) throw cause;
    throw new DataFolderError(`data folder ${dataDir}: ${messageOf(cause)}`, { cause });
  }
  const damaged: ArchiveDamaged[] = [];
  const archive = new DirectoryArchiveFiles(archivePath(dataDir));
  const raw = new SpanningLog(rawLog(engine), archive, (one) => {
    if (!damaged.some(({ file }) => file === one.file)) damaged.push(one);
  });
  return {
    damaged,
    view: new SqliteQueueView(engine),
    bodies: new Bodies(engine, new DirectoryBodyFiles(bodiesPath(dataDir))),
    raw,
    // By the log itself: rows may be those of an older version.
    archive: new ArchiveLookup({
      filesOf: async (stream) =>
        (await archiveFiles(rawLog(engine))).reverse()
          .filter(({ first, last }) => first <= stream && stream <= last),
    }, archive),
    readStream: async (stream) => (await raw.stream(stream)).map(decode),
    readAll: async (after, limit) => (await raw.events(after, limit)).map(decode),
    publicKey: () => loadPublicKey(publicKeyPath(dataDir)),
    close: () => engine.close(),
  };
}

function openDatabase(dataDir: string, readOnly: boolean): SqliteEngine {
  const path = databasePath(dataDir);
  try {
    return new SqliteEngine(path, { readOnly });
  } catch (cause) {
    if (readOnly && !exists(path)) {
      throw new DataFolderError(`there is no queue in ${dataDir}: ${path} is missing`, { cause });
    }
    throw new DataFolderError(`database ${path}: ${messageOf(cause)}`, { cause });
  }
}

/**
 * A database that is gone or empty beside a key was lost; a new one would sweep its bodies. One
 * that is damaged is left as it is: it is opened for writing only when it has passed.
 */
async function refuseDamaged(dataDir: string): Promise<void> {
  const path = databasePath(dataDir);
  const size = exists(path) ? (await Deno.stat(path)).size : undefined;
  if (size) {
    let finding: DatabaseFinding | undefined;
    try {
      [finding] = await checkDatabase(path, AT_START);
    } catch (cause) {
      if (cause instanceof ForeignDatabase) throw new DataFolderError(cause.message, { cause });
      if (!isDamage(cause)) throw cause;
      finding = { where: path, what: messageOf(cause) };
    }
    if (!finding) return;
    throw new DataFolderError(
      `database ${finding.where}: ${finding.what}; nothing was changed; "deno task doctor --data ` +
        `${dataDir}" shows more`,
    );
  }
  if (!exists(keyPath(dataDir))) return;
  throw new DataFolderError(
    `database ${path} is ${size === 0 ? "empty" : "missing"}, but ${keyPath(dataDir)} shows that ` +
      `there was one; put it back from a backup, or choose another folder to begin anew`,
  );
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

/** Octets that SQLite takes for itself before anything is written: the index of its WAL. */
const ROOM_TO_START = 64 * 1024;

/** What the system says about writing in the folder, where SQLite says less: no room, no right. */
async function obstacleTo(dataDir: string): Promise<string | undefined> {
  const path = databasePath(dataDir);
  try {
    (await Deno.open(path, { write: true })).close();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) {
      return `${path} cannot be written: ${messageOf(error)}`;
    }
  }
  const probe = `${dataDir}/probe-${crypto.randomUUID()}`;
  try {
    await Deno.writeFile(probe, new Uint8Array(ROOM_TO_START), { createNew: true });
    return undefined;
  } catch (error) {
    return `nothing can be written to it: ${messageOf(error)}`;
  } finally {
    await Deno.remove(probe).catch(() => {});
  }
}

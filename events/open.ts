/**
 * Opens the embedded store of a data folder: for the queue (alone, writing) or for a reader beside
 * it. Everything that stands in the way is a DataFolderError with one clear line.
 */
import { createPublicKey, type KeyObject } from "node:crypto";
import { Bodies } from "./bodies.ts";
import { DirectoryBodyFiles } from "./body_files.ts";
import { loadKey, loadPublicKey, publicKeyPath } from "./checkpoint_key.ts";
import { signedBy, signerOf } from "./checkpoints.ts";
import {
  bodiesPath,
  databasePath,
  DataFolderError,
  keyPath,
  lockDataFolder,
  makeDataFolder,
  syncDirectory,
} from "./data_folder.ts";
import { decode, messageOf } from "./decode.ts";
import type { StoredEvent } from "./catalogue.ts";
import type { RawLog } from "./engine.ts";
import { EventLog, type LogOptions } from "./log.ts";
import type { Projection, Row } from "./projection.ts";
import { PROJECTIONS } from "./projections/all.ts";
import type { QueueView } from "./projections/queue.ts";
import { SqliteEngine } from "./sqlite_engine.ts";
import { SqliteQueueView } from "./sqlite_queue_view.ts";

export interface OpenOptions extends
  Pick<
    LogOptions,
    "clock" | "schedule" | "onCommit" | "onListenerError" | "onUnreadable" | "projections"
  > {
  readonly dataDir: string;
}

export interface OpenStore {
  readonly store: EventLog;
  readonly bodies: Bodies;
  readonly view: QueueView;
  readonly raw: RawLog;
  /** The row of a projection; undefined when there is none. @throws when it cannot be read */
  row<R extends Row>(projection: Projection<R>, key: string): R | undefined;
  /** Verifies the checkpoints of this installation. */
  readonly publicKey: KeyObject;
  /** Writes what waits, closes everything and gives the folder free. May be called twice. */
  close(): Promise<void>;
}

/** What a reader sees of a data folder: each call the newest that is on disk. */
export interface StoreReader {
  readonly view: QueueView;
  readonly bodies: Pick<Bodies, "open">;
  readonly raw: RawLog;
  /** @throws UnreadableStream */
  readStream(stream: string): Promise<StoredEvent[]>;
  /** @throws UnreadableStream */
  readAll(after: number, limit: number): Promise<StoredEvent[]>;
  publicKey(): Promise<KeyObject>;
  close(): void;
}

/**
 * Opens the store for the one process that writes: locks the folder, migrates, brings projections
 * in step, sweeps orphaned bodies.
 * @throws DataFolderError
 */
export async function openStore(options: OpenOptions): Promise<OpenStore> {
  const { dataDir } = options;
  await makeDataFolder(dataDir);
  const unlock = await lockDataFolder(dataDir);
  let engine: SqliteEngine | undefined;
  try {
    await refuseLostDatabase(dataDir);
    engine = openDatabase(dataDir, false);
    const last = engine.lastCheckpoint();
    const key = await loadKey(dataDir, last !== undefined);
    const publicKey = createPublicKey(key);
    if (last && !signedBy(last, publicKey)) {
      throw new DataFolderError(
        `${
          keyPath(dataDir)
        } did not sign checkpoint ${last.number} of the log: the key is another ` +
          `installation's, or the log was changed; put both back from one backup`,
      );
    }
    await syncDirectory(dataDir);
    const bodies = new Bodies(engine, new DirectoryBodyFiles(bodiesPath(dataDir)));
    const database = engine;
    const projections = options.projections ?? PROJECTIONS;
    const signer = signerOf(key);
    const store = await EventLog.open({ ...options, projections, engine, signer, bodies });
    engine.dropUnusedBodies();
    await bodies.sweep();
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
      raw: rawLog(engine),
      row: <R extends Row>(projection: Projection<R>, key: string) =>
        database.rows(projection.name, [key])[0] as R | undefined,
      publicKey,
      close: () => closing ??= close(),
    };
  } catch (cause) {
    engine?.close();
    unlock();
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
  const raw = rawLog(engine);
  return {
    view: new SqliteQueueView(engine),
    bodies: new Bodies(engine, new DirectoryBodyFiles(bodiesPath(dataDir))),
    raw,
    readStream: async (stream) => (await raw.stream(stream)).map(decode),
    readAll: async (after, limit) => (await raw.events(after, limit)).map(decode),
    publicKey: () => loadPublicKey(publicKeyPath(dataDir)),
    close: () => engine.close(),
  };
}

/** Promises that reject where the engine throws. */
const rawLog = (engine: SqliteEngine): RawLog => ({
  newest: async () => {
    const checkpoint = (await engine.lastCheckpoint())?.number ?? 0;
    return { checkpoint, position: await engine.head() };
  },
  events: async (after, limit) => await engine.readAll(after, limit),
  stream: async (stream) => await engine.readStream(stream),
  checkpoints: async (after, limit) => await engine.checkpoints(after, limit),
});

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

/** A database that is gone or empty beside a key was lost; a new one would sweep its bodies. */
async function refuseLostDatabase(dataDir: string): Promise<void> {
  const path = databasePath(dataDir);
  const size = exists(path) ? (await Deno.stat(path)).size : undefined;
  if (size || !exists(keyPath(dataDir))) return;
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

/**
 * The doctor: examines a data folder that no server runs on, and repairs what follows from the log.
 *
 *   1. the folder: modes, owners, keys, leftovers, room           doctor/folder.ts
 *   2. the database: WAL, length, pages, indexes, tables          database_check.ts
 *   3. the log: positions and checkpoints, then every stream      doctor/streams.ts
 *   4. projections and counters against the log, folded anew      doctor/projections.ts
 *   5. bodies: needed, there, sound, counted, orphaned            doctor/bodies.ts
 *
 * Examining changes nothing. Repairing writes what the log says (rows, counters, use counts,
 * indexes) and removes what nothing needs. No event is ever changed, and no message acted upon.
 */
import type { KeyObject } from "node:crypto";
import { archivePath, DirectoryArchiveFiles, SpanningLog } from "./archive.ts";
import { loadPublicKey, publicKeyPath } from "./checkpoint_key.ts";
import { databasePath, DataFolderError, lockDataFolder } from "./data_folder.ts";
import { checkDatabase, isDamage, THOROUGH } from "./database_check.ts";
import { messageOf } from "./decode.ts";
import { examineBodies, repairBodies } from "./doctor/bodies.ts";
import { FROM_BACKUP, type Report } from "./doctor/finding.ts";
import {
  examineFolder,
  examineKeys,
  haveDatabase,
  type OtherFiles,
  repairFolder,
} from "./doctor/folder.ts";
import { examineProjection, inStep, repairProjection } from "./doctor/projections.ts";
import { Scratch } from "./doctor/scratch.ts";
import { type BeginFold, examineLog, examineStreams, type LogSize } from "./doctor/streams.ts";
import { rawLog } from "./raw_log.ts";
import { PROJECTIONS } from "./projections/all.ts";
import { SqliteEngine } from "./sqlite_engine.ts";

export interface DoctorOptions {
  /** What accepts or refuses the events of a stream: the fold of whoever writes them. */
  readonly beginFold: BeginFold;
  /** What else lies in the folder. */
  readonly others: OtherFiles;
  /** Told of everything that is found. */
  readonly report: Report;
}

/** What there was to look through; undefined when the database could not be read so far. */
export type Examined = LogSize | undefined;

/**
 * Examines a data folder. Takes its lock; makes no change but to the lock file.
 * @throws DataFolderError when there is none, or a server runs on it
 */
export async function examine(dataDir: string, options: DoctorOptions): Promise<Examined> {
  const unlock = await takeFolder(dataDir);
  try {
    return await new Examination(dataDir, options).run(false);
  } finally {
    unlock();
  }
}

/**
 * Repairs what follows from the log, then examines what there is now.
 * @throws DataFolderError when there is no data folder, or a server runs on it
 */
export async function repair(dataDir: string, options: DoctorOptions): Promise<Examined> {
  const unlock = await takeFolder(dataDir);
  try {
    await repairFolder(dataDir, options.others);
    await new Examination(dataDir, { ...options, report: () => {} }).run(true);
    return await new Examination(dataDir, options).run(false);
  } finally {
    unlock();
  }
}

async function takeFolder(dataDir: string): Promise<() => void> {
  if (!await haveDatabase(dataDir)) {
    throw new DataFolderError(
      `there is no queue in ${dataDir}: ${databasePath(dataDir)} is missing`,
    );
  }
  return await lockDataFolder(dataDir);
}

class Examination {
  readonly #report: Report;
  readonly #database: string;

  constructor(private readonly dataDir: string, private readonly options: DoctorOptions) {
    this.#report = options.report;
    this.#database = databasePath(dataDir);
  }

  async run(repairing: boolean): Promise<Examined> {
    await examineFolder(this.dataDir, this.options.others, this.#report);
    if (!await this.#examineDatabase(repairing)) return undefined;
    const scratch = await Scratch.make();
    let engine: SqliteEngine | undefined;
    try {
      engine = new SqliteEngine(this.#database, { readOnly: !repairing });
      return await this.#examineContent(engine, scratch, repairing);
    } catch (cause) {
      if (!isDamage(cause)) throw cause;
      this.#damaged(this.#database, messageOf(cause));
      return undefined;
    } finally {
      engine?.close();
      await scratch.remove();
    }
  }

  async #examineContent(
    engine: SqliteEngine,
    scratch: Scratch,
    repairing: boolean,
  ): Promise<LogSize> {
    const { dataDir } = this;
    const report = this.#report;
    await examineKeys(dataDir, engine.lastCheckpoint() !== undefined, report);
    const archive = new DirectoryArchiveFiles(archivePath(dataDir));
    const raw = new SpanningLog(rawLog(engine), archive, (damaged) => {
      report({
        kind: "archive",
        where: `${archivePath(dataDir)}/${damaged.file}`,
        what: damaged.why,
        means: "what it held of messages that finished long ago cannot be shown or proved",
        remedy: "put the file back from a backup",
      });
    });
    const size = await examineLog(raw, await this.#publicKey(), report);
    examineStreams(engine, this.options.beginFold, scratch, size, report);

    const projections = PROJECTIONS.filter((projection) => inStep(engine.db, projection));
    for (const { name } of PROJECTIONS.filter((one) => !projections.includes(one))) {
      report({
        kind: "projection",
        where: name,
        what: "is of another version, or its rebuild was cut short",
        means: "the next start builds it from the log",
        note: true,
      });
    }
    await scratch.rebuild(engine, projections);
    for (const projection of projections) {
      if (repairing) repairProjection(engine.db, projection, scratch);
      examineProjection(engine.db, projection, scratch, report);
    }
    if (projections.some(({ body }) => body !== undefined)) {
      const sure = !scratch.anyBroken;
      if (repairing) await repairBodies(engine.db, dataDir, sure);
      await examineBodies(engine.db, dataDir, sure, report);
    }
    return size;
  }

  /** Whether the database can be read on; indexes are made anew if asked. */
  async #examineDatabase(repairing: boolean): Promise<boolean> {
    let findings;
    try {
      findings = (await Deno.stat(this.#database)).size === 0
        ? [{ where: this.#database, what: "is empty" }]
        : await checkDatabase(this.#database, THOROUGH);
    } catch (cause) {
      this.#damaged(this.#database, messageOf(cause));
      return false;
    }
    let readable = true;
    for (const { where, what, foreign, index } of findings) {
      if (index) {
        this.#report({
          kind: "database",
          where,
          what,
          means: "messages can be overlooked: an index does not agree with its table",
          repair: "make the indexes anew",
        });
      } else if (foreign) {
        this.#report({
          kind: "schema",
          where,
          what,
          means: "somebody changed the tables; nobody knows how this program fares on them",
          remedy: FROM_BACKUP,
        });
      } else {
        readable = false;
        this.#damaged(where, what);
      }
    }
    if (readable && repairing && findings.some(({ index }) => index)) this.#reindex();
    return readable;
  }

  #reindex(): void {
    const engine = new SqliteEngine(this.#database);
    try {
      engine.db.exec("REINDEX");
    } finally {
      engine.close();
    }
  }

  #damaged(where: string, what: string): void {
    this.#report({
      kind: "database",
      where,
      what,
      means: "the server does not start on it, and what it holds cannot be trusted",
      remedy: FROM_BACKUP,
    });
  }

  async #publicKey(): Promise<KeyObject | undefined> {
    try {
      return await loadPublicKey(publicKeyPath(this.dataDir));
    } catch {
      return undefined; // reported with the keys
    }
  }
}

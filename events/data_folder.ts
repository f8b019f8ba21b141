/**
 * The data folder: made with mode 0700, and held by one queue at a time through a lock on
 * `serve.lock`, which the system drops with the process, however it ends.
 */

/** The data folder cannot be used; the message says why and what to do. */
export class DataFolderError extends Error {
  override readonly name = "DataFolderError";
}

export const databasePath = (dataDir: string): string => `${dataDir}/postledger.db`;
export const bodiesPath = (dataDir: string): string => `${dataDir}/bodies`;
export const keyPath = (dataDir: string): string => `${dataDir}/checkpoint.key`;
export const lockPath = (dataDir: string): string => `${dataDir}/serve.lock`;

/** Makes the folder and, in it, that of the bodies. What is there already stays as it is. */
export async function makeDataFolder(dataDir: string): Promise<void> {
  try {
    await Deno.mkdir(bodiesPath(dataDir), { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw new DataFolderError(`data folder ${dataDir}: cannot be made: ${why(cause)}`, { cause });
  }
}

/**
 * Takes the folder for this process until the returned function is called.
 * @throws DataFolderError naming the process that has it
 */
export async function lockDataFolder(dataDir: string): Promise<() => void> {
  const path = lockPath(dataDir);
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path, { read: true, write: true, create: true, mode: 0o600 });
  } catch (cause) {
    throw new DataFolderError(`data folder ${dataDir}: ${path}: ${why(cause)}`, { cause });
  }
  if (!await file.tryLock(true)) {
    file.close();
    const pid = (await Deno.readTextFile(path)).trim();
    throw new DataFolderError(
      `data folder ${dataDir} is in use by another queue${pid ? ` (process ${pid})` : ""}; ` +
        `stop that one first or choose another folder`,
    );
  }
  await file.truncate();
  await file.write(new TextEncoder().encode(`${Deno.pid}\n`));
  return () => file.close();
}

/** Makes names durable: a file that was made or renamed is on disk when its directory is. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await Deno.open(path);
  try {
    await directory.sync();
  } finally {
    directory.close();
  }
}

const why = (cause: unknown): string => cause instanceof Error ? cause.message : String(cause);

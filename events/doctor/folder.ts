/**
 * The folder as the file system shows it: who may read it, whose it is, what lies about in it, the
 * keys, and the room that is left.
 */
import { createPublicKey } from "node:crypto";
import { statfsSync } from "node:fs";
import { loadKey, loadPublicKey, publicKeyPath, writePublicKey } from "../checkpoint_key.ts";
import { bodiesPath, databasePath, keyPath } from "../data_folder.ts";
import { messageOf } from "../decode.ts";
import type { Report } from "./finding.ts";

/** Octets below which a disk counts as all but full. */
const LITTLE_ROOM = 128 * 1024 * 1024;
/** What nobody but the owner may read, beside the folder itself and that of the bodies. */
const SECRETS = ["postledger.db", "postledger.db-wal", "postledger.db-shm", "checkpoint.key"];
/** Scratch names: of a key that is being written, of a copy that is being made. */
const LEFTOVER = /^(checkpoint\.(key|pub)\.new|(backup|probe)-[0-9a-f-]+|postledger\.db-journal)$/;
const OTHERS = ["checkpoint.pub", "serve.lock", "bodies", "archive"];

/** Files in the folder that are not the store's, and are known to whoever runs the doctor. */
export interface OtherFiles {
  /** Nobody but the owner may read these. */
  readonly secret: readonly string[];
  readonly open: readonly string[];
}

export async function examineFolder(
  dataDir: string,
  others: OtherFiles,
  report: Report,
): Promise<void> {
  const folder = await Deno.stat(dataDir);
  const expected = new Set([...SECRETS, ...OTHERS, ...others.secret, ...others.open]);
  for (const path of [dataDir, bodiesPath(dataDir), ...SECRETS.map((n) => `${dataDir}/${n}`)]) {
    await examineMode(path, report);
  }
  for (const name of others.secret) {
    await examineMode(
      `${dataDir}/${name}`,
      report,
      "others may have read the secrets in it: replace them",
    );
  }
  for await (const { name, isDirectory } of Deno.readDir(dataDir)) {
    const path = `${dataDir}/${name}`;
    const { uid } = await Deno.lstat(path);
    if (uid !== folder.uid) {
      report({
        kind: "folder",
        where: path,
        what: `belongs to user ${uid}, the folder to user ${folder.uid}`,
        means: "the server may not be able to use it; a command was run as another user",
        remedy: `chown -R ${folder.uid} ${dataDir}`,
      });
    }
    if (LEFTOVER.test(name) && name !== "postledger.db-journal") {
      report({
        kind: "orphan",
        where: path,
        what: "was left behind by a start or a backup that was cut short",
        means: "it takes room and nothing else",
        repair: "remove it",
      });
    } else if (!expected.has(name)) {
      report({
        kind: "folder",
        where: path,
        what: `is a ${isDirectory ? "folder" : "file"} that no version of this program makes`,
        means: "it is left alone",
        note: true,
      });
    }
  }
  examineSpace(dataDir, report);
}

async function examineMode(
  path: string,
  report: Report,
  means = path.endsWith(".key")
    ? "whoever read it can sign checkpoints; treat its signatures as void if somebody did"
    : "mail, and what happened to it, can be read by others on this machine",
): Promise<void> {
  const mode = await modeOf(path);
  if (mode === undefined || (mode & 0o077) === 0) return;
  report({
    kind: "folder",
    where: path,
    what: `has mode ${mode.toString(8)}: others can get at it`,
    means,
    repair: "take the rights of group and others away",
  });
}

/** The keys, and that one is the other's half. */
export async function examineKeys(
  dataDir: string,
  haveCheckpoints: boolean,
  report: Report,
): Promise<void> {
  if (await modeOf(keyPath(dataDir)) === undefined) {
    if (!haveCheckpoints) return;
    report({
      kind: "folder",
      where: keyPath(dataDir),
      what: "is missing, but the log has checkpoints that were signed with it",
      means: "the server does not start: nobody could tell its checkpoints from forged ones",
      remedy: "put it back from a backup",
    });
    return;
  }
  let mine: string;
  try {
    mine = spki(createPublicKey(await loadKey(dataDir, true, { makePublic: false })));
  } catch (cause) {
    const what = messageOf(cause);
    if (/can be read by others/.test(what)) return; // said already, by its mode
    report({
      kind: "folder",
      where: keyPath(dataDir),
      what,
      means: "the server does not start",
      remedy: "put it back from a backup",
    });
    return;
  }
  let published: string | undefined;
  try {
    published = spki(await loadPublicKey(publicKeyPath(dataDir)));
  } catch {
    // Missing or no key: either way it is not the one.
  }
  if (published === mine) return;
  report({
    kind: "folder",
    where: publicKeyPath(dataDir),
    what: "is not the public half of checkpoint.key",
    means: "whoever verifies an export with it is told that it was forged",
    repair: "write it anew from checkpoint.key",
  });
}

function examineSpace(dataDir: string, report: Report): void {
  const { bavail, bsize, files, ffree } = statfsSync(dataDir);
  if (bavail * bsize < LITTLE_ROOM || (files > 0 && ffree < 1000)) {
    report({
      kind: "space",
      where: dataDir,
      what: `${Math.floor((bavail * bsize) / 1_048_576)} MiB and ${ffree} files fit on its disk`,
      means: "new mail is turned away with 452 when the disk is full; nothing is lost",
      remedy: "make room",
    });
  }
}

/** Closes what others can read, removes what was left behind, writes the public key anew. */
export async function repairFolder(dataDir: string, others: OtherFiles): Promise<void> {
  const secrets = [...SECRETS, ...others.secret].map((name) => `${dataDir}/${name}`);
  for (const path of [dataDir, bodiesPath(dataDir), ...secrets]) {
    const mode = await modeOf(path);
    if (mode !== undefined && (mode & 0o077) !== 0) await Deno.chmod(path, mode & 0o700);
  }
  for await (const { name } of Deno.readDir(dataDir)) {
    if (LEFTOVER.test(name) && name !== "postledger.db-journal") {
      await Deno.remove(`${dataDir}/${name}`, { recursive: true });
    }
  }
  if (await modeOf(keyPath(dataDir)) === undefined) return;
  try {
    const key = createPublicKey(await loadKey(dataDir, true, { makePublic: false }));
    await writePublicKey(dataDir, key);
  } catch {
    // No key that could be used: reported, and nothing to repair it from.
  }
}

async function modeOf(path: string): Promise<number | undefined> {
  try {
    const { mode } = await Deno.stat(path);
    return mode === null ? 0 : mode & 0o777;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

const spki = (key: ReturnType<typeof createPublicKey>): string =>
  String(key.export({ type: "spki", format: "pem" }));

/** Whether there is a database at all. */
export const haveDatabase = async (dataDir: string): Promise<boolean> =>
  await modeOf(databasePath(dataDir)) !== undefined;

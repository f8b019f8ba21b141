/**
 * The installation's Ed25519 key (RFC 8410, PKCS #8 PEM, mode 0600), which signs checkpoints. Its
 * public half lies beside it in `checkpoint.pub`, to be handed to whoever verifies an export.
 */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
} from "node:crypto";
import { DataFolderError, keyPath } from "./data_folder.ts";

export const publicKeyPath = (dataDir: string): string => `${dataDir}/checkpoint.pub`;

/**
 * Loads the key, or makes one where there are no checkpoints yet. A public half that is missing is
 * written, unless `makePublic` is false.
 * @throws DataFolderError when the key is missing, unreadable, or readable by others
 */
export async function loadKey(
  dataDir: string,
  haveCheckpoints: boolean,
  { makePublic = true } = {},
): Promise<KeyObject> {
  const path = keyPath(dataDir);
  let pem: string;
  try {
    const { mode } = await Deno.stat(path);
    if (mode !== null && (mode & 0o077) !== 0) {
      throw new DataFolderError(
        `${path} can be read by others (mode ${(mode & 0o777).toString(8)}); ` +
          `run "chmod 600 ${path}", and if others did read it, treat its signatures as void`,
      );
    }
    pem = await Deno.readTextFile(path);
  } catch (cause) {
    if (!(cause instanceof Deno.errors.NotFound)) throw cause;
    if (haveCheckpoints) {
      throw new DataFolderError(
        `${path} is missing, but the log has checkpoints signed with it; put it back from a ` +
          `backup of the data folder`,
      );
    }
    return await makeKey(dataDir);
  }
  const key = parse(path, () => createPrivateKey(pem));
  if (makePublic && !await isThere(publicKeyPath(dataDir))) {
    await writePublicKey(dataDir, createPublicKey(key));
  }
  return key;
}

/** The public key, for verifying. @throws DataFolderError when there is none */
export async function loadPublicKey(path: string): Promise<KeyObject> {
  let pem: string;
  try {
    pem = await Deno.readTextFile(path);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new DataFolderError(`public key ${path}: ${why}`, { cause });
  }
  return parse(path, () => createPublicKey(pem));
}

async function makeKey(dataDir: string): Promise<KeyObject> {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  await writePublicKey(dataDir, publicKey);
  await writeDurably(
    keyPath(dataDir),
    String(privateKey.export({ type: "pkcs8", format: "pem" })),
    0o600,
  );
  return privateKey;
}

/** Writes the public half, durably. */
export async function writePublicKey(dataDir: string, key: KeyObject): Promise<void> {
  const pem = String(key.export({ type: "spki", format: "pem" }));
  await writeDurably(publicKeyPath(dataDir), pem, 0o644);
}

async function isThere(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Under another name first: a key that was half written must not stand in the way of a start. */
async function writeDurably(path: string, text: string, mode: number): Promise<void> {
  const temporary = `${path}.new`;
  await Deno.remove(temporary).catch(() => {});
  const file = await Deno.open(temporary, { write: true, createNew: true, mode });
  try {
    const octets = new TextEncoder().encode(text);
    for (let done = 0; done < octets.length;) done += await file.write(octets.subarray(done));
    await file.sync();
  } finally {
    file.close();
  }
  await Deno.rename(temporary, path);
}

function parse(path: string, read: () => KeyObject): KeyObject {
  try {
    const key = read();
    if (key.asymmetricKeyType === "ed25519") return key;
  } catch {
    // Reported below.
  }
  throw new DataFolderError(`${path} is not an Ed25519 key in PEM; put it back from a backup`);
}

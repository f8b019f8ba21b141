/**
 * The secret behind made-up credentials: what an unknown name is shown must stay the same over
 * restarts, or it could be told from a known one. Made at the first start, kept in the data folder.
 */
import { randomBytes } from "node:crypto";
import { join } from "node:path";

export const SECRET_FILE = "login-secret";
const OCTETS = 32;

/** @throws Error naming the file when it cannot be used as it is */
export function openLoginSecret(dataDir: string): Uint8Array {
  const file = join(dataDir, SECRET_FILE);
  try {
    return readSecret(file);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  const secret = new Uint8Array(randomBytes(OCTETS));
  try {
    using handle = Deno.openSync(file, { write: true, createNew: true, mode: 0o600 });
    for (let at = 0; at < secret.length;) at += handle.writeSync(secret.subarray(at));
    handle.syncSync();
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) return readSecret(file);
    throw error;
  }
  return secret;
}

function readSecret(file: string): Uint8Array {
  const secret = Deno.readFileSync(file);
  if (secret.length === OCTETS) return secret;
  throw new Error(
    `${file} has ${secret.length} octets, not ${OCTETS}; remove it, and a new one is made`,
  );
}

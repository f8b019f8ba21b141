/**
 * The API token: made on the first start, kept in the data folder, and asked for with
 * `Authorization: Bearer …` (RFC 6750, section 2.1).
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { join } from "node:path";

export const TOKEN_FILE = "api-token";

/** 256 bits; base64url needs no quoting anywhere. */
const TOKEN_OCTETS = 32;
const TOKEN = /^[A-Za-z0-9._~+/=-]{32,512}$/;

/** The token file cannot be used as it is. */
export class BadTokenFile extends Error {
  override readonly name = "BadTokenFile";
}

/**
 * Reads the token of a data folder, making it where there is none.
 * @throws BadTokenFile when others may read the file or it holds no token
 */
export function openToken(dataDir: string): string {
  const file = join(dataDir, TOKEN_FILE);
  try {
    return readToken(file);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  const token = randomBytes(TOKEN_OCTETS).toString("base64url");
  try {
    // createNew: the mode is that of a file that was not there before.
    using handle = Deno.openSync(file, { write: true, createNew: true, mode: 0o600 });
    const octets = new TextEncoder().encode(`${token}\n`);
    for (let at = 0; at < octets.length;) at += handle.writeSync(octets.subarray(at));
    handle.syncSync();
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) return readToken(file);
    throw error;
  }
  return token;
}

function readToken(file: string): string {
  const { mode, isFile } = Deno.statSync(file);
  if (!isFile) throw new BadTokenFile(`${file} is not a file; remove it and start again`);
  if (mode !== null && (mode & 0o077) !== 0) {
    const shown = (mode & 0o777).toString(8).padStart(4, "0");
    throw new BadTokenFile(
      `${file} has mode ${shown}, so others may have read the token; ` +
        "remove it, and a new one is made at the next start",
    );
  }
  const token = Deno.readTextFileSync(file).trim();
  if (!TOKEN.test(token)) {
    throw new BadTokenFile(
      `${file} holds no token of at least 32 characters; remove it, and a new one is made`,
    );
  }
  return token;
}

const digest = (text: string): Uint8Array => createHash("sha256").update(text).digest();

/** Whether an Authorization header carries the token; takes the same time whatever it carries. */
export function tokenGuard(token: string): (authorization: string | null) => boolean {
  const expected = digest(token);
  return (authorization) => {
    const [, given] = /^Bearer +([^ ]+) *$/i.exec(authorization ?? "") ?? [];
    return timingSafeEqual(digest(given ?? ""), expected);
  };
}

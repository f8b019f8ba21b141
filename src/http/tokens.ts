/**
 * API tokens: who may ask for what. The token of the data folder (api-token) may do everything;
 * those in `tokens.json` have scopes, and an account that they are bound to where they have one.
 *
 * A token is 256 random bits, so its SHA-256 is kept: nothing slow is needed against guessing, and
 * finding it by its hash tells an attacker's clock nothing about the token.
 */
import { createHash, randomBytes } from "node:crypto";
import { join } from "node:path";
import { z } from "zod";
import { tokenGuard } from "./api_token.ts";
import { type Principal, type Scope, SCOPES } from "./operation.ts";

export const TOKENS_FILE = "tokens.json";

/** What a token may be called, in the log too: `who` of an act. */
export const TOKEN_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

const StoredToken = z.strictObject({
  name: z.string().regex(TOKEN_NAME),
  /** Null: all accounts. */
  account: z.string().min(1).nullable(),
  scopes: z.array(z.enum(SCOPES)).min(1),
  /** SHA-256 over the token, hex. */
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  created: z.string(),
});
export type StoredToken = z.output<typeof StoredToken>;
const TokensFile = z.strictObject({ tokens: z.array(StoredToken).max(100_000) });

/** The file of tokens cannot be used as it is. */
export class BadTokensFile extends Error {
  override readonly name = "BadTokensFile";
}

const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");

/** @throws BadTokensFile when others may write it, or it holds something else */
export function readTokens(dataDir: string): StoredToken[] {
  const file = join(dataDir, TOKENS_FILE);
  let text: string;
  try {
    const { mode } = Deno.statSync(file);
    if (mode !== null && (mode & 0o077) !== 0) {
      throw new BadTokensFile(`${file} is open to others than its owner: chmod 600 it`);
    }
    text = Deno.readTextFileSync(file);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
  try {
    return TokensFile.parse(JSON.parse(text)).tokens;
  } catch {
    throw new BadTokensFile(`${file} does not hold tokens; put it back from a backup`);
  }
}

/** Replaces the file as a whole: a reader sees the old one or the new one. */
export function writeTokens(dataDir: string, tokens: readonly StoredToken[]): void {
  const file = join(dataDir, TOKENS_FILE);
  const beside = `${file}.new`;
  const handle = Deno.openSync(beside, { write: true, create: true, truncate: true, mode: 0o600 });
  try {
    Deno.chmodSync(beside, 0o600); // `mode` is not that of a file which was left there
    const octets = new TextEncoder().encode(JSON.stringify({ tokens }, null, 2) + "\n");
    for (let at = 0; at < octets.length;) at += handle.writeSync(octets.subarray(at));
    handle.syncSync();
  } finally {
    handle.close();
  }
  Deno.renameSync(beside, file);
}

/** A new token, which is shown once, and what is kept of it. */
export function newToken(
  of: { readonly name: string; readonly account: string | null; readonly scopes: readonly Scope[] },
  created: string,
): { readonly token: string; readonly stored: StoredToken } {
  const token = randomBytes(32).toString("base64url");
  return { token, stored: { ...of, scopes: [...of.scopes], sha256: sha256(token), created } };
}

/** Who a request comes from, by its Authorization header; undefined: nobody that is known. */
export type Authenticate = (authorization: string | null) => Principal | undefined;

export const OPERATOR: Principal = {
  name: "operator",
  account: null,
  scopes: new Set(SCOPES),
};

/**
 * Tells who a token belongs to. The file is read again when it has changed, so that a token which
 * was revoked is refused from the next request on; while it cannot be read, no token of it counts.
 * @param apiToken the token of the data folder
 * @param complain is told once when the file cannot be used
 */
export function authenticator(
  apiToken: string,
  dataDir: string,
  complain: (why: string) => void,
): Authenticate {
  const isOperator = tokenGuard(apiToken);
  let known = new Map<string, Principal>();
  let seen = "";
  const refresh = () => {
    const now = stateOf(join(dataDir, TOKENS_FILE));
    if (now === seen) return;
    seen = now;
    try {
      known = new Map(
        readTokens(dataDir).map(({ name, account, scopes, sha256 }) => [
          sha256,
          {
            name: account === null ? name : `${account}/${name}`,
            account,
            scopes: new Set(scopes),
          },
        ]),
      );
    } catch (error) {
      known = new Map();
      complain(error instanceof Error ? error.message : String(error));
    }
  };
  return (authorization) => {
    if (isOperator(authorization)) return OPERATOR;
    const [, token] = /^Bearer +([^ ]{1,512}) *$/i.exec(authorization ?? "") ?? [];
    if (token === undefined) return undefined;
    refresh();
    return known.get(sha256(token));
  };
}

/** Changes when the file does: each change puts another file in its place. */
function stateOf(file: string): string {
  try {
    const { ino, mtime, size, mode } = Deno.statSync(file);
    return `${ino} ${mtime?.getTime()} ${size} ${mode}`;
  } catch {
    return "none";
  }
}

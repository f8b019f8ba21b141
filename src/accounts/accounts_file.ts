/**
 * The accounts file, `accounts.toml` in the data folder: accounts as in a config, without routes,
 * written by `account add` and `account password`, mode 0600. Written anew as a whole and put in
 * place with a rename, so that a reader never sees half of it.
 */
import { join } from "node:path";
import { parse, stringify, TomlError } from "smol-toml";
import { z } from "zod";
import { syncDirectory } from "../../events/data_folder.ts";
import { AccountEntry, accountsOf } from "../config/accounts.ts";
import { describeIssue, formatProblem, type Problem, problemsOf } from "../config/problems.ts";
import type { AccountConfig } from "../config/types.ts";

export const ACCOUNTS_FILE = "accounts.toml";
export const LOCK_FILE = "accounts.lock";

const HEADER =
  `# Accounts made with "deno task account". The running queue takes changes up by itself.
# Comments are lost when the command writes the file anew.

`;

/** The accounts file cannot be used; a line for each problem. */
export class BadAccountsFile extends Error {
  override readonly name = "BadAccountsFile";
  constructor(readonly lines: readonly string[]) {
    super(lines.join("; "));
  }
}

const File = z.strictObject({ accounts: z.record(z.string(), AccountEntry).default({}) });

/** The settings of an account as the file has them. */
export type AccountTable = Record<string, unknown>;

export const accountsPath = (dataDir: string): string => join(dataDir, ACCOUNTS_FILE);

/**
 * The accounts in the file; none where there is no file.
 * @throws BadAccountsFile
 */
export function readAccounts(dataDir: string): AccountConfig[] {
  return checked(accountsPath(dataDir), readTree(dataDir));
}

/**
 * Changes the accounts in the file. `change` gets the tables by name and alters them; nobody else
 * writes meanwhile. What it throws leaves the file as it was.
 * @throws BadAccountsFile when the file cannot be used, before the change or after it
 */
export async function changeAccounts(
  dataDir: string,
  change: (accounts: Record<string, AccountTable>) => void,
): Promise<void> {
  using lock = await Deno.open(join(dataDir, LOCK_FILE), {
    write: true,
    create: true,
    mode: 0o600,
  });
  await lock.lock(true);
  const path = accountsPath(dataDir);
  const tree = readTree(dataDir);
  checked(path, tree);
  const accounts = (tree.accounts ?? {}) as Record<string, AccountTable>;
  change(accounts);
  checked(path, { accounts });
  const fresh = `${path}.new`;
  await Deno.remove(fresh).catch(() => {});
  {
    // createNew: the mode is that of a file that was not there before.
    using file = await Deno.open(fresh, { write: true, createNew: true, mode: 0o600 });
    const octets = new TextEncoder().encode(HEADER + stringify({ accounts }));
    for (let at = 0; at < octets.length;) at += await file.write(octets.subarray(at));
    await file.sync();
  }
  await Deno.rename(fresh, path);
  await syncDirectory(dataDir);
}

function readTree(dataDir: string): Record<string, unknown> {
  const path = accountsPath(dataDir);
  try {
    return parse(Deno.readTextFileSync(path));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return {};
    if (error instanceof TomlError) {
      const [why] = error.message.replace(/^Invalid TOML document: /, "").split("\n");
      throw new BadAccountsFile([`${path}:${error.line}:${error.column}: not TOML: ${why}`]);
    }
    throw new BadAccountsFile([
      `${path} cannot be read: ${error instanceof Error ? error.message : String(error)}`,
    ]);
  }
}

function checked(path: string, tree: Record<string, unknown>): AccountConfig[] {
  const parsed = File.safeParse(tree, { error: describeIssue });
  const problems: Problem[] = parsed.success ? [] : problemsOf(parsed.error);
  const accounts = parsed.success ? accountsOf(parsed.data.accounts, problems) : [];
  if (problems.length === 0) return accounts;
  throw new BadAccountsFile(
    problems.map((problem) => `${path}: ${formatProblem(problem, tree).replace(/^config: /, "")}`),
  );
}

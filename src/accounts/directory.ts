/**
 * AccountDirectory: the accounts in force, from the config and from the accounts file. The file is
 * looked at whenever somebody logs in, so that a new password holds at once, and read again when it
 * has changed; one that is wrong leaves the accounts as they are, and the log says so.
 */
import type { Clock, Log } from "../../actors/ports.ts";
import { loginsOf } from "../config/accounts.ts";
import { canonicalDomain } from "../config/domain_pattern.ts";
import type { AccountConfig } from "../config/types.ts";
import { accountsPath, BadAccountsFile, readAccounts } from "./accounts_file.ts";
import { FileWatch } from "../file_watch.ts";

interface Ports {
  readonly clock: Clock;
  readonly log: Log;
}

export class AccountDirectory {
  readonly #log: Log;
  readonly #dataDir: string;
  readonly #watch: FileWatch;
  #configured: readonly AccountConfig[];
  #byName: ReadonlyMap<string, AccountConfig>;
  /** By address; undefined where two accounts have it. */
  #byAddress: ReadonlyMap<string, AccountConfig | undefined>;

  /** @throws BadAccountsFile when the accounts file is wrong, or repeats one of the config */
  constructor(dataDir: string, configured: readonly AccountConfig[], { clock, log }: Ports) {
    this.#log = log;
    this.#dataDir = dataDir;
    this.#configured = configured;
    this.#watch = new FileWatch([accountsPath(dataDir)], clock, 0);
    const accounts = joined(dataDir, configured, readAccounts(dataDir));
    this.#byName = byName(accounts);
    this.#byAddress = byAddress(accounts);
  }

  get size(): number {
    return this.#byName.size;
  }

  get(name: string): AccountConfig | undefined {
    return this.#byName.get(name);
  }

  /** The account that logs in with this: its name, or an address that no other account has. */
  find(login: string): AccountConfig | undefined {
    if (this.#watch.changed()) this.#readAgain(this.#configured);
    return this.#byName.get(login) ?? this.#byAddress.get(canonical(login));
  }

  /**
   * Puts the accounts of a new config in force, and what the file holds now.
   * @throws BadAccountsFile; the accounts stay as they are then
   */
  use(configured: readonly AccountConfig[]): void {
    const accounts = joined(this.#dataDir, configured, readAccounts(this.#dataDir));
    this.#configured = configured;
    this.#byName = byName(accounts);
    this.#byAddress = byAddress(accounts);
  }

  #readAgain(configured: readonly AccountConfig[]): void {
    try {
      this.use(configured);
      this.#log.info("accounts read again", { accounts: this.size });
    } catch (error) {
      const lines = error instanceof BadAccountsFile ? error.lines : [String(error)];
      for (const line of lines) this.#log.error(line);
      this.#log.error("accounts not read again; those from before stay in force");
    }
  }
}

/** An address as `loginOf` spells it. */
function canonical(login: string): string {
  const at = login.lastIndexOf("@");
  if (at < 0) return login;
  const localPart = login.slice(0, at).normalize("NFC").toLowerCase();
  return `${localPart}@${canonicalDomain(login.slice(at + 1))}`;
}

function joined(
  dataDir: string,
  configured: readonly AccountConfig[],
  inFile: readonly AccountConfig[],
): AccountConfig[] {
  const names = new Set(configured.map(({ name }) => name));
  const twice = inFile.filter(({ name }) => names.has(name));
  if (twice.length > 0) {
    throw new BadAccountsFile(
      twice.map(({ name }) =>
        `${accountsPath(dataDir)}: account ${name} stands in the config too; remove one of them`
      ),
    );
  }
  return [...configured, ...inFile];
}

const byName = (accounts: readonly AccountConfig[]) =>
  new Map(accounts.map((account) => [account.name, account]));

function byAddress(accounts: readonly AccountConfig[]) {
  const map = new Map<string, AccountConfig | undefined>();
  for (const account of accounts) {
    for (const login of new Set(loginsOf(account))) {
      map.set(login, map.has(login) ? undefined : account);
    }
  }
  return map;
}

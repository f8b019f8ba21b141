/**
 * `deno task account`: who may submit. Accounts that are made here stand in `accounts.toml` in the
 * data folder; those of the config are listed too, and changed there.
 */
import { randomBytes } from "node:crypto";
import { changeAccounts, readAccounts } from "../accounts/accounts_file.ts";
import { parseAddressPattern } from "../accounts/address_pattern.ts";
import { newPassword, objectionTo } from "../accounts/password.ts";
import { makeDataFolder } from "../../events/data_folder.ts";
import { isAccountName } from "../config/accounts.ts";
import type { AccountConfig } from "../config/types.ts";
import {
  type CredentialCost,
  DEFAULT_COST,
  deriveCredentials,
  serializeCredentials,
} from "../smtp/sasl/credentials.ts";
import {
  type Command,
  CommandError,
  DATA_OPTIONS,
  JSON_OPTION,
  type Parsed,
  processTerminal,
  runOneOf,
  UsageError,
} from "./command.ts";
import { configOf, DEFAULT_DATA } from "./data.ts";
import { type PasswordInput, processPasswordInput, readPassword } from "./password_input.ts";
import { json, table, type Terminal, visible } from "./terminal.ts";

const PASSWORD_OPTIONS = {
  "password-stdin": { about: "read the password from the first line of standard input" },
  generate: { about: "make a password, and print it once" },
} as const;

/** The accounts of the config, and where the others are kept. */
function open(parsed: Parsed) {
  const config = configOf(parsed);
  const dataDir = parsed.value("data") ?? config?.dataDir ?? DEFAULT_DATA;
  return { config, dataDir, configured: config?.accounts ?? [] };
}

function add(input: PasswordInput, cost: CredentialCost): Command {
  return {
    usage: {
      name: "account add",
      synopsis: "NAME --address ADDRESS",
      about: "Makes an account. It logs in with its name, or with an address of its own.",
      maxArguments: 1,
      options: {
        address: {
          value: "LIST",
          about: "what it may send as: alice@example.com, or @example.com for all of it; " +
            "several with commas between",
        },
        ...PASSWORD_OPTIONS,
        ...DATA_OPTIONS,
      },
    },
    async run(parsed, terminal) {
      const name = nameOf(parsed);
      const addresses = addressesOf(parsed);
      const { dataDir, configured } = open(parsed);
      if ([...configured, ...readAccounts(dataDir)].some((account) => account.name === name)) {
        throw new CommandError(`there is an account ${visible(name)} already`);
      }
      const password = await passwordFor(name, parsed, input);
      const hash = await hashOf(password.text, cost);
      await makeDataFolder(dataDir);
      await changeAccounts(dataDir, (accounts) => {
        if (Object.hasOwn(accounts, name)) {
          throw new CommandError(`there is an account ${visible(name)} already`);
        }
        accounts[name] = { addresses, password_hash: hash };
      });
      terminal.err(`account ${visible(name)} added\n`);
      if (password.made) terminal.out(`${password.text}\n`);
      return 0;
    },
  };
}

function password(input: PasswordInput, cost: CredentialCost): Command {
  return {
    usage: {
      name: "account password",
      synopsis: "NAME",
      about: "Gives an account another password. For an account of the config it prints the line " +
        "to put there.",
      maxArguments: 1,
      options: { ...PASSWORD_OPTIONS, ...DATA_OPTIONS },
    },
    async run(parsed, terminal) {
      const name = nameOf(parsed);
      const { config, dataDir, configured } = open(parsed);
      const inConfig = configured.some((account) => account.name === name);
      if (!inConfig && !readAccounts(dataDir).some((account) => account.name === name)) {
        throw new CommandError(
          `there is no account ${visible(name)} in ${dataDir}; "account add" makes one`,
        );
      }
      const password = await passwordFor(name, parsed, input);
      const hash = await hashOf(password.text, cost);
      if (inConfig) {
        terminal.err(`put this under the account ${visible(name)} in ${config?.file}:\n`);
        terminal.out(`password_hash = "${hash}"\n`);
        if (password.made) terminal.err(`the password is ${password.text}\n`);
        return 0;
      }
      await changeAccounts(dataDir, (accounts) => {
        const account = accounts[name];
        if (!account) throw new CommandError(`the account ${visible(name)} is gone`);
        account.password_hash = hash;
      });
      terminal.err(`account ${visible(name)} has another password\n`);
      if (password.made) terminal.out(`${password.text}\n`);
      return 0;
    },
  };
}

const list: Command = {
  usage: {
    name: "account list",
    synopsis: "",
    about: "Shows the accounts, of the config and of the data folder. Nothing of their passwords.",
    maxArguments: 0,
    options: { ...DATA_OPTIONS, ...JSON_OPTION },
  },
  run(parsed, terminal) {
    const { dataDir, configured } = open(parsed);
    const accounts = [
      ...configured.map((account) => shown(account, "config")),
      ...readAccounts(dataDir).map((account) => shown(account, "data folder")),
    ];
    if (parsed.has("json")) terminal.out(json({ accounts }));
    else if (accounts.length === 0) terminal.err('no accounts; "account add" makes one\n');
    else {
      terminal.out(table(
        [{ title: "NAME" }, { title: "LOGIN" }, { title: "IN" }, { title: "ADDRESSES" }],
        accounts.map(({ name, login, where, addresses }) => [
          name,
          login ? "yes" : "no",
          where,
          addresses.join(", "),
        ]),
      ));
    }
    return 0;
  },
};

/** What may be seen of an account. */
const shown = (
  { name, addresses, credentials, checkHeaderFrom, nullSender, limits }: AccountConfig,
  where: "config" | "data folder",
) => ({
  name,
  where,
  login: credentials !== undefined,
  addresses: addresses.map(({ text }) => text),
  checkHeaderFrom,
  nullSender,
  limits,
});

function nameOf(parsed: Parsed): string {
  const [name] = parsed.positionals;
  if (name === undefined) throw new UsageError("the name of the account is missing");
  if (isAccountName(name)) return name;
  throw new UsageError(`"${name}" is not a name for logins: no spaces, quotes or controls`);
}

function addressesOf(parsed: Parsed): string[] {
  const addresses = parsed.value("address")?.split(",").map((text) => text.trim()) ?? [];
  if (addresses.length === 0) throw new UsageError("--address is missing: what may it send as?");
  for (const address of addresses) {
    if (parseAddressPattern(address)) continue;
    throw new UsageError(
      `--address: "${address}" is not an address; write alice@example.com or @example.com`,
    );
  }
  return addresses;
}

async function passwordFor(
  name: string,
  parsed: Parsed,
  input: PasswordInput,
): Promise<{ readonly text: string; readonly made: boolean }> {
  const fromStdin = parsed.has("password-stdin");
  if (parsed.has("generate")) {
    if (fromStdin) throw new UsageError("--generate and --password-stdin exclude each other");
    return { text: newPassword(), made: true };
  }
  if (!fromStdin && !input.isTerminal) {
    throw new UsageError(
      "there is no terminal to ask for the password; use --password-stdin or --generate",
    );
  }
  const text = await readPassword(input, fromStdin);
  const objection = objectionTo(text, name);
  if (objection) throw new CommandError(`the password is not taken: ${objection}`);
  return { text, made: false };
}

const hashOf = async (password: string, cost: CredentialCost): Promise<string> =>
  serializeCredentials(
    await deriveCredentials(password, (length) => new Uint8Array(randomBytes(length)), cost),
  );

export const run = (
  args: readonly string[],
  terminal: Terminal,
  input: PasswordInput = processPasswordInput,
  cost: CredentialCost = DEFAULT_COST,
): Promise<number> =>
  runOneOf(
    "account",
    { add: add(input, cost), password: password(input, cost), list },
    args,
    terminal,
  );

if (import.meta.main) Deno.exit(await run(Deno.args, processTerminal));

/**
 * `deno task token add|list|revoke`: who may use the API, and for what. Writes a file of the data
 * folder that a running queue reads again by itself.
 */
import { type Scope, SCOPES } from "../http/operation.ts";
import { newToken, readTokens, TOKEN_NAME, writeTokens } from "../http/tokens.ts";
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
import { json, table, type Terminal } from "./terminal.ts";

/** @throws CommandError when there is no such folder: a token in a new one would be for nobody */
function folderOf(parsed: Parsed): string {
  const dataDir = parsed.value("data") ?? configOf(parsed)?.dataDir ?? DEFAULT_DATA;
  try {
    if (Deno.statSync(dataDir).isDirectory) return dataDir;
  } catch {
    // told below
  }
  throw new CommandError(`there is no data folder ${dataDir}; "deno task serve" makes it`);
}

function nameOf(parsed: Parsed): string {
  const [name] = parsed.positionals;
  if (name === undefined) throw new UsageError("the name of the token is missing");
  if (!TOKEN_NAME.test(name)) {
    throw new UsageError(`"${name}" is not a name: letters, digits, dots, dashes and underscores`);
  }
  return name;
}

const add: Command = {
  usage: {
    name: "token add",
    synopsis: "NAME --scopes LIST [options]",
    about: "Makes a token and prints it, once: only its hash is kept.",
    maxArguments: 1,
    options: {
      scopes: { value: "LIST", about: `what it may do, with commas: ${SCOPES.join(",")}` },
      account: { value: "ACCOUNT", about: "bind it to this account and its messages" },
      ...JSON_OPTION,
      ...DATA_OPTIONS,
    },
  },
  run(parsed, terminal) {
    const name = nameOf(parsed);
    const words = parsed.value("scopes")?.split(",").map((word) => word.trim()) ?? [];
    const scopes = words.map((word): Scope => {
      const scope = SCOPES.find((known) => known === word);
      if (scope) return scope;
      throw new UsageError(`--scopes: "${word}" is not one of ${SCOPES.join(", ")}`);
    });
    if (scopes.length === 0) throw new UsageError(`--scopes is missing: ${SCOPES.join(",")}`);
    const dataDir = folderOf(parsed);
    const tokens = readTokens(dataDir);
    if (tokens.some((token) => token.name === name)) {
      throw new CommandError(`there is a token ${name} already; revoke it, or take another name`);
    }
    const account = parsed.value("account") ?? null;
    if (account === "") throw new UsageError("--account: the name is empty");
    const created = new Date(terminal.now()).toISOString();
    const { token, stored } = newToken({ name, account, scopes: [...new Set(scopes)] }, created);
    writeTokens(dataDir, [...tokens, stored]);
    terminal.out(parsed.has("json") ? json({ name, account, scopes, token }) : `${token}\n`);
    return 0;
  },
};

const list: Command = {
  usage: {
    name: "token list",
    synopsis: "[options]",
    about: "Lists the tokens; what they are is not kept.",
    maxArguments: 0,
    options: { ...JSON_OPTION, ...DATA_OPTIONS },
  },
  run(parsed, terminal) {
    const tokens = readTokens(folderOf(parsed));
    if (parsed.has("json")) {
      terminal.out(json({ tokens: tokens.map(({ sha256: _, ...rest }) => rest) }));
    } else if (tokens.length === 0) {
      terminal.out("There are no tokens but that of the data folder, in its file api-token.\n");
    } else {
      const columns = [
        { title: "NAME" },
        { title: "ACCOUNT", most: 40 },
        { title: "SCOPES" },
        { title: "CREATED" },
      ];
      const rows = tokens.map(({ name, account, scopes, created }) => [
        name,
        account ?? "(all)",
        scopes.join(","),
        created,
      ]);
      terminal.out(table(columns, rows));
    }
    return 0;
  },
};

const revoke: Command = {
  usage: {
    name: "token revoke",
    synopsis: "NAME [options]",
    about: "Revokes a token: it is refused from the next request on.",
    maxArguments: 1,
    options: DATA_OPTIONS,
  },
  run(parsed, terminal) {
    const name = nameOf(parsed);
    const dataDir = folderOf(parsed);
    const tokens = readTokens(dataDir);
    const left = tokens.filter((token) => token.name !== name);
    if (left.length === tokens.length) throw new CommandError(`there is no token ${name}`);
    writeTokens(dataDir, left);
    terminal.out(`token ${name} revoked\n`);
    return 0;
  },
};

export const run = (args: readonly string[], terminal: Terminal): Promise<number> =>
  runOneOf("token", { add, list, revoke }, args, terminal);

if (import.meta.main) Deno.exit(await run(Deno.args, processTerminal));

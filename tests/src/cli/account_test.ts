/** `account add`, `password` and `list`, as people and scripts use them. */
import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import { readAccounts } from "../../../src/accounts/accounts_file.ts";
import { LEAST_LENGTH, newPassword, objectionTo } from "../../../src/accounts/password.ts";
import { run } from "../../../src/cli/account.ts";
import type { PasswordInput } from "../../../src/cli/password_input.ts";
import { CHEAP } from "../smtp/accounts.ts";
import {
  parseCredentials,
  serializeCredentials,
  verifyPassword,
} from "../../../src/smtp/sasl/credentials.ts";

const PASSWORD = "correct horse battery";
let folder: string;
beforeEach(async () => {
  folder = await Deno.makeTempDir();
});
afterEach(() => Deno.remove(folder, { recursive: true }));

interface Said {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function account(line: string, input: Partial<PasswordInput> = {}): Promise<Said> {
  let out = "";
  let err = "";
  const code = await run(
    [...line.split(" "), "--data", folder],
    { out: (text) => out += text, err: (text) => err += text, now: () => 0 },
    {
      isTerminal: false,
      ask: () => Promise.reject(new Error("there is nobody to ask")),
      firstLine: () => Promise.reject(new Error("nothing was to be read")),
      ...input,
    },
    CHEAP,
  );
  return { code, out, err };
}

const piped = (text: string) => ({ firstLine: () => Promise.resolve(text) });
const typed = (...texts: string[]) => ({
  isTerminal: true,
  ask: () => Promise.resolve(texts.shift()!),
});
const opens = async (name: string, password: string) =>
  await verifyPassword(
    readAccounts(folder).find((one) => one.name === name)!.credentials!,
    password,
  );

describe("account", () => {
  it("adds with a password from standard input, and never shows it", async () => {
    const added = await account(
      "add alice --address alice@example.com,@example.org --password-stdin",
      piped(PASSWORD),
    );
    assert.deepEqual(added, { code: 0, out: "", err: "account alice added\n" });
    assert.ok(await opens("alice", PASSWORD));
    assert.ok(!await opens("alice", `${PASSWORD}!`));
    assert.ok(!Deno.readTextFileSync(`${folder}/accounts.toml`).includes(PASSWORD));
    const listed = await account("list --json");
    assert.deepEqual(JSON.parse(listed.out).accounts.map((one: { name: string }) => one.name), [
      "alice",
    ]);
    assert.doesNotMatch(listed.out, /SCRAM|scrypt|hash/i);
    assert.match(
      (await account("list")).out,
      /^alice\s+yes\s+data folder\s+alice@example\.com, @ex/m,
    );
  });

  it("asks twice at a terminal", async () => {
    const address = "--address alice@example.com";
    const differing = await account(`add alice ${address}`, typed(PASSWORD, "something else"));
    assert.deepEqual(differing, {
      code: 1,
      out: "",
      err: "postledger: account add: the two were not the same; nothing is changed\n",
    });
    assert.deepEqual(readAccounts(folder), []);
    assert.equal((await account(`add alice ${address}`, typed(PASSWORD, PASSWORD))).code, 0);
    assert.ok(await opens("alice", PASSWORD));
  });

  it("makes a password, prints it once, and gives another later", async () => {
    const { out } = await account("add alice --address alice@example.com --generate");
    assert.match(out, /^[a-z2-9]{5}(?:-[a-z2-9]{5}){3}\n$/);
    assert.ok(await opens("alice", out.trim()));
    const changed = await account("password alice --password-stdin", piped(PASSWORD));
    assert.deepEqual(changed, { code: 0, out: "", err: "account alice has another password\n" });
    assert.ok(await opens("alice", PASSWORD));
    assert.ok(!await opens("alice", out.trim()));
  });

  it("prints the line for an account that stands in the config", async () => {
    await account("add alice --address alice@example.com --generate");
    const [alice] = readAccounts(folder);
    const hash = serializeCredentials(alice!.credentials!);
    const file = `${folder}/mail.toml`;
    Deno.writeTextFileSync(
      file,
      `data_dir = "."\n[accounts.bob]\naddresses = ["bob@example.com"]\npassword_hash = "${hash}"\n`,
    );
    const { code, out } = await account(
      `password bob --password-stdin --config ${file}`,
      piped(PASSWORD),
    );
    assert.equal(code, 0);
    const [, line] = /^password_hash = "(.*)"\n$/.exec(out)!;
    assert.ok(await verifyPassword(parseCredentials(line!), PASSWORD));
    const again = await account(`add bob --address b@example.com --generate --config ${file}`);
    assert.deepEqual([again.code, again.out], [1, ""]);
    assert.match((await account(`list --config ${file}`)).out, /^bob\s+yes\s+config\s/m);
  });

  for (
    const [line, input, code, err] of [
      ["add", {}, 2, /the name of the account is missing/],
      ["add alice", {}, 2, /--address is missing/],
      ["add alice --address alice", {}, 2, /--address: "alice" is not an address/],
      ["add alice --address a@b.example --generate --password-stdin", {}, 2, /exclude each other/],
      ["add alice --address a@b.example", {}, 2, /no terminal to ask/],
      ["add a\u0007b --address a@b.example --generate", {}, 2, /"a\\x07b" is not a name/],
      ["add alice --address a@b.example --password-stdin", piped("short"), 1, /has 5 characters/],
      ["password alice --generate", {}, 1, /there is no account alice in/],
      ["remove alice", {}, 2, /"remove" is not a command/],
    ] as const
  ) {
    it(`${JSON.stringify(line)} fails with one line`, async () => {
      const said = await account(line, input);
      assert.equal(said.code, code);
      assert.equal(said.out, "");
      assert.match(said.err, err);
      assert.equal(said.err.trimEnd().split("\n").length, 1);
      assert.deepEqual(readAccounts(folder), []);
    });
  }
});

describe("passwords", () => {
  it("are long, varied, and not the name", () => {
    assert.equal(objectionTo(PASSWORD, "alice"), undefined);
    assert.match(objectionTo("x".repeat(LEAST_LENGTH - 1), "alice")!, /characters/);
    assert.match(objectionTo("ababababababab", "alice")!, /repeats/);
    assert.match(objectionTo("Alice in wonderland", "alice")!, /name/);
    assert.match(objectionTo("🐎".repeat(11), "alice")!, /has 11 characters/);
    assert.equal(objectionTo(newPassword(), "alice"), undefined);
    assert.notEqual(newPassword(), newPassword());
  });
});

/** The accounts file, written by the command and by people, and the accounts in force. */
import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import { join } from "node:path";
import {
  ACCOUNTS_FILE,
  BadAccountsFile,
  changeAccounts,
  readAccounts,
} from "../../../src/accounts/accounts_file.ts";
import { AccountDirectory } from "../../../src/accounts/directory.ts";
import { openLoginSecret, SECRET_FILE } from "../../../src/accounts/secret.ts";
import { serializeCredentials } from "../../../src/smtp/sasl/credentials.ts";
import { LogLines, ManualClock } from "../../actors/manual_clock.ts";
import { account } from "../smtp/accounts.ts";

const HASH = serializeCredentials((await account("x", [])).credentials!);
let folder: string;
const path = () => join(folder, ACCOUNTS_FILE);
const write = (text: string) => Deno.writeTextFileSync(path(), text);
const entry = (name: string, address: string) =>
  `[accounts.${name}]\naddresses = ["${address}"]\npassword_hash = "${HASH}"\n`;

beforeEach(async () => {
  folder = await Deno.makeTempDir();
});
afterEach(() => Deno.remove(folder, { recursive: true }));

describe("the accounts file", () => {
  it("need not be there", () => assert.deepEqual(readAccounts(folder), []));

  it("is written whole, for its owner alone, and read back", async () => {
    await changeAccounts(folder, (accounts) => {
      accounts["alice@example.com"] = { addresses: ["@example.com"], password_hash: HASH };
    });
    await changeAccounts(folder, (accounts) => {
      accounts.bob = { addresses: ["bob@example.com"], messages_per_day: 3 };
    });
    assert.equal(Deno.statSync(path()).mode! & 0o777, 0o600);
    const [alice, bob] = readAccounts(folder);
    assert.equal(alice!.name, "alice@example.com");
    assert.equal(serializeCredentials(alice!.credentials!), HASH);
    assert.equal(bob!.limits.messagesPerDay, 3);
    assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name).sort(), [
      "accounts.lock",
      ACCOUNTS_FILE,
    ]);
  });

  it("keeps changes that are made at the same time", async () => {
    await Promise.all(Array.from({ length: 10 }, (_, n) =>
      changeAccounts(folder, (accounts) => {
        accounts[`a${n}`] = { addresses: [`a${n}@example.com`] };
      })));
    assert.equal(readAccounts(folder).length, 10);
  });

  it("stays as it is when a change fails or would make it wrong", async () => {
    write(entry("alice", "alice@example.com"));
    const before = Deno.readTextFileSync(path());
    await assert.rejects(
      changeAccounts(folder, () => {
        throw new Error("no");
      }),
      /^Error: no$/,
    );
    await assert.rejects(
      changeAccounts(folder, (accounts) => {
        accounts.bob = { addresses: ["nobody"] };
      }),
      BadAccountsFile,
    );
    assert.equal(Deno.readTextFileSync(path()), before);
  });

  for (
    const [name, text, line] of [
      ["no TOML", "accounts = [", /accounts\.toml:1:\d+: not TOML/],
      ["a key of something else", "listen = 1", /listen: is not a setting/],
      ["an unknown setting", "[accounts.a]\nadresses = []", /adresses.*did you mean "addresses"/],
      [
        "a broken hash",
        '[accounts.a]\naddresses = ["a@b.example"]\npassword_hash = "x"',
        /not shown/,
      ],
      [
        "routes",
        '[accounts.a]\n[[accounts.a.routes]]\ntransport = "x"',
        /routes: is not a setting/,
      ],
    ] as const
  ) {
    it(`says what is wrong with ${name}`, () => {
      write(text);
      assert.throws(() => readAccounts(folder), (error: unknown) => {
        assert(error instanceof BadAccountsFile);
        assert.match(error.message, line);
        return true;
      });
    });
  }
});

describe("AccountDirectory", () => {
  it("finds an account by its name, and by an address that no other has", async () => {
    write(entry("bob", "Bob@Example.com") + entry("carl", "shared@example.com"));
    const dora = await account("dora", ["shared@example.com", "@example.org", "d@bücher.example"]);
    const directory = new AccountDirectory(folder, [dora], {
      clock: new ManualClock(0),
      log: new LogLines(),
    });
    assert.equal(directory.size, 3);
    for (
      const [login, name] of [
        ["bob", "bob"],
        ["BOB@EXAMPLE.COM", "bob"],
        ["shared@example.com", undefined],
        ["dora", "dora"],
        ["d@bücher.example", "dora"],
        ["d@xn--bcher-kva.example", "dora"],
        ["x@example.org", undefined],
        ["@example.org", undefined],
        ["Bob", undefined],
        ["", undefined],
      ] as const
    ) assert.equal(directory.find(login)?.name, name, login);
  });

  it("takes up a change of the file, and leaves things as they are for a wrong one", async () => {
    const log = new LogLines();
    write(entry("bob", "bob@example.com"));
    const directory = new AccountDirectory(folder, [], { clock: new ManualClock(0), log });
    await changeAccounts(folder, (accounts) => {
      accounts.carl = { addresses: ["carl@example.com"], password_hash: HASH };
    });
    assert.equal(directory.find("carl")?.name, "carl");
    write("accounts = 1");
    assert.equal(directory.find("carl")?.name, "carl");
    assert.match(log.lines.join("\n"), /accounts: 1 is not a section.*\n.*stay in force/);
    const said = log.lines.length;
    directory.find("carl");
    assert.equal(log.lines.length, said, "said once");
    Deno.removeSync(path());
    assert.equal(directory.find("carl"), undefined);
    assert.equal(directory.size, 0);
  });

  it("has no account twice", async () => {
    write(entry("bob", "bob@example.com"));
    const bob = await account("bob", ["b@example.com"]);
    const ports = { clock: new ManualClock(0), log: new LogLines() };
    const twice = /accounts\.toml: account bob stands in the config too; remove one of them/;
    assert.throws(() => new AccountDirectory(folder, [bob], ports), twice);
    const directory = new AccountDirectory(folder, [], ports);
    assert.throws(() => directory.use([bob]), twice);
    assert.equal(directory.find("b@example.com"), undefined);
    assert.equal(directory.find("bob@example.com")?.name, "bob");
  });
});

describe("the login secret", () => {
  it("is made once and stays", () => {
    const secret = openLoginSecret(folder);
    assert.equal(secret.length, 32);
    assert.deepEqual(openLoginSecret(folder), secret);
    assert.equal(Deno.statSync(join(folder, SECRET_FILE)).mode! & 0o777, 0o600);
    Deno.writeTextFileSync(join(folder, SECRET_FILE), "short");
    assert.throws(() => openLoginSecret(folder), /login-secret has 5 octets, not 32; remove it/);
  });
});

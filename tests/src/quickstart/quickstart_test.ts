/**
 * quickstart in folders of its own: the config is taken, the records are those that dnscheck wants,
 * nothing that was there is changed, and what fails leaves nothing behind.
 */
import { after, afterEach, before, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readAccounts } from "../../../src/accounts/accounts_file.ts";
import { run as runDnscheck } from "../../../src/cli/dnscheck.ts";
import { run } from "../../../src/cli/quickstart.ts";
import { loadConfig } from "../../../src/config/load.ts";
import type { Finding } from "../../../src/dnscheck/finding.ts";
import { NewFiles } from "../../../src/quickstart/new_files.ts";
import type { Outcome } from "../../../src/quickstart/quickstart.ts";
import { verifyPassword } from "../../../src/smtp/sasl/credentials.ts";
import { serveZone } from "../dnscheck/zone_server.ts";
import { CHEAP } from "../smtp/accounts.ts";

const NOW = Date.UTC(2026, 4, 17);
const INTERFACES = ["127.0.0.1", "::1", "192.0.2.25", "2001:db8::25"];

describe("quickstart", () => {
  let base: string;
  let folder: string;
  /** A folder that was set up for alice@example.com, and what was said of it. */
  let template: string;
  let first: Outcome;
  before(async () => {
    template = await Deno.makeTempDir();
    folder = `${template}/queue`;
    first = await outcome("alice@example.com");
  });
  after(() => Deno.remove(template, { recursive: true }));
  beforeEach(async () => {
    base = await Deno.makeTempDir();
    folder = `${base}/queue`;
  });
  afterEach(() => Deno.remove(base, { recursive: true }));

  async function quickstart(...args: string[]) {
    let out = "";
    let err = "";
    const code = await run(
      args.includes("--dir") ? args : [...args, "--dir", folder],
      { out: (text) => out += text, err: (text) => err += text, now: () => NOW },
      { interfaces: () => INTERFACES, cost: CHEAP },
    );
    return { code, out, err };
  }

  async function outcome(...args: string[]): Promise<Outcome> {
    const { code, out, err } = await quickstart(...args, "--json");
    assert.equal(code, 0, err);
    return JSON.parse(out);
  }

  /** Copies the folder that was set up, or some of it. */
  async function copy(what: RegExp = /./): Promise<void> {
    for (const [path, found] of await contents(`${template}/queue`)) {
      if (!what.test(path)) continue;
      const to = folder + path;
      await Deno.mkdir(to.slice(0, to.lastIndexOf("/")), { recursive: true, mode: 0o700 });
      if (found === "700") await Deno.mkdir(to, { recursive: true, mode: 0o700 });
      else await Deno.copyFile(`${template}/queue${path}`, to);
    }
  }
  /** Keys take their time to make. */
  const KEYS = /^\/(tls|dkim)\/.*\.(key|pem)$/;

  const config = (file = `${folder}/postledger.toml`) => loadConfig({ file, env: new Map() });
  const linesOf = ({ records }: Outcome) => records.flatMap(({ lines }) => lines);

  /** Every file below a folder with its octets, modes with the folders too. */
  async function contents(of: string): Promise<Map<string, string>> {
    const found = new Map<string, string>();
    const look = async (path: string) => {
      for await (const { name, isDirectory } of Deno.readDir(path)) {
        const at = `${path}/${name}`;
        const mode = ((await Deno.stat(at)).mode! & 0o777).toString(8);
        found.set(
          at.slice(of.length),
          isDirectory ? mode : `${mode} ${await Deno.readTextFile(at)}`,
        );
        if (isDirectory) await look(at);
      }
    };
    await look(of);
    return found;
  }

  it("makes what it says, for the eyes of its owner alone", async () => {
    const { made, kept, hostname } = first;
    folder = `${template}/queue`;
    assert.equal(hostname, "mail.example.com");
    assert.deepEqual(kept, []);
    assert.deepEqual(made, [
      "tls/ecdsa.key",
      "tls/ecdsa.crt",
      "tls/ecdsa.csr",
      "tls/rsa.key",
      "tls/rsa.crt",
      "tls/rsa.csr",
      "dkim/20260517-rsa._domainkey.example.com.pem",
      "dkim/20260517-ed25519._domainkey.example.com.pem",
      "mta-sts.example.com.txt",
      "postledger.toml",
      "data/postledger.db",
      "data/checkpoint.key",
      "account alice@example.com",
    ]);
    assert.equal((await Deno.stat(folder)).mode! & 0o777, 0o700);
    for (const [path, what] of await contents(folder)) {
      // The public half of the checkpoint key is to be handed round.
      if (path === "/data/checkpoint.pub") continue;
      assert.match(what, /^(700$|600 )/, path);
      assert.ok(!path.endsWith(".new"), path);
    }
  });

  it("writes a config that is taken as it is", async () => {
    await copy(KEYS);
    await outcome("alice@example.com", "--hostname", "MX1.example.org");
    const { hostname, listeners, dkim, dataDir } = config();
    assert.equal(hostname, "mx1.example.org");
    assert.equal(dataDir, `${folder}/data`);
    assert.deepEqual(listeners.map(({ protocol, listen }) => [protocol, listen.port]), [
      ["smtp", 2525],
      ["http", 8025],
      ["submission", 587],
      ["submissions", 465],
    ]);
    const keys = dkim.get("example.com")!.map(({ selector, key }) => [selector, key.bits]);
    assert.deepEqual(keys, [["20260517-rsa", 2048], ["20260517-ed25519", 256]]);
  });

  it("makes host keys of both kinds, with a certificate for the host", async () => {
    folder = `${template}/queue`;
    for (const [kind, type] of [["ecdsa", "ec"], ["rsa", "rsa"]] as const) {
      const key = createPrivateKey(await Deno.readTextFile(`${folder}/tls/${kind}.key`));
      assert.equal(key.asymmetricKeyType, type);
      if (kind === "rsa") assert.equal(key.asymmetricKeyDetails?.modulusLength, 2048);
      else assert.equal(key.asymmetricKeyDetails?.namedCurve, "prime256v1");
      const leaf = new X509Certificate(await Deno.readTextFile(`${folder}/tls/${kind}.crt`));
      assert.ok(leaf.checkPrivateKey(key));
      assert.equal(leaf.checkHost("mail.example.com"), "mail.example.com");
      assert.ok(new Date(leaf.validFrom).getTime() < NOW);
      assert.ok(new Date(leaf.validTo).getTime() > NOW + 5 * 365 * 86_400_000);
    }
  });

  it("makes an account whose password is the one that it prints, once", async () => {
    await copy(KEYS);
    const { code, out } = await quickstart("Alice@Example.com");
    assert.equal(code, 0);
    const [, name] = /^; login: (\S+)$/m.exec(out) ?? [];
    const [, password] = /^; password: (\S+)$/m.exec(out) ?? [];
    assert.equal(name, "Alice@example.com");
    const [account, ...more] = readAccounts(`${folder}/data`);
    assert.deepEqual(more, []);
    assert.ok(await verifyPassword(account!.credentials!, password!));
    for (const what of (await contents(folder)).values()) assert.ok(!what.includes(password!));
    const again = await quickstart("Alice@Example.com");
    assert.doesNotMatch(again.out, /^; password:/m);
    assert.match(again.out, /the password of account Alice@example\.com stays as it is/);
  });

  /** What dnscheck finds in a zone that has these lines and nothing else. */
  async function checked(lines: readonly string[], policyFile: string) {
    const server = await serveZone(lines);
    const file = `${folder}/checked.toml`;
    const toml = await Deno.readTextFile(`${folder}/postledger.toml`);
    await Deno.writeTextFile(file, `dns = { servers = ["${server.name}"] }\n${toml}`);
    let out = "";
    try {
      const code = await runDnscheck(
        ["example.com", "--json", "--config", file],
        { out: (text) => out += text, err: (text) => out += text, now: () => NOW },
        {
          interfaces: () => INTERFACES,
          policies: () => ({ fetch: () => Deno.readFile(`${folder}/${policyFile}`) }),
        },
      );
      const { findings } = JSON.parse(out) as { findings: readonly Finding[] };
      return { code, wrong: findings.filter(({ level }) => level !== "ok") };
    } finally {
      await server.stop();
      await Deno.remove(file);
    }
  }

  it("prints the records that dnscheck wants: nothing is left to say", async () => {
    await copy();
    assert.deepEqual(await checked(linesOf(first), "mta-sts.example.com.txt"), {
      code: 0,
      wrong: [],
    });
    // Through a proxy too: run again over a config that has one, it prints what the proxy needs.
    await Deno.writeTextFile(
      `${folder}/postledger.toml`,
      `
[transports.proxy]
type = "socks"
address = "198.51.100.7:1080"
remote_ips = ["198.51.100.7"]
remote_hostname = "out2.example.com"
[[routes]]
to_domain = ["example.org"]
transport = "proxy"
`,
      { append: true },
    );
    const before = await checked(linesOf(first), "mta-sts.example.com.txt");
    assert.equal(before.code, 1);
    const second = await outcome("alice@example.com");
    const spf = linesOf(second).find((line) => line.startsWith('example.com. IN TXT "v=spf1'));
    assert.match(spf!, /ip4:192\.0\.2\.25 ip6:2001:db8::25 ip4:198\.51\.100\.7 ~all"$/);
    assert.deepEqual(await checked(linesOf(second), "mta-sts.example.com.txt"), {
      code: 0,
      wrong: [],
    });
  });

  it("prints TLSA of both keys, the one in use first, for each port", async () => {
    await copy(KEYS);
    const lines = linesOf(first)
      .filter((line) => line.includes(" TLSA "));
    assert.deepEqual(lines.map((line) => line.split(".")[0]), [
      "_25",
      "_25",
      "_465",
      "_465",
      "_587",
      "_587",
    ]);
    assert.equal(new Set(lines.map((line) => line.split(" 3 1 1 ")[1])).size, 2);
    // Where another host takes the mail, its keys are not ours to publish.
    const elsewhere = linesOf(await outcome("alice@example.com", "--mx", "in.example.net"));
    assert.ok(!elsewhere.some((line) => line.startsWith("_25._tcp.in")));
    assert.ok(elsewhere.includes("example.com. IN MX 10 in.example.net."));
  });

  it("splits long records, and none of its strings has more than 255 octets", async () => {
    await copy();
    const { out } = await quickstart("alice@example.com");
    const [rsa] = out.split("\n").filter((line) => line.startsWith("20260517-rsa."));
    const strings = [...rsa!.matchAll(/"([^"]*)"/g)].map(([, text]) => text!.length);
    assert.equal(strings.length, 2);
    assert.ok(strings.every((length) => length <= 255));
  });

  it("run again, changes no octet, and prints the same records", async () => {
    await copy();
    const before = await contents(folder);
    const second = await outcome("alice@example.com");
    assert.deepEqual(await contents(folder), before);
    assert.deepEqual(second.records, first.records);
    assert.deepEqual(second.made, []);
    assert.equal(second.kept.length, first.made.length);
    assert.equal(second.account.password, undefined);
  });

  it("keeps keys that are there, and makes the rest", async () => {
    await copy();
    const before = await contents(folder);
    await Deno.remove(`${folder}/postledger.toml`);
    await Deno.remove(`${folder}/tls/rsa.crt`);
    const { made } = await outcome("alice@example.com");
    assert.deepEqual(made, ["tls/rsa.crt", "postledger.toml"]);
    const after = await contents(folder);
    for (const [path, what] of before) {
      if (path !== "/tls/rsa.crt") assert.equal(after.get(path), what, path);
    }
  });

  it("keeps a config that is there, and says what to put in", async () => {
    await copy(KEYS);
    const text = 'hostname = "old.example.org"\ndata_dir = "elsewhere"\n';
    await Deno.writeTextFile(`${folder}/postledger.toml`, text);
    const found = await outcome("alice@example.com");
    assert.equal(await Deno.readTextFile(`${folder}/postledger.toml`), text);
    assert.equal(found.hostname, "old.example.org");
    assert.ok(found.kept.includes("postledger.toml"));
    assert.equal(readAccounts(`${folder}/elsewhere`).length, 1);
    await Deno.writeTextFile(`${folder}/postledger.toml`, text + found.add);
    assert.equal(config().dkim.get("example.com")?.length, 2);
    const { add } = await outcome("alice@example.com");
    assert.equal(add, undefined);
  });

  it("takes a second domain into the same folder", async () => {
    await copy();
    const before = await contents(folder);
    const { made, add, records } = await outcome("bob@example.net");
    assert.deepEqual(made, [
      "dkim/20260517-rsa._domainkey.example.net.pem",
      "dkim/20260517-ed25519._domainkey.example.net.pem",
      "mta-sts.example.net.txt",
      "account bob@example.net",
    ]);
    assert.match(add!, /^\[domains\."example\.net"\]/);
    assert.ok(records.some(({ title, lines }) => title === "DKIM" && lines.length === 2));
    const after = await contents(folder);
    for (const [path, what] of before) {
      if (path !== "/data/accounts.toml") assert.equal(after.get(path), what, path);
    }
  });

  it("touches nothing where the config is wrong", async () => {
    await Deno.mkdir(folder);
    await Deno.writeTextFile(`${folder}/postledger.toml`, "hostnam = 1\n");
    const before = await contents(folder);
    const { code, err } = await quickstart("alice@example.com");
    assert.equal(code, 2);
    assert.match(err, /hostnam: is not a setting/);
    assert.deepEqual(await contents(folder), before);
  });

  it("takes back what it made when something fails", async () => {
    await Deno.mkdir(`${folder}/data`, { recursive: true });
    await Deno.writeTextFile(`${folder}/data/accounts.toml`, "accounts = 1\n");
    const before = await contents(folder);
    const { code, err } = await quickstart("alice@example.com");
    assert.equal(code, 1);
    assert.match(err, /accounts\.toml/);
    assert.deepEqual(await contents(folder), before);
  });

  it("begins no new log where one is missed", async () => {
    await copy();
    await Deno.remove(`${folder}/data/postledger.db`);
    await Deno.remove(`${folder}/postledger.toml`);
    const before = await contents(folder);
    const { code, err } = await quickstart("alice@example.com");
    assert.equal(code, 1);
    assert.match(err, /postledger\.db is missing, but/);
    assert.deepEqual(await contents(folder), before);
  });

  it("makes nothing where nothing can be made", async () => {
    await Deno.writeTextFile(`${base}/file`, "");
    const { code, err } = await quickstart("alice@example.com", "--dir", `${base}/file/queue`);
    assert.equal(code, 1);
    assert.match(err, /^postledger: quickstart: .*file/);
    assert.deepEqual([...await contents(base)], [["/file", "644 "]]);
  });

  for (
    const [args, words] of [
      [[], /the address is missing/],
      [["alice"], /is not an address to set up/],
      [["alice@"], /is not an address to set up/],
      [["alice@[192.0.2.1]"], /its domain is none that others could answer to/],
      [["alice@localhost"], /its domain is none that others could answer to/],
      [['"a b"@example.com'], /ASCII without quotes/],
      [["älice@example.com"], /ASCII without quotes/],
      [["alice@example.com\r\nx"], /is not an address to set up/],
      [["a@example.com", "b@example.com"], /one argument too many/],
      [["a@example.com", "--hostname", "-x"], /--hostname/],
      [["a@example.com", "--mx", "1.2.3.4"], /--mx: "1\.2\.3\.4" is not a host name/],
      [["a@example.com", "--listen", "everywhere"], /--listen: "everywhere" is not an IP/],
      [["a@example.com", "--address", "x"], /--address: "x" is not an IP address/],
      [["a@example.com", "--web-port", "0"], /--web-port/],
      [["a@example.com", "--web-port", "587"], /two listeners have the same port/],
    ] as const
  ) {
    it(`refuses ${JSON.stringify(args.join(" "))}`, async () => {
      const { code, out, err } = await quickstart(...args);
      assert.equal(code, 2);
      assert.equal(out, "");
      assert.match(err, words);
      assert.equal(err.split("\n").length, 2);
      assert.deepEqual([...await contents(base)], []);
    });
  }

  it("takes a domain in Unicode as its A-labels", async () => {
    await copy(KEYS);
    const { account } = await outcome("info@bücher.example");
    assert.equal(account.name, "info@xn--bcher-kva.example");
    assert.ok(config().dkim.has("xn--bcher-kva.example"));
  });

  it("puts nothing in the place of a file that came meanwhile", async () => {
    const files = new NewFiles();
    await assert.rejects(
      files.file(`${base}/x`, "ours", () => Deno.writeTextFileSync(`${base}/x`, "theirs")),
      Deno.errors.AlreadyExists,
    );
    await files.takeBack();
    assert.equal(await Deno.readTextFile(`${base}/x`), "theirs");
    assert.deepEqual([...await contents(base)].map(([path]) => path), ["/x"]);
  });
});

/**
 * packaging/sendmail as programs of others call it: cron, mail(1), PHP, over links that are named
 * like the originals; to the local queue and, with a login, to a submission server. What arrives is
 * verified by Python's dkim.
 */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { dkimKeyPem, dkimRecord, dkimRecordName, makeDkimKey } from "../../src/dkim/keys.ts";
import { type Postfix, run, selfSigned, startPostfix } from "./postfix.ts";
import { everythingTo, Server } from "./serve.ts";
import { submitWithPython } from "./submit.ts";
import { freePort, until } from "./wait.ts";

const SENDMAIL = new URL("../../packaging/sendmail", import.meta.url).pathname;
const PYTHON = new URL("./python/", import.meta.url).pathname;
/** dkimpy is a package of Debian's own Python. */
const DEBIAN_PYTHON = "/usr/bin/python3";
const LIMIT = 20_000;

describe("sendmail", () => {
  const rsa = makeDkimKey("rsa");
  const ed25519 = makeDkimKey("ed25519");
  const records = JSON.stringify({
    [dkimRecordName("2026a", "example.com")]: dkimRecord(rsa),
    [dkimRecordName("2026b", "example.com")]: dkimRecord(ed25519),
  });
  const BOTH = [["example.com", "2026a", true], ["example.com", "2026b", true]];
  const submission = freePort();
  let folder: string;
  let postfix: Postfix;
  let server: Server;

  before(async () => {
    folder = await Deno.makeTempDir({ prefix: "postledger-" });
    await Deno.mkdir(`${folder}/home`);
    await selfSigned(folder);
    await Deno.writeTextFile(`${folder}/a.pem`, dkimKeyPem(rsa), { mode: 0o600 });
    await Deno.writeTextFile(`${folder}/b.pem`, dkimKeyPem(ed25519), { mode: 0o600 });
    postfix = await startPostfix({
      users: ["cron", "mail", "php", "bs", "away", "big", "sender", "http", "later"],
    });
    server = await Server.prepare({
      routing: everythingTo(postfix.port) + `
[listen.mua]
protocol = "submission"
address = "127.0.0.1:${submission}"
cert_file = "${folder}/cert.pem"
key_file = "${folder}/key.pem"

[domains."example.com"]
dkim = [
  { selector = "2026a", key_file = "${folder}/a.pem" },
  { selector = "2026b", key_file = "${folder}/b.pem" },
]
`,
    });
    await server.start();
    await config("local", server.smtpPort);
    await config("closed", freePort());
    await config("postfix", postfix.port);
    for (const name of ["sendmail", "mailq"]) await Deno.symlink(SENDMAIL, `${folder}/${name}`);
  });
  after(async () => {
    await server?.remove();
    await postfix?.stop();
    await Deno.remove(folder, { recursive: true });
  });

  const config = (name: string, port: number) =>
    Deno.writeTextFile(
      `${folder}/${name}.toml`,
      `hostname = "www.example.com"\ndomain = "example.com"\n` +
        `[server]\ntype = "smtp"\nhost = "127.0.0.1"\nport = ${port}\ntls = "none"\n`,
    );

  /** The environment that cron gives, and where deno and the config of this test are. */
  const environment = (to = "local") => ({
    PATH: "/usr/bin:/bin",
    SHELL: "/bin/sh",
    HOME: `${folder}/home`,
    LOGNAME: "root",
    POSTLEDGER_DENO: Deno.execPath(),
    POSTLEDGER_SENDMAIL: `${folder}/${to}.toml`,
    DENO_DIR: Deno.env.get("DENO_DIR") ?? `${Deno.env.get("HOME")}/.cache/deno`,
  });

  async function call(
    words: readonly string[],
    input: string,
    { to = "local", env = {} as Record<string, string> } = {},
  ) {
    const child = new Deno.Command("sh", {
      args: ["-c", 'exec "$@"', "sh", ...words],
      cwd: "/",
      clearEnv: true,
      env: { ...environment(to), ...env },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
      signal: AbortSignal.timeout(LIMIT),
    }).spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(input)).catch(() => {});
    await writer.close().catch(() => {});
    const { code, stdout, stderr } = await child.output();
    const text = (octets: Uint8Array) => new TextDecoder().decode(octets);
    return { code, stdout: text(stdout), stderr: text(stderr) };
  }

  /** The message in a mailbox of Postfix, and what its signatures are worth. */
  async function arrived(user: string) {
    const [file] = await until(`a message for ${user}`, LIMIT, async () => {
      const found = await postfix.mailboxFiles(user);
      return found.length > 0 ? found : undefined;
    });
    const signatures = JSON.parse(
      await run(DEBIAN_PYTHON, [`${PYTHON}verify_dkim.py`, file!, records]),
    ) as unknown;
    return { text: await Deno.readTextFile(file!), signatures };
  }

  it("takes what cron writes, and it arrives signed with both keys", async () => {
    const { code, stderr } = await call(
      [`${folder}/sendmail`, "-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root"],
      "From: root (Cron Daemon)\nTo: cron@example.net\nSubject: Cron <root@www> date\n" +
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\n" +
        "Content-Transfer-Encoding: 8bit\nX-Cron-Env: <SHELL=/bin/sh>\n\nSunday  \n.\nüber\n",
    );
    assert.deepEqual([code, stderr], [0, ""]);
    const { text, signatures } = await arrived("cron");
    assert.match(text, /^From: root@example\.com \(Cron Daemon\)$/m);
    assert.match(text, /\n\nSunday {2}\n\.\nüber\n$/);
    assert.deepEqual(signatures, BOTH);
  });

  it("is what mail(1) sends with", async () => {
    await Deno.writeTextFile(`${folder}/mailrc`, `set sendmail=${folder}/sendmail\n`);
    const { code, stderr } = await call(
      ["mail", "-s", "by mail", "-b", "hidden@example.net", "mail@example.net"],
      "Hello\n",
      { env: { MAILRC: `${folder}/mailrc` } },
    );
    assert.deepEqual([code, stderr], [0, ""]);
    const { text, signatures } = await arrived("mail");
    assert.match(text, /^Subject: by mail$/m);
    assert.match(text, /^From: root <root@example\.com>$/m);
    assert.doesNotMatch(text, /hidden/);
    assert.deepEqual(signatures, BOTH);
  });

  it("takes what PHP writes, where header and body differ in line ends", async () => {
    const { code, stderr } = await call(
      [`${folder}/sendmail`, "-t", "-i"],
      "To: php@example.net\r\nSubject: by PHP\r\nFrom: Shop <shop@example.com>\r\n\r\nHello\nWorld\n",
    );
    assert.deepEqual([code, stderr], [0, ""]);
    const { text, signatures } = await arrived("php");
    assert.match(text, /\n\nHello\nWorld\n$/);
    assert.deepEqual(signatures, BOTH);
  });

  it("speaks SMTP with -bs", async () => {
    const { code, stdout } = await call(
      [`${folder}/sendmail`, "-bs"],
      "EHLO me.example.com\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<bs@example.net>\r\nDATA\r\n" +
        "From: a@example.com\r\nSubject: x\r\n\r\nHi\r\n.\r\nQUIT\r\n",
    );
    assert.equal(code, 0);
    assert.match(stdout, /^220 queue\.example\.com .*354 .*queued as .*\n221 /s);
    assert.deepEqual((await arrived("bs")).signatures, BOTH);
  });

  it("logs in at a submission server", async () => {
    const added = await server.command(
      "account",
      "add",
      "www",
      "--address",
      "@example.com",
      "--generate",
    );
    assert.equal(added.code, 0, added.stderr);
    await Deno.writeTextFile(`${folder}/password`, added.stdout, { mode: 0o600 });
    await Deno.writeTextFile(
      `${folder}/away.toml`,
      `domain = "example.com"
[server]
type = "submission"
host = "localhost"
port = ${submission}
ip_family = "ipv4"
ca_file = "${folder}/cert.pem"
auth = { username = "www", password_file = "password" }
`,
    );
    const message = "From: shop@example.com\n\nHello\n";
    const sent = await call([`${folder}/sendmail`, "-v", "away@example.net"], message, {
      to: "away",
    });
    assert.equal(sent.code, 0, sent.stderr);
    assert.match(sent.stderr, /C: AUTH SCRAM-SHA-256/);
    assert.match((await arrived("away")).text, /with ESMTPSA/);

    await Deno.writeTextFile(`${folder}/password`, "wrong\n");
    const refused = await call([`${folder}/sendmail`, "away@example.net"], message, { to: "away" });
    assert.equal(refused.code, 77, refused.stderr);
    assert.match(refused.stderr, /saved in .*\/home\/dead\.letter/);
    assert.doesNotMatch(refused.stderr, /wrong/);
  });

  it("keeps what it cannot hand over, and says so", async () => {
    const down = await call([`${folder}/sendmail`, "x@example.net"], "Subject: kept\n\nHi\n", {
      to: "closed",
    });
    assert.equal(down.code, 75);
    assert.match(down.stderr, /cannot be reached.*\n.*saved in .*\/home\/dead\.letter\n$/);
    const letters = await Deno.readTextFile(`${folder}/home/dead.letter`);
    assert.match(letters, /Subject: kept\n\nHi\n\n$/);
    const nobody = await call([`${folder}/sendmail`, "nobody@example.net"], "\nHi\n", {
      to: "postfix",
    });
    assert.equal(nobody.code, 67);
    assert.match(nobody.stderr, /nobody@example\.net: 550 5\.1\.1 /);
    assert.equal((await call([`${folder}/sendmail`], "")).code, 64);
    assert.equal((await call([`${folder}/mailq`], "")).code, 69);
    const directory = await call(["sh", "-c", `exec ${folder}/sendmail x@example.net < /`], "");
    assert.equal(directory.code, 74, directory.stderr);
  });

  it("could not run: the caller is told to try later", async () => {
    const env = { DENO_DIR: `${folder}/empty` };
    const { code, stderr } = await call([`${folder}/sendmail`, "x@example.net"], "\nHi\n", { env });
    assert.equal(code, 75);
    assert.match(stderr, /nothing is sent/);
  });

  it("large mail and reports are signed as well", async () => {
    await submitWithPython({
      port: server.smtpPort,
      from: "sender@example.com",
      to: "big@example.net",
      subject: "big",
      size: 2 ** 20,
    });
    assert.deepEqual((await arrived("big")).signatures, BOTH);
    await submitWithPython({
      port: server.smtpPort,
      from: "sender@example.net",
      to: "nobody@example.net",
      subject: "refused",
    });
    const { text, signatures } = await arrived("sender");
    assert.match(text, /^From: Mail Delivery System <MAILER-DAEMON@queue\.example\.com>$/m);
    assert.deepEqual(signatures, BOTH);
  });

  it("mail that comes by HTTP is signed as well", async () => {
    const token = (await Deno.readTextFile(`${server.data}/api-token`)).trim();
    const response = await fetch(`http://127.0.0.1:${server.httpPort}/api/v1/messages`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify({
        from: "Shop <shop@example.com>",
        to: ["http@example.net"],
        subject: "by HTTP",
        text: "Hello",
        html: "<p>Hello",
      }),
      signal: AbortSignal.timeout(LIMIT),
    });
    assert.equal(response.status, 202, await response.text());
    assert.deepEqual((await arrived("http")).signatures, BOTH);
  });

  it("keys are read again on SIGHUP, and a bad one changes nothing", async () => {
    const reload = async (config: string, said: string) => {
      await Deno.writeTextFile(server.config, config);
      await run("kill", ["-HUP", String(server.pid)]);
      await until(said, LIMIT, () => server.output.includes(said));
    };
    const config = await Deno.readTextFile(server.config);
    const key = (name: string) => `key_file = "${folder}/${name}.pem"`;
    await Deno.writeTextFile(`${folder}/open.pem`, dkimKeyPem(ed25519), { mode: 0o644 });
    await reload(config.replace(key("a"), key("open")), "not reloaded");
    assert.match(server.output, /open\.pem is open to others \(mode 0644\)/);
    await reload(config.replace(key("a"), key("none")), "none.pem does not exist");
    await reload(config.replace(/\{ selector = "2026b".*\n/, ""), "configuration reloaded");
    await call([`${folder}/sendmail`, "later@example.net"], "Subject: x\n\nHi\n");
    assert.deepEqual((await arrived("later")).signatures, [BOTH[0]]);
  });
});

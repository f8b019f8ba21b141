/**
 * Clients of others log in and submit, over STARTTLS and over TLS at once: swaks, msmtp (SCRAM by
 * GNU SASL), Python's smtplib and nodemailer. `openssl s_client` sees our certificate, the new one
 * too when its files have changed.
 */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import nodemailer from "nodemailer";
import { samples } from "../load/metrics.ts";
import { type Sink, startSink } from "../load/sink.ts";
import { dataOf, historyOf } from "./history.ts";
import { run, selfSigned } from "./postfix.ts";
import { everythingTo, Server } from "./serve.ts";
import { freePort, until } from "./wait.ts";

const LIMIT = 20_000;

describe("clients of others log in", () => {
  const starttls = freePort();
  const implicit = freePort();
  let folder: string;
  let sink: Sink;
  let server: Server;
  let password: string;

  before(async () => {
    folder = await Deno.makeTempDir({ prefix: "postledger-" });
    await selfSigned(folder);
    sink = startSink();
    const listener = (name: string, protocol: string, port: number) => `
[listen.${name}]
protocol = "${protocol}"
address = "127.0.0.1:${port}"
cert_file = "${folder}/cert.pem"
key_file = "${folder}/key.pem"
`;
    server = await Server.prepare({
      routing: everythingTo(sink.port) + listener("mua", "submission", starttls) +
        listener("mua_tls", "submissions", implicit),
    });
    await server.start();
    // The server runs already: it takes the account up by itself.
    const added = await server.command(
      "account",
      "add",
      "alice",
      "--address",
      "alice@example.org",
      "--generate",
    );
    assert.equal(added.code, 0, added.stderr);
    password = added.stdout.trim();
  });
  after(async () => {
    await server?.remove();
    await sink?.close();
    await Deno.remove(folder, { recursive: true });
  });

  /** The message was taken for the account, and delivered. */
  async function arrived(to: string): Promise<void> {
    const events = await historyOf(server, to, "Delivered");
    const { account, source } = dataOf(events, "Enqueued") as {
      account: string;
      source: { login?: string; tls?: unknown };
    };
    assert.equal(account, "alice");
    assert.equal(source.login, "alice");
    assert.notEqual(source.tls, undefined);
  }

  for (const [how, port] of [["starttls", starttls], ["implicit", implicit]] as const) {
    it(`swaks logs in with PLAIN (${how})`, async () => {
      const to = `swaks-${how}@example.net`;
      await run("swaks", [
        "--server",
        `127.0.0.1:${port}`,
        how === "starttls" ? "--tls" : "--tls-on-connect",
        "--auth",
        "PLAIN",
        "--auth-user",
        "alice",
        "--auth-password",
        password,
        "--from",
        "alice@example.org",
        "--to",
        to,
      ]);
      await arrived(to);
    });

    for (const mechanism of ["plain", "scram-sha-1", "scram-sha-256"]) {
      it(`msmtp logs in with ${mechanism} (${how})`, async () => {
        const to = `msmtp-${mechanism}-${how}@example.net`;
        const { code, said } = await msmtp(mechanism, how, port, to, password);
        assert.equal(code, 0, said);
        await arrived(to);
      });
    }

    it(`msmtp is told that its password is wrong (${how})`, async () => {
      const { code, said } = await msmtp("scram-sha-256", how, port, "x@example.net", "wrong");
      assert.equal(code, 77, said); // EX_NOPERM
      assert.match(said, /535 5\.7\.8 name or password is wrong/);
    });

    it(`Python's smtplib logs in (${how})`, async () => {
      const to = `python-${how}@example.net`;
      const sent = await python(port, to, how, password);
      assert.deepEqual(sent.mechanisms, ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"]);
      assert.equal(sent.refused, null);
      assert.match(sent.tls, /^TLSv1\.[23]$/);
      await arrived(to);
      assert.equal((await python(port, to, how, "not the password")).refused, 535);
    });

    it(`nodemailer logs in (${how})`, async () => {
      const to = `nodemailer-${how}@example.net`;
      const transport = (pass: string) =>
        nodemailer.createTransport({
          host: "127.0.0.1",
          port,
          secure: how === "implicit",
          requireTLS: how === "starttls",
          auth: { user: "alice", pass },
          tls: { rejectUnauthorized: false },
          connectionTimeout: LIMIT,
        });
      const message = { from: "Alice <alice@example.org>", to, subject: "hello", text: "Hello." };
      await transport(password).sendMail(message);
      await arrived(to);
      await assert.rejects(transport(password).sendMail({ ...message, from: "bob@example.org" }), {
        responseCode: 553,
      });
      await assert.rejects(transport("wrong password").sendMail(message), {
        code: "EAUTH",
        responseCode: 535,
      });
    });
  }

  it("openssl s_client sees the certificate of the files, and the next one", async () => {
    const expected = () => new X509Certificate(Deno.readTextFileSync(`${folder}/cert.pem`));
    const first = expected().fingerprint256;
    assert.equal(await shownByOpenssl(starttls, ["-starttls", "smtp"]), first);
    assert.equal(await shownByOpenssl(implicit, []), first);
    await selfSigned(folder);
    assert.notEqual(expected().fingerprint256, first);
    await until(
      "the new certificate",
      10_000,
      async () => await shownByOpenssl(implicit, []) === expected().fingerprint256,
    );
    assert.match(server.output, /certificate read again/);
    // A key that is not that of the certificate changes nothing.
    await Deno.writeTextFile(`${folder}/key.pem`, "no key");
    const kept = expected().fingerprint256;
    await until("the complaint", 10_000, async () => {
      assert.equal(await shownByOpenssl(implicit, []), kept);
      return server.output.includes("certificate not read again");
    });
  });

  it("counts logins by mechanism and result", async () => {
    const { text } = await server.get("/metrics");
    const logins = samples(text, "postledger_logins_total");
    for (const mechanism of ["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256"]) {
      const count = (result: string) =>
        logins.get(`{mechanism="${mechanism}",result="${result}"}`) ?? 0;
      assert.ok(count("ok") >= 2, mechanism);
      if (mechanism !== "SCRAM-SHA-1") assert.ok(count("failed") >= 2, mechanism);
    }
  });

  it("logs no password", () => assert.ok(!server.output.includes(password)));

  async function msmtp(auth: string, how: string, port: number, to: string, password: string) {
    const config = `${folder}/msmtprc`;
    await Deno.writeTextFile(
      config,
      `account default
host 127.0.0.1
port ${port}
from alice@example.org
auth ${auth}
user alice
password ${password}
tls on
tls_starttls ${how === "starttls" ? "on" : "off"}
tls_certcheck off
timeout 20
`,
      { mode: 0o600 },
    );
    const message = `From: alice@example.org\nTo: ${to}\nSubject: msmtp\n\nHello.\n`;
    const { code, stderr } = await withInput("msmtp", ["-C", config, to], message);
    return { code, said: stderr };
  }

  async function python(port: number, to: string, how: string, password: string) {
    const script = new URL("./python/login.py", import.meta.url).pathname;
    const { code, stdout, stderr } = await withInput("python3", [
      script,
      String(port),
      "alice@example.org",
      to,
      "alice",
      ...(how === "implicit" ? ["--implicit"] : []),
    ], `${password}\n`);
    assert.equal(code, 0, stderr);
    return JSON.parse(stdout) as { mechanisms: string[]; tls: string; refused: number | null };
  }

  async function shownByOpenssl(port: number, how: readonly string[]): Promise<string> {
    const { stdout, stderr } = await withInput("openssl", [
      "s_client",
      "-connect",
      `127.0.0.1:${port}`,
      ...how,
    ], "QUIT\r\n");
    const [pem] = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/.exec(stdout) ?? [];
    assert.ok(pem, stderr);
    return new X509Certificate(pem).fingerprint256;
  }
});

/** Runs a program with text on its standard input. */
async function withInput(program: string, args: readonly string[], input: string) {
  const child = new Deno.Command(program, {
    args: [...args],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
    signal: AbortSignal.timeout(LIMIT),
  }).spawn();
  const output = child.output();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input));
  await writer.close();
  const { code, stdout, stderr } = await output;
  const text = (octets: Uint8Array) => new TextDecoder().decode(octets);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

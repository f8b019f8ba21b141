/**
 * What quickstart makes and prints, in the hands of others: the records stand in signed zones that
 * nsd serves and unbound validates, Postfix's posttls-finger and OpenSSL verify our listeners by
 * the TLSA records among them, swaks logs in with the account, and dnscheck has nothing to say.
 */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { address, type Internet, startInternet } from "./internet.ts";
import { dataOf, historyOf } from "./history.ts";
import { run } from "./postfix.ts";
import { runTask, Server } from "./serve.ts";
import { freePort } from "./wait.ts";

const LIMIT = 20_000;
const HOST = address(25);
const STUB = address(52);

interface Outcome {
  readonly account: { readonly name: string; readonly password: string };
  readonly records: readonly { readonly title: string; readonly lines: readonly string[] }[];
}

describe("what quickstart makes", () => {
  const starttls = freePort();
  const implicit = freePort();
  let server: Server;
  let internet: Internet;
  let outcome: Outcome;
  let resolvConf: string;
  let closeRelay: () => void;

  before(async () => {
    server = await Server.prepare({ routing: "" });
    await Deno.remove(server.config); // quickstart writes its own there
    outcome = JSON.parse(
      await task("quickstart", [
        "alice@example.com",
        "--json",
        "--dir",
        server.directory,
        "--address",
        HOST,
        "--listen",
        HOST,
        "--submission-port",
        String(starttls),
        "--submissions-port",
        String(implicit),
        "--local-port",
        String(server.smtpPort),
        "--web-port",
        String(server.httpPort),
      ]),
    );
    const lines = outcome.records.flatMap(({ lines }) => lines);
    const below = (zone: string) =>
      lines.filter((line) => line.split(" ")[0]!.endsWith(`${zone}.`));
    internet = await startInternet({
      smtpPort: freePort(),
      hosts: [{ addresses: [address(1)], parameters: {} }],
      zones: [
        { name: "example.com", records: below("example.com"), state: "signed" },
        { name: "in-addr.arpa", records: below("in-addr.arpa"), state: "signed" },
      ],
    });
    closeRelay = await relay(internet.resolver);
    resolvConf = `${server.directory}/resolv.conf`;
    await Deno.writeTextFile(resolvConf, `nameserver ${STUB}\noptions trust-ad edns0\n`);
    await server.start();
  });
  after(async () => {
    await server?.remove();
    closeRelay?.();
    await internet?.stop();
  });

  it("lets swaks log in with the account that it made", async () => {
    const { name, password } = outcome.account;
    for (const [port, how] of [[starttls, "--tls"], [implicit, "--tls-on-connect"]] as const) {
      const to = `swaks${how}@example.org`;
      // deno-fmt-ignore
      await run("swaks", ["--server", `${HOST}:${port}`, how, "--auth", "PLAIN", "--auth-user", name,
        "--auth-password", password, "--from", "alice@example.com", "--to", to]);
      const events = await historyOf(server, to, "Enqueued");
      assert.equal(dataOf(events, "Enqueued").account, name);
    }
    assert.ok(!server.output.includes(password));
  });

  it("is verified by posttls-finger by the TLSA records, looked up with DNSSEC", async () => {
    assert.match(await posttlsFinger(starttls), /^posttls-finger: Verified TLS connection establ/m);
    assert.match(await posttlsFinger(implicit, "-w"), /^posttls-finger: Verified TLS connection/m);
  });

  it("is verified by openssl s_client by either of the records alone", async () => {
    assert.match(await openssl(starttls, recordsOf(starttls)[0]!), /^Verification: OK$/m);
    assert.match(await openssl(implicit, recordsOf(implicit)[0]!), /^Verification: OK$/m);
    const [, spare] = recordsOf(starttls);
    assert.match(await openssl(starttls, spare!), /No matching DANE TLSA records/i);
  });

  it("leaves dnscheck nothing to say but what loopback and no web server mean", async () => {
    const [address, port] = internet.resolver.split(":");
    const config = `${server.directory}/checked.toml`;
    const toml = await Deno.readTextFile(server.config);
    await Deno.writeTextFile(config, `dns = { servers = ["${address}:${port}"] }\n${toml}`);
    const { code, stdout } = await runTask("dnscheck", [
      "example.com",
      "--json",
      "--address",
      HOST,
      "--config",
      config,
    ]);
    const { findings } = JSON.parse(stdout) as {
      findings: { level: string; check: string; dnssec?: string; found: string }[];
    };
    // The MX is at a loopback address, and unbound answers for names of those itself (RFC 6303).
    const wrong = findings.filter(({ level }) => level !== "ok").map(({ check }) => check);
    assert.deepEqual(wrong, ["mx", "mta-sts", "reverse"], stdout);
    assert.equal(code, 1);
    const unsigned = findings.filter(({ dnssec }) => dnssec === "not-authentic");
    assert.deepEqual(unsigned.map(({ check }) => check), ["reverse"], stdout);
  });

  it("has a spare key that takes the place of the other under the same records", async () => {
    const toml = await Deno.readTextFile(server.config);
    await server.stop();
    await Deno.writeTextFile(server.config, toml.replaceAll("tls/ecdsa.", "tls/rsa."));
    await server.start();
    assert.match(await posttlsFinger(starttls), /Verified TLS connection/);
    assert.match(await openssl(starttls, recordsOf(starttls)[1]!), /^Verification: OK$/m);
  });

  for (const kind of ["ecdsa", "rsa"]) {
    it(`makes a request that a CA can read (${kind})`, async () => {
      const file = `${server.directory}/tls/${kind}.csr`;
      const said = await run("openssl", ["req", "-in", file, "-noout", "-verify", "-text"]);
      assert.match(said, /DNS:mail\.example\.com/);
    });
  }

  /** The data of the TLSA records of a port, as they were printed. */
  const recordsOf = (port: number): string[] =>
    outcome.records.flatMap(({ lines }) => lines)
      .filter((line) => line.startsWith(`_${port}._tcp.mail.example.com. IN TLSA `))
      .map((line) => line.slice(line.indexOf("TLSA ") + 5));

  /** posttls-finger knows the system's resolver alone: it gets ours, in a mount namespace. */
  async function posttlsFinger(port: number, ...options: string[]): Promise<string> {
    const script = 'mount --bind "$0" /etc/resolv.conf && exec posttls-finger "$@"';
    const destination = `[mail.example.com]:${port}`;
    const { stdout, stderr } = await output("unshare", [
      ...["-m", "sh", "-c", script, resolvConf],
      ...["-c", "-l", "dane-only", "-L", "summary", "-t", "5", "-T", "5", ...options, destination],
    ]);
    return stdout + stderr;
  }

  async function openssl(port: number, rrdata: string): Promise<string> {
    const { stdout, stderr } = await output("openssl", [
      "s_client",
      "-connect",
      `${HOST}:${port}`,
      ...(port === starttls ? ["-starttls", "smtp"] : []),
      "-dane_tlsa_domain",
      "mail.example.com",
      "-dane_tlsa_rrdata",
      rrdata,
    ]);
    return stdout + stderr;
  }
});

async function task(name: string, args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await runTask(name, args);
  assert.equal(code, 0, stderr);
  return stdout;
}

async function output(program: string, args: readonly string[]) {
  const { code, stdout, stderr } = await new Deno.Command(program, {
    args: [...args],
    stdin: "null",
    signal: AbortSignal.timeout(LIMIT),
  }).output();
  const text = (octets: Uint8Array) => new TextDecoder().decode(octets);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

/** Hands questions at port 53 of an address on to a resolver at another port. */
async function relay(resolver: string): Promise<() => void> {
  const [host, port] = resolver.split(":");
  const front = createSocket("udp4");
  front.on("message", (question, from) => {
    const back = createSocket("udp4");
    const close = setTimeout(() => back.close(), 5_000);
    back.once("message", (answer) => {
      front.send(answer, from.port, from.address);
      clearTimeout(close);
      back.close();
    });
    back.bind(0, "127.0.0.1", () => back.send(question, Number(port), host));
  });
  await new Promise<void>((resolve) => front.bind(53, STUB, resolve));
  return () => front.close();
}

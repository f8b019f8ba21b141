/**
 * End to end, in one process: a message goes direct three times, and from the fourth attempt on
 * through the provider. What happened is read back from `audit export`, and `replay --config` says
 * where other routes would send each attempt.
 */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { join } from "node:path";
import type { StoredEvent } from "../../../events/catalogue.ts";
import { run as audit } from "../../../src/cli/audit.ts";
import { run as replay } from "../../../src/cli/replay.ts";
import { run as route } from "../../../src/cli/route.ts";
import { loadConfig } from "../../../src/config/load.ts";
import { SocketDialer } from "../../../src/delivery/dialer.ts";
import { Queue } from "../../../src/main.ts";
import { ClientSession } from "../../../src/smtp/client.ts";
import { systemClock, systemRandom } from "../../../src/system.ts";
import { ran } from "../cli/given_queue.ts";
import { transaction } from "../smtp/harness.ts";
import { ScriptedServer } from "../smtp/scripted_server.ts";

const TLS = new URL("../../../fixtures/tls/", import.meta.url).pathname;

describe("from the fourth attempt on through the provider", () => {
  let folder: string;
  let provider: ScriptedServer;
  let stream: string;
  before(async () => {
    folder = await Deno.makeTempDir();
    provider = await ScriptedServer.start({
      tls: {
        key: Deno.readTextFileSync(`${TLS}localhost.key.pem`),
        cert: Deno.readTextFileSync(`${TLS}localhost.cert.pem`),
      },
      extensions: ["8BITMIME", "AUTH PLAIN"],
      auth: () => "235 2.7.0 welcome",
    });
    const nobody = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const closed = nobody.addr.port;
    nobody.close();
    await Deno.writeTextFile(
      join(folder, "config.toml"),
      `hostname = "queue.example.com"
[listen.local]
protocol = "smtp"
address = "127.0.0.1:0"
[queue]
retry = ["10ms"]
[[routes]]
minimum_attempts = 3
transport = "provider"
[transports.direct]
type = "direct"
port = ${closed}
allow_loopback = true
[transports.provider]
type = "submission"
host = "127.0.0.1"
port = ${provider.port}
ca_file = "${TLS}ca.cert.pem"
auth = { username = "u", password = "\${PROVIDER_PASSWORD}" }
`,
    );
    const env = new Map([["PROVIDER_PASSWORD", "hunter2"]]);
    const quiet = { info: () => {}, warn: () => {}, error: () => {} };
    const queue = await Queue.open(loadConfig({ file: join(folder, "config.toml"), env }), {
      clock: systemClock,
      random: systemRandom,
      log: quiet,
    });
    const done = Promise.withResolvers<string>();
    queue.subscribe((events: readonly StoredEvent[]) => {
      const end = events.find(({ type }) => type === "Delivered");
      if (end) done.resolve(end.stream);
    });
    await queue.start((cause) => done.reject(cause));
    try {
      const { address, port } = queue.addresses[0]!;
      const signal = AbortSignal.timeout(10_000);
      const session = new ClientSession(
        await new SocketDialer().connect({ address, port }, signal),
        { clock: systemClock, hostname: "client.example", tls: { mode: "none" } },
      );
      await session.greet(signal);
      const recipients = [{ rcptTo: "bob@[127.0.0.1]", dsn: {} }];
      const sent = await session.send(transaction({ recipients }), signal);
      assert.equal(sent.recipients[0]!.result, "ok", JSON.stringify(sent));
      await session.quit();
      stream = await done.promise;
    } finally {
      await queue.stop();
    }
  });
  after(async () => {
    await provider.stop();
    await Deno.remove(folder, { recursive: true });
  });

  it("is what the audit trail says", async () => {
    const exported = await ran(audit, ["export", "--data", join(folder, "data")]);
    assert.equal(exported.code, 0, exported.stderr);
    const events = exported.stdout.split("\n").filter(Boolean)
      .map((line) => JSON.parse(line))
      .filter((event) => event.stream === stream);
    const of = (type: string) => events.filter((event) => event.type === type);
    assert.deepEqual(
      of("TransportChosen").map(({ data }) => [data.transport, data.type, data.because]),
      [
        ...[1, 2, 3].map(() => ["direct", "direct", { kind: "default" }]),
        ["provider", "submission", {
          kind: "route",
          scope: "global",
          index: 0,
          matched: { minimum_attempts: "3" },
        }],
      ],
    );
    assert.deepEqual(of("Failed").map(({ data }) => data.permanent), [false, false, false]);
    const tried = of("HostTried").map(({ data }) => data);
    assert.deepEqual(tried.map(({ result }) => result), ["error", "error", "error", "ok"]);
    assert.deepEqual(tried[3].login, { mechanism: "PLAIN", username: "u" });
    assert.equal(tried[3].verifiedBy, "pkix");
    assert.equal(of("Delivered").length, 1);
    assert.equal(provider.messages.length, 1);
    assert.ok(!exported.stdout.includes("hunter2"), "the password is in the log");
    assert.ok(!exported.stdout.includes(btoa("\0u\0hunter2")), "the password is in the log");
  });

  it("is replayed against other routes without asking anybody", async () => {
    const file = join(folder, "other.toml");
    await Deno.writeTextFile(
      file,
      `hostname = "queue.example.com"
[[routes]]
to_mx = [".big.example"]
transport = "relay"
[[routes]]
minimum_attempts = 1
transport = "relay"
[transports.relay]
type = "submissions"
host = "relay.example"
`,
    );
    const args = [stream, "--data", join(folder, "data"), "--config", file];
    const { code, stdout, stderr } = await ran(replay, args);
    assert.equal(code, 0, stderr);
    const today = stdout.split("\n").filter((line) => line.includes("routes today"));
    const untold = "; not to be told: routes[0].to_mx: replay asks no DNS";
    assert.deepEqual(today.map((line) => line.trim().replace(/^routes today\s+/, "")), [
      `direct: no route matched${untold}`,
      ...[1, 2, 3].map((n) => `relay: routes[1] (minimum_attempts ${n})${untold}`),
    ]);
  });

  it("is foretold by the route command, with every criterion", async () => {
    const file = join(folder, "criteria.toml");
    await Deno.writeTextFile(
      file,
      `hostname = "queue.example.com"
[[routes]]
to_mx = [".big.example"]
size_over = "10KiB"
header = { name = "List-Id", value = "<news>" }
transport = "relay"
[transports.relay]
type = "submission"
host = "relay.example"
auth = { username = "u", password = "hunter2" }
`,
    );
    const asked = (...more: string[]) =>
      ran(route, ["--from", "a@b.example", "--to", "c@d.example", "--config", file, ...more]);
    const met = [
      "--mx",
      "in.big.example,x.example",
      "--size",
      "1MiB",
      "--header",
      "list-id: <News>",
    ];
    const { code, stdout, stderr } = await asked(...met);
    assert.equal(code, 0, stderr);
    assert.match(stderr, /transports\.relay\.auth\.password: the password stands in the file/);
    assert.match(stdout, /routes\[0\] to relay: matches first, and is taken/);
    assert.match(stdout, /yes {2}size_over 10240: it is 1048576/);
    assert.match(stdout, /yes {2}to_mx \.big\.example: it is in\.big\.example/);
    assert.match(stdout, /yes {2}header List-Id: <news>: it is List-Id: <news>/);
    assert.match(stdout, /relay, submission to relay\.example:587 \(TLS verified, login as u\)/);

    const unknown = await asked();
    assert.match(unknown.stdout, /no {3}size_over 10240: it is 0/);
    assert.match(unknown.stdout, /\? {4}to_mx \.big\.example: not looked up here; --mx says/);
    assert.match(unknown.stdout, /direct, direct delivery to port 25, because: no route matched/);

    const shown = await asked("--json", ...met);
    assert.equal(JSON.parse(shown.stdout).transport.name, "relay");
    assert.ok(!shown.stdout.includes("hunter2"), "the password is shown");

    for (const [option, value] of [["--mx", "a b"], ["--size", "big"], ["--header", "x"]]) {
      const wrong = await asked(option!, value!);
      assert.equal(wrong.code, 2);
      assert.match(wrong.stderr, new RegExp(`route: ${option}: `));
    }
  });
});

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import { checkFact } from "../../../events/catalogue.ts";
import type { SmarthostTransportConfig } from "../../../src/config/types.ts";
import { smarthostPolicy } from "../../../src/delivery/smarthost.ts";
import { SocketDialer } from "../../../src/delivery/dialer.ts";
import { ClientSession } from "../../../src/smtp/client.ts";
import { realClock } from "../smtp/harness.ts";
import { type Script, ScriptedServer } from "../smtp/scripted_server.ts";
import { DIRECT, failure, World } from "./world.ts";

const fixture = (name: string) =>
  Deno.readTextFileSync(new URL(`../../../fixtures/tls/${name}`, import.meta.url));
const TLS = { key: fixture("localhost.key.pem"), cert: fixture("localhost.cert.pem") };
const CA = fixture("ca.cert.pem");

const RELAY: SmarthostTransportConfig = {
  type: "smtp",
  name: "relay",
  host: "relay.example",
  port: 25,
  tls: "opportunistic",
  ipFamily: "any",
};

describe("a smarthost", () => {
  let world: World;
  const open = async (script: Script, changes: Partial<SmarthostTransportConfig> = {}) => {
    world = new World([DIRECT, { ...RELAY, ...changes }]);
    return await world.host("relay.example", "192.0.2.1", script);
  };
  afterEach(() => world?.stop());

  it("gets the mail for every domain, over STARTTLS where offered", async () => {
    const server = await open({ tls: TLS });
    const outcome = await world.attempt("relay", "bob@anywhere.example");
    assert.equal(outcome.kind, "delivered");
    assert.ok(server.messages[0]!.tls);
    assert.ok(outcome.kind === "delivered" && outcome.tls.mode === "opportunistic");
    assert.deepEqual(world.findings[0]!.data, {
      nextHop: "relay.example",
      expanded: "relay.example",
      dnssec: { nextHop: "unchecked", expanded: "unchecked" },
      by: "configured",
      hosts: [{ host: "relay.example", preference: 0 }],
    });
    const [tried] = world.tried;
    assert.equal(tried!.tlsMode, "opportunistic");
    assert.match(tried!.tls!.fingerprint!, /^[0-9a-f]{64}$/);
    for (const finding of world.findings) checkFact(finding);
  });

  it("is given the mail in plain text after a handshake that failed", async () => {
    const server = await open({ extensions: ["STARTTLS"], garbleTls: true });
    const outcome = await world.attempt("relay", "bob@anywhere.example");
    assert.equal(outcome.kind, "delivered");
    assert.equal(server.connections, 2);
    assert.deepEqual(
      world.tried.map((one) => [one.address, one.tlsMode, one.result]),
      [["192.0.2.1", "opportunistic", "error"], ["192.0.2.1", "none", "ok"]],
    );
  });

  it("is not given mail in plain text where TLS is required", async () => {
    for (const tls of ["required", "verified"] as const) {
      const server = await open({ extensions: ["STARTTLS"], garbleTls: true }, { tls });
      const outcome = failure(await world.attempt("relay", "bob@anywhere.example"));
      assert.deepEqual([outcome.permanent, outcome.enhanced], [false, "4.7.5"]);
      assert.equal(server.connections, 1);
      assert.equal(server.messages.length, 0);
      await world.stop();
    }
  });

  it("is left alone where its certificate must verify and does not", async () => {
    const server = await open({ tls: TLS }, { tls: "verified" });
    const outcome = failure(await world.attempt("relay", "bob@anywhere.example"));
    assert.match(outcome.reason, /the certificate is not accepted/);
    assert.ok(!server.commands.some((line) => line.startsWith("MAIL")));
  });

  it("refuses for good with 5xx, and says over which transport", async () => {
    await open({ answers: { MAIL: "550 5.7.1 no relaying" } });
    const outcome = failure(await world.attempt("relay", "bob@anywhere.example"));
    assert.equal(outcome.permanent, true);
    assert.equal(
      outcome.reason,
      'transport "relay": relay.example (192.0.2.1) said 550 5.7.1 no relaying to MAIL FROM',
    );
  });

  it("is down for now when it does not answer, or its name has no address", async () => {
    await open({});
    await world.servers.get("192.0.2.1")!.stop();
    world.servers.delete("192.0.2.1");
    let outcome = failure(await world.attempt("relay", "bob@anywhere.example"));
    assert.deepEqual([outcome.permanent, outcome.result], [false, "error"]);
    assert.match(outcome.reason, /^transport "relay": relay\.example \(192\.0\.2\.1\): /);

    world.names.delete("relay.example");
    outcome = failure(await world.attempt("relay", "bob@anywhere.example"));
    assert.deepEqual([outcome.permanent, outcome.enhanced], [false, "4.4.4"]);
  });

  it("that the configuration lacks is a temporary failure", async () => {
    await open({});
    const outcome = failure(await world.attempt("gone", "bob@anywhere.example"));
    assert.equal(outcome.permanent, false);
    assert.match(outcome.reason, /no transport "gone"/);
    world.transports.reload({
      hostname: "us.example",
      transports: new Map([["gone", { ...RELAY, name: "gone" }]]),
    });
    assert.equal((await world.attempt("gone", "bob@anywhere.example")).kind, "delivered");
  });
});

describe("kept sessions", () => {
  let world: World;
  let server: ScriptedServer;
  beforeEach(async () => {
    world = new World([{ ...RELAY }, { ...RELAY, name: "plain", tls: "none" }]);
    server = await world.host("relay.example", "192.0.2.1");
  });
  afterEach(() => world.stop());
  const send = (transport = "relay") => world.attempt(transport, "bob@anywhere.example");

  it("carry the next message", async () => {
    await send();
    await send();
    assert.equal(server.connections, 1);
    assert.deepEqual(world.tried.map((one) => one.reused ?? false), [false, true]);
    const lines = world.tried[1]!.transcript!.map(({ line }) => line);
    assert.equal(lines[0], "MAIL FROM:<alice@us.example>");
    assert.deepEqual(Object.keys(world.tried[1]!.phases), ["envelope", "data", "total"]);
  });

  it("are not shared between TLS policies", async () => {
    await send();
    await send("plain");
    assert.equal(server.connections, 2);
  });

  it("that are dead before MAIL is answered are replaced without a word", async () => {
    await send();
    server.cut();
    await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal((await send()).kind, "delivered");
    assert.equal(server.connections, 2);
    assert.deepEqual(world.tried.map((one) => [one.result, one.reused ?? false]), [
      ["ok", false],
      ["ok", false],
    ]);
  });

  it("that are answered with 421 are replaced too", async () => {
    await send();
    server.script.answers = { MAIL: (_, n) => n === 1 ? "421 4.4.2 idle for too long" : "250 ok" };
    assert.equal((await send()).kind, "delivered");
    assert.equal(server.connections, 2);
  });

  it("serve many messages at a time", async () => {
    const outcomes = await Promise.all(Array.from({ length: 30 }, () => send()));
    assert.ok(outcomes.every((outcome) => outcome.kind === "delivered"));
    assert.equal(world.sessions.size, 20);
  });
});

describe("the TLS policy of a smarthost", () => {
  const greet = async (host: string, ca?: string[]) => {
    const server = await ScriptedServer.start({ tls: TLS });
    const target = { address: "127.0.0.1", port: server.port };
    const signal = new AbortController().signal;
    const session = new ClientSession(await new SocketDialer().connect(target, signal), {
      clock: realClock,
      hostname: "client.test",
      tls: smarthostPolicy({ host, tls: "verified", ...(ca ? { ca } : {}) }),
    });
    const { verdict } = await session.greet(signal);
    session.close();
    await server.stop();
    return verdict;
  };

  it("accepts a certificate of a trusted CA for the name or address", async () => {
    assert.equal((await greet("localhost", [CA])).result, "ok");
    assert.equal((await greet("127.0.0.1", [CA])).result, "ok");
  });

  it("refuses one for another name, or of an unknown CA", async () => {
    assert.match((await greet("relay.example", [CA])).error!, /it is not for relay\.example/);
    assert.match((await greet("127.0.0.2", [CA])).error!, /it is not for 127\.0\.0\.2/);
    assert.match((await greet("localhost")).error!, /the certificate is not accepted: ./);
  });
});

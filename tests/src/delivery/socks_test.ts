/**
 * Direct delivery through a SOCKS5 proxy: who sees what of whom, and what a proxy that fails in
 * every way there is comes to: a temporary failure that names transport and proxy.
 */
import assert from "node:assert/strict";
import { afterEach, describe, it } from "@std/testing/bdd";
import { checkFact } from "../../../events/catalogue.ts";
import { Secret } from "../../../src/config/secret.ts";
import type { SocksTransportConfig } from "../../../src/config/types.ts";
import { type ProxyScript, SocksProxy } from "./socks_proxy.ts";
import { failure, World } from "./world.ts";

const login = { username: "u", password: "pass-of-the-proxy" };

describe("direct delivery through a proxy", () => {
  let world: World;
  let proxy: SocksProxy;
  const ports = new Map<string, number>();
  afterEach(async () => {
    await world.stop();
    await proxy.stop();
    ports.clear();
  });

  const open = async (script: ProxyScript = {}, changes: Partial<SocksTransportConfig> = {}) => {
    proxy = await SocksProxy.start(ports, script);
    world = new World([{
      type: "socks",
      name: "far",
      proxy: { address: "127.0.0.1", port: proxy.port },
      remoteIps: ["198.51.100.7"],
      remoteHostname: "out2.example",
      port: 25,
      ipFamily: "ipv4",
      allowLoopback: false,
      ...changes,
    }]);
    world.domain("example.org", [10, "mx1.example.org"], [20, "mx2.example.org"]);
    const first = await world.host("mx1.example.org", "192.0.2.1");
    const second = await world.host("mx2.example.org", "192.0.2.2");
    ports.set("192.0.2.1", first.port).set("192.0.2.2", second.port);
    return { first, second };
  };
  const attempt = () => world.attempt("far", "bob@example.org");
  const refusal = async (): Promise<string> => {
    const outcome = failure(await attempt());
    assert.equal(outcome.permanent, false);
    const log = JSON.stringify([outcome, world.findings]);
    assert(!log.includes(login.password), "a secret is in the log");
    for (const finding of world.findings) checkFact(finding);
    return outcome.reason;
  };

  it("resolves here, dials the proxy, and greets by the proxy's name", async () => {
    const { first } = await open();
    const outcome = await attempt();
    assert.equal(outcome.kind, "delivered", JSON.stringify(outcome));
    assert.deepEqual(proxy.asked, ["192.0.2.1:25"]);
    assert.equal(first.commands[0], "EHLO out2.example");
    assert(
      !world.diary.some((line) => line.startsWith("dial")),
      "it was dialled without the proxy",
    );
    const [tried] = world.tried;
    assert.equal(tried!.proxy, `127.0.0.1:${proxy.port}`);
    assert.equal(tried!.host, "mx1.example.org");
    assert.equal(tried!.address, "192.0.2.1");
    for (const finding of world.findings) checkFact(finding);
  });

  it("logs in at the proxy", async () => {
    await open({ login }, { username: login.username, password: new Secret(login.password) });
    assert.equal((await attempt()).kind, "delivered");
    assert.deepEqual(proxy.logins, ["u"]);
    assert(!JSON.stringify(world.findings).includes(login.password));
  });

  it("keeps the session for the next message, and shares it with no other transport", async () => {
    const { first } = await open();
    await attempt();
    await attempt();
    assert.equal(first.connections, 1);
    assert.deepEqual(world.tried.map(({ reused = false }) => reused), [false, true]);
    assert.equal(world.tried[1]!.proxy, `127.0.0.1:${proxy.port}`);
  });

  it("loses no greeting that comes with the proxy's reply", async () => {
    await open({ eager: true });
    assert.equal((await attempt()).kind, "delivered");
  });

  it("asks for addresses of the families of remote_ips alone", async () => {
    await open();
    world.names.set("mx1.example.org", { A: ["192.0.2.1"], AAAA: ["2001:db8::1"] });
    await attempt();
    assert.deepEqual(proxy.asked, ["192.0.2.1:25"]);
  });

  it("gives IPv6 addresses too", async () => {
    const { first } = await open({}, { ipFamily: "ipv6" });
    world.names.set("mx1.example.org", { AAAA: ["2001:db8::1"] });
    ports.set("2001:db8::1", first.port);
    assert.equal((await attempt()).kind, "delivered");
    assert.deepEqual(proxy.asked, ["2001:db8::1:25"]);
  });

  it("dials the proxy from the local address", async () => {
    await open({}, { localAddresses: { ipv4: "127.0.0.9" } });
    assert.equal((await attempt()).kind, "delivered");
    assert.deepEqual(proxy.clients, ["127.0.0.9"]);
  });

  it("sees a loop by our own name and by that of the proxy", async () => {
    for (const name of ["us.example", "out2.example"]) {
      await open();
      world.domain("example.org", [10, name]);
      assert.match(failure(await attempt()).reason, /would come back to us/);
      if (name === "us.example") {
        await world.stop();
        await proxy.stop();
      }
    }
  });

  it("goes on to the next address when the proxy cannot reach one", async () => {
    const { second } = await open();
    ports.delete("192.0.2.1");
    assert.equal((await attempt()).kind, "delivered");
    assert.equal(second.messages.length, 1);
    assert.deepEqual(proxy.asked, ["192.0.2.1:25", "192.0.2.2:25"]);
    assert.match(
      world.tried[0]!.error!,
      /^proxy 127\.0\.0\.1:\d+ says that 192\.0\.2\.1:25 refused/,
    );
  });

  it("says what the proxy says of a host", async () => {
    const replies: [number, RegExp][] = [
      [1, /cannot be connected to/],
      [2, /is not allowed by its rules/],
      [3, /is in a network that it cannot reach/],
      [4, /192\.0\.2\.1:25 cannot be reached/],
      [6, /TTL expired/],
      [7, /does not know CONNECT/],
      [8, /an address of a type that it does not know/],
    ];
    await open();
    for (const [code, expected] of replies) {
      proxy.script.refuse = code;
      assert.match(await refusal(), expected);
    }
  });

  const failures: [string, ProxyScript, RegExp][] = [
    ["asks for a login that we have not", { login }, /takes none of our ways to log in/],
    [
      "hangs from the start",
      { misbehave: { at: "greeting", how: "hang" } },
      /does not answer: no c/,
    ],
    ["answers SOCKS4", { misbehave: { at: "greeting", how: "socks4" } }, /does not speak SOCKS5/],
    ["is no proxy", { misbehave: { at: "greeting", how: "garbage" } }, /does not speak SOCKS5/],
    [
      "closes at once",
      { misbehave: { at: "greeting", how: "close" } },
      /closed the connection befo/,
    ],
    [
      "closes half way",
      { misbehave: { at: "greeting", how: "half" } },
      /closed the connection befo/,
    ],
    [
      "closes before it connects",
      { misbehave: { at: "connect", how: "close" } },
      /closed the conn/,
    ],
    [
      "closes in its last reply",
      { misbehave: { at: "connect", how: "half" } },
      /closed the connec/,
    ],
  ];
  for (const [name, script, expected] of failures) {
    it(`ends for now at a proxy that ${name}; no other address is tried`, async () => {
      const { first } = await open(script);
      const reason = await refusal();
      assert.match(reason, expected);
      assert.match(
        reason,
        /^transport "far": mx1\.example\.org \(192\.0\.2\.1\): proxy 127\.0\.0\.1:/,
      );
      assert.equal(world.tried.length, 1);
      assert.equal(first.connections, 0);
    });
  }

  it("ends for now at a proxy that refuses our password, or is not there", async () => {
    await open({ login }, { username: "u", password: new Secret("wrong-password-of-proxy") });
    assert.match(await refusal(), /refuses our user name and password/);
    assert(!JSON.stringify(world.findings).includes("wrong-password-of-proxy"));
    assert.equal(world.tried.length, 1);
    await proxy.stop();
    assert.match(await refusal(), /proxy 127\.0\.0\.1:\d+ cannot be reached: /);
    assert.equal(world.tried.length, 2);
    proxy = await SocksProxy.start(ports);
  });

  it("tries the next address when the proxy hangs while it connects", async () => {
    await open({ misbehave: { at: "connect", how: "hang" } });
    assert.match(await refusal(), /did not connect us to 192\.0\.2\.1:25/);
    assert.equal(world.tried.length, 2);
    assert.equal(world.tried[0]!.result, "timeout");
  });

  it("ends when it is canceled in the middle of the proxy's dialogue", async () => {
    await open({ misbehave: { at: "connect", how: "hang" } });
    const abort = new AbortController();
    const running = world.attempt("far", "bob@example.org", {}, abort.signal);
    setTimeout(() => abort.abort(), 10);
    assert.equal(failure(await running).result, "canceled");
  });

  it("takes what a host refuses for good as such, and names no transport to the sender", async () => {
    const { first } = await open();
    first.script.answers = { RCPT: "550 5.1.1 no such user" };
    const outcome = failure(await attempt());
    assert.equal(outcome.permanent, true);
    assert.match(outcome.reason, /^mx1\.example\.org \(192\.0\.2\.1\) said 550/);
  });
});

import { afterEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { type Handler, RCODE, reply, soa } from "./dns_server.ts";
import { a, answering, failure, one, stopServers } from "./resolver_harness.ts";

afterEach(stopServers);

describe("resolver: cache", () => {
  it("keeps a positive answer for its TTL, and says how long it still may be kept", async () => {
    const { resolver, server, clock } = await one(answering(a("x.example", "192.0.2.1", 100)));
    await resolver.query("x.example", "A");
    clock.ahead = 60_000;
    const kept = await resolver.query("X.EXAMPLE", "A");
    assert.deepEqual([kept.records, kept.ttl], [["192.0.2.1"], 39]);
    assert.equal(server.asked.length, 1);
    clock.ahead = 101_000;
    await resolver.query("x.example", "A");
    assert.equal(server.asked.length, 2);
  });

  it("keeps no positive answer longer than a day", async () => {
    const { resolver } = await one(answering(a("x.example", "192.0.2.1", 0x7fffffff)));
    assert.equal((await resolver.query("x.example", "A")).ttl, 86_400);
  });

  it("does not keep an answer with TTL 0, or one with the top bit set", async () => {
    const { resolver, server } = await one((asked) =>
      reply(asked, [a(asked.name, "192.0.2.1", asked.name === "zero.example" ? 0 : 0xffffffff)])
    );
    for (const name of ["zero.example", "top.example"]) {
      assert.equal((await resolver.query(name, "A")).ttl, 0);
      await resolver.query(name, "A");
    }
    assert.equal(server.asked.length, 4);
  });

  const negative = [
    ["the SOA's minimum", [soa("example", 900, 60)], 60],
    ["the SOA's own TTL", [soa("example", 30, 900)], 30],
    ["an hour at most", [soa("example", 90_000, 90_000)], 3_600],
    ["nothing without a SOA", [], 0],
  ] as const;
  for (const [what, authorities, ttl] of negative) {
    for (const flags of [0, RCODE.nxdomain]) {
      it(`keeps ${flags ? "NXDOMAIN" : "NODATA"} for ${what}`, async () => {
        const { resolver, server, clock } = await one((asked) =>
          reply(asked, [], { flags, authorities: [...authorities] })
        );
        assert.equal((await resolver.query("x.example", "A")).ttl, ttl);
        if (ttl > 0) {
          clock.ahead = (ttl - 5) * 1_000;
          await resolver.query("x.example", "A");
          assert.equal(server.asked.length, 1);
        }
        clock.ahead = (ttl + 1) * 1_000;
        await resolver.query("x.example", "A");
        assert.equal(server.asked.length, 2);
      });
    }
  }

  it("keeps SERVFAIL for five seconds and a timeout not at all", async () => {
    const { resolver, server, clock } = await one((asked) =>
      asked.type === "A" ? reply(asked, [], { flags: RCODE.servfail }) : undefined
    );
    await failure(resolver.query("x.example", "A"));
    await failure(resolver.query("x.example", "A"));
    assert.equal(server.asked.length, 1);
    clock.ahead = 5_001;
    await failure(resolver.query("x.example", "A"));
    assert.equal(server.asked.length, 2);
    await failure(resolver.query("x.example", "MX"));
    await failure(resolver.query("x.example", "MX"));
    assert.equal(server.asked.length, 6);
  });

  it("is bounded, and forgets the least recently used", async () => {
    const { resolver, server } = await one(
      (asked) => reply(asked, [a(asked.name, "192.0.2.1")]),
      { cacheLimit: 2 },
    );
    for (const name of ["a", "b", "a", "c", "a", "b"]) await resolver.query(`${name}.example`, "A");
    assert.deepEqual(server.asked.map((asked) => asked.name), [
      "a.example",
      "b.example",
      "c.example",
      "b.example",
    ]);
  });
});

describe("resolver: questions in flight", () => {
  const slowly: Handler = async (asked) => {
    await new Promise((resolve) => setTimeout(resolve, 20));
    return reply(asked, [a(asked.name, "192.0.2.1", 0)]);
  };

  it("asks identical ones once", async () => {
    const { resolver, server } = await one(slowly, { timeoutMs: 500 });
    const answers = await Promise.all(
      ["x.example", "X.example", "x.example."].map((name) => resolver.query(name, "A")),
    );
    assert.equal(answers.length, 3);
    assert.equal(server.asked.length, 1);
    await resolver.query("x.example", "A");
    assert.equal(server.asked.length, 2);
  });

  it("asks many at once without a socket for each", async () => {
    let open = 0;
    let most = 0;
    const { resolver } = await one(async (asked) => {
      most = Math.max(most, ++open);
      await new Promise((resolve) => setTimeout(resolve, 5));
      open--;
      return reply(asked, [a(asked.name, "192.0.2.1")]);
    }, { timeoutMs: 900 });
    const answers = await Promise.all(
      Array.from({ length: 300 }, (_, n) => resolver.query(`h${n}.example`, "A")),
    );
    assert.ok(answers.every((answer) => answer.status === "records"));
    assert.ok(most > 8 && most <= 128, `${most} at once`);
  });

  it("lets one asker leave without harm to the others", async () => {
    const { resolver, server } = await one(slowly, { timeoutMs: 500 });
    const leaver = new AbortController();
    const left = failure(resolver.query("x.example", "A", leaver.signal));
    const stays = resolver.query("x.example", "A");
    leaver.abort();
    assert.equal((await left).kind, "canceled");
    assert.deepEqual((await stays).records, ["192.0.2.1"]);
    assert.equal(server.asked.length, 1);
  });

  it("gives the search up when the last asker has left", async () => {
    const { resolver, server, clock } = await one(() => undefined, { timeoutMs: 500 });
    const leaver = new AbortController();
    const left = failure(resolver.query("x.example", "A", leaver.signal));
    while (server.asked.length === 0) await new Promise((resolve) => setTimeout(resolve, 2));
    leaver.abort();
    assert.equal((await left).kind, "canceled");
    await new Promise((resolve) => setTimeout(resolve, 5));
    assert.equal(clock.armed, 0);
  });

  it("does not ask for one who has left already", async () => {
    const { resolver, server } = await one(slowly);
    const error = await failure(resolver.query("x.example", "A", AbortSignal.abort()));
    assert.equal(error.kind, "canceled");
    assert.equal(server.asked.length, 0);
  });
});

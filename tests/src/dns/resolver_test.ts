import { afterEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createSocket } from "node:dgram";
// @ts-types="@types/dns-packet"
import type { Answer as PacketAnswer } from "dns-packet";
import { StubResolver } from "../../../src/dns/resolver.ts";
import { type Asked, FLAGS, type Handler, RCODE, reply } from "./dns_server.ts";
import {
  a,
  alias,
  answering,
  failure,
  MovingClock,
  one,
  resolverFor,
  serve,
  stopServers,
} from "./resolver_harness.ts";

afterEach(stopServers);

describe("resolver: answers", () => {
  it("returns the records of each type", async () => {
    const { resolver, clock } = await one((asked) => {
      const name = asked.name;
      const records: Record<string, PacketAnswer> = {
        A: a(name, "192.0.2.1"),
        AAAA: { type: "AAAA", name, ttl: 300, data: "2001:db8::1" },
        MX: { type: "MX", name, ttl: 300, data: { preference: 10, exchange: "MX.Example" } },
        TXT: { type: "TXT", name, ttl: 300, data: [Buffer.from("a"), Buffer.from("bc")] },
        PTR: { type: "PTR", name, ttl: 300, data: "host.example" },
        CNAME: alias(name, "other.example"),
        TLSA: {
          type: "TLSA",
          name,
          ttl: 300,
          data: { usage: 3, selector: 1, matchingType: 1, certificate: Buffer.from([1, 2, 3]) },
        },
      };
      const record = records[asked.type];
      return reply(asked, record ? [record] : []);
    });
    const get = async (type: Parameters<StubResolver["query"]>[1]) =>
      (await resolver.query("x.example", type)).records;
    assert.deepEqual(await get("A"), ["192.0.2.1"]);
    assert.deepEqual(await get("AAAA"), ["2001:db8::1"]);
    assert.deepEqual(await get("MX"), [{ preference: 10, exchange: "mx.example" }]);
    assert.deepEqual(await get("TXT"), [[Uint8Array.of(97), Uint8Array.of(98, 99)]]);
    assert.deepEqual(await get("PTR"), ["host.example"]);
    assert.deepEqual(await get("CNAME"), ["other.example"]);
    const data = Uint8Array.of(1, 2, 3);
    assert.deepEqual(await get("TLSA"), [{ usage: 3, selector: 1, matching: 1, data }]);
    assert.equal(clock.armed, 0, "no timer is left");
  });

  it("asks with RD, AD, and EDNS0 with DO and 1232 octets, in A-labels, id and port at random", async () => {
    const { resolver, server } = await one(answering());
    for (let n = 0; n < 8; n++) await resolver.query(`${n}.Bücher.Example.`, "A");
    const [first] = server.asked;
    assert.equal(first?.name, "0.xn--bcher-kva.example");
    assert.equal(first?.packet.flag_rd, true);
    assert.equal(first?.packet.flag_ad, true);
    const opt = first?.packet.additionals?.[0];
    assert.ok(opt?.type === "OPT" && opt.flag_do && opt.udpPayloadSize === 1232);
    assert.ok(new Set(server.asked.map((asked) => asked.packet.id)).size > 4);
    assert.ok(new Set(server.asked.map((asked) => asked.port)).size > 2);
  });

  it("follows CNAMEs and ignores what does not belong to the chain", async () => {
    const { resolver } = await one(answering(
      a("stranger.example", "192.0.2.66"),
      a("c.example", "192.0.2.1", 100),
      alias("B.example", "c.example", 50),
      alias("a.example", "b.example"),
      a("b.other.example", "192.0.2.67"),
    ));
    assert.deepEqual(await resolver.query("a.example", "A"), {
      status: "records",
      records: ["192.0.2.1"],
      cnames: ["b.example", "c.example"],
      ttl: 50,
      authentic: false,
    });
  });

  it("takes a CNAME loop as malformed", async () => {
    const loop = [alias("a.example", "b.example"), alias("b.example", "a.example")];
    const { resolver } = await one(answering(...loop));
    const error = await failure(resolver.query("a.example", "A"));
    assert.equal(error.kind, "malformed");
    assert.match(error.message, /loop/);
  });

  it("follows 16 CNAMEs and not 17", async () => {
    const chain = (length: number) =>
      Array.from({ length }, (_, n) => alias(`h${n}.example`, `h${n + 1}.example`));
    const { resolver } = await one((asked) => reply(asked, chain(asked.type === "A" ? 16 : 17)));
    assert.equal((await resolver.query("h0.example", "A")).cnames.length, 16);
    assert.equal((await failure(resolver.query("h0.example", "AAAA"))).kind, "malformed");
  });

  it("tells no data from no such name, also behind a CNAME", async () => {
    const { resolver } = await one((asked) => {
      const records = asked.name === "c.example" ? [alias("c.example", "gone.example")] : [];
      return reply(asked, records, { flags: asked.name === "empty.example" ? 0 : RCODE.nxdomain });
    });
    assert.equal((await resolver.query("empty.example", "A")).status, "nodata");
    assert.equal((await resolver.query("gone.example", "A")).status, "nxdomain");
    const behind = await resolver.query("c.example", "A");
    assert.deepEqual([behind.status, behind.cnames], ["nxdomain", ["gone.example"]]);
  });

  it("keeps the root, and an exchange that is no host, as what they are", async () => {
    const { resolver } = await one((asked) => {
      const exchange = asked.name === "null.example" ? "." : "evilXexample";
      const data = { preference: 0, exchange };
      const octets = Buffer.from(reply(asked, [{ type: "MX", name: asked.name, ttl: 1, data }]));
      // A dot within a label: dns-packet cannot write one, so it is put in afterwards.
      const at = octets.indexOf("evilXexample");
      if (at > 0) octets[at + 4] = 0x2e;
      return octets;
    });
    const exchanges = async (name: string) =>
      (await resolver.query(name, "MX")).records.map((record) => record.exchange);
    assert.deepEqual(await exchanges("null.example"), ["."]);
    assert.deepEqual(await exchanges("dot.example"), ["evil\\example"]);
  });

  it("answers localhost itself (RFC 6761)", async () => {
    const { resolver, server } = await one(answering(a("localhost", "192.0.2.1")));
    assert.deepEqual((await resolver.query("localhost", "A")).records, ["127.0.0.1"]);
    assert.deepEqual((await resolver.query("x.LOCALHOST.", "AAAA")).records, ["::1"]);
    assert.equal((await resolver.query("localhost", "MX")).status, "nodata");
    assert.equal(server.asked.length, 0);
  });

  it("asks nothing for what is no name", async () => {
    const { resolver, server } = await one(answering());
    for (const name of ["", "a..b", "a b", "*.example", "a".repeat(64), "a\0b", "x\r\n.y"]) {
      assert.equal((await failure(resolver.query(name, "A"))).kind, "badname");
    }
    assert.equal(server.asked.length, 0);
  });
});

describe("resolver: AD and extended errors", () => {
  const authentic: Handler = (asked) =>
    reply(asked, [a(asked.name, "192.0.2.1")], { flags: FLAGS.ad });
  for (const [trustAd, expected] of [["auto", true], [true, true], [false, false]] as const) {
    it(`trust_ad ${trustAd}: AD of a loopback server ${expected ? "counts" : "does not"}`, async () => {
      const { resolver } = await one(authentic, { trustAd });
      assert.equal((await resolver.query("x.example", "A")).authentic, expected);
    });
  }

  it("is not authentic without AD", async () => {
    const { resolver } = await one(answering(a("x.example", "192.0.2.1")), { trustAd: true });
    assert.equal((await resolver.query("x.example", "A")).authentic, false);
  });

  it("passes on extended errors, made safe", async () => {
    const data = Buffer.concat([Buffer.from([0, 6]), Buffer.from("no\r\nDS \x1b[31mkey")]);
    const { resolver, server } = await one((asked) =>
      reply(asked, [], {
        flags: RCODE.servfail,
        additionals: [{
          type: "OPT",
          name: ".",
          udpPayloadSize: 1232,
          extendedRcode: 0,
          ednsVersion: 0,
          flags: 0,
          flag_do: false,
          options: [{ code: 15, data } as never],
        }],
      })
    );
    const error = await failure(resolver.query("x.example", "A"));
    assert.equal(error.kind, "servfail");
    assert.deepEqual(error.extended, { code: 6, text: "DNSSEC Bogus: no DS [31mkey" });
    assert.ok(error.message.includes(`x.example A: ${server.name}: SERVFAIL (DNSSEC Bogus`));
  });
});

describe("resolver: servers", () => {
  for (const rcode of ["servfail", "refused", "formerr"] as const) {
    it(`goes on to the next after ${rcode}`, async () => {
      const bad = await serve((asked) => reply(asked, [], { flags: RCODE[rcode] }));
      const good = await serve(answering(a("x.example", "192.0.2.1")));
      const { resolver } = resolverFor([bad, good]);
      assert.deepEqual((await resolver.query("x.example", "A")).records, ["192.0.2.1"]);
      assert.equal(bad.asked.length, 1);
    });
  }

  it("goes on to the next after silence, and asks it again in the second round", async () => {
    const silent = await serve(() => undefined);
    const { resolver } = resolverFor([silent]);
    const error = await failure(resolver.query("x.example", "A"));
    assert.equal(error.kind, "timeout");
    assert.equal(silent.asked.length, 2);
    const good = await serve(answering(a("x.example", "192.0.2.1")));
    const both = resolverFor([silent, good]).resolver;
    assert.deepEqual((await both.query("x.example", "A")).records, ["192.0.2.1"]);
  });

  it("prefers a server's word to another's silence as the reason", async () => {
    const silent = await serve(() => undefined);
    const refusing = await serve((asked) => reply(asked, [], { flags: RCODE.refused }));
    const { resolver } = resolverFor([silent, refusing]);
    assert.equal((await failure(resolver.query("x.example", "A"))).kind, "refused");
    assert.equal(refusing.asked.length, 1);
  });

  it("takes a referral for a refusal, not for an empty answer", async () => {
    const { resolver } = await one((asked) =>
      reply(asked, [], {
        authorities: [{ type: "NS", name: "example", ttl: 60, data: "ns.example" }],
      })
    );
    assert.equal((await failure(resolver.query("x.example", "MX"))).kind, "refused");
  });

  it("ends at the deadline", async () => {
    const silent = await serve(() => undefined);
    const { resolver, clock } = resolverFor([silent], { timeoutMs: 5_000, deadlineMs: 40 });
    const began = performance.now();
    assert.equal((await failure(resolver.query("x.example", "A"))).kind, "timeout");
    assert.ok(performance.now() - began < 1_000);
    assert.equal(clock.armed, 0);
  });

  it("refuses what is no server", () => {
    const clock = new MovingClock();
    for (
      const server of ["dns.example:53", "192.0.2.1:0", "192.0.2.1:99999", "[192.0.2.1]:53", ""]
    ) {
      assert.throws(() => new StubResolver({ clock, servers: [server] }), /expected IP/);
    }
    assert.throws(() => new StubResolver({ clock, servers: [] }), /at least one/);
  });
});

describe("resolver: what is not the response", () => {
  /** Sends `bad` first, then the good answer. */
  const after = (bad: (asked: Asked) => Uint8Array): Handler => async (asked) => {
    asked.send(bad(asked));
    await new Promise((resolve) => setTimeout(resolve, 5));
    return reply(asked, [a(asked.name, "192.0.2.1")]);
  };
  const forged = (asked: Asked) => [a(asked.name, "192.0.2.66")];
  const wrong: Record<string, (asked: Asked) => Uint8Array> = {
    "another id": (asked) => reply(asked, forged(asked), { id: (asked.packet.id ?? 0) ^ 1 }),
    "another name": (asked) =>
      reply(asked, forged(asked), { questions: [{ name: "y.example", type: "A" }] }),
    "another type": (asked) =>
      reply(asked, forged(asked), { questions: [{ name: asked.name, type: "AAAA" }] }),
    "no question": (asked) => reply(asked, forged(asked), { questions: [] }),
    "a query": (asked) => reply(asked, forged(asked), { type: "query" }),
    "nothing": () => new Uint8Array(0),
    "noise": () => Uint8Array.from({ length: 300 }, (_, n) => (n * 7919) % 256),
    "a message cut short": (asked) => reply(asked, forged(asked)).slice(0, -3),
    "a pointer to itself": (asked) => {
      const octets = Buffer.from(reply(asked, [a(".", "192.0.2.66")]));
      return Buffer.concat([
        octets.subarray(0, -15),
        Buffer.from([0xc0, octets.length - 15]),
        octets.subarray(-14),
      ]);
    },
  };
  for (const [what, bad] of Object.entries(wrong)) {
    it(`passes over ${what}`, async () => {
      const { resolver } = await one(after(bad), { timeoutMs: 500 });
      assert.deepEqual((await resolver.query("x.example", "A")).records, ["192.0.2.1"]);
    });
  }

  it("passes over the right words from another address", async () => {
    const stranger = createSocket("udp4");
    await new Promise<void>((resolve) => stranger.bind(0, "127.0.0.1", resolve));
    try {
      const { resolver } = await one((asked) => {
        asked.send(reply(asked, forged(asked)), stranger);
        return undefined;
      });
      assert.equal((await failure(resolver.query("x.example", "A"))).kind, "timeout");
    } finally {
      stranger.close();
    }
  });

  it("calls it malformed when nothing else came", async () => {
    const { resolver } = await one((asked) => reply(asked, forged(asked)).slice(0, -3));
    const error = await failure(resolver.query("x.example", "A"));
    assert.equal(error.kind, "malformed");
  });
});

describe("resolver: TCP", () => {
  const many = (name: string) =>
    Array.from({ length: 400 }, (_, n) => a(name, `192.0.${n >> 8}.${n & 255}`));

  it("is used when the response is truncated", async () => {
    const { resolver, server } = await one((asked) =>
      asked.via === "udp" ? reply(asked, [], { flags: FLAGS.tc }) : reply(asked, many(asked.name))
    );
    assert.equal((await resolver.query("x.example", "A")).records.length, 400);
    assert.deepEqual(server.asked.map((asked) => asked.via), ["udp", "tcp"]);
  });

  it("also when the truncated response is cut within a record", async () => {
    const { resolver } = await one((asked) =>
      asked.via === "udp"
        ? reply(asked, many(asked.name), { flags: FLAGS.tc }).slice(0, 510)
        : reply(asked, [a(asked.name, "192.0.2.1")])
    );
    assert.deepEqual((await resolver.query("x.example", "A")).records, ["192.0.2.1"]);
  });

  const bad: Record<string, (asked: Asked) => Uint8Array | undefined> = {
    "closes at once": () => undefined,
    "answers another id": (asked) => reply(asked, [], { id: (asked.packet.id ?? 0) ^ 1 }),
    "answers noise": () => new Uint8Array(40),
    "is truncated too": (asked) => reply(asked, [], { flags: FLAGS.tc }),
  };
  for (const [what, answer] of Object.entries(bad)) {
    it(`is malformed when it ${what}`, async () => {
      const { resolver } = await one((asked) =>
        asked.via === "udp" ? reply(asked, [], { flags: FLAGS.tc }) : answer(asked)
      );
      assert.equal((await failure(resolver.query("x.example", "A"))).kind, "malformed");
    });
  }

  it("is given up when it hangs", async () => {
    const { resolver } = await one(
      (asked) =>
        asked.via === "udp" ? reply(asked, [], { flags: FLAGS.tc }) : new Promise(() => {}),
      {
        timeoutMs: 15,
      },
    );
    assert.equal((await failure(resolver.query("x.example", "A"))).kind, "timeout");
  });
});

import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import { type Destination, MAX_HOSTS, resolveDestination } from "../../../src/dns/destinations.ts";
import { DnsError } from "../../../src/ports.ts";
import { FakeResolver, mx } from "./fake_resolver.ts";

const constant = { next: () => 0.5 };

function resolve(
  domain: string,
  table: ConstructorParameters<typeof FakeResolver>[0] = {},
): Promise<Destination> {
  return resolveDestination(new FakeResolver(table), domain, constant);
}

const hostsOf = (destination: Destination): string[] => {
  assert.equal(destination.kind, "hosts", JSON.stringify(destination));
  return destination.kind === "hosts" ? destination.hosts.map(({ host }) => host) : [];
};

describe("destinations: from MX records", () => {
  it("orders hosts by preference", async () => {
    const records = mx([20, "b.example"], [10, "a.example"], [30, "c.example"]);
    const found = await resolve("Example.COM", { "example.com MX": { records } });
    assert.deepEqual(found, {
      kind: "hosts",
      nextHop: "example.com",
      expanded: "example.com",
      dnssec: { nextHop: "insecure", expanded: "insecure" },
      by: "mx",
      hosts: [
        { host: "a.example", preference: 10 },
        { host: "b.example", preference: 20 },
        { host: "c.example", preference: 30 },
      ],
    });
  });

  it("shuffles within a preference only, the same way for the same lots", async () => {
    const records = mx([10, "a.example"], [10, "b.example"], [5, "first.example"]);
    const table = { "example.com MX": { records } };
    const drawn = async (...lots: number[]) => {
      const random = { next: () => lots.shift() ?? 0 };
      return hostsOf(await resolveDestination(new FakeResolver(table), "example.com", random));
    };
    assert.deepEqual(await drawn(0.1, 0.9, 0.9), ["first.example", "a.example", "b.example"]);
    assert.deepEqual(await drawn(0.9, 0.1, 0.9), ["first.example", "b.example", "a.example"]);
  });

  it("names a host once, at its best preference", async () => {
    const records = mx([20, "a.example"], [10, "A.example."], [15, "b.example"]);
    const found = await resolve("example.com", { "example.com MX": { records } });
    assert.deepEqual(hostsOf(found), ["a.example", "b.example"]);
  });

  it("keeps the valid hosts of a partly invalid set", async () => {
    const records = mx(
      [1, "192.0.2.1"],
      [2, "*.example"],
      [3, "."],
      [4, "a b.example"],
      [
        5,
        "ok.example",
      ],
      [6, `${"x".repeat(64)}.example`],
      [7, "a\\b.example"],
    );
    const found = await resolve("example.com", { "example.com MX": { records } });
    assert.deepEqual(hostsOf(found), ["ok.example"]);
  });

  it("is permanent when no host is valid", async () => {
    const records = mx([1, "192.0.2.1"], [2, "-.example"]);
    const found = await resolve("example.com", { "example.com MX": { records } });
    assert.equal(found.kind === "permanent" && found.code, "5.4.4");
  });

  it("keeps a bounded number of hosts, the best ones", async () => {
    const records = mx(
      ...Array.from({ length: 500 }, (_, n): [number, string] => [500 - n, `h${n}.example`]),
    );
    const hosts = hostsOf(await resolve("example.com", { "example.com MX": { records } }));
    assert.equal(hosts.length, MAX_HOSTS);
    assert.equal(hosts[0], "h499.example");
  });

  it("takes a null MX as permanent (RFC 7505)", async () => {
    const found = await resolve("example.com", { "example.com MX": { records: mx([0, "."]) } });
    assert.equal(found.kind === "permanent" && found.code, "5.1.10");
  });
});

describe("destinations: without MX records", () => {
  it("uses the domain itself", async () => {
    const found = await resolve("example.com");
    assert.deepEqual(found.kind === "hosts" && [found.by, hostsOf(found)], [
      "implicit",
      ["example.com"],
    ]);
  });

  it("uses the end of its CNAMEs", async () => {
    const found = await resolve("example.com", {
      "example.com MX": { cnames: ["www.example.net"] },
    });
    assert.deepEqual(hostsOf(found), ["www.example.net"]);
  });

  it("is permanent when the domain does not exist", async () => {
    const found = await resolve("example.com", { "example.com MX": { status: "nxdomain" } });
    assert.equal(found.kind === "permanent" && found.code, "5.1.2");
  });

  for (const kind of ["timeout", "servfail", "refused", "malformed", "canceled"] as const) {
    it(`is temporary on ${kind}`, async () => {
      const found = await resolve("example.com", { "example.com MX": new DnsError(kind, "why") });
      assert.equal(found.kind, "temporary");
      assert.deepEqual(found.kind === "temporary" && [found.cause, found.reason], [kind, "why"]);
    });
  }
});

describe("destinations: CNAMEs of the domain", () => {
  it("goes on where the resolver stopped short", async () => {
    const found = await resolve("a.example", {
      "a.example MX": { cnames: ["b.example"] },
      "b.example MX": { cnames: ["c.example"] },
      "c.example MX": { records: mx([10, "mx.example"]) },
    });
    assert.equal(found.kind === "hosts" && found.expanded, "c.example");
    assert.deepEqual(hostsOf(found), ["mx.example"]);
  });

  it("detects a loop", async () => {
    const found = await resolve("a.example", {
      "a.example MX": { cnames: ["b.example"] },
      "b.example MX": { cnames: ["a.example"] },
    });
    assert.equal(found.kind, "temporary");
    assert.match(found.kind === "temporary" ? found.reason : "", /loop at a\.example/);
  });

  it("follows 16 and not 17", async () => {
    const chain = (length: number) => {
      const table: Record<string, { cnames: string[] }> = {};
      for (let n = 0; n < length; n++) {
        table[`h${n}.example MX`] = { cnames: [`h${n + 1}.example`] };
      }
      return table;
    };
    assert.deepEqual(hostsOf(await resolve("h0.example", chain(16))), ["h16.example"]);
    assert.equal((await resolve("h0.example", chain(17))).kind, "temporary");
  });

  const secure = { authentic: true };
  const alias = { cnames: ["b.example"] };
  const records = mx([10, "mx.example"]);
  const table = [
    ["secure, no alias", { "a.example MX": { records, ...secure } }, "secure", "secure"],
    ["insecure, no alias", { "a.example MX": { records } }, "insecure", "insecure"],
    [
      "secure throughout",
      { "a.example MX": { records, ...alias, ...secure } },
      "secure",
      "secure",
    ],
    [
      "secure alias of an insecure name",
      { "a.example MX": { records, ...alias }, "a.example CNAME": secure },
      "secure",
      "insecure",
    ],
    [
      "insecure alias",
      { "a.example MX": { records, ...alias }, "a.example CNAME": {} },
      "insecure",
      "insecure",
    ],
    [
      "insecure first link, the rest secure",
      { "a.example MX": alias, "b.example MX": { records, ...secure } },
      "insecure",
      "insecure",
    ],
  ] as const;
  for (const [name, zone, nextHop, expanded] of table) {
    it(`verdicts: ${name}`, async () => {
      const found = await resolve("a.example", zone);
      assert.deepEqual(found.kind === "hosts" && found.dnssec, { nextHop, expanded });
    });
  }

  it("is temporary when the verdict on the alias cannot be had", async () => {
    const found = await resolve("a.example", {
      "a.example MX": { records, ...alias },
      "a.example CNAME": new DnsError("servfail", "bogus"),
    });
    assert.equal(found.kind, "temporary");
  });
});

describe("destinations: literals and bad domains", () => {
  const literals = [
    ["[192.0.2.1]", "192.0.2.1"],
    ["[IPv6:2001:DB8::1]", "2001:db8::1"],
    ["[ipv6:::ffff:192.0.2.1]", "::ffff:192.0.2.1"],
  ] as const;
  for (const [domain, host] of literals) {
    it(`takes ${domain}`, async () => {
      const found = await resolve(domain);
      assert.deepEqual(
        found.kind === "hosts" && [found.by, found.dnssec.expanded, hostsOf(found)],
        [
          "literal",
          "unchecked",
          [host],
        ],
      );
    });
  }

  const bad = [
    "[]",
    "[192.0.2.256]",
    "[2001:db8::1]",
    "[IPv6:192.0.2.1]",
    "[IPv6:fe80::1%eth0]",
    "[X-Tag:something]",
    "[192.0.2.1",
    "",
    ".",
    "a..b",
    "a b",
    "*.example",
    "192.0.2.1",
    "exa\r\nmple.com",
    "a".repeat(64) + ".example",
    "a.".repeat(130) + "example",
    "-a.example",
    "a@b.example",
  ];
  for (const domain of bad) {
    it(`refuses ${JSON.stringify(domain.slice(0, 40))}`, async () => {
      const resolver = new FakeResolver({});
      const found = await resolveDestination(resolver, domain, constant);
      assert.equal(found.kind === "permanent" && found.code, "5.1.2");
      assert.deepEqual(resolver.asked, []);
    });
  }

  it("asks for A-labels", async () => {
    const found = await resolve("Bücher.example");
    assert.deepEqual(hostsOf(found), ["xn--bcher-kva.example"]);
  });

  it("never throws and shows no control characters, whatever the domain", async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: "binary", maxLength: 80 }), async (domain) => {
        const found = await resolve(domain);
        if (found.kind === "permanent") assert.doesNotMatch(found.reason, /\p{Cc}/u);
        else assert.equal(found.kind, "hosts");
      }),
      { numRuns: 300 },
    );
  });
});

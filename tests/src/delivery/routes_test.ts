/** Routes: who wins for scope × criteria × attempt, and that the explanation says the same. */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { resolve } from "node:path";
import fc from "fast-check";
import type { RoutingFacts, TransportChoice } from "../../../actors/ports.ts";
import { loadConfig } from "../../../src/config/load.ts";
import type { DomainPattern } from "../../../src/config/domain_pattern.ts";
import type { RouteConfig } from "../../../src/config/types.ts";
import {
  chooseRoute,
  explainRoutes,
  type Known,
  type RoutingConfig,
} from "../../../src/delivery/routes.ts";

const file = resolve(import.meta.dirname!, "../../../fixtures/configs/routes.toml");
const config = loadConfig({ file, env: new Map() });

const facts = (given: Partial<RoutingFacts>): RoutingFacts => ({
  account: null,
  mailFrom: "a@elsewhere.example",
  rcptTo: "b@nowhere.example",
  size: 1000,
  attempt: 1,
  ...given,
});

const place = ({ because }: TransportChoice): string =>
  because.kind === "route"
    ? `${because.scope} ${because.owner ?? "-"} ${because.index}`
    : because.kind;

describe("routes", () => {
  const table: readonly (readonly [Partial<RoutingFacts>, string, string])[] = [
    [{}, "default", "direct"],
    // minimum_attempts counts the attempts before this one.
    [{ attempt: 5 }, "default", "direct"],
    [{ attempt: 6 }, "global - 2", "smarthost"],
    // An account's routes come first, and only for that account.
    [{ account: "alice", rcptTo: "b@example.org" }, "account alice 0", "smarthost"],
    [{ account: "alice", rcptTo: "b@deep.er.EXAMPLE.org" }, "account alice 0", "smarthost"],
    [{ account: "alice", rcptTo: "b@notexample.org" }, "default", "direct"],
    [{ account: "bob", rcptTo: "b@example.org" }, "default", "direct"],
    [{ account: "__proto__", rcptTo: "b@example.org" }, "default", "direct"],
    // Then those of the sender's domain, which is that domain alone.
    [{ mailFrom: "a@example.com", attempt: 3 }, "default", "direct"],
    [{ mailFrom: "a@example.com", attempt: 4 }, "domain example.com 0", "provider"],
    [{ mailFrom: "a@EXAMPLE.COM", attempt: 4 }, "domain example.com 0", "provider"],
    [{ mailFrom: "a@sub.example.com", attempt: 4 }, "default", "direct"],
    [
      { account: "alice", mailFrom: "a@example.com", rcptTo: "b@example.org", attempt: 4 },
      "account alice 0",
      "smarthost",
    ],
    [
      { account: "alice", mailFrom: "a@example.com", rcptTo: "b@example.net", attempt: 4 },
      "domain example.com 0",
      "provider",
    ],
    // Then those for all; every criterion has to hold.
    [{ mailFrom: "a@example.com", rcptTo: "b@example.net" }, "global - 0", "smarthost"],
    [{ mailFrom: "a@example.com", rcptTo: "b@sub.example.net" }, "default", "direct"],
    [{ mailFrom: "a@example.com", rcptTo: "b@x.slow.example" }, "global - 0", "smarthost"],
    [{ mailFrom: "a@sub.example.com", rcptTo: "b@example.net" }, "default", "direct"],
    // U-labels and A-labels are the same domain.
    [{ rcptTo: "b@bücher.example" }, "global - 1", "smarthost"],
    [{ rcptTo: "b@www.xn--bcher-kva.example" }, "global - 1", "smarthost"],
    [
      { mailFrom: "a@BÜCHER.example", rcptTo: "b@example.net" },
      "domain xn--bcher-kva.example 0",
      "provider",
    ],
    // What has no domain, or none by name.
    [{ mailFrom: "", rcptTo: "b@example.net" }, "default", "direct"],
    [{ rcptTo: "b@[192.0.2.1]" }, "global - 1", "smarthost"],
    [{ rcptTo: "b@[192.0.2.2]" }, "default", "direct"],
    [{ rcptTo: '"b@example.org"@nowhere.example', account: "alice" }, "default", "direct"],
    // An operator's choice wins over everything.
    [
      { account: "alice", rcptTo: "b@example.org", override: { transport: "provider", who: "op" } },
      "override",
      "provider",
    ],
  ];
  for (const [given, where, transport] of table) {
    it(`${JSON.stringify(given)}: ${where}`, () => {
      const choice = chooseRoute(config, facts(given));
      assert.equal(place(choice), where);
      assert.equal(choice.transport, transport);
      assert.equal(choice.type, transport === "direct" ? "direct" : "smtp");
    });
  }

  it("say what met each criterion", () => {
    const choice = chooseRoute(
      config,
      facts({ mailFrom: "a@example.com", rcptTo: "b@A.slow.example" }),
    );
    assert.deepEqual(choice.because, {
      kind: "route",
      scope: "global",
      index: 0,
      matched: { from_domain: "example.com", to_domain: "a.slow.example" },
    });
  });

  it("name a transport that is gone, for the delivery to report", () => {
    const choice = chooseRoute(config, facts({ override: { transport: "gone", who: "op" } }));
    assert.equal(choice.transport, "gone");
    assert.deepEqual(choice.because, { kind: "override", who: "op" });
  });

  it("explain each criterion of each route that is asked", () => {
    const explained = explainRoutes(config, facts({ account: "alice", mailFrom: "a@example.com" }));
    assert.deepEqual(explained.map(({ path, matched }) => [path, matched]), [
      ["accounts.alice.routes[0]", false],
      ['domains."example.com".routes[0]', false],
      ["routes[0]", false],
      ["routes[1]", false],
      ["routes[2]", false],
    ]);
    assert.deepEqual(explained[2]!.criteria, [
      { criterion: "from_domain", wanted: "example.com", found: "example.com", matched: true },
      {
        criterion: "to_domain",
        wanted: "example.net, .slow.example",
        found: "nowhere.example",
        matched: false,
      },
    ]);
  });

  describe("by size, MX host and header", () => {
    const rows: readonly RouteConfig[] = [
      { path: "routes[0]", toMx: [{ domain: "mx.example", below: true }], transport: "a" },
      { path: "routes[1]", header: { name: "List-Id", value: "<News>" }, transport: "b" },
      { path: "routes[2]", header: { name: "X-Bulk" }, sizeOver: 100, transport: "c" },
      { path: "routes[3]", sizeOver: 5_000, minimumAttempts: 1, transport: "d" },
    ];
    const routing: RoutingConfig = {
      routes: { accounts: new Map(), domains: new Map(), global: rows },
      transports: new Map(),
    };
    const mx = (...hosts: string[]): Known => ({ mx: { value: hosts } });
    const header = (...fields: [string, string][]): Known => ({
      mx: { value: [] },
      header: { value: new Map(fields.map(([name, value]) => [name, [value]])) },
    });
    const cases: readonly [given: Partial<RoutingFacts>, known: Known, transport: string][] = [
      [{}, mx("in.other.example"), "direct"],
      [{}, mx("in.other.example", "a.b.mx.example"), "a"],
      [{}, mx("mx.example"), "a"],
      [{}, mx("notmx.example"), "direct"],
      [{}, header(["list-id", "<news>"]), "b"],
      [{}, header(["list-id", "<news> (weekly)"]), "direct"],
      [{ size: 100 }, header(["x-bulk", ""]), "direct"],
      [{ size: 101 }, header(["x-bulk", ""]), "c"],
      [{ size: 5_000, attempt: 2 }, {}, "direct"],
      [{ size: 5_001, attempt: 2 }, {}, "d"],
      [{ size: 5_001, attempt: 1 }, {}, "direct"],
    ];
    for (const [given, known, transport] of cases) {
      it(`${JSON.stringify(given)}, ${Deno.inspect(known)}: ${transport}`, () => {
        assert.equal(chooseRoute(routing, facts(given), known).transport, transport);
      });
    }

    it("say what met them, and repeat no more of the message than the config says", () => {
      const found = (known: Known) => {
        const { because } = chooseRoute(routing, facts({ size: 200 }), known);
        return because.kind === "route" ? because.matched : undefined;
      };
      assert.deepEqual(found(mx("x.example", "in.mx.example")), { to_mx: "in.mx.example" });
      assert.deepEqual(found(header(["list-id", "<NEWS>"])), { header: "List-Id: <News>" });
      assert.deepEqual(found(header(["x-bulk", "a private thing"])), {
        size_over: "200",
        header: "X-Bulk",
      });
    });

    it("say which of them could not be told, and pass them over", () => {
      const choice = chooseRoute(routing, facts({}), {
        mx: { unknown: "SERVFAIL" },
        header: { unknown: "no body" },
      });
      assert.equal(choice.transport, "direct");
      assert.deepEqual(choice.undecided, [
        "routes[0].to_mx: SERVFAIL",
        "routes[1].header: no body",
        "routes[2].header: no body",
      ]);
      const [first] = explainRoutes(routing, facts({}), { mx: { unknown: "SERVFAIL" } });
      assert.deepEqual(first!.criteria, [
        {
          criterion: "to_mx",
          wanted: ".mx.example",
          found: "",
          matched: false,
          unknown: "SERVFAIL",
        },
      ]);
    });
  });

  it("choose the first route that the explanation calls matched, for any routes", () => {
    const domain = fc.constantFrom("a.example", "b.a.example", "c.example", "example");
    const pattern: fc.Arbitrary<DomainPattern> = fc.tuple(domain, fc.boolean())
      .map(([domain, below]) => ({ domain, below }));
    const patterns = fc.option(fc.array(pattern, { minLength: 1, maxLength: 2 }), {
      nil: undefined,
    });
    const route: fc.Arbitrary<RouteConfig> = fc.tuple(
      patterns,
      patterns,
      fc.option(fc.integer({ min: 1, max: 4 }), { nil: undefined }),
      fc.constantFrom("direct", "x"),
    ).map(([fromDomain, toDomain, minimumAttempts, transport]) => ({
      path: "routes[0]",
      ...(fromDomain ? { fromDomain } : {}),
      ...(toDomain ? { toDomain } : {}),
      ...(minimumAttempts ? { minimumAttempts } : {}),
      transport,
    }));
    const routes = fc.array(route, { maxLength: 4 });
    const asked = fc.tuple(domain, domain, fc.integer({ min: 1, max: 6 }), fc.boolean());
    fc.assert(
      fc.property(
        routes,
        routes,
        routes,
        asked,
        (own, ofDomain, global, [from, to, attempt, alice]) => {
          const random: RoutingConfig = {
            routes: {
              accounts: new Map([["alice", own]]),
              domains: new Map([["a.example", ofDomain]]),
              global,
            },
            transports: config.transports,
          };
          const given = facts({
            account: alice ? "alice" : null,
            mailFrom: `u@${from}`,
            rcptTo: `u@${to}`,
            attempt,
          });
          const choice = chooseRoute(random, given);
          const explained = explainRoutes(random, given);
          for (const { criteria, matched } of explained) {
            assert.equal(matched, criteria.every((criterion) => criterion.matched));
          }
          const first = explained.find(({ matched }) => matched);
          assert.equal(choice.transport, first?.transport ?? "direct");
          assert.equal(
            place(choice),
            first ? `${first.scope} ${first.owner ?? "-"} ${first.index}` : "default",
          );
          // None is left out: all of the account's and the domain's that apply, and all global ones.
          const expected = (alice ? own.length : 0) + (from === "a.example" ? ofDomain.length : 0);
          assert.equal(explained.length, expected + global.length);
        },
      ),
    );
  });
});

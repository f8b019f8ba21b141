/** Routes that can never match are found: all of them, and no others. */
import { it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import { checkRoutes, type PlacedRoute } from "../../../src/config/checks.ts";
import type { DomainPattern } from "../../../src/config/domain_pattern.ts";
import type { HeaderCriterion, RouteConfig } from "../../../src/config/types.ts";
import { formatPath } from "../../../src/config/problems.ts";
import { chooseRoute } from "../../../src/delivery/routes.ts";

const OWNER = "a.example";
const MAX_ATTEMPTS = 3;
const NAMES = ["example", "a.example", "b.a.example", "c.example"];
/** Of every name, itself and one below that no list has; and senders of no domain. */
const PROBES = [...NAMES.flatMap((name) => [name, `new.${name}`]), "other", ""];

const pattern: fc.Arbitrary<DomainPattern> = fc.tuple(fc.constantFrom(...NAMES), fc.boolean())
  .map(([domain, below]) => ({ domain, below }));
const patterns = fc.option(fc.array(pattern, { minLength: 1, maxLength: 2 }), { nil: undefined });

const routes = (owner: readonly string[], senders: fc.Arbitrary<DomainPattern[] | undefined>) =>
  fc.array(fc.tuple(senders, patterns, fc.integer({ min: 0, max: MAX_ATTEMPTS - 1 })), {
    maxLength: 4,
  }).map((list): PlacedRoute[] =>
    list.map(([fromDomain, toDomain, minimumAttempts], n) => {
      const at = [...owner, "routes", n];
      return {
        at,
        path: formatPath(at),
        ...(fromDomain ? { fromDomain } : {}),
        ...(toDomain ? { toDomain } : {}),
        ...(minimumAttempts ? { minimumAttempts } : {}),
        transport: "direct",
      };
    })
  );

const ownSenders = fc.constantFrom<DomainPattern[] | undefined>(
  undefined,
  [{ domain: OWNER, below: false }],
  [{ domain: "example", below: true }],
);

it("a route is called unreachable just when no message reaches it", () => {
  fc.assert(
    fc.property(
      routes(["accounts", "alice"], patterns),
      routes(["domains", OWNER], ownSenders),
      routes([], patterns),
      (own, ofDomain, global) => {
        const table = {
          accounts: new Map([["alice", own]]),
          domains: new Map([[OWNER, ofDomain]]),
          global,
        };
        const reached = new Set<string>();
        for (const account of [null, "alice"]) {
          for (const from of PROBES) {
            for (const to of PROBES.slice(0, -1)) {
              for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
                const { because } = chooseRoute({ routes: table, transports: new Map() }, {
                  account,
                  mailFrom: from === "" ? "" : `u@${from}`,
                  rcptTo: `u@${to}`,
                  size: 1,
                  attempt,
                });
                if (because.kind !== "route") continue;
                const { scope, owner, index } = because;
                const place = owner === undefined ? [] : [`${scope}s`, owner];
                reached.add(formatPath([...place, "routes", index]));
              }
            }
          }
        }
        const called = checkRoutes(table, MAX_ATTEMPTS).map(({ path }) => formatPath(path));
        for (const { path } of [...own, ...ofDomain, ...global]) {
          assert.equal(called.includes(path), !reached.has(path), path);
        }
      },
    ),
    { numRuns: 150 },
  );
});

/** A message as routes by MX host, size and header see it. */
interface Probe {
  readonly mx: string;
  readonly size: number;
  readonly header?: { readonly name: string; readonly value: string };
  readonly attempt: number;
}

const HEADERS: readonly HeaderCriterion[] = [
  { name: "List-Id" },
  { name: "List-Id", value: "<a>" },
  { name: "LIST-ID", value: "<A>" },
  { name: "X-Bulk", value: "yes" },
];
/** Every value that a criterion names, one that none names, and none. */
const FIELDS = [
  undefined,
  { name: "list-id", value: "<a>" },
  { name: "list-id", value: "<other>" },
  { name: "x-bulk", value: "yes" },
];
const EVERY_PROBE: readonly Probe[] = [...NAMES, ...NAMES.map((name) => `new.${name}`), "other"]
  .flatMap((mx) =>
    [0, 11, 21].flatMap((size) =>
      FIELDS.flatMap((header) =>
        [1, 2, 3].map((attempt) => ({ mx, size, attempt, ...(header ? { header } : {}) }))
      )
    )
  );

it("so is one by MX host, size and header", () => {
  const optional = <T>(of: fc.Arbitrary<T>) => fc.option(of, { nil: undefined });
  const list = fc.array(
    fc.tuple(
      patterns,
      optional(fc.constantFrom(10, 20)),
      optional(fc.constantFrom(...HEADERS)),
      fc.integer({ min: 0, max: MAX_ATTEMPTS - 1 }),
    ),
    { maxLength: 4 },
  ).map((all): PlacedRoute[] =>
    all.map(([toMx, sizeOver, header, minimumAttempts], n) => ({
      at: ["routes", n],
      path: `routes[${n}]`,
      ...(toMx ? { toMx } : {}),
      ...(sizeOver === undefined ? {} : { sizeOver }),
      ...(header ? { header } : {}),
      ...(minimumAttempts ? { minimumAttempts } : {}),
      transport: "direct",
    }))
  );
  const taker = (global: readonly RouteConfig[], { mx, size, header, attempt }: Probe) => {
    const routes = { accounts: new Map(), domains: new Map(), global };
    const facts = { account: null, mailFrom: "", rcptTo: "u@to.example", size, attempt };
    const { because } = chooseRoute({ routes, transports: new Map() }, facts, {
      mx: { value: [mx] },
      header: { value: new Map(header ? [[header.name, [header.value]]] : []) },
    });
    return because.kind === "route" ? because.index : undefined;
  };
  fc.assert(
    fc.property(list, (global) => {
      const reached = new Set(EVERY_PROBE.map((probe) => taker(global, probe)));
      const table = { accounts: new Map(), domains: new Map(), global };
      const called = checkRoutes(table, MAX_ATTEMPTS)
        .filter(({ message }) => message.startsWith("can never match"))
        .map(({ path }) => path[1]);
      global.forEach((_, n) => assert.equal(called.includes(n), !reached.has(n), `routes[${n}]`));
    }),
    { numRuns: 300 },
  );
});

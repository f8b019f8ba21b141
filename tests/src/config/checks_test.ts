/** Routes that can never match are found: all of them, and no others. */
import { it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import { checkRoutes, type PlacedRoute } from "../../../src/config/checks.ts";
import type { DomainPattern } from "../../../src/config/domain_pattern.ts";
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

/** Durations, sizes, addresses and domain patterns. */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import {
  coversDomain,
  type DomainPattern,
  formatDomainPattern,
  matchesDomain,
  parseDomainPattern,
} from "../../../src/config/domain_pattern.ts";
import { parseDuration, parseSize, parseSocketAddress } from "../../../src/config/scalars.ts";

const cases = <T>(read: (text: string) => T, table: Readonly<Record<string, T>>) => {
  for (const [text, value] of Object.entries(table)) assert.deepEqual(read(text), value, text);
};

describe("scalars", () => {
  it("reads durations", () =>
    cases(parseDuration, {
      "7m30s": 450_000,
      "2h": 7_200_000,
      "1d12h": 129_600_000,
      "250ms": 250,
      "1m1ms": 60_001,
      "2w": 1_209_600_000,
      "": undefined,
      "5": undefined,
      "m": undefined,
      "-1s": undefined,
      "1.5h": undefined,
      "1 h": undefined,
      "2y": undefined,
      "400d": undefined,
      "99999999999999999999s": undefined,
    }));

  it("reads sizes", () =>
    cases(parseSize, {
      "65536": 65_536,
      "50MiB": 52_428_800,
      "10 MB": 10_000_000,
      "1KiB": 1_024,
      "0": 0,
      "50M": undefined,
      "50mib": undefined,
      "1.5GiB": undefined,
      "-1": undefined,
      "999999999999GiB": undefined,
      "": undefined,
    }));

  it("reads addresses with ports", () =>
    cases((text) => parseSocketAddress(text), {
      "127.0.0.1:25": { address: "127.0.0.1", port: 25 },
      "[::1]:65535": { address: "::1", port: 65_535 },
      "127.0.0.1:0": { address: "127.0.0.1", port: 0 },
      "127.0.0.1": undefined,
      "::1": undefined,
      "[127.0.0.1]:25": undefined,
      "localhost:25": undefined,
      "127.0.0.1:65536": undefined,
      "127.0.0.1:": undefined,
      "127.0.0.1:25 ": undefined,
      ":25": undefined,
      "256.0.0.1:25": undefined,
    }));

  it("reads addresses whose port may be left out", () =>
    cases((text) => parseSocketAddress(text, 53), {
      "192.0.2.1": { address: "192.0.2.1", port: 53 },
      "2001:db8::1": { address: "2001:db8::1", port: 53 },
      "[2001:db8::1]": { address: "2001:db8::1", port: 53 },
      "[2001:db8::1]:54": { address: "2001:db8::1", port: 54 },
    }));
});

describe("domain patterns", () => {
  it("are read as lower-case A-labels", () =>
    cases(parseDomainPattern, {
      "Example.ORG": { domain: "example.org", below: false },
      ".example.org.": { domain: "example.org", below: true },
      ".Bücher.example": { domain: "xn--bcher-kva.example", below: true },
      "[192.0.2.1]": { domain: "[192.0.2.1]", below: false },
      ".[192.0.2.1]": undefined,
      "192.0.2.1": undefined,
      "": undefined,
      ".": undefined,
      "..a": undefined,
      "*.a": undefined,
      "a b": undefined,
      "user@example.org": undefined,
      "-a.example": undefined,
    }));

  const label = fc.constantFrom("a", "b", "org");
  const domain = fc.array(label, { minLength: 1, maxLength: 3 }).map((labels) => labels.join("."));
  const pattern: fc.Arbitrary<DomainPattern> = fc.tuple(domain, fc.boolean())
    .map(([domain, below]) => ({ domain, below }));

  it("cover a pattern just when they match all that it matches", () => {
    fc.assert(fc.property(pattern, pattern, (wide, narrow) => {
      // Domains at and below the narrow one tell all cases apart.
      const probes = [narrow.domain, `z.${narrow.domain}`, `y.z.${narrow.domain}`];
      const all = probes.filter((probe) => matchesDomain(narrow, probe))
        .every((probe) => matchesDomain(wide, probe));
      assert.equal(coversDomain(wide, narrow), all);
    }));
  });

  it("come back from their text", () => {
    fc.assert(fc.property(pattern, (given) => {
      assert.deepEqual(parseDomainPattern(formatDomainPattern(given)), given);
    }));
  });

  it("do not match a domain that merely ends alike", () => {
    assert(!matchesDomain({ domain: "example.org", below: true }, "badexample.org"));
    assert(!matchesDomain({ domain: "example.org", below: false }, "a.example.org"));
    assert(matchesDomain({ domain: "example.org", below: true }, "example.org"));
  });
});

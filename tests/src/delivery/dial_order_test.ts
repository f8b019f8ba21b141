import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import type { TriedAddress } from "../../../actors/ports.ts";
import { dialOrder, isFirstAttempt } from "../../../src/delivery/dial_order.ts";

const HOST = "mx.example.org";
const SIX = ["2001:db8::1", "2001:db8::2"];
const FOUR = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
const ALL = [...SIX, ...FOUR];

const tried = (...addresses: [number, string][]): TriedAddress[] =>
  addresses.map(([attempt, address]) => ({ attempt, host: HOST, address, result: "temperror" }));

describe("the order of addresses", () => {
  const rows: [string, TriedAddress[], number, string[]][] = [
    ["first attempt: as they come", [], 1, ALL],
    ["the other family next", tried([1, SIX[0]!]), 2, [...FOUR, ...SIX]],
    [
      "what ended the attempt counts, not what began it",
      tried([1, SIX[0]!], [1, SIX[1]!], [1, FOUR[0]!]),
      2,
      ["2001:db8::2", "2001:db8::1", ...FOUR],
    ],
    [
      "the second attempt in a family begins with the same address",
      tried([1, FOUR[1]!], [2, SIX[0]!]),
      3,
      ["192.0.2.2", "192.0.2.1", "192.0.2.3", ...SIX],
    ],
    [
      "from the third on, what was tried least comes first",
      tried([1, FOUR[0]!], [2, SIX[0]!], [3, FOUR[0]!], [4, SIX[0]!]),
      5,
      ["192.0.2.2", "192.0.2.3", "192.0.2.1", "2001:db8::2", "2001:db8::1"],
    ],
    [
      "two connections in one attempt are one attempt",
      tried([1, SIX[0]!], [1, SIX[0]!], [2, FOUR[0]!]),
      3,
      [...SIX, ...FOUR],
    ],
    ["the running attempt does not count", tried([2, SIX[0]!]), 2, ALL],
    [
      "addresses that are gone from the DNS are not dialled",
      tried([1, "192.0.2.99"], [2, SIX[0]!]),
      3,
      ALL.toSorted((a, b) => Number(a.includes(":")) - Number(b.includes(":"))),
    ],
  ];
  for (const [what, before, attempt, expected] of rows) {
    it(what, () => assert.deepEqual(dialOrder(ALL, HOST, before, attempt), expected));
  }

  it("does not care for other hosts", () => {
    const elsewhere = tried([1, SIX[0]!]).map((one) => ({ ...one, host: "other.example" }));
    assert.deepEqual(dialOrder(ALL, HOST, elsewhere, 2), ALL);
    assert.equal(isFirstAttempt(HOST, elsewhere, 2), true);
    assert.equal(isFirstAttempt("other.example", elsewhere, 2), false);
    assert.equal(isFirstAttempt("other.example", elsewhere, 1), true);
  });

  it("loses no address and invents none", () => {
    const entry = fc.record({
      attempt: fc.nat(5),
      host: fc.constant(HOST),
      address: fc.constantFrom(...ALL, "192.0.2.77"),
      result: fc.constant("temperror" as const),
    });
    fc.assert(
      fc.property(fc.subarray(ALL), fc.array(entry), fc.nat(6), (addresses, before, attempt) => {
        const order = dialOrder(addresses, HOST, before, attempt);
        assert.deepEqual([...order].sort(), [...addresses].sort());
      }),
    );
  });
});

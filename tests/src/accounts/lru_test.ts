import assert from "node:assert/strict";
import { describe, it } from "@std/testing/bdd";
import { Lru } from "../../../src/accounts/lru.ts";

describe("Lru", () => {
  it("forgets what was not used for the longest time", () => {
    const lru = new Lru<number>(2);
    lru.set("a", 1);
    lru.set("b", 2);
    assert.equal(lru.get("a"), 1);
    lru.set("c", 3);
    assert.equal(lru.get("b"), undefined);
    assert.equal(lru.get("a"), 1);
    lru.set("a", 4);
    assert.equal(lru.size, 2);
    lru.delete("a");
    assert.equal(lru.get("a"), undefined);
    assert.equal(lru.size, 1);
  });
});

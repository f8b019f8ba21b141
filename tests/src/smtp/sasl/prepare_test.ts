/** SASLprep: the examples of RFC 4013, section 3, and the bounds. */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import { SaslError } from "../../../../src/smtp/sasl/error.ts";
import { MAX_CREDENTIAL, prepared } from "../../../../src/smtp/sasl/prepare.ts";

const refused = (error: unknown) => error instanceof SaslError && error.reason === "credentials";

describe("SASLprep", () => {
  const examples = [
    ["I\u00ADX", "IX", "soft hyphen mapped to nothing"],
    ["user", "user", "no transformation"],
    ["USER", "USER", "case preserved"],
    ["\u00AA", "a", "NFKC"],
    ["\u2168", "IX", "NFKC"],
    ["a\u00A0b", "a b", "another space"],
    ["e\u0301", "\u00E9", "composed"],
  ] as const;
  for (const [from, to, why] of examples) {
    it(`${JSON.stringify(from)} becomes ${JSON.stringify(to)}: ${why}`, () => {
      assert.equal(prepared(from, "the password"), to);
    });
  }

  const bad = {
    "a control character": "\u0007",
    "a right-to-left character first and not last": "\u0627\u0031",
    "both directions": "\u0627x\u0628",
    "half a surrogate pair": "a\ud800",
    "what Unicode 3.2 does not assign": "\u{1F986}",
    "nothing": "",
    "nothing that is left": "\u00AD\u200D",
    "too much": "a".repeat(MAX_CREDENTIAL + 1),
    "too many octets": "é".repeat(MAX_CREDENTIAL / 2 + 1),
    "what grows too long": "\uFDFA".repeat(100),
    "a line end": "a\r\nb",
    "NUL": "a\0b",
  };
  for (const [why, text] of Object.entries(bad)) {
    it(`refuses ${why}`, () => {
      assert.throws(() => prepared(text, "the password"), refused);
    });
  }

  it("leaves unassigned code points in a query", () => {
    assert.equal(prepared("\u{1F986}", "the user name", "query"), "\u{1F986}");
    assert.throws(() => prepared("\u0007", "the user name", "query"), refused);
  });

  it("names what it refuses and does not repeat it", () => {
    assert.throws(() => prepared("hunter2\u0007", "the password"), (error: Error) => {
      return error.message.startsWith("the password ") && !error.message.includes("hunter2");
    });
  });

  it("changes nothing that is prepared, and throws nothing else", () => {
    fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 12 }), (text) => {
      let once: string;
      try {
        once = prepared(text, "the password");
      } catch (error) {
        return refused(error);
      }
      return prepared(once, "the password") === once;
    }));
  });
});

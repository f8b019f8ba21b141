import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import { classify } from "../../actors/classification/classify.ts";
import { FAILURE_CLASSES } from "../../events/schemas/message.ts";

const replies = new URL("../../fixtures/replies/replies.tsv", import.meta.url);
const permanent = (code: number) => code >= 500 ? "permerror" as const : "temperror" as const;

describe("classification", () => {
  const rows = Deno.readTextFileSync(replies).split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => line.split("\t") as [string, string, string, string]);

  for (const [expected, code, enhanced, text = ""] of rows) {
    it(`${code} ${enhanced} ${text.slice(0, 60)} is ${expected}`, () => {
      const reply = {
        code: Number(code),
        text,
        ...(enhanced === "-" ? {} : { enhanced }),
      };
      const result = permanent(reply.code);
      assert.equal(classify({ result, reason: `host said ${text}`, reply }), expected);
    });
  }

  it("has real replies for every class", () => {
    assert.deepEqual(
      new Set(rows.map(([expected]) => expected)),
      new Set<string>(FAILURE_CLASSES),
    );
  });

  for (
    const [expected, failure] of [
      ["network", { result: "timeout", reason: "no connection within 30 s" }],
      ["network", { result: "error", reason: "connection refused" }],
      ["dns", { result: "temperror", reason: "SERVFAIL", enhanced: "4.4.3" }],
      ["dns", { result: "permerror", reason: "null MX", enhanced: "5.1.10" }],
      ["tls", { result: "error", reason: "the certificate is not accepted", enhanced: "4.7.5" }],
      ["tls", { result: "error", reason: "the TLS handshake failed" }],
      ["other", { result: "canceled", reason: "interrupted, outcome unknown" }],
      ["other", { result: "error", reason: "fault in our own code", stack: "at x" }],
    ] as const
  ) {
    it(`${failure.reason}, which no server said, is ${expected}`, () => {
      assert.equal(classify(failure), expected);
    });
  }

  it("gives every reply a class, in a time that its length does not blow up (property)", () => {
    const reply = fc.record({
      code: fc.integer({ min: 200, max: 599 }),
      text: fc.oneof(fc.string({ maxLength: 3_000 }), fc.constant("quota ".repeat(5_000))),
      enhanced: fc.option(fc.string({ maxLength: 12 }), { nil: undefined }),
    });
    fc.assert(fc.property(reply, ({ enhanced, ...rest }) => {
      const reply = enhanced === undefined ? rest : { ...rest, enhanced };
      const given = classify({ result: permanent(rest.code), reason: "", reply });
      assert.ok(FAILURE_CLASSES.includes(given));
    }));
  });
});

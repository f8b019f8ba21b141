import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import { parseStsPolicy, policyLines } from "../../../src/tls/mta_sts_policy.ts";
import { parseStsRecord } from "../../../src/tls/mta_sts_record.ts";

const octets = (text: string): Uint8Array => new TextEncoder().encode(text);
const txt = (...records: string[][]) =>
  parseStsRecord(records.map((strings) => strings.map((text) => octets(text))));
const why = (...records: string[][]): string => {
  const found = txt(...records);
  assert.equal(found.ok, false);
  return found.ok ? "" : found.why;
};

describe("the TXT record of a policy (RFC 8461, section 3.1)", () => {
  for (
    const text of [
      "v=STSv1; id=20260101T00",
      "v=STSv1;id=20260101T00;",
      "v=STSv1 ; \tid=20260101T00 ; ",
      "v=STSv1; note=a-b; id=20260101T00; x.y_z=!",
    ]
  ) {
    it(`takes ${JSON.stringify(text)}`, () => {
      assert.deepEqual(txt([text]), { ok: true, id: "20260101T00" });
    });
  }

  it("joins the strings of a record, also within a character", () => {
    assert.deepEqual(txt(["v=ST", "Sv1; i", "d=", "1;"]), { ok: true, id: "1" });
    const euro = octets("v=STSv1; id=1; x=€");
    const found = parseStsRecord([[euro.subarray(0, -1), euro.subarray(-1)]]);
    assert.equal(found.ok, false, "joined it is a character that no value has");
    const many = "v=STSv1; id=abc".split("").map((letter) => octets(letter));
    assert.deepEqual(parseStsRecord([many]), { ok: true, id: "abc" });
  });

  it("passes over records of others, and takes none of several", () => {
    assert.deepEqual(txt(["hello"], ["v=STSv1; id=1;"], ["v=STSv2; id=2;"]), { ok: true, id: "1" });
    assert.match(why(["v=STSv1; id=1;"], ["v=STSv1; id=1;"]), /2 MTA-STS records instead of one/);
    assert.match(why(), /no MTA-STS record/);
    assert.match(why(["v=STSv1"]), /no MTA-STS record/);
    assert.match(why(["v=stsv1; id=1"]), /no MTA-STS record/);
  });

  for (
    const [text, reason] of [
      ["v=STSv1;", /no id/],
      ["v=STSv1; id=", /not name=value/],
      ["v=STSv1; id=a-b", /not 1 to 32 letters and digits/],
      [`v=STSv1; id=${"a".repeat(33)}`, /not 1 to 32/],
      ["v=STSv1; id=1; id=2", /more than one id/],
      ["v=STSv1; id=1;; x=1", /not name=value/],
      ["v=STSv1; id=1; x=a b", /not name=value/],
      ["v=STSv1; id=1; -x=1", /not name=value/],
    ] as const
  ) {
    it(`does not take ${JSON.stringify(text.slice(0, 40))}`, () =>
      assert.match(why([text]), reason));
  }

  it("throws at nothing", () => {
    fc.assert(fc.property(fc.array(fc.array(fc.uint8Array())), (records) => {
      parseStsRecord(records);
      parseStsRecord([[octets("v=STSv1;"), ...records.flat()]]);
    }));
  });
});

const POLICY = "version: STSv1\r\nmode: enforce\r\nmx: mx1.example.org\r\nmax_age: 604800\r\n";
const invalid = (text: string | Uint8Array, reason: RegExp) =>
  assert.throws(
    () => parseStsPolicy(typeof text === "string" ? octets(text) : text),
    (error: Error & { type?: string }) =>
      error.name === "PolicyError" && error.type === "sts-policy-invalid" &&
      reason.test(error.message),
  );

describe("a policy (RFC 8461, section 3.2)", () => {
  const expected = { mode: "enforce", mx: ["mx1.example.org"], maxAge: 604800 };

  it("takes CRLF and LF, with and without the last one", () => {
    assert.deepEqual(parseStsPolicy(octets(POLICY)), expected);
    assert.deepEqual(parseStsPolicy(octets(POLICY.replaceAll("\r", ""))), expected);
    assert.deepEqual(parseStsPolicy(octets(POLICY.trimEnd())), expected);
  });

  it("takes blanks around, keys in any order, and ignores keys that it does not know", () => {
    const text = "max_age:604800 \nx-new: ümlaut: yes\nmx :\tMX1.Example.ORG\nmode: enforce\n" +
      "version:STSv1";
    assert.deepEqual(parseStsPolicy(octets(text)), expected);
  });

  it("takes wildcards, and each pattern once", () => {
    const more = "mx: *.Example.org\nmx: MX1.example.org\nmx: mx2.example.org";
    const { mx } = parseStsPolicy(octets(`${POLICY}${more}`));
    assert.deepEqual(mx, ["mx1.example.org", "*.example.org", "mx2.example.org"]);
  });

  it("goes by the first of several values", () => {
    assert.deepEqual(parseStsPolicy(octets(`${POLICY}mode: none\nmax_age: 1\n`)), expected);
  });

  it("needs no mx in mode none", () => {
    const none = parseStsPolicy(octets("version: STSv1\nmode: none\nmax_age: 86400"));
    assert.deepEqual(none, { mode: "none", mx: [], maxAge: 86400 });
  });

  for (
    const [what, text, reason] of [
      ["nothing", "", /version is not STSv1/],
      ["another version", POLICY.replace("STSv1", "STSv2"), /version is not STSv1/],
      ["no mode", POLICY.replace("mode: enforce\r\n", ""), /has no mode/],
      ["another mode", POLICY.replace("enforce", "Enforce"), /mode is not one that there is/],
      ["no mx", POLICY.replace("mx: mx1.example.org\r\n", ""), /names no mx/],
      ["no max_age", POLICY.replace("max_age", "maxage"), /no max_age/],
      ["a negative max_age", POLICY.replace("604800", "-1"), /no max_age/],
      ["a max_age of eleven digits", POLICY.replace("604800", "00000604800"), /no max_age/],
      ["a max_age over a year", POLICY.replace("604800", "31557601"), /more than a year/],
      [
        "an mx with a port",
        POLICY.replace("mx1.example.org", "mx1.example.org:25"),
        /line 3 is not/,
      ],
      ["an inner wildcard", POLICY.replace("mx1.", "mx1.*."), /mx in line 3/],
      ["a wildcard alone", POLICY.replace("mx1.example.org", "*."), /mx in line 3/],
      ["half a wildcard", POLICY.replace("mx1.", "mx*."), /mx in line 3/],
      ["a line without colon", `${POLICY}hello\r\n`, /line 5 is not "key: value"/],
      ["a CR alone", POLICY.replace("enforce\r\n", "enforce\r"), /line 2 is not/],
      ["a NUL", POLICY.replace("enforce", "enf\0orce"), /line 2 is not/],
      ["a byte order mark", `\ufeff${POLICY}`, /line 1 is not/],
      ["HTML", "<!DOCTYPE html><html></html>", /line 1 is not/],
      ["too many mx", POLICY + "mx: *.example.org\n".repeat(250), /more than 250 mx/],
      ["too much", POLICY + "x: y\n".repeat(14_000), /more than 65536 octets/],
    ] as const
  ) it(`does not take ${what}`, () => invalid(text, reason));

  it("does not take what is not UTF-8", () => {
    invalid(new Uint8Array([...octets(POLICY), 0x78, 0x3a, 0xff]), /not UTF-8/);
  });

  it("reads what it writes, and throws nothing else at nonsense", () => {
    const label = fc.stringMatching(/^[a-z0-9]{1,10}$/);
    const name = fc.tuple(fc.boolean(), label, label)
      .map(([wild, a, b]) => `${wild ? "*." : ""}${a}.x${b}`);
    const policy = fc.record({
      mode: fc.constantFrom("enforce" as const, "testing" as const, "none" as const),
      mx: fc.uniqueArray(name, { minLength: 1, maxLength: 5 }),
      maxAge: fc.integer({ min: 0, max: 31_557_600 }),
    }, { noNullPrototype: true });
    fc.assert(fc.property(policy, (one) => {
      assert.deepEqual(parseStsPolicy(octets(policyLines(one).join("\n"))), one);
    }));
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
      try {
        parseStsPolicy(new Uint8Array([...octets(POLICY), ...noise]));
      } catch (error) {
        assert.equal((error as Error).name, "PolicyError");
      }
    }));
  });
});

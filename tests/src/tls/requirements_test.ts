/** What messages ask for (RFC 8689), and which hosts a policy names (RFC 8461). */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import {
  allowsHost,
  type MtaStsFinding,
  passesOver,
  requirementsFor,
  type TlsaFacts,
} from "../../../src/tls/requirements.ts";

const HOST = { name: "mx.example.org", literal: false };
const NO_TLSA: TlsaFacts = { state: "none", base: "mx.example.org", why: "there are none" };
const USABLE: TlsaFacts = {
  state: "records",
  base: "mx.example.org",
  usable: 1,
  names: ["mx.example.org"],
};
const policy = (mode: "enforce" | "testing" | "none", ...mx: string[]): MtaStsFinding => ({
  status: "policy",
  domain: "example.org",
  mode,
  id: "1",
  mx: mx.length > 0 ? mx : ["mx.example.org"],
  maxAge: 1,
  from: "cache",
});
const REQUIRETLS = { requireTLS: true, tlsOptional: false };
const OPTIONAL = { requireTLS: false, tlsOptional: true };

describe("REQUIRETLS (RFC 8689, section 4.2.1)", () => {
  it("is met by DANE and by an enforced policy", () => {
    const dane = requirementsFor(HOST, USABLE, undefined, REQUIRETLS);
    assert.equal(dane.verdict === "try" && dane.verifiedBy, "dane");
    const sts = requirementsFor(HOST, NO_TLSA, policy("enforce"), REQUIRETLS);
    assert.equal(sts.verdict === "try" && sts.verifiedBy, "mta-sts");
  });

  const rows: [string, TlsaFacts, MtaStsFinding | undefined, string][] = [
    ["nothing", NO_TLSA, undefined, "5.7.10"],
    ["records that are all unusable", { ...USABLE, usable: 0 }, undefined, "5.7.10"],
    ["a policy in testing", NO_TLSA, policy("testing"), "5.7.10"],
    ["a policy in mode none", NO_TLSA, policy("none"), "5.7.10"],
    [
      "a policy that may be there the next time",
      NO_TLSA,
      { status: "error", domain: "example.org", why: "unreachable" },
      "4.7.10",
    ],
  ];
  for (const [what, tlsa, found, enhanced] of rows) {
    it(`is not met by ${what}`, () => {
      const requirement = requirementsFor(HOST, tlsa, found, REQUIRETLS);
      assert.equal(requirement.verdict, "fail");
      assert.equal(requirement.verdict === "fail" && requirement.enhanced, enhanced);
      assert.match(requirement.why.join(), /REQUIRETLS/);
    });
  }

  it("goes before TLS-Required: No (section 5)", () => {
    const needs = { requireTLS: true, tlsOptional: true };
    assert.equal(requirementsFor(HOST, NO_TLSA, undefined, needs).verdict, "fail");
  });
});

describe("TLS-Required: No (RFC 8689, section 5)", () => {
  const failed: TlsaFacts = { state: "failed", base: "mx.example.org", why: "SERVFAIL" };
  for (const tlsa of [NO_TLSA, USABLE, failed]) {
    for (const found of [undefined, policy("enforce"), policy("enforce", "other.example")]) {
      it(`lowers TLSA ${tlsa.state} with ${found ? "a policy" : "no policy"}`, () => {
        const requirement = requirementsFor(HOST, tlsa, found, OPTIONAL);
        assert.equal(requirement.verdict === "try" && requirement.mode, "opportunistic");
      });
    }
  }
});

describe("the server name", () => {
  const nameFor = (...args: Parameters<typeof requirementsFor>) => {
    const requirement = requirementsFor(...args);
    return requirement.verdict === "try" ? requirement.serverName : undefined;
  };
  const none = { requireTLS: false, tlsOptional: false };

  it("is the TLSA base domain under DANE (RFC 7672, section 8.1)", () => {
    const elsewhere = { ...USABLE, base: "end.example.net" };
    assert.equal(nameFor(HOST, elsewhere, undefined, none), "end.example.net");
    assert.equal(nameFor(HOST, { ...elsewhere, usable: 0 }, undefined, none), "end.example.net");
  });

  it("is the host otherwise (RFC 8461, section 4.2), and absent for literals", () => {
    assert.equal(nameFor(HOST, NO_TLSA, policy("enforce"), none), "mx.example.org");
    const literal = { name: "192.0.2.1", literal: true };
    assert.equal(nameFor(literal, NO_TLSA, undefined, none), undefined);
  });
});

describe("hosts that a policy names (RFC 8461, section 4.1)", () => {
  const rows: [string, string, boolean][] = [
    ["mx.example.org", "mx.example.org", true],
    ["mx.example.org", "mx2.example.org", false],
    ["*.example.org", "mx.example.org", true],
    ["*.example.org", "example.org", false],
    ["*.example.org", "a.mx.example.org", false],
    ["*.org", "mx.example.org", false],
    ["example.org", "mx.example.org", false],
  ];
  for (const [pattern, host, allowed] of rows) {
    it(`${pattern} ${allowed ? "names" : "does not name"} ${host}`, () => {
      assert.equal(allowsHost([pattern], host), allowed);
      assert.equal(passesOver(host, policy("enforce", pattern)) === undefined, allowed);
      assert.equal(passesOver(host, policy("testing", pattern)), undefined);
    });
  }
});

import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import type { EventData } from "../../../events/catalogue.ts";
import { parseReportRecord } from "../../../src/tls/reports/record.ts";
import {
  reportedPolicies,
  sessionResults,
  undialedResults,
} from "../../../src/tls/reports/results.ts";
import type { MtaStsFinding } from "../../../src/tls/requirements.ts";

const octets = (text: string): Uint8Array => new TextEncoder().encode(text);
const record = (...texts: string[]) => parseReportRecord(texts.map((text) => [octets(text)]));

describe("the TLSRPT record (RFC 8460, section 3)", () => {
  const places = (text: string) => {
    const found = record(text);
    assert.ok(found.ok, found.ok ? "" : found.why);
    return found.places.map((place) => place.kind === "mailto" ? place.address : place);
  };

  it("names addresses and HTTPS servers", () => {
    assert.deepEqual(places("v=TLSRPTv1; rua=mailto:tls@example.org"), ["tls@example.org"]);
    assert.deepEqual(places("v=TLSRPTv1;rua=https://r.example.org/v1/a?b=c,mailto:a@b.example;"), [
      {
        kind: "https",
        uri: "https://r.example.org/v1/a?b=c",
        host: "r.example.org",
        port: 443,
        path: "/v1/a?b=c",
      },
      "a@b.example",
    ]);
  });

  it("takes percent-encoding and drops what follows the address", () => {
    const text = "v=TLSRPTv1; rua=mailto:%22a%2Cb%21%22@x.example?subject=hi";
    assert.deepEqual(places(text), ['"a,b!"@x.example']);
  });

  it("passes over places that there cannot be, and over more than four", () => {
    const odd = [
      "http://r.example.org/",
      "https://user:pw@r.example.org/",
      "https://127.0.0.1/",
      "https://[::1]/",
      "mailto:nobody",
      "mailto:a%0d%0aRCPT@x.example",
      "mailto:%zz@x.example",
      "mailto:%C3%BC@x.example",
      "ftp://x.example",
      "",
    ];
    assert.deepEqual(places(`v=TLSRPTv1; rua=${odd.join(",")},mailto:a@x.example`), [
      "a@x.example",
    ]);
    const many = Array.from({ length: 9 }, (_, n) => `mailto:a${n}@x.example`).join(",");
    assert.equal(places(`v=TLSRPTv1; rua=${many}`).length, 4);
    assert.equal(places("v=TLSRPTv1; rua=mailto:a@x.example,mailto:a@x.example").length, 1);
  });

  it("asks for nothing when it is missing, there twice, or without a place", () => {
    for (
      const texts of [
        [],
        ["v=spf1 -all"],
        ["v=TLSRPTv1; rua=mailto:a@x.example", "v=TLSRPTv1; rua=mailto:b@x.example"],
        ["v=TLSRPTv1;"],
        ["v=TLSRPTv1; rua="],
        ["v=TLSRPTv2; rua=mailto:a@x.example"],
      ]
    ) assert.equal(record(...texts).ok, false, texts.join());
  });

  it("throws at nothing", () => {
    fc.assert(fc.property(fc.string(), (text) => {
      record(`v=TLSRPTv1; rua=${text}`);
      record(`v=TLSRPTv1; rua=mailto:${text},https://${text}`);
    }));
  });
});

const gathered = (
  data: Partial<EventData<"TLSAGathered">> = {},
): EventData<"TLSAGathered"> => ({
  host: "mx.example.org",
  expanded: "mx.example.org",
  dnssec: { host: "insecure", expanded: "insecure" },
  addresses: ["192.0.2.1"],
  dualStack: false,
  tlsa: "not-asked",
  records: [],
  daneRequired: false,
  verdict: "try",
  tlsMode: "opportunistic",
  verifiedBy: "none",
  names: [],
  why: [],
  ...data,
});
const sts = (mode: "enforce" | "testing" | "none"): MtaStsFinding => ({
  status: "policy",
  domain: "example.org",
  mode,
  id: "1",
  mx: ["*.example.org"],
  maxAge: 86400,
  from: "cache",
});
const tlsa = { usage: 3, selector: 1, matching: 1, data: "00ff" };
const dane = gathered({
  tlsa: "records",
  base: "mx.example.org",
  records: [tlsa],
  daneRequired: true,
});
const session = { tlsMode: "verified" as const, extensions: ["PIPELINING"] };
const secured = { ...session, tls: { protocol: "TLSv1.3", cipher: "X" } };

describe("what a session counts as (RFC 8460, sections 4.2 and 4.3)", () => {
  const results = (
    policy: MtaStsFinding | undefined,
    host: EventData<"TLSAGathered">,
    found: Parameters<typeof sessionResults>[2],
    mode: Parameters<typeof sessionResults>[1] = "verified",
  ) =>
    sessionResults(reportedPolicies("example.org", policy, host), mode, found)?.results
      .map(({ type, domain, failure }) => [type, domain, failure ?? "ok"]);

  it("a success or a failure of what it was verified by", () => {
    assert.deepEqual(results(undefined, dane, secured), [["tlsa", "mx.example.org", "ok"]]);
    const expired = { ...secured, tlsFailure: "certificate-expired" };
    assert.deepEqual(results(sts("enforce"), gathered(), expired), [
      ["sts", "example.org", "certificate-expired"],
    ]);
    assert.deepEqual(results(sts("none"), gathered(), secured), [
      ["no-policy-found", "example.org", "ok"],
    ]);
  });

  it("both policies in testing, each with its own result", () => {
    const testing = { ok: false, detail: "", type: "certificate-not-trusted" } as const;
    assert.deepEqual(results(sts("testing"), dane, { ...secured, testing }), [
      ["tlsa", "mx.example.org", "ok"],
      ["sts", "example.org", "certificate-not-trusted"],
    ]);
    const refused = {
      ...secured,
      tlsFailure: "validation-failure",
      testing: { ok: true, detail: "" },
    };
    assert.deepEqual(results(sts("testing"), dane, refused), [
      ["tlsa", "mx.example.org", "validation-failure"],
      ["sts", "example.org", "ok"],
    ]);
  });

  it("starttls-not-supported where none was offered, also when mail went in plain text", () => {
    assert.deepEqual(results(undefined, gathered(), session, "opportunistic"), [
      ["no-policy-found", "example.org", "starttls-not-supported"],
    ]);
    assert.deepEqual(results(sts("testing"), gathered(), session, "opportunistic"), [
      ["sts", "example.org", "starttls-not-supported"],
    ]);
  });

  it("tlsa-invalid where all records are unusable", () => {
    const unusable = { ...dane, daneRequired: false };
    assert.deepEqual(results(undefined, unusable, secured, "required"), [
      ["tlsa", "mx.example.org", "tlsa-invalid"],
    ]);
  });

  it("nothing over a kept session, in plain text that was fallen back to, or before EHLO", () => {
    assert.equal(results(undefined, dane, { ...secured, reused: true }), undefined);
    assert.equal(results(undefined, gathered(), session, "none"), undefined);
    assert.equal(results(undefined, gathered(), { tlsMode: "opportunistic" }), undefined);
  });

  it("hosts that are not dialled, where a policy is the reason", () => {
    const failed = reportedPolicies(
      "example.org",
      undefined,
      gathered({ tlsa: "failed", base: "mx.example.org", verdict: "fail" }),
    );
    assert.equal(undialedResults(failed)?.results[0]?.failure, "dnssec-invalid");
    const skipped = reportedPolicies("example.org", sts("enforce"), gathered({ verdict: "skip" }));
    assert.deepEqual(undialedResults(skipped)?.results[0], {
      type: "sts",
      domain: "example.org",
      lines: ["version: STSv1", "mode: enforce", "mx: *.example.org", "max_age: 86400"],
      mx: ["*.example.org"],
      failure: "validation-failure",
    });
    const other = reportedPolicies("example.org", undefined, gathered({ verdict: "fail" }));
    assert.equal(undialedResults(other), undefined);
  });
});

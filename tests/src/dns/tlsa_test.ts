import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { gatherTlsa, type TlsaQuestion } from "../../../src/dns/tlsa.ts";
import { DnsError } from "../../../src/ports.ts";
import { FakeResolver } from "./fake_resolver.ts";

const RECORD = { usage: 3, selector: 1, matching: 1, data: new Uint8Array(32) };
const secure = (records = [RECORD]) => ({ records, authentic: true });

async function gather(
  changes: Partial<TlsaQuestion>,
  table: ConstructorParameters<typeof FakeResolver>[0] = {},
) {
  const resolver = new FakeResolver(table);
  const answer = await gatherTlsa(resolver, {
    host: "mx.example.org",
    expanded: "mx.example.org",
    port: 25,
    wayAuthentic: true,
    hostAuthentic: true,
    expandedAuthentic: true,
    ...changes,
  });
  return { answer, asked: resolver.asked };
}

const alias = { expanded: "end.example.net" };
const AT_HOST = "_25._tcp.mx.example.org TLSA";
const AT_END = "_25._tcp.end.example.net TLSA";

describe("TLSA: whether the question is asked (RFC 7672, section 2.2)", () => {
  it("is not, where the way to the host is not authentic", async () => {
    const { answer, asked } = await gather({ wayAuthentic: false }, { [AT_HOST]: secure() });
    assert.equal(answer.state, "not-asked");
    assert.deepEqual(asked, []);
  });

  it("is not, where the host's addresses are not authentic", async () => {
    const changes = { hostAuthentic: false, expandedAuthentic: false };
    const { answer, asked } = await gather(changes, { [AT_HOST]: secure() });
    assert.equal(answer.state, "not-asked");
    assert.deepEqual(asked, []);
  });

  it("is, for the port that will be dialled", async () => {
    const { asked } = await gather({ port: 2525 });
    assert.deepEqual(asked, ["_2525._tcp.mx.example.org TLSA"]);
  });
});

describe("TLSA: base domain (RFC 7672, section 2.2.2; RFC 7671, section 7)", () => {
  it("is the end of the CNAMEs where all is authentic and there are records", async () => {
    const { answer, asked } = await gather(alias, { [AT_END]: secure(), [AT_HOST]: secure() });
    assert.equal(answer.state === "records" && answer.base, "end.example.net");
    assert.deepEqual(asked, [AT_END]);
  });

  it("is the host itself where there are none at the end", async () => {
    const { answer, asked } = await gather(alias, {
      [AT_END]: { authentic: true },
      [AT_HOST]: secure(),
    });
    assert.equal(answer.state === "records" && answer.base, "mx.example.org");
    assert.deepEqual(asked, [AT_END, AT_HOST]);
  });

  it("is the host itself where its CNAMEs lead out of what is authentic", async () => {
    const { asked } = await gather({ ...alias, expandedAuthentic: false });
    assert.deepEqual(asked, [AT_HOST]);
  });
});

describe("TLSA: answers", () => {
  it("follows CNAMEs of the TLSA name, also where the resolver stops short", async () => {
    const { answer } = await gather({}, {
      [AT_HOST]: { authentic: true, cnames: ["_dane.example.net"] },
      "_dane.example.net TLSA": secure(),
    });
    assert.equal(answer.state, "records");
  });

  it("does not believe records behind a CNAME that is not authentic", async () => {
    const { answer } = await gather({}, {
      [AT_HOST]: { authentic: false, cnames: ["_dane.example.net"] },
      "_dane.example.net TLSA": secure(),
    });
    assert.equal(answer.state, "none");
  });

  it("does not believe records that are not authentic", async () => {
    const { answer } = await gather({}, { [AT_HOST]: { records: [RECORD], authentic: false } });
    assert.match(answer.state === "none" ? answer.why : "", /not authentic/);
  });

  it("fails on CNAMEs that loop", async () => {
    const { answer } = await gather({}, {
      [AT_HOST]: { authentic: true, cnames: ["_a.example.net"] },
      "_a.example.net TLSA": { authentic: true, cnames: ["_25._tcp.mx.example.org"] },
    });
    assert.match(answer.state === "failed" ? answer.why : "", /loop/);
  });

  for (const kind of ["servfail", "timeout", "refused", "malformed"] as const) {
    it(`is a failure, and not "there is none", on ${kind}`, async () => {
      const { answer } = await gather(alias, {
        [AT_END]: new DnsError(kind, "no answer"),
        [AT_HOST]: secure(),
      });
      assert.equal(answer.state, "failed");
    });
  }

  it("has none for a host whose TLSA name would be longer than 255 octets", async () => {
    const host = `${"a".repeat(61)}.`.repeat(4).slice(0, -1);
    const { answer, asked } = await gather({ host, expanded: host });
    assert.match(answer.state === "none" ? answer.why : "", /longer than a name can be/);
    assert.deepEqual(asked, []);
  });
});

import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { MAX_ADDRESSES, resolveAddresses, undialable } from "../../../src/dns/addresses.ts";
import { DnsError } from "../../../src/ports.ts";
import { FakeResolver } from "./fake_resolver.ts";

const A = "mx.example A";
const AAAA = "mx.example AAAA";
const v4 = { records: ["192.0.2.1"] };
const v6 = { records: ["2001:db8::1"] };

describe("addresses: of a name", () => {
  it("puts IPv6 first", async () => {
    const found = await resolveAddresses(new FakeResolver({ [A]: v4, [AAAA]: v6 }), "MX.example");
    assert.deepEqual(found, {
      addresses: ["2001:db8::1", "192.0.2.1"],
      expanded: "mx.example",
      authentic: false,
      hostAuthentic: false,
      dualStack: true,
    });
  });

  it("asks for one family where told", async () => {
    const resolver = new FakeResolver({ [A]: v4, [AAAA]: v6 });
    const found = await resolveAddresses(resolver, "mx.example", { family: "ipv4" });
    assert.deepEqual(found.addresses, ["192.0.2.1"]);
    assert.equal(found.dualStack, false);
    assert.deepEqual(resolver.asked, [A]);
  });

  it("uses one family when the other fails, and says so", async () => {
    const error = new DnsError("timeout", "AAAA timed out");
    const found = await resolveAddresses(
      new FakeResolver({ [A]: v4, [AAAA]: error }),
      "mx.example",
    );
    assert.deepEqual(found.addresses, ["192.0.2.1"]);
    assert.equal(found.error, "AAAA timed out");
    assert.equal(found.failure, undefined);
  });

  it("is temporary when one family fails and the other has nothing", async () => {
    const error = new DnsError("servfail", "no luck");
    const found = await resolveAddresses(new FakeResolver({ [A]: error }), "mx.example");
    assert.equal(found.failure?.kind, "temporary");
    assert.equal(found.failure?.cause, "servfail");
    assert.match(found.failure?.reason ?? "", /no luck/);
  });

  it("tells a host without addresses from one that does not exist", async () => {
    const none = await resolveAddresses(new FakeResolver({}), "mx.example");
    assert.match(none.failure?.reason ?? "", /has no IP address/);
    const gone = { status: "nxdomain" } as const;
    const absent = await resolveAddresses(
      new FakeResolver({ [A]: gone, [AAAA]: gone }),
      "mx.example",
    );
    assert.match(absent.failure?.reason ?? "", /does not exist/);
    assert.equal(absent.failure?.kind, "nonexistent");
  });

  it("follows 10 CNAMEs and not 11", async () => {
    const cnames = Array.from({ length: 11 }, (_, n) => `c${n}.example`);
    const ten = { ...v4, cnames: cnames.slice(1) };
    const found = await resolveAddresses(new FakeResolver({ [A]: ten }), "mx.example");
    assert.equal(found.expanded, "c10.example");
    const over = { ...v4, cnames };
    const failed = await resolveAddresses(
      new FakeResolver({ [A]: over, [AAAA]: over }),
      "mx.example",
    );
    assert.equal(failed.failure?.cause, "malformed");
  });

  it("keeps a bounded number of addresses", async () => {
    const records = Array.from({ length: 200 }, (_, n) => `192.0.2.${n}`);
    const found = await resolveAddresses(new FakeResolver({ [A]: { records } }), "mx.example");
    assert.equal(found.addresses.length, MAX_ADDRESSES);
  });

  it("does not ask for what is no host name", async () => {
    const resolver = new FakeResolver({});
    const found = await resolveAddresses(resolver, "a b.example");
    assert.equal(found.failure?.kind, "nonexistent");
    assert.deepEqual(resolver.asked, []);
  });
});

describe("addresses: verdicts", () => {
  const secure = { authentic: true };
  const cnames = ["real.example"];

  it("are secure when all answers are", async () => {
    const zone = { [A]: { ...v4, cnames, ...secure }, [AAAA]: { cnames, ...secure } };
    const found = await resolveAddresses(new FakeResolver(zone), "mx.example");
    assert.deepEqual([found.authentic, found.hostAuthentic], [true, true]);
  });

  it("are insecure when one of the families is", async () => {
    const zone = { [A]: { ...v4, ...secure }, [AAAA]: v6 };
    const found = await resolveAddresses(new FakeResolver(zone), "mx.example");
    assert.deepEqual([found.authentic, found.hostAuthentic], [false, false]);
  });

  it("tell a secure alias of an insecure host", async () => {
    const zone = { [A]: { ...v4, cnames }, [AAAA]: { cnames }, "mx.example CNAME": secure };
    const found = await resolveAddresses(new FakeResolver(zone), "mx.example");
    assert.deepEqual([found.authentic, found.hostAuthentic], [false, true]);
  });

  it("are never insecure because the answer for the alias was suppressed", async () => {
    const zone = {
      [A]: { ...v4, cnames },
      "mx.example CNAME": new DnsError("servfail", "bogus"),
    };
    const found = await resolveAddresses(new FakeResolver(zone), "mx.example");
    assert.deepEqual(found.addresses, []);
    assert.equal(found.failure?.kind, "temporary");
  });
});

describe("addresses: what is dialled", () => {
  const never = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.1.1",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "::",
    "ff02::1",
    "fe80::1",
    "fe80::1%eth0",
    "::ffff:0.0.0.0",
    "::ffff:224.0.0.1",
    "nonsense",
  ];
  for (const address of never) {
    it(`never ${address}`, () => assert.equal(typeof undialable(address, true), "string"));
  }

  for (const address of ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1"]) {
    it(`${address} only where loopback is allowed`, () => {
      assert.equal(undialable(address), "a loopback address");
      assert.equal(undialable(address, true), undefined);
    });
  }

  for (const address of ["192.0.2.1", "10.0.0.1", "2001:db8::1", "::ffff:192.0.2.1"]) {
    it(`${address}`, () => assert.equal(undialable(address), undefined));
  }

  it("drops what is not dialled and keeps the rest", async () => {
    const zone = { [A]: { records: ["127.0.0.1", "192.0.2.1", "192.0.2.1"] } };
    const found = await resolveAddresses(new FakeResolver(zone), "mx.example");
    assert.deepEqual(found.addresses, ["192.0.2.1"]);
  });

  it("says why nothing is left", async () => {
    const zone = { [A]: { records: ["127.0.0.1"] } };
    const found = await resolveAddresses(new FakeResolver(zone), "mx.example");
    assert.equal(found.failure?.kind, "nonexistent");
    assert.match(found.failure?.reason ?? "", /127\.0\.0\.1 is a loopback address/);
    const options = { allowLoopback: true };
    const allowed = await resolveAddresses(new FakeResolver(zone), "mx.example", options);
    assert.deepEqual(allowed.addresses, ["127.0.0.1"]);
  });

  it("takes an IP address without asking", async () => {
    const resolver = new FakeResolver({});
    const found = await resolveAddresses(resolver, "2001:db8::7");
    assert.deepEqual(found.addresses, ["2001:db8::7"]);
    assert.deepEqual(resolver.asked, []);
    const own = await resolveAddresses(resolver, "127.0.0.1");
    assert.equal(own.failure?.kind, "nonexistent");
  });
});

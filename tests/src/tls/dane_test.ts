import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fc from "fast-check";
import { isSignedBy, parseCertificate } from "../../../src/tls/certificate.ts";
import { effective, type TlsaRecord, unusable, verifyDane } from "../../../src/tls/dane.ts";
import { matchingName } from "../../../src/tls/names.ts";
import { certificate } from "./certificates.ts";

const NAME = "mx.example.org";
const NOW = Date.UTC(2027, 0, 1);
const [root, issuing, crossed, stranger, host, other] = [
  "root",
  "issuing",
  "crossed",
  "stranger",
  "host",
  "other",
].map(certificate) as [Uint8Array, Uint8Array, Uint8Array, Uint8Array, Uint8Array, Uint8Array];

function record(usage: number, selector: number, matching: number, der: Uint8Array): TlsaRecord {
  const selected = selector === 0 ? der : parseCertificate(der).spki;
  const digest = matching === 1 ? "sha256" : "sha512";
  const data = matching === 0
    ? selected
    : new Uint8Array(createHash(digest).update(selected).digest());
  return { usage, selector, matching, data };
}

const verify = (
  chain: readonly Uint8Array[],
  records: readonly TlsaRecord[],
  names: readonly string[] = [NAME],
  now = NOW,
) => verifyDane(chain, records, names, now);

const reasonOf = (judgement: ReturnType<typeof verify>): string => {
  assert.equal(judgement.ok, false);
  return judgement.ok ? "" : judgement.reason;
};

describe("TLSA records: usable or not (RFC 7671, section 4; RFC 7672, section 3.1)", () => {
  const zeros = (length: number) => new Uint8Array(length);
  const rows: [string, TlsaRecord, RegExp | undefined][] = [
    ["3 1 1", { usage: 3, selector: 1, matching: 1, data: zeros(32) }, undefined],
    ["2 0 2", { usage: 2, selector: 0, matching: 2, data: zeros(64) }, undefined],
    ["PKIX-TA", { usage: 0, selector: 0, matching: 1, data: zeros(32) }, /PKIX/],
    ["PKIX-EE", { usage: 1, selector: 1, matching: 1, data: zeros(32) }, /PKIX/],
    ["usage 4", { usage: 4, selector: 1, matching: 1, data: zeros(32) }, /unknown usage 4/],
    ["usage 255", { usage: 255, selector: 1, matching: 1, data: zeros(32) }, /unknown usage/],
    ["selector 2", { usage: 3, selector: 2, matching: 1, data: zeros(32) }, /unknown selector/],
    ["matching 3", { usage: 3, selector: 1, matching: 3, data: zeros(32) }, /unknown matching/],
    ["short SHA-256", { usage: 3, selector: 1, matching: 1, data: zeros(31) }, /31 octets/],
    ["long SHA-512", { usage: 3, selector: 1, matching: 2, data: zeros(65) }, /65 octets/],
    ["no data", { usage: 3, selector: 1, matching: 1, data: zeros(0) }, /0 octets/],
    ["no certificate", { usage: 2, selector: 0, matching: 0, data: zeros(9) }, /not a certificate/],
    ["no key", { usage: 2, selector: 1, matching: 0, data: zeros(9) }, /not a public key/],
    ["nothing", { usage: 3, selector: 1, matching: 0, data: zeros(0) }, /not a public key/],
    ["whole certificate", record(2, 0, 0, root), undefined],
    ["whole key", record(2, 1, 0, root), undefined],
    [
      "a certificate with an octet behind",
      { usage: 2, selector: 0, matching: 0, data: new Uint8Array([...root, 0]) },
      /not a certificate/,
    ],
  ];
  for (const [what, tlsa, expected] of rows) {
    it(`${what}: ${expected ? "unusable" : "usable"}`, () => {
      const fault = unusable(tlsa);
      if (expected) assert.match(fault ?? "", expected);
      else assert.equal(fault, undefined);
    });
  }

  it("prefers strong digests within a usage and selector, and keeps full data (RFC 7671, 9)", () => {
    const weak = record(3, 1, 1, host);
    const strong = record(3, 1, 2, other);
    const full = record(3, 1, 0, host);
    const elsewhere = record(3, 0, 1, host);
    const malformed = { ...strong, data: strong.data.slice(1) };
    assert.deepEqual(effective([weak, strong, full, elsewhere]), [strong, full, elsewhere]);
    assert.deepEqual(effective([weak, malformed]), [weak]);
    assert.equal(verify([host], [weak, strong]).ok, false);
    assert.equal(verify([host], [weak, malformed]).ok, true);
  });
});

describe("DANE-EE (RFC 7672, section 3.1.1)", () => {
  for (const selector of [0, 1]) {
    for (const matching of [0, 1, 2]) {
      it(`accepts 3 ${selector} ${matching}, and no other certificate`, () => {
        const records = [record(3, selector, matching, host)];
        assert.equal(verify([host], records, ["elsewhere.example"]).ok, true);
        assert.match(reasonOf(verify([other, host], records)), /matches none/);
      });
    }
  }

  it("ignores names and validity", () => {
    const later = Date.UTC(2999, 0, 1);
    assert.equal(verify([host], [record(3, 1, 1, host)], ["other.example"], later).ok, true);
  });

  it("compares a certificate that cannot be read as a whole, and nothing else of it", () => {
    const garbage = new Uint8Array([0x30, 3, 1, 2, 3]);
    const data = new Uint8Array(createHash("sha256").update(garbage).digest());
    const whole = { usage: 3, selector: 0, matching: 1, data };
    assert.equal(verify([garbage], [whole]).ok, true);
    const key = { ...whole, selector: 1 };
    assert.match(reasonOf(verify([garbage], [key])), /cannot be read/);
  });

  it("refuses when nothing was presented, and when no record is usable", () => {
    assert.match(reasonOf(verify([], [record(3, 1, 1, host)])), /no certificate/);
    assert.match(reasonOf(verify([host], [record(1, 1, 1, host)])), /no usable/);
  });
});

describe("DANE-TA (RFC 7672, sections 3.1.2 and 3.2)", () => {
  for (const selector of [0, 1]) {
    for (const matching of [0, 1, 2]) {
      it(`accepts 2 ${selector} ${matching} of an issuer that was presented`, () => {
        for (const anchor of [root, issuing]) {
          const records = [record(2, selector, matching, anchor)];
          assert.deepEqual(verify([host, issuing, root], records).ok, true);
        }
      });
    }
  }

  it("takes an anchor that is only in the record, as certificate or as key", () => {
    assert.equal(verify([host, issuing], [record(2, 0, 0, root)]).ok, true);
    assert.equal(verify([host, issuing], [record(2, 1, 0, root)]).ok, true);
    assert.equal(verify([host], [record(2, 0, 0, issuing)]).ok, true);
    assert.equal(verify([host], [record(2, 1, 0, issuing)]).ok, true);
    assert.match(reasonOf(verify([host, issuing], [record(2, 0, 1, root)])), /no path/);
  });

  it("refuses where an intermediate is missing, or cannot be read", () => {
    const records = [record(2, 0, 0, root)];
    assert.match(reasonOf(verify([host, root], records)), /no path/);
    assert.match(reasonOf(verify([host, new Uint8Array([1, 2]), root], records)), /no path/);
  });

  it("takes certificates in any order, twice, and with strangers among them", () => {
    const chain = [host, root, stranger, issuing, issuing, host, root];
    assert.equal(verify(chain, [record(2, 1, 1, root)]).ok, true);
  });

  it("finds the anchor over either of two issuers of the same name and key", () => {
    const chain = [host, issuing, crossed, stranger, root];
    assert.equal(verify(chain, [record(2, 1, 1, root)]).ok, true);
    assert.equal(verify(chain, [record(2, 1, 1, stranger)]).ok, true);
  });

  it("ends on chains that lead around in a circle", () => {
    const chain = ["circled", "circle_a", "circle_b"].map(certificate);
    assert.match(reasonOf(verify(chain, [record(2, 0, 1, root)])), /no path/);
    // An anchor within the circle is one all the same.
    assert.equal(verify(chain, [record(2, 0, 1, chain[1]!)]).ok, true);
  });

  it("does not take the server's own certificate for its anchor", () => {
    assert.match(reasonOf(verify([host], [record(2, 0, 1, host)])), /no path/);
  });

  it("checks names, any of those allowed", () => {
    const records = [record(2, 0, 1, issuing)];
    const chain = [host, issuing];
    assert.equal(verify(chain, records, ["a.example", "example.org"]).ok, true);
    const wrong = verify(chain, records, ["a.example"]);
    assert.match(reasonOf(wrong), /is for mx\.example\.org, example\.org, not a\.example/);
    assert.equal(wrong.ok ? "" : wrong.type, "certificate-host-mismatch");
  });

  it("checks validity", () => {
    const late = verify([host, issuing], [record(2, 0, 1, issuing)], [NAME], Date.UTC(2999, 0, 1));
    assert.equal(late.ok ? "" : late.type, "certificate-expired");
    const early = verify([host, issuing], [record(2, 0, 1, issuing)], [NAME], Date.UTC(2000, 0, 1));
    assert.equal(early.ok ? "" : early.type, "certificate-expired");
  });

  it("bounds what a chain made to be expensive costs", () => {
    const chain = [host, ...Array.from({ length: 500 }, () => [crossed, issuing]).flat()];
    assert.equal(verify(chain, [record(2, 1, 1, other)]).ok, false);
  });
});

describe("certificates from strangers", () => {
  it("are read, or refused with a DerError, whatever their octets", () => {
    fc.assert(
      fc.property(fc.nat(host.length - 1), fc.nat(255), fc.nat(host.length), (at, octet, cut) => {
        const changed = host.slice();
        changed[at] = octet;
        for (const der of [changed, changed.slice(0, cut)]) {
          const judged = verify([der, issuing], [record(2, 1, 1, root), record(3, 0, 1, root)]);
          assert.equal(judged.ok, false);
        }
      }),
      { numRuns: 500 },
    );
  });

  it("are signed by whom they name, and by nobody else", () => {
    const leaf = parseCertificate(host);
    assert.equal(isSignedBy(leaf, parseCertificate(issuing).spki), true);
    assert.equal(isSignedBy(leaf, parseCertificate(root).spki), false);
    assert.equal(isSignedBy(leaf, new Uint8Array([1, 2, 3])), false);
  });
});

describe("names (RFC 6125, section 6.4)", () => {
  const rows: [string, string, boolean][] = [
    ["mx.example.org", "mx.example.org", true],
    ["example.org", "mx.example.org", false],
    ["*.example.org", "mx.example.org", true],
    ["*.example.org", "example.org", false],
    ["*.example.org", "a.mx.example.org", false],
    ["m*.example.org", "mx.example.org", false],
    ["*x.example.org", "mx.example.org", false],
    ["mx.*.org", "mx.example.org", false],
    ["*.org", "example.org", false],
    ["*", "localhost", false],
    ["", "mx.example.org", false],
    ["*.example.org", ".example.org", false],
  ];
  for (const [pattern, name, expected] of rows) {
    it(`"${pattern}" ${expected ? "stands" : "does not stand"} for ${name}`, () => {
      assert.equal(matchingName([pattern], [name]), expected ? name : undefined);
    });
  }
});

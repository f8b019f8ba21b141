/** Addresses: what is taken, in which form, and what is refused. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import {
  BadAddress,
  formatMailbox,
  isAddressLiteral,
  isDomain,
  parseForwardPath,
  parseMailbox,
  parseReversePath,
} from "../../../src/smtp/address.ts";
import { isLoopback } from "../../../src/smtp/server/loopback.ts";
import { BadXtext, decodeXtext, encodeXtext } from "../../../src/smtp/xtext.ts";

const canonical = (text: string) => formatMailbox(parseMailbox(text));

describe("parseMailbox", () => {
  const taken: [text: string, canonical?: string][] = [
    ["a@b"],
    ["first.last+tag@mail.example.com"],
    ["!#$%&'*+-/=?^_`{|}~@example.com"],
    ['"a b"@example.com'],
    ['"plain"@example.com', "plain@example.com"],
    ['"a.b"@example.com', "a.b@example.com"],
    ['"a..b"@example.com'],
    ['""@example.com'],
    ['"\\"\\\\\\x"@example.com', '"\\"\\\\x"@example.com'],
    ["a@[192.0.2.1]"],
    ["a@[IPv6:2001:db8::1]"],
    ["jörg@exämple.com"],
    ["用户@例え.jp"],
    ['"ü ü"@example.com'],
    ["a@xn--exmple-cua.com"],
    ["a@1.2.3.4.example"],
    [`${"x".repeat(64)}@example.com`],
    [`a@${"x".repeat(63)}.com`],
  ];
  for (const [text, form] of taken) {
    it(`takes ${text.slice(0, 40)}`, () => assert.equal(canonical(text), form ?? text));
  }

  const refused = [
    "",
    "a",
    "@",
    "a@",
    "@example.com",
    "a b@example.com",
    ".a@example.com",
    "a.@example.com",
    "a..b@example.com",
    "a@.example.com",
    "a@example..com",
    "a@example.com.",
    "a@-example.com",
    "a@example-.com",
    "a@exa_mple.com",
    "a@b@c",
    "<a@example.com>",
    "a@example.com ",
    '"a@example.com',
    '"a"b@example.com',
    '"a\\"@example.com',
    '"a\r\nb"@example.com',
    "a\u0000@example.com",
    "a\u0085@example.com",
    "a\u2028@example.com",
    "a\u202e@example.com",
    "a\ud800@example.com",
    "a@exam\u2028ple.com",
    "a@127.0.0.1",
    "a@１２７.0.0.１",
    "a@example。com",
    "a@[192.0.2.256]",
    "a@[IPv6:fe80::1%eth0]",
    "a@[2001:db8::1]",
    "a@[tag:x]",
    `${"x".repeat(65)}@example.com`,
    `${"ü".repeat(33)}@example.com`,
    `a@${"x".repeat(64)}.com`,
    `${"x".repeat(60)}@${"y.".repeat(100)}com`,
    "x".repeat(1_000_000),
  ];
  for (const text of refused) {
    it(`refuses ${JSON.stringify(text.slice(0, 40))}`, () =>
      assert.throws(() => parseMailbox(text), BadAddress));
  }

  it("and formatMailbox are each other's inverse", () => {
    const label = fc.stringMatching(/^[a-z0-9](?:[a-z0-9-]{0,8}[a-z0-9])?$/);
    const domain = fc.array(label, { minLength: 1, maxLength: 4 }).map((l) =>
      `${l.join(".")}.test`
    );
    const localPart = fc.string({
      unit: fc.constantFrom(...'abc.. "\\@<>(),:;[]!üß例'),
      maxLength: 20,
    });
    fc.assert(fc.property(localPart, domain, (localPart, domain) => {
      const mailbox = { localPart, domain };
      assert.deepEqual(parseMailbox(formatMailbox(mailbox)), mailbox);
    }));
  });

  it("throws nothing but BadAddress, and takes nothing that could inject", () => {
    const text = fc.oneof(
      fc.array(fc.nat({ max: 0x10ffff })).map((points) => String.fromCodePoint(...points)),
      fc.string({ unit: fc.constantFrom(...'a.@"\\[]<>:\r\n\0 ü1') }),
      fc.uint8Array().map((octets) => Buffer.from(octets).toString("latin1")),
    );
    fc.assert(
      fc.property(text, (text) => {
        for (const parse of [parseMailbox, parseForwardPath, parseReversePath]) {
          try {
            const result = parse(text);
            const mailbox = "mailbox" in result ? result.mailbox : result;
            // deno-lint-ignore no-control-regex -- controls are what must not be there
            if (mailbox) assert.doesNotMatch(formatMailbox(mailbox), /[\x00-\x1f\x7f-\x9f\u2028]/);
          } catch (error) {
            assert.ok(error instanceof BadAddress, String(error));
          }
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("Paths", () => {
  it("end where they end", () => {
    const { mailbox, end } = parseReversePath('<"a> b"@example.com> SIZE=1');
    assert.deepEqual(mailbox, { localPart: "a> b", domain: "example.com" });
    assert.equal(end, 20);
  });

  it("lose their source route", () => {
    assert.deepEqual(parseForwardPath("<@a.example,@b.example:c@example.org>").mailbox, {
      localPart: "c",
      domain: "example.org",
    });
    assert.throws(() => parseForwardPath("<@a.example c@example.org>"), BadAddress);
  });

  it("may be null where it is the sender, and Postmaster where it is the recipient", () => {
    assert.deepEqual(parseReversePath("<> SIZE=1"), { mailbox: null, end: 2 });
    assert.deepEqual(parseForwardPath("<postMaster> NOTIFY=NEVER"), { mailbox: null, end: 12 });
    assert.throws(() => parseForwardPath("<>"), BadAddress);
    assert.throws(() => parseReversePath("<Postmaster>"), BadAddress);
  });

  it("are refused without their brackets", () => {
    for (
      const text of ["a@example.com", "<a@example.com", "< a@example.com>", "<a@example.com >"]
    ) {
      assert.throws(() => parseReversePath(text), BadAddress, text);
    }
  });
});

describe("Domains and literals", () => {
  it("are told apart", () => {
    assert.ok(isDomain("example.com") && !isDomain("[192.0.2.1]") && !isDomain(""));
    assert.ok(isAddressLiteral("[192.0.2.1]") && isAddressLiteral("[ipv6:::1]"));
    assert.ok(!isAddressLiteral("192.0.2.1") && !isAddressLiteral("[]"));
  });

  it("are loopback or not", () => {
    const loopback = ["127.0.0.1", "127.255.0.9", "::1", "[::1]", "0:0:0:0:0:0:0:1", "LOCALHOST"];
    for (const address of [...loopback, "::ffff:127.0.0.1"]) {
      assert.ok(isLoopback(address), address);
    }
    const others = ["0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "::2", "1::1", "::ffff:10.0.0.1", ""];
    for (const address of [...others, "127.example.com", "example.com", "127.0.0.1.example"]) {
      assert.ok(!isLoopback(address), address);
    }
  });
});

describe("xtext", () => {
  it("decodes what it encoded", () => {
    const printable = fc.string({
      unit: fc.integer({ min: 32, max: 126 }).map((c) => String.fromCharCode(c)),
    });
    fc.assert(fc.property(printable, (text) => {
      const encoded = encodeXtext(text);
      assert.match(encoded, /^[!-~]*$/);
      assert.doesNotMatch(encoded, /=/);
      assert.equal(decodeXtext(encoded), text);
    }));
  });

  it("refuses what is not xtext, and what would decode to controls", () => {
    for (
      const text of ["a=b", "a b", "+2b", "+", "+2", "ü", "a+0D+0A", "a+00", "a+7F", "a+C3+BC"]
    ) {
      assert.throws(() => decodeXtext(text), BadXtext, text);
    }
    assert.throws(() => encodeXtext("a\r\nb"), BadXtext);
  });
});

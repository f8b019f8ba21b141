/** Who is named in From: what every reader agrees on, and nothing else. */
import assert from "node:assert/strict";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { authorsOf, BadAuthor } from "../../../src/accounts/header_from.ts";
import { formatMailbox } from "../../../src/smtp/address.ts";

const header = (text: string) => new TextEncoder().encode(text);
const authors = (field: string) => authorsOf(header(`${field}\r\n`)).map(formatMailbox);

describe("authorsOf", () => {
  for (
    const [field, expected] of [
      ["From: a@example.com", ["a@example.com"]],
      ["FROM : a@example.com", ["a@example.com"]],
      ["From:a@example.com", ["a@example.com"]],
      ["To: x@example.org\r\nFrom: Ann <a@example.com>\r\nSubject: <b@c.example>", [
        "a@example.com",
      ]],
      ["From: Ann\r\n <a@example.com>", ["a@example.com"]],
      ['From: "Doe, Ann" <a@example.com>, b@example.com', ["a@example.com", "b@example.com"]],
      ['From: "x@example.net" <a@example.com>', ["a@example.com"]],
      ['From: "a\\"b" <a@example.com>', ["a@example.com"]],
      ['From: "two words"@example.com', ['"two words"@example.com']],
      ["From: a@example.com (Ann (of x@example.net))", ["a@example.com"]],
      ["From: (<x@example.net>,) Ann <a@example.com>", ["a@example.com"]],
      ["From: =?utf-8?Q?Ann?= <a@example.com>", ["a@example.com"]],
      ["From: Jörg <jörg@example.com>", ["jörg@example.com"]],
      ["From: team: a@example.com, Ben <b@example.com>;", ["a@example.com", "b@example.com"]],
      ["From: Ann D. <a@[192.0.2.1]>", ["a@[192.0.2.1]"]],
      ["From: , a@example.com,", ["a@example.com"]],
    ] as const
  ) {
    it(`reads ${JSON.stringify(field)}`, () => assert.deepEqual(authors(field), expected));
  }

  for (
    const field of [
      "Subject: x",
      "From:",
      "From: Ann",
      "From: nobody:;",
      "From: a@example.com\r\nFrom: a@example.com",
      "From: a@example.com\r\nfrom : b@example.com",
      "From: <a@example.com",
      "From: a@example.com>",
      "From: <a@example.com> b@example.com",
      "From: <a@example.com> <b@example.com>",
      "From: <a@example.com,b@example.com>",
      "From: <@relay.example:a@example.com>",
      "From: a@example.com (",
      "From: a@example.com )",
      'From: "a@example.com',
      "From: team: a@example.com",
      "From: a: b: c@example.com;",
      "From: a@example.com;",
      "From: a b@example.com",
      "From: a@example.com b@example.com",
      "From: a\0b@example.com",
      "From: <>",
    ]
  ) {
    it(`refuses ${JSON.stringify(field)}`, () => {
      assert.throws(() => authors(field), BadAuthor);
    });
  }

  it("throws nothing else, whatever comes", () => {
    const soup = fc.string({
      unit: fc.constantFrom(
        "a",
        "@",
        "b.example",
        "<",
        ">",
        '"',
        "(",
        ")",
        "\\",
        ",",
        ":",
        ";",
        " ",
      ),
      maxLength: 60,
    });
    fc.assert(fc.property(soup, (text) => {
      try {
        authors(`From: ${text}`);
      } catch (error) {
        assert(error instanceof BadAuthor, String(error));
      }
    }));
    assert.throws(() => authors(`From: ${'"\\"('.repeat(50_000)}`), BadAuthor);
    assert.throws(() => authors(`From: ${"a@b.example ".repeat(10_000)}`), BadAuthor);
  });
});

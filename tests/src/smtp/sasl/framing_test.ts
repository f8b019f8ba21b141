/** AUTH in lines (RFC 4954, section 4), and strict base64. */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import { SaslError, type SaslReason } from "../../../../src/smtp/sasl/error.ts";
import {
  authCommand,
  decodeChallenge,
  decodeResponse,
  encodeLine,
  MAX_AUTH_LINE,
  parseAuthArguments,
} from "../../../../src/smtp/sasl/framing.ts";
import { fromBase64, fromUtf8, toBase64, utf8 } from "../../../../src/smtp/sasl/octets.ts";

const fails = (reason: SaslReason) => (error: unknown) =>
  error instanceof SaslError && error.reason === reason && !error.message.includes("dGlt");

describe("AUTH of a client", () => {
  it("carries an initial response, an empty one as =, and none", () => {
    assert.deepEqual(authCommand("PLAIN", utf8("\0tim\0x")), { command: "AUTH PLAIN AHRpbQB4" });
    assert.deepEqual(authCommand("EXTERNAL", utf8("")), { command: "AUTH EXTERNAL =" });
    assert.deepEqual(authCommand("LOGIN", undefined), { command: "AUTH LOGIN" });
  });

  it("holds back what makes the line longer than a command may be", () => {
    const fits = utf8("x".repeat(372)); // 496 octets of base64 and "AUTH X "
    const { command } = authCommand("X", fits);
    assert.equal(command.length, 503);
    const long = utf8("x".repeat(400));
    assert.deepEqual(authCommand("X", long), { command: "AUTH X", held: long });
  });
});

describe("AUTH of a server", () => {
  it("reads mechanism and initial response", () => {
    assert.deepEqual(parseAuthArguments("plain AHRpbQB4"), {
      mechanism: "PLAIN",
      initial: utf8("\0tim\0x"),
    });
    assert.deepEqual(parseAuthArguments("PLAIN ="), {
      mechanism: "PLAIN",
      initial: new Uint8Array(0),
    });
    assert.deepEqual(parseAuthArguments("SCRAM-SHA-256"), { mechanism: "SCRAM-SHA-256" });
  });

  it("refuses all else", () => {
    for (
      const text of ["", " ", "PLAIN ", "PLAIN  dGlt", "PLAIN dGlt x", "PL\tAIN", "x".repeat(21)]
    ) {
      assert.throws(() => parseAuthArguments(text), fails("malformed"), JSON.stringify(text));
    }
    assert.throws(() => parseAuthArguments("PLAIN dGlt="), fails("bad-base64"));
    assert.throws(() => parseAuthArguments("PLAIN *"), fails("bad-base64"));
    assert.throws(() => parseAuthArguments(`PLAIN ${"A".repeat(12292)}`), fails("too-long"));
  });

  it("knows a cancelled exchange from a response", () => {
    assert.deepEqual(decodeResponse("*"), { kind: "cancelled" });
    assert.deepEqual(decodeResponse("dGlt"), { kind: "response", data: utf8("tim") });
    assert.deepEqual(decodeResponse(""), { kind: "response", data: new Uint8Array(0) });
    for (
      const line of ["=", "**", " dGlt", "dGlt ", "dGl", "dGlt\r", "dG_t", "dGl=", "d===", "é"]
    ) {
      assert.throws(() => decodeResponse(line), fails("bad-base64"), JSON.stringify(line));
    }
  });

  it("takes lines up to the bound and none beyond", () => {
    const most = decodeResponse("A".repeat(MAX_AUTH_LINE));
    assert(most.kind === "response" && most.data.length === 9216);
    assert.throws(() => decodeResponse("A".repeat(MAX_AUTH_LINE + 4)), fails("too-long"));
    assert.throws(() => decodeChallenge("A".repeat(MAX_AUTH_LINE + 4)), fails("too-long"));
    assert.throws(() => encodeLine(new Uint8Array(9217)), fails("too-long"));
    assert.equal(encodeLine(new Uint8Array(9216)).length, MAX_AUTH_LINE);
  });
});

describe("Base64", () => {
  it("goes there and back, and has one spelling for all octets", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 50 }), (octets) => {
      assert.deepEqual(fromBase64(toBase64(octets)), octets);
    }));
    fc.assert(fc.property(fc.base64String({ maxLength: 20 }), fc.string(), (text, more) => {
      let octets: Uint8Array;
      try {
        octets = fromBase64(text + more);
      } catch (error) {
        return error instanceof SaslError && error.reason === "bad-base64";
      }
      return toBase64(octets) === text + more;
    }));
  });
});

describe("Text of messages", () => {
  it("keeps a byte order mark, and refuses what is not UTF-8", () => {
    assert.equal(fromUtf8(utf8("\uFEFFa")), "\uFEFFa");
    assert.throws(() => fromUtf8(Uint8Array.of(0xc0, 0x80)), fails("malformed"));
    assert.throws(() => fromUtf8(new Uint8Array(9217)), fails("too-long"));
  });
});

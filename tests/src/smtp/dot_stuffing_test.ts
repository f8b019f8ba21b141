import { Buffer } from "node:buffer";
import assert from "node:assert/strict";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { BareLineEnd, DotStuffer } from "../../../src/smtp/dot_stuffing.ts";

function stuff(chunks: readonly Uint8Array[]): string {
  const stuffer = new DotStuffer();
  const pieces = chunks.flatMap((chunk) => stuffer.push(chunk));
  return Buffer.concat([...pieces, stuffer.end()]).toString("latin1");
}
const stuffText = (...chunks: string[]) => stuff(chunks.map((c) => Buffer.from(c, "latin1")));

/** Cuts octets at the given places. */
function cut(octets: Uint8Array, sizes: readonly number[]): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let at = 0, n = 0; at < octets.length; n++) {
    chunks.push(octets.subarray(at, at += sizes[n % sizes.length]!));
  }
  return chunks;
}

/** What a server makes of it (RFC 5321, section 4.5.2). */
function unstuff(sent: string): string {
  const end = `\r\n${sent}`.indexOf("\r\n.\r\n");
  assert.equal(end, sent.length - 3, "the end of data comes at the end, and only there");
  return `\r\n${sent}`.slice(0, end + 2).replaceAll("\r\n.", "\r\n").slice(2);
}

describe("dot-stuffing", () => {
  it("doubles a dot at the start of a line, and no other", () => {
    assert.equal(stuffText(".a.\r\n.\r\nb.\r\n"), "..a.\r\n..\r\nb.\r\n.\r\n");
  });

  it("sees line starts across chunks", () => {
    assert.equal(
      stuffText("a\r\n", ".b\r", "\n.c\r", "\n", ".\r\n"),
      "a\r\n..b\r\n..c\r\n..\r\n.\r\n",
    );
  });

  it("ends the last line where it has no end", () => {
    assert.equal(stuffText("a"), "a\r\n.\r\n");
    assert.equal(stuffText(), ".\r\n");
  });

  it("copies nothing where there is nothing to stuff", () => {
    const chunk = Buffer.from("a\r\nb\r\n");
    assert.equal(new DotStuffer().push(chunk)[0], chunk);
  });

  it("refuses a CR or LF that stands alone, wherever the chunks are cut", () => {
    for (
      const text of ["a\nb\r\n", "a\rb\r\n", "\n", "a\r\n\n.\r\n", "a\r\r\n", "x\n.\nMAIL\r\n"]
    ) {
      for (let at = 0; at <= text.length; at++) {
        assert.throws(() => stuffText(text.slice(0, at), text.slice(at)), BareLineEnd, text);
      }
    }
    assert.throws(() => stuffText("a\r"), BareLineEnd);
  });

  it("is undone by the server, for any content and any chunks", () => {
    // deno-lint-ignore no-control-regex
    const line = fc.stringMatching(/^[.\x00-\x09\x0b\x0c\x0e-\xff]{0,12}$/);
    const sizes = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 });
    fc.assert(
      fc.property(fc.array(line), sizes, (lines, sizes) => {
        const text = lines.map((one) => `${one}\r\n`).join("");
        assert.equal(unstuff(stuff(cut(Buffer.from(text, "latin1"), sizes))), text);
      }),
      { numRuns: 300 },
    );
  });

  it("sends nothing with a bare line end, for any octets and any chunks", () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1 });
    const octets = fc.array(fc.constantFrom(10, 13, 13, 46, 65)).map((all) => Uint8Array.from(all));
    fc.assert(
      fc.property(octets, sizes, (octets, sizes) => {
        const text = Buffer.from(octets).toString("latin1");
        const bare = /\r(?!\n)|(?<!\r)\n/.test(text);
        if (bare) assert.throws(() => stuff(cut(octets, sizes)), BareLineEnd);
        else {assert.equal(
            unstuff(stuff(cut(octets, sizes))).replace(/\r\n$/, ""),
            text.replace(/\r\n$/, ""),
          );}
      }),
      { numRuns: 500 },
    );
  });
});

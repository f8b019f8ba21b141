/** Line ends of content from files: whatever the pieces, all of them or none are converted. */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { LineEnds } from "../../../src/submission/line_ends.ts";

function converted(pieces: readonly string[]): string {
  const ends = new LineEnds();
  return Buffer.concat(pieces.map((piece) => ends.convert(Buffer.from(piece, "latin1"))))
    .toString("latin1");
}

const content = fc.array(fc.constantFrom("\r", "\n", "\r\n", "a", "bc"), { maxLength: 20 });

describe("line ends", () => {
  it("make CRLF of LF where the first line ends with LF", () => {
    assert.equal(converted(["a\nb\n\n"]), "a\r\nb\r\n\r\n");
    assert.equal(converted(["\n"]), "\r\n");
    assert.equal(converted(["a\r\nb\n"]), "a\r\nb\n", "a bare LF is for the line check");
    assert.equal(converted(["a\nb\r\n"]), "a\r\nb\r\r\n", "so is the CR");
    assert.equal(converted(["a\r", "\nb\n"]), "a\r\nb\n");
    assert.equal(converted(["no end"]), "no end");
  });

  it("do not depend on how the content comes in", () => {
    fc.assert(fc.property(fc.array(content), (pieces) => {
      const texts = pieces.map((piece) => piece.join(""));
      assert.equal(converted(texts), converted([texts.join("")]));
    }));
  });

  it("leave content with CRLF as it is", () => {
    fc.assert(fc.property(content, (piece) => {
      const text = `first\r\n${piece.join("")}`;
      assert.equal(converted([text]), text);
    }));
  });
});

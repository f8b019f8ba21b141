import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
// @ts-types="@types/mailparser"
import { simpleParser } from "mailparser";
import { quotedPrintable } from "../../../src/dsn/quoted_printable.ts";

describe("quoted-printable", () => {
  const cases = [
    ["plain", "plain"],
    ["a=b", "a=3Db"],
    ["end \r\nend\t", "end=20\r\nend=09"],
    ["\r\n\r\n", "\r\n\r\n"],
    ["bare\rcr and\nlf", "bare=0Dcr and=0Alf"],
    ["\u00e4", "=C3=A4"],
    ["x".repeat(76), "x".repeat(76)],
    ["x".repeat(77), `${"x".repeat(75)}=\r\nxx`],
  ] as const;
  for (const [text, encoded] of cases) {
    it(JSON.stringify(text.slice(0, 30)), () => {
      assert.equal(quotedPrintable(Buffer.from(text)), encoded);
    });
  }

  it("comes back as it was from another decoder, in short lines of ASCII", async () => {
    const octets = fc.oneof(
      fc.uint8Array({ maxLength: 400 }),
      fc.array(fc.constantFrom(13, 10, 32, 9, 61, 65, 200), { maxLength: 200 })
        .map((list) => Uint8Array.from(list)),
    );
    await fc.assert(
      fc.asyncProperty(octets, async (data) => {
        const encoded = quotedPrintable(data);
        for (const line of encoded.split("\r\n")) assert.match(line, /^[\t -~]{0,76}$/);
        const mail = await simpleParser(
          "Content-Type: application/octet-stream\r\n" +
            `Content-Transfer-Encoding: quoted-printable\r\n\r\n${encoded}`,
        );
        assert.deepEqual(mail.attachments[0]?.content, Buffer.from(data));
      }),
      { numRuns: 200 },
    );
  });
});

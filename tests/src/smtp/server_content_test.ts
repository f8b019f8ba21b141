/** Content: DATA with its dots, BDAT, and everything that only looks like the end of a message. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { after, before, beforeEach, describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { DotDecoder } from "../../../src/smtp/server/dots.ts";
import { Fixture, settle } from "./raw_client.ts";

/** Cuts octets at the given places. */
function cut(octets: Buffer, places: readonly number[]): Buffer[] {
  const at = [...new Set(places.map((p) => p % Math.max(1, octets.length)))].sort((a, b) => a - b);
  return [0, ...at].map((start, i) => octets.subarray(start, at[i] ?? octets.length));
}

/** Lines that are rich in what matters: dots, CRs and LFs at all places. */
const line = fc.string({ unit: fc.constantFrom(".", "a", ":", " ", "ä") });
const lines = fc.array(line, { maxLength: 12 });
const places = fc.array(fc.nat(), { maxLength: 8 });

describe("DotDecoder", () => {
  it("gives back any message, however it is cut", () => {
    fc.assert(fc.property(lines, places, fc.string(), (message, places, behind) => {
      const content = message.map((l) => `${l}\r\n`).join("");
      const stuffed = content.replace(/^\./gm, "..");
      const sent = Buffer.from(`${stuffed}.\r\n`);
      const decoder = new DotDecoder();
      const pieces: Uint8Array[] = [];
      let end = -1;
      for (const chunk of cut(sent, places)) {
        assert.equal(end, -1);
        const last = chunk.byteOffset + chunk.length === sent.byteOffset + sent.length;
        const all = last ? Buffer.concat([chunk, Buffer.from(behind)]) : chunk;
        end = decoder.decode(all, (piece) => pieces.push(piece));
        if (end >= 0) assert.equal(all.subarray(end).toString(), behind);
      }
      assert.notEqual(end, -1);
      assert.equal(Buffer.concat(pieces).toString(), content);
    }));
  });

  it("ends at the first CRLF . CRLF of any octets, and loses none before it", () => {
    const octets = fc.array(fc.constantFrom(13, 10, 46, 97), { maxLength: 60 });
    fc.assert(
      fc.property(octets, places, (octets, places) => {
        const sent = Buffer.from(octets);
        const text = `\r\n${sent.toString("latin1")}`;
        const found = text.indexOf("\r\n.\r\n");
        const decoder = new DotDecoder();
        const pieces: Uint8Array[] = [];
        let end = -1;
        let before = 0;
        for (const chunk of cut(sent, places)) {
          end = decoder.decode(chunk, (piece) => pieces.push(piece));
          if (end >= 0) break;
          before += chunk.length;
        }
        assert.equal(end < 0 ? -1 : before + end, found < 0 ? -1 : found + 3);
        if (found < 0) return;
        const content = text.slice(0, found + 2).replaceAll("\r\n.", "\r\n").slice(2);
        assert.equal(Buffer.concat(pieces).toString("latin1"), content);
      }),
      { numRuns: 2000 },
    );
  });
});

describe("DATA", () => {
  const fixture = new Fixture();
  before(async () => {
    await fixture.start();
  });
  after(() => fixture.stop());
  beforeEach(() => {
    fixture.submitter.submissions.length = 0;
  });

  it("takes out the dots that were put in, across separate segments", async () => {
    const client = await fixture.ready();
    await client.command("DATA");
    for (const part of ["A: b\r\n\r", "\n.", ".dot\r\n.", "...\r", "\n", ".", "\r", "\n"]) {
      client.write(part);
      await settle(2);
    }
    assert.match(await client.reply(), /^250 /);
    const [submission] = fixture.submitter.submissions;
    assert.equal(fixture.content(submission!).toString(), "A: b\r\n\r\n.dot\r\n...\r\n");
  });

  it("takes content without a header, with an empty one, and none at all", async () => {
    const contents = [["no header\r\n", "\r\nno header\r\n"], ["\r\nbody\r\n"], [""], ["A: b\r\n"]];
    for (const [sent, stored] of contents) {
      const client = await fixture.ready();
      await client.command("DATA");
      client.write(`${sent}.\r\n`);
      assert.match(await client.reply(), /^250 /);
      assert.equal(
        fixture.content(fixture.submitter.submissions.at(-1)!).toString(),
        stored ?? sent,
      );
    }
  });

  const smuggled = "MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\n" +
    "Subject: smuggled\r\n\r\nx";
  const ends = [
    "\n.\n",
    "\r.\r",
    "\n.\r\n",
    "\r\n.\n",
    "\r.\r\n",
    "\r\n.\r",
    "\n.\r",
    "\r\n.\r\r\n",
    "\r\r\n.\r\r\n",
    "\r\n\0.\r\n",
    "\r\n.\0\r\n",
    "\n\r.\r\n",
  ];
  for (const end of ends) {
    it(`sees no end of a message in ${JSON.stringify(end)}`, async () => {
      const client = await fixture.ready();
      await client.command("DATA");
      client.write(`Subject: a\r\n\r\nHello${end}${smuggled}\r\n.\r\nQUIT\r\n`);
      assert.match(await client.reply(), /^550 5\.6\.0 line \d+ .*(bare CR|bare LF|NUL)/);
      const rest = await client.rest();
      // NUL leaves no doubt where the message ends: only then the session goes on, to QUIT.
      if (end.includes("\0")) assert.match(rest, /^221 /);
      else assert.equal(rest, "");
      assert.equal(fixture.submitter.submissions.length, 0);
    });
  }

  it("refuses a message that has made too many hops", async () => {
    const client = await fixture.ready();
    await client.command("DATA");
    client.write(`${"Received: by x\r\n".repeat(51)}\r\nbody\r\n.\r\n`);
    assert.match(await client.reply(), /^554 5\.4\.6 .*hops/);
  });
});

describe("BDAT", () => {
  const fixture = new Fixture();
  before(async () => {
    await fixture.start();
  });
  after(() => fixture.stop());
  beforeEach(() => {
    fixture.submitter.submissions.length = 0;
  });

  it("takes chunks of any size, dots as they are, and no chunk but LAST ends", async () => {
    const client = await fixture.ready();
    client.write("BDAT 6\r\nA: b\r\nBDAT 0\r\nBDAT 10\r\n\r\n.\r\n..\r\nxBDAT 0 LAST\r\nNOOP\r\n");
    assert.equal(await client.codes(5), "250 250 250 250 250");
    // The last line came without CRLF, and gets one.
    assert.equal(
      fixture.content(fixture.submitter.submissions[0]!).toString(),
      "A: b\r\n\r\n.\r\n..\r\nx\r\n",
    );
  });

  it("takes an empty message", async () => {
    const client = await fixture.ready();
    assert.match(await client.command("BDAT 0 LAST"), /^250 2\.0\.0 Ok: queued as /);
  });

  it("gives back any message in any chunks", async () => {
    const client = await fixture.greeted();
    await fc.assert(
      fc.asyncProperty(lines, places, async (message, places) => {
        const content = Buffer.from(`A: b\r\n\r\n${message.map((l) => `${l}\r\n`).join("")}`);
        const chunks = cut(content, places);
        client.write("MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n");
        for (const [i, chunk] of chunks.entries()) {
          client.write(`BDAT ${chunk.length}${i === chunks.length - 1 ? " LAST" : ""}\r\n`);
          client.write(chunk);
        }
        const codes = await client.codes(2 + chunks.length);
        assert.equal(codes, Array(2 + chunks.length).fill("250").join(" "));
        const stored = fixture.content(fixture.submitter.submissions.at(-1)!);
        assert.equal(stored.toString(), content.toString());
      }),
      { numRuns: 40 },
    );
  });

  it("consumes the octets of a chunk that it refuses", async () => {
    const client = await fixture.greeted();
    client.write("BDAT 6\r\nQUIT\r\nMAIL FROM:<a@example.com>\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n");
    assert.equal(await client.codes(4), "503 250 554 250");
  });

  it("refuses bare CR and LF, also where chunks meet, and the chunks that follow", async () => {
    for (const [first, second] of [["a\n", "b"], ["a\r", "b\r\n"], ["a", "\n"]]) {
      const client = await fixture.ready();
      client.write(
        `BDAT ${first!.length}\r\n${first}BDAT ${second!.length} LAST\r\n${second}NOOP\r\n`,
      );
      const codes = await client.codes(3);
      assert.ok(["550 503 250", "250 550 250"].includes(codes), codes);
    }
    const client = await fixture.ready();
    assert.match(await client.command("BDAT 4 LAST\r\nab"), /^250 /, "CR LF is no bare CR");
    assert.equal(fixture.submitter.submissions.length, 1);
  });

  it("does not mix with DATA or RCPT", async () => {
    const client = await fixture.ready();
    client.write("BDAT 3\r\na\r\nDATA\r\nRCPT TO:<c@example.org>\r\nBDAT 0 LAST\r\n");
    assert.equal(await client.codes(4), "250 503 503 250");
  });

  it("discards the chunks of a transaction that is given up", async () => {
    const { discarded } = fixture.bodies;
    const client = await fixture.ready();
    const chunk = Buffer.from(`A: b\r\n\r\n${`${"x".repeat(98)}\r\n`.repeat(500)}`);
    client.write(`BDAT ${chunk.length}\r\n`);
    client.write(chunk);
    client.write("RSET\r\nBDAT 0 LAST\r\n");
    assert.equal(await client.codes(3), "250 250 503");
    assert.equal(fixture.bodies.discarded, discarded + 1);
    assert.equal(fixture.bodies.unfinished, 0);
  });

  it("ends the session when the size cannot be read", async () => {
    for (const argument of ["", "x", "-1", "1 FIRST", "9".repeat(30)]) {
      const client = await fixture.ready();
      assert.match(await client.command(`BDAT ${argument}`), /^501 5\.5\.4 .*closing/);
      assert.equal(await client.rest(), "");
    }
  });
});

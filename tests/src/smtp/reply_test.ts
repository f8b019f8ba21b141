import { Buffer } from "node:buffer";
import assert from "node:assert/strict";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import {
  MAX_LINE,
  MAX_REPLY_LINES,
  quoteReply,
  ReplyError,
  ReplyParser,
  type SmtpReply,
} from "../../../src/smtp/reply.ts";

const parse = (text: string | Uint8Array): SmtpReply | undefined => {
  const parser = new ReplyParser();
  parser.push(typeof text === "string" ? Buffer.from(text) : text);
  return parser.next();
};
const refusal = (text: string, kind: ReplyError["kind"]) =>
  assert.throws(() => parse(text), (error) => error instanceof ReplyError && error.kind === kind);

describe("replies", () => {
  it("reads a line with an enhanced code", () => {
    assert.deepEqual(parse("550 5.1.1 No such user\r\n"), {
      code: 550,
      enhanced: "5.1.1",
      text: "No such user",
      lines: ["550 5.1.1 No such user"],
    });
  });

  it("joins the lines of a reply and takes the enhanced code off each", () => {
    const reply = parse("450-4.7.1 Greylisted\r\n450 4.7.1 come back later\r\n");
    assert.equal(reply?.text, "Greylisted\ncome back later");
    assert.equal(reply?.enhanced, "4.7.1");
  });

  it("waits for the last line", () => {
    assert.equal(parse("250-one\r\n250-two\r\n"), undefined);
    assert.equal(parse("250"), undefined);
  });

  it("takes a code alone, a lone LF, and an empty text", () => {
    assert.equal(parse("250\r\n")?.code, 250);
    assert.equal(parse("250 ok\n")?.text, "ok");
    assert.equal(parse("250-\r\n250 \r\n")?.text, "\n");
  });

  it("does not take a version number for an enhanced code", () => {
    assert.equal(parse("250 5.1.1 is our version\r\n")?.enhanced, undefined);
    assert.equal(parse("550 5.1.1x\r\n")?.enhanced, undefined);
    assert.equal(parse("550 5.1000.1 x\r\n")?.enhanced, undefined);
  });

  it("keeps text that is UTF-8, and shows any other octet as Latin-1", () => {
    assert.equal(parse("250 grüß Gott\r\n")?.text, "grüß Gott");
    assert.equal(parse(Buffer.from("250 gr\xfc\xdf\r\n", "latin1"))?.text, "grüß");
  });

  it("lets no control character through", () => {
    assert.equal(parse("250 a\x1b[31mb\x00c\rd\r\n")?.text, "a?[31mb?c?d");
  });

  it("refuses what is no reply", () => {
    for (const text of ["hello\r\n", "25\r\n", "199 x\r\n", "600 x\r\n", "250x\r\n", "\r\n"]) {
      refusal(text, "protocol");
    }
    refusal("250-one\r\n550 two\r\n", "protocol");
  });

  it("refuses a flood, however it is portioned", () => {
    refusal("250 " + "x".repeat(MAX_LINE), "flood");
    refusal("250-x\r\n".repeat(MAX_REPLY_LINES + 1), "flood");
    refusal(`250-${"x".repeat(4000)}\r\n`.repeat(20), "flood");
    const parser = new ReplyParser();
    assert.throws(() => {
      for (let n = 0; n <= MAX_LINE + 1; n++) {
        parser.push(Uint8Array.of(50));
        parser.next();
      }
    }, ReplyError);
  });

  it("gives the same replies whatever the chunks", () => {
    const text = fc.stringMatching(/^[ -~äöü€]{0,60}$/);
    const reply = fc.tuple(fc.integer({ min: 200, max: 599 }), fc.array(text, { minLength: 1 }))
      .map(([code, texts]) =>
        texts.slice(0, 20)
          .map((line, n, all) => `${code}${n < all.length - 1 && n < 19 ? "-" : " "}${line}\r\n`)
          .join("")
      );
    fc.assert(fc.property(
      fc.array(reply, { maxLength: 5 }),
      fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }),
      (replies, sizes) => {
        const octets = Buffer.from(replies.join(""));
        const expected = replies.map((one) => parse(one));
        const parser = new ReplyParser();
        const seen: SmtpReply[] = [];
        for (let at = 0, n = 0; at < octets.length; n++) {
          const size = sizes[n % sizes.length]!;
          parser.push(octets.subarray(at, at += size));
          for (let next = parser.next(); next; next = parser.next()) seen.push(next);
        }
        assert.deepEqual(seen, expected);
        assert.equal(parser.pending, false);
      },
    ));
  });

  it("survives any octets: a reply, more wanted, or a ReplyError", () => {
    fc.assert(fc.property(fc.array(fc.uint8Array({ maxLength: 200 })), (chunks) => {
      const parser = new ReplyParser();
      try {
        for (const chunk of chunks) {
          parser.push(chunk);
          for (let reply = parser.next(); reply; reply = parser.next()) {
            assert.ok(reply.code >= 200 && reply.code <= 599);
          }
        }
      } catch (error) {
        assert.ok(error instanceof ReplyError);
      }
    }));
  });

  it("is quoted on one line", () => {
    assert.equal(
      quoteReply({ code: 550, enhanced: "5.7.1", text: "no\n mail" }),
      "550 5.7.1 no mail",
    );
    assert.equal(quoteReply({ code: 250, text: "" }), "250");
  });
});

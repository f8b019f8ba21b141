/** The intake: fields added, header read, limits, and content kept as it is. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { StoreUnavailable } from "../../../events/store.ts";
import {
  DEFAULT_INTAKE_LIMITS,
  Intake,
  type IntakeLimits,
} from "../../../src/submission/intake.ts";
import { BareLineEnd } from "../../../src/submission/lines.ts";
import { Refusal } from "../../../src/submission/refusal.ts";
import { receivedField, type Trace } from "../../../src/submission/trace.ts";
import { MemoryBodies } from "../smtp/fakes.ts";

const TRACE: Trace = {
  from: { name: "client.test", address: "2001:db8::1" },
  by: "mx.test",
  with: "ESMTPS",
  tls: { protocol: "TLSv1.3", cipher: "TLS_AES_128_GCM_SHA256" },
  id: "S1",
  for: "b@example.org",
  at: Date.UTC(2026, 0, 5, 7, 8, 9),
};
const RECEIVED = "Received: from client.test ([IPv6:2001:db8::1])\r\n" +
  "\tby mx.test with ESMTPS\r\n\t(TLSv1.3 TLS_AES_128_GCM_SHA256)\r\n\tid S1\r\n" +
  "\tfor <b@example.org>;\r\n\tMon, 05 Jan 2026 07:08:09 +0000\r\n";
const DATE = "Date: Mon, 05 Jan 2026 07:08:09 +0000\r\n";
const ID = "Message-ID: <S1@mx.test>\r\n";

async function take(
  content: string | Buffer,
  { places = [] as readonly number[], limits = {} as Partial<IntakeLimits> } = {},
) {
  const bodies = new MemoryBodies();
  const intake = new Intake(bodies, TRACE, { ...DEFAULT_INTAKE_LIMITS, ...limits });
  const octets = Buffer.from(content);
  const at = [...new Set(places.map((p) => p % Math.max(1, octets.length)))].sort((a, b) => a - b);
  for (const [i, start] of [0, ...at].entries()) {
    // A copy that is overwritten behind the flush: nothing may be held beyond it.
    const piece = Buffer.from(octets.subarray(start, at[i] ?? octets.length));
    intake.write(piece);
    if (intake.pending > 0) {
      await intake.flush();
      piece.fill(0);
    }
  }
  const taken = await intake.finish();
  return { ...taken, stored: bodies.bodies.get(taken.body.sha256)!.toString(), bodies };
}

describe("Intake", () => {
  it("puts Received, Date and Message-ID before a message that has none", async () => {
    const { stored, messageId, has8bit, internationalized, body } = await take(
      "Subject: x\r\n\r\nbody\r\n",
    );
    assert.equal(stored, `${RECEIVED}${DATE}${ID}Subject: x\r\n\r\nbody\r\n`);
    assert.equal(body.size, stored.length);
    assert.equal(messageId, "<S1@mx.test>");
    assert.ok(!has8bit && !internationalized);
  });

  it("leaves Date, Message-ID and everything else as they are, in any case of letters", async () => {
    const content =
      "Return-Path: <x@y>\r\ndate : today\r\nX-Date: 1\r\nMESSAGE-ID:\r\n\t<a@b>\r\n\r\n";
    const { stored, messageId } = await take(content);
    assert.equal(stored, RECEIVED + content);
    assert.equal(messageId, "<a@b>");
  });

  it("does not take the body, or a continuation, for a field", async () => {
    const content = "Subject: x\r\n date: 1\r\n\r\nDate: 2\r\nMessage-ID: <a@b>\r\n";
    assert.equal((await take(content)).stored, RECEIVED + DATE + ID + content);
  });

  it("makes a header for content that has none", async () => {
    const added = RECEIVED + DATE + ID;
    for (const body of ["Hello world\r\n", " : x\r\n", "x y: z\r\n", "\u00fc: x\r\n", ": x\r\n"]) {
      assert.equal((await take(body)).stored, `${added}\r\n${body}`, body);
    }
    assert.equal((await take("\r\nbody\r\n")).stored, `${added}\r\nbody\r\n`);
    assert.equal((await take("Subject: no body")).stored, `${added}Subject: no body\r\n`);
    assert.equal((await take("")).stored, added);
  });

  it("stores the same whatever the pieces", async () => {
    const text = fc.array(
      fc.constantFrom("A: b", "Date: x", "Message-ID: <a@b>", "", " fold", "text", "ü", ":"),
      { maxLength: 10 },
    ).map((lines) => lines.map((l) => `${l}\r\n`).join(""));
    await fc.assert(
      fc.asyncProperty(text, fc.array(fc.nat(), { maxLength: 9 }), async (text, places) => {
        const whole = await take(text);
        assert.ok(whole.stored.startsWith(RECEIVED) && whole.stored.endsWith(text));
        const { stored, has8bit, internationalized, messageId } = await take(text, { places });
        assert.equal(stored, whole.stored);
        assert.deepEqual(
          { has8bit, internationalized, messageId },
          {
            has8bit: whole.has8bit,
            internationalized: whole.internationalized,
            messageId: whole.messageId,
          },
        );
        assert.equal(has8bit, text.includes("ü"));
      }),
    );
  });

  it("tells 8-bit headers from 8-bit bodies", async () => {
    const body = await take("A: b\r\n\r\nü\r\n");
    assert.ok(body.has8bit && !body.internationalized);
    const header = await take("A: ü\r\n\r\nb\r\n");
    assert.ok(header.has8bit && header.internationalized);
  });

  it("counts the recipient in its own Received field too", async () => {
    const intake = new Intake(new MemoryBodies(), { ...TRACE, for: "用户@example.org" });
    intake.write(Buffer.from("A: b\r\n\r\n"));
    const { has8bit, internationalized } = await intake.finish();
    assert.ok(has8bit && internationalized);
  });

  it("reads TLS-Required: No (RFC 8689, section 5), and nothing else in its place", async () => {
    const rows: [string, boolean][] = [
      ["TLS-Required: No\r\n", true],
      ["tls-required:no\r\n", true],
      ["TLS-Required: (as asked) No (really)\r\n", true],
      ["TLS-Required:\r\n No\r\n", true],
      ["TLS-Required: Yes\r\n", false],
      ["TLS-Required: No, please\r\n", false],
      ["TLS-Required: No\r\nTLS-Required: No\r\n", false],
      ["X-TLS-Required: No\r\n", false],
      [`TLS-Required: (${"long ".repeat(99)}) No\r\n`, false],
      ["", false],
    ];
    for (const [field, expected] of rows) {
      const { tlsOptional } = await take(`Subject: x\r\n${field}\r\nTLS-Required: No\r\n`);
      assert.equal(tlsOptional, expected, field);
    }
  });

  it("knows a Message-ID only if it is of use", async () => {
    const ids: [value: string, id: string | null][] = [
      [" <a@b> (comment)", "<a@b>"],
      [" <a\r\n b@c>", "<ab@c>"],
      [" no-brackets", "no-brackets"],
      ["", null],
      [" two words", null],
      [` <${"x".repeat(950)}>\r\n <${"y".repeat(950)}>`, null],
      [" <a\u0007@b>", null],
    ];
    for (const [value, id] of ids) {
      assert.equal((await take(`Message-ID:${value}\r\n\r\n`)).messageId, id, value.slice(0, 30));
    }
  });

  const refused: [what: string, content: string, limits: Partial<IntakeLimits>, code: number][] = [
    ["a bare LF", "A: b\n\r\n", {}, 550],
    ["a bare CR", "A: b\r\r\n", {}, 550],
    ["a CR at the end", "A: b\r\n\r\nx\r", {}, 550],
    ["a NUL", "A: b\r\n\r\n\0\r\n", {}, 550],
    ["a long line", `A: ${"x".repeat(996)}\r\n`, {}, 550],
    ["a long line without end", `A: ${"x".repeat(998)}`, {}, 550],
    ["too many octets", "A: b\r\n\r\nxxxx\r\n", { messageSize: 13 }, 552],
    ["a large header section", `${"A: b\r\n".repeat(20)}\r\n`, { headerSize: 100 }, 552],
    ["a header section without end", "A: b\r\n".repeat(20), { headerSize: 100 }, 552],
    ["a loop", `${"Received: x\r\n".repeat(4)}\r\n`, { hops: 3 }, 554],
  ];
  for (const [what, content, limits, code] of refused) {
    it(`refuses ${what}, and leaves nothing behind`, async () => {
      for (const places of [[], [1, 2, 3, 5, 8, 13, 21], Array.from(content, (_, i) => i)]) {
        const bodies = new MemoryBodies();
        await assert.rejects(
          take(content, { limits, places }),
          (error) => error instanceof Refusal && error.code === code,
        );
        assert.equal(bodies.unfinished, 0);
      }
    });
  }

  it("says in which line, and whether CR or LF stood alone", () => {
    const intake = new Intake(new MemoryBodies(), TRACE);
    intake.write(Buffer.from("A: b\r\n\r\nok\r"));
    intake.write(Buffer.from("\nx\ny\r\n"));
    assert.ok(intake.refusal instanceof BareLineEnd);
    assert.match(intake.refusal.message, /^line 4 of the message has a bare LF/);
  });

  it("lets a failing store be told from a bad message, and gives the body up", async () => {
    const bodies = new MemoryBodies();
    bodies.failWith = new StoreUnavailable("disk full");
    const intake = new Intake(bodies, TRACE);
    intake.write(Buffer.from("A: b\r\n\r\n"));
    await assert.rejects(intake.flush(), StoreUnavailable);
    intake.refuse(new Refusal(452, "4.3.1", "later"));
    intake.write(Buffer.from("more\r\n"));
    assert.equal(intake.pending, 0);
    await assert.rejects(intake.finish(), Refusal);
    assert.equal(bodies.unfinished, 0);
  });
});

describe("receivedField", () => {
  it("leaves out what is not known", () => {
    assert.equal(
      receivedField({ by: "mx.test", with: "ESMTP", id: "S2", at: TRACE.at }),
      "Received: by mx.test with ESMTP\r\n\tid S2;\r\n\tMon, 05 Jan 2026 07:08:09 +0000\r\n",
    );
  });

  it("lets no value begin a field of its own", () => {
    for (const name of ["a\r\nBcc: x", "a\nb", "a\rb", "a\0b", "a\r\n"]) {
      assert.throws(
        () => receivedField({ ...TRACE, from: { name, address: "192.0.2.1" } }),
        TypeError,
      );
    }
  });
});

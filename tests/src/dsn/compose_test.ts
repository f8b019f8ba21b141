import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { StoreUnavailable } from "../../../events/store.ts";
import { MAX_FULL, MAX_HEADER } from "../../../src/dsn/original.ts";
import { compose, composer, fieldOf, given, NOW, ORIGINAL, parse, statusOf } from "./given.ts";
import { MemoryBodies } from "./memory_bodies.ts";

describe("DSN: a failure", () => {
  it("is a report that a mail parser reads", async () => {
    const { raw, messageId, smtputf8, has8bit } = await compose();
    const mail = await parse(raw);
    assert.equal(mail.from?.text, '"Mail Delivery System" <MAILER-DAEMON@mail.example.org>');
    assert.equal(Array.isArray(mail.to) ? "" : mail.to?.text, "a@example.com");
    assert.equal(mail.subject, "Mail not delivered: b@example.net");
    assert.equal(mail.messageId, messageId);
    assert.equal(mail.date?.getTime(), NOW);
    assert.equal(mail.inReplyTo, "<1@example.com>");
    assert.equal(mail.references, "<1@example.com>");
    assert.equal(mail.headers.get("auto-submitted"), "auto-replied");
    const type = mail.headers.get("content-type") as {
      value: string;
      params: { "report-type": string };
    };
    assert.equal(type.value, "multipart/report");
    assert.equal(type.params["report-type"], "delivery-status");
    assert.match(mail.text ?? "", /message to b@example\.net was not delivered, after 1 attempt/);
    assert.match(mail.text ?? "", /550 5\.1\.1 No such user/);
    assert.match(mail.text ?? "", /Check the address for typing\s+errors/);
    assert.deepEqual([smtputf8, has8bit], [false, false]);
    const types = mail.attachments.map((attachment) => attachment.contentType);
    assert.deepEqual(types, ["message/delivery-status", "text/rfc822-headers"]);
  });

  it("says all of it for programs", async () => {
    const dsn = { envid: "envelope 7", orcpt: "rfc822;B@example.net" };
    const { parts } = await compose({ message: { dsn } });
    assert.deepEqual(statusOf(parts), [
      [
        ["Reporting-MTA", "dns; mail.example.org"],
        ["Original-Envelope-Id", "envelope 7"],
        ["Arrival-Date", "Wed, 04 Mar 2026 01:00:00 +0000"],
      ],
      [
        ["Original-Recipient", "rfc822; B@example.net"],
        ["Final-Recipient", "rfc822; b@example.net"],
        ["Action", "failed"],
        ["Status", "5.1.1"],
        ["Remote-MTA", "dns; mx.example.net"],
        ["Diagnostic-Code", "smtp; 550 5.1.1 No such user"],
        ["Last-Attempt-Date", "Wed, 04 Mar 2026 05:00:00 +0000"],
      ],
    ]);
  });

  it("carries the header of the original, not its text", async () => {
    const { parts } = await compose();
    assert.equal(parts[2]?.type, "text/rfc822-headers");
    assert.equal(parts[2]?.content, ORIGINAL.slice(0, ORIGINAL.indexOf("\r\n\r\n") + 2));
  });

  it("without a reply gives our own reason", async () => {
    const reason = "mx.example.net: timeout";
    const failure = { code: undefined, reply: undefined, enhanced: "4.4.1", reason };
    const { parts } = await compose({ failure: { ...failure, remoteMTA: "2001:db8::1" } });
    assert.equal(fieldOf(parts, "Diagnostic-Code"), "x-postledger; mx.example.net: timeout");
    assert.equal(fieldOf(parts, "Remote-MTA"), "dns; [IPv6:2001:db8::1]");
    assert.equal(fieldOf(parts, "Status"), "4.4.1");
  });

  const replies = [
    [{ code: 452, enhanced: "4.2.2", text: "Full (today)" }, "452 4.2.2 Full (today)"],
    [{ code: 452, text: "Busy" }, "452 Busy"],
    [{ code: 452, enhanced: "4.2.2", text: "One\nTwo" }, "452 4.2.2 One Two"],
    [{ code: 452, text: "mx said 550 no to RCPT TO" }, "452 mx said 550 no to RCPT TO"],
    [{ code: 452, text: "" }, "452"],
  ] as const;
  for (const [reply, diagnostic] of replies) {
    it(`repeats the reply ${JSON.stringify(reply)}`, async () => {
      const { parts } = await compose({ failure: { reason: "gave up", code: 452, reply } });
      assert.equal(fieldOf(parts, "Diagnostic-Code"), `smtp; ${diagnostic}`);
    });
  }

  const statuses = [
    [{ enhanced: undefined, code: 554 }, "5.0.0"],
    [{ enhanced: undefined, code: 451 }, "4.0.0"],
    [{ enhanced: undefined, code: undefined, result: "permerror" }, "5.0.0"],
    [{ enhanced: undefined, code: undefined, result: "timeout" }, "4.4.7"],
    [{ enhanced: "2.0.0", code: 550 }, "5.0.0"],
    [{ enhanced: "5.1.1\r\nX: y", code: 550 }, "5.0.0"],
  ] as const;
  for (const [failure, status] of statuses) {
    it(`has status ${status} for ${JSON.stringify(failure)}`, async () => {
      const { parts } = await compose({ failure });
      assert.equal(fieldOf(parts, "Status"), status);
    });
  }

  it("that is no longer stored is reported without it, and says so", async () => {
    const { parts, raw } = await compose({ original: null });
    assert.equal(parts.length, 2);
    assert.match((await parse(raw)).text?.replace(/\s+/g, " ") ?? "", /not stored here any more/);
  });
});

describe("DSN: a delay", () => {
  it("says until when it is tried", async () => {
    const until = Date.parse("2026-03-06T00:00:00.000Z");
    const report = { kind: "delayed", until, attempt: 5 } as const;
    const dsn = { ret: "FULL" } as const;
    const { parts, raw } = await compose({ report, message: { dsn } });
    assert.equal(fieldOf(parts, "Action"), "delayed");
    assert.equal(fieldOf(parts, "Status"), "4.1.1", "a delay is never of class 5");
    assert.equal(fieldOf(parts, "Will-Retry-Until"), "Fri, 06 Mar 2026 00:00:00 +0000");
    assert.equal(parts[2]?.type, "text/rfc822-headers", "RET=FULL is for failures");
    const mail = await parse(raw);
    assert.equal(mail.subject, "Mail delayed: b@example.net");
    const text = mail.text?.replace(/\s+/g, " ") ?? "";
    assert.match(text, /after 5 attempts\. It is tried again until Fri, 06 Mar 2026/);
  });

  it("of what was never tried speaks of no attempts", async () => {
    const report = { kind: "delayed", attempt: 0, at: undefined } as const;
    const { parts, raw } = await compose({ report });
    assert.equal(fieldOf(parts, "Last-Attempt-Date"), undefined);
    const text = (await parse(raw)).text?.replace(/\s+/g, " ") ?? "";
    assert.match(
      text,
      /has not been delivered yet, and could not be tried\. It is tried again: you need not send it again/,
    );
    assert.doesNotMatch(text, /attempt/);
  });

  it("does not send back whole what was sent with REQUIRETLS (RFC 8689)", async () => {
    const { parts } = await compose({ message: { dsn: { ret: "FULL" }, requireTLS: true } });
    assert.equal(parts[2]?.type, "text/rfc822-headers");
  });
});

describe("DSN: the original", () => {
  const full = { dsn: { ret: "FULL" } } as const;

  it("comes back whole with RET=FULL", async () => {
    const { parts } = await compose({ message: full });
    const [, , part] = parts;
    assert.deepEqual(part, { type: "message/rfc822", encoding: "7bit", content: ORIGINAL });
  });

  it("comes back whole with 8 bits too, and the report says that it has them", async () => {
    const { parts, has8bit } = await compose({
      message: full,
      original: "Subject: x\r\n\r\nna\u00efve\r\n",
    });
    assert.deepEqual([parts[2]?.type, parts[2]?.encoding, has8bit], [
      "message/rfc822",
      "8bit",
      true,
    ]);
  });

  it("comes back as its header when it is large", async () => {
    const original = ORIGINAL + "x".repeat(70).concat("\r\n").repeat(MAX_FULL / 70);
    const { parts, bodies } = await compose({ message: full, original });
    assert.equal(parts[2]?.type, "text/rfc822-headers");
    assert.ok(bodies.read <= MAX_HEADER + 10_000, "no more is read than is shown");
  });

  it("comes back as its header when its lines cannot stand in a message", async () => {
    for (const body of ["x".repeat(999), "a\rb", "a\nb", "a\0b"]) {
      const { parts } = await compose({ message: full, original: `${ORIGINAL}${body}\r\n` });
      assert.equal(parts[2]?.type, "text/rfc822-headers");
    }
  });

  it("may have a header without end", async () => {
    const original = `X: ${"y".repeat(60)}\r\n`.repeat(3_000);
    const { parts } = await compose({ original });
    const content = parts[2]?.content ?? "";
    assert.ok(content.length > MAX_HEADER - 80 && content.length <= MAX_HEADER);
    assert.ok(content.endsWith("y\r\n"));
  });

  for (const original of ["", "\r\n", "\r\nonly text\r\n"]) {
    it(`may have no header: ${JSON.stringify(original)}`, async () => {
      assert.equal((await compose({ original })).parts[2]?.content, "");
    });
  }

  const header = "Subject: na\u00efve \u65e5\u672c\r\nX-Long: " + "z".repeat(2_000) + "\r\n";
  for (
    const [smtputf8, type] of [[false, "text/rfc822-headers"], [
      true,
      "message/global-headers",
    ]] as const
  ) {
    it(`may have a header with 8 bits and long lines (${type})`, async () => {
      const { parts, raw, has8bit } = await compose({
        message: { smtputf8 },
        original: `${header}\r\ntext\r\n`,
      });
      assert.deepEqual([parts[2]?.type, parts[2]?.encoding], [type, "quoted-printable"]);
      assert.equal(has8bit, smtputf8);
      const attachment = (await parse(raw)).attachments.at(-1);
      assert.equal(attachment?.content.toString(), header);
    });
  }

  it("does not end its part by containing the boundary", async () => {
    const original = "Subject: x\r\n\r\n--=_0_01ID0\r\n\r\n--=_0_01ID0--\r\n";
    const { parts } = await compose({ message: full, original });
    assert.equal(parts.length, 3);
    assert.equal(parts[2]?.content, original);
  });
});

describe("DSN: hostile text", () => {
  const hostile = fc.oneof(
    fc.string({ unit: "binary", maxLength: 300 }),
    fc.array(
      fc.constantFrom(
        "\r\n",
        "\n",
        "\r",
        "\0",
        "\r\nBcc: x@evil.example",
        "\r\n\r\n",
        "--=_0_01ID0",
        " ",
        "\t",
        "\u2028",
        "\u202e",
        "\u0085",
        "<",
        ">",
        ";",
        "550 ",
        "\ud800",
        "\u65e5",
        "x".repeat(1_200),
        ":",
      ),
      { maxLength: 12 },
    ).map((parts) => parts.join("")),
  );

  it("changes nothing of a report's form, wherever it stands", async () => {
    const fields = ["From", "To", "Subject", "Message-ID", "In-Reply-To", "References"];
    const known = [...fields, "Date", "Auto-Submitted", "MIME-Version", "Content-Type"];
    const statusFields = ["Reporting-MTA", "Original-Envelope-Id", "Arrival-Date"];
    const recipientFields = [
      "Original-Recipient",
      "Final-Recipient",
      "Action",
      "Status",
      "Remote-MTA",
      "Diagnostic-Code",
      "Last-Attempt-Date",
    ];
    await fc.assert(
      fc.asyncProperty(
        fc.array(hostile, { minLength: 8, maxLength: 8 }),
        fc.boolean(),
        async (texts, smtputf8) => {
          const [reason = "", remoteMTA = "", envid = "", orcpt = "", messageId = ""] = texts;
          const [, , , , , mailFrom = "", rcptTo = "", enhanced = ""] = texts;
          const { text, parts } = await compose({
            message: { dsn: { envid, orcpt }, messageId, mailFrom, rcptTo, smtputf8 },
            failure: { reason, remoteMTA, enhanced },
            original: texts.join("\r\n"),
          });
          const [head = ""] = text.split("\r\n\r\n");
          for (const line of head.split("\r\n")) {
            assert.ok(line.startsWith(" ") || known.includes(line.split(":")[0] ?? ""), line);
            assert.notEqual(line.trim(), "");
          }
          assert.equal(parts.length, 3);
          const groups = statusOf(parts);
          assert.equal(groups.length, 2);
          for (const [name] of groups[0] ?? []) assert.ok(statusFields.includes(name), name);
          for (const [name] of groups[1] ?? []) assert.ok(recipientFields.includes(name), name);
          const machine = `${head}${parts[1]?.content}`.replaceAll("\r\n", "");
          assert.doesNotMatch(Buffer.from(machine, "latin1").toString("utf8"), /\p{C}/u);
        },
      ),
      { numRuns: 200 },
    );
  });

  it("is bounded", async () => {
    const reason = "550 " + "word\n".repeat(100_000);
    const { raw } = await compose({ failure: { reason } });
    assert.ok(raw.length < 16 * 1024, `${raw.length}`);
  });

  it("keeps a reply of many lines readable", async () => {
    const { raw } = await compose({ failure: { reason: "550-5.7.1 First\n550 5.7.1 Second" } });
    assert.match((await parse(raw)).text ?? "", /^ {4}550-5\.7\.1 First\n {4}550 5\.7\.1 Second$/m);
  });

  for (const messageId of ["<a b@c>", "no-at", "<a@b>\r\nX: y", "<>", null]) {
    it(`does not refer to the Message-ID ${JSON.stringify(messageId)}`, async () => {
      assert.doesNotMatch(
        (await compose({ message: { messageId } })).text,
        /In-Reply-To|References/,
      );
    });
  }
});

describe("DSN: staging", () => {
  it("leaves nothing behind when the disk is full", async () => {
    const bodies = new MemoryBodies();
    bodies.failsAfter = 500;
    await assert.rejects(composer(bodies).compose([given(bodies, {})]), StoreUnavailable);
    assert.equal(bodies.discarded, 1);
  });

  it("can be undone", async () => {
    const { discard, bodies } = await compose();
    await discard();
    assert.equal(bodies.discarded, 1);
  });
});

import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
// @ts-types="@types/mailparser"
import { type ParsedMail, simpleParser } from "mailparser";
import type { ReportRequest } from "../../../actors/ports.ts";
import { DsnComposer } from "../../../src/dsn/compose.ts";
import { MAX_FULL, MAX_HEADER } from "../../../src/dsn/original.ts";
import { StoreUnavailable } from "../../../events/store.ts";
import { MemoryBodies } from "./memory_bodies.ts";

const NOW = Date.parse("2026-03-04T05:06:07.000Z");
const ORIGINAL = "From: a@example.com\r\nSubject: Hello\r\nMessage-ID: <1@example.com>\r\n" +
  "\r\nbody text\r\n";

type Changes = {
  message?: Partial<ReportRequest["message"]>;
  failure?: Partial<ReportRequest["failure"]>;
  report?: Partial<ReportRequest>;
  original?: string | Uint8Array | null;
};

function given(
  bodies: MemoryBodies,
  { message, failure, report, original }: Changes,
): ReportRequest {
  return {
    kind: "failed",
    stream: "01J",
    arrived: "2026-03-04T01:00:00.000Z",
    at: Date.parse("2026-03-04T05:00:00.000Z"),
    attempt: 1,
    message: {
      account: null,
      mailFrom: "a@example.com",
      rcptTo: "b@example.net",
      size: 100,
      body: original === null ? "0".repeat(64) : bodies.put(original ?? ORIGINAL),
      messageId: "<1@example.com>",
      has8bit: false,
      smtputf8: false,
      requireTLS: false,
      dsn: {},
      submission: "01S",
      source: { kind: "smtp" },
      due: "2026-03-04T01:00:00.000Z",
      ...message,
    },
    failure: {
      permanent: true,
      result: "permerror",
      reason: "mx.example.net (192.0.2.1) said 550 5.1.1 No such user",
      code: 550,
      enhanced: "5.1.1",
      remoteMTA: "mx.example.net",
      reply: { code: 550, enhanced: "5.1.1", text: "No such user" },
      ...failure,
    },
    ...report,
  };
}

function composer(bodies: MemoryBodies): DsnComposer {
  const clock = { now: () => NOW, monotonic: () => 0, timer: () => () => {} };
  let n = 0;
  const ids = { next: () => `01ID${n++}` };
  return new DsnComposer({ hostname: "mail.example.org", bodies, clock, ids });
}

/** Composes, and checks what holds for every report. */
async function compose(changes: Changes = {}) {
  const bodies = new MemoryBodies();
  const composed = await composer(bodies).compose(given(bodies, changes));
  const raw = bodies.kept.get(composed.body.sha256) ?? Buffer.alloc(0);
  const text = raw.toString("latin1");
  assert.doesNotMatch(text.replaceAll("\r\n", ""), /[\r\n\0]/, "strict CRLF");
  for (const line of text.split("\r\n")) assert.ok(line.length <= 998, "line length");
  // deno-lint-ignore no-control-regex
  assert.equal(composed.has8bit, /[^\x00-\x7f]/.test(text) || composed.smtputf8);
  assert.equal(bodies.unfinished, 0);
  return { ...composed, raw, text, bodies, parts: partsOf(text) };
}

interface Part {
  readonly type: string;
  readonly encoding: string;
  readonly content: string;
}

function partsOf(text: string): Part[] {
  const boundary = /\r\n boundary="([^"]+)"\r\n/.exec(text)?.[1] ?? "";
  const [, ...rest] = text.split(`\r\n--${boundary}`);
  assert.equal(rest.at(-1), "--\r\n");
  return rest.slice(0, -1).map((part) => {
    const [head = "", ...body] = part.split("\r\n\r\n");
    return {
      type: /Content-Type: ([^;\r\n]+)/.exec(head)?.[1] ?? "",
      encoding: /Content-Transfer-Encoding: (\S+)/.exec(head)?.[1] ?? "",
      content: body.join("\r\n\r\n"),
    };
  });
}

/** The fields of the delivery status, unfolded, in their groups. */
function statusOf(parts: readonly Part[]): [string, string][][] {
  const unfolded = (parts[1]?.content ?? "").replace(/\r\n /g, " ");
  return unfolded.split("\r\n\r\n").map((group) =>
    group.split("\r\n").filter((line) => line !== "").map((line) => {
      const at = line.indexOf(": ");
      return [line.slice(0, at), line.slice(at + 2)];
    })
  );
}

const fieldOf = (parts: readonly Part[], name: string) =>
  statusOf(parts).flat().find(([field]) => field === name)?.[1];

const parse = (raw: Buffer): Promise<ParsedMail> => simpleParser(raw, { keepDeliveryStatus: true });

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
    assert.match(mail.text ?? "", /Check the address for typing errors/);
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
      assert.equal(has8bit, false);
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

describe("DSN: addresses beyond ASCII", () => {
  it("of the recipient are written in ASCII for a sender who has none", async () => {
    const { parts, smtputf8, has8bit } = await compose({
      message: { smtputf8: true, rcptTo: "d\u00f6rte@b\u00fccher.example" },
    });
    assert.equal(parts[1]?.type, "message/delivery-status");
    assert.equal(fieldOf(parts, "Final-Recipient"), "utf-8; d\\x{F6}rte@b\\x{FC}cher.example");
    assert.deepEqual([smtputf8, has8bit], [false, false]);
  });

  it("are written as they are for a sender who has one", async () => {
    const mailFrom = "j\u00f8rgen@example.com";
    const rcptTo = "d\u00f6rte@example.net";
    const { parts, raw, smtputf8 } = await compose({
      message: { smtputf8: true, mailFrom, rcptTo },
      original: "Subject: na\u00efve\r\n\r\ntext\r\n",
    });
    assert.equal(smtputf8, true);
    assert.deepEqual(parts.map((part) => part.type), [
      "text/plain",
      "message/global-delivery-status",
      "message/global-headers",
    ]);
    assert.equal(parts[2]?.encoding, "8bit");
    const text = raw.toString("utf8");
    assert.ok(text.includes(`To: <${mailFrom}>\r\n`));
    assert.ok(text.includes(`Final-Recipient: utf-8; ${rcptTo}\r\n`));
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
    await assert.rejects(composer(bodies).compose(given(bodies, {})), StoreUnavailable);
    assert.equal(bodies.discarded, 1);
  });

  it("can be undone", async () => {
    const { discard, bodies } = await compose();
    await discard();
    assert.equal(bodies.discarded, 1);
  });
});

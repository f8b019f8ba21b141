import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { downgrade, isDowngradable } from "../../../src/dsn/downgrade.ts";
import { compose, fieldOf, parse, partsOf, statusOf } from "./given.ts";

describe("DSN: addresses beyond ASCII", () => {
  const rcptTo = "d\u00f6rte@b\u00fccher.example";
  const original = "Subject: na\u00efve\r\n\r\nt\u00e9xt\r\n";

  it("are written as they are where the message went by SMTPUTF8", async () => {
    const { parts, raw, smtputf8, has8bit } = await compose({
      message: { smtputf8: true, rcptTo },
    });
    assert.equal(parts[1]?.type, "message/global-delivery-status");
    assert.ok(raw.toString().includes(`Final-Recipient: utf-8; ${rcptTo}\r\n`));
    assert.deepEqual([smtputf8, has8bit], [true, true]);
  });

  it("have a twin in ASCII (RFC 6533)", async () => {
    const orcpt = "utf-8;d\\x{F6}rte@example.net";
    const reply = { code: 550, enhanced: "5.1.1", text: "Kein Postfach f\u00fcr d\u00f6rte" };
    const { raw, text } = await compose({
      message: { smtputf8: true, rcptTo, dsn: { orcpt } },
      failure: { reply },
      original,
    });
    assert.match(raw.toString(), /\r\nOriginal-Recipient: utf-8; d\u00f6rte@example\.net\r\n/);
    const twin = downgrade(raw);
    const parts = partsOf(twin.toString("latin1"));
    assert.deepEqual(parts.map(({ type, encoding }) => [type, encoding]), [
      ["text/plain", "quoted-printable"],
      ["message/delivery-status", "7bit"],
      ["message/global-headers", "quoted-printable"],
    ]);
    assert.equal(parts[0]?.content, partsOf(text)[0]?.content);
    assert.equal(statusOf(parts).length, 2);
    assert.equal(fieldOf(parts, "Final-Recipient"), "utf-8; d\\x{F6}rte@b\\x{FC}cher.example");
    assert.equal(fieldOf(parts, "Original-Recipient"), "utf-8; d\\x{F6}rte@example.net");
    assert.equal(fieldOf(parts, "Diagnostic-Code"), "smtp; 550 5.1.1 Kein Postfach f?r d?rte");
    assert.equal(fieldOf(parts, "Action"), "failed");
    const mail = await parse(twin);
    assert.equal(mail.subject, "Mail not delivered");
    assert.match(mail.text ?? "", /d\u00f6rte@b\u00fccher\.example was not delivered/);
    assert.equal(mail.inReplyTo, "<1@example.com>");
  });

  it("have a twin whose original is encoded, or gives its header alone", async () => {
    const dsn = { ret: "FULL" } as const;
    const global = await compose({ message: { smtputf8: true, rcptTo, dsn }, original });
    assert.deepEqual([global.parts[2]?.type, global.parts[2]?.encoding], [
      "message/global",
      "8bit",
    ]);
    const part = partsOf(downgrade(global.raw).toString("latin1"))[2];
    assert.deepEqual([part?.type, part?.encoding], ["message/global", "quoted-printable"]);
    const plain = await compose({ message: { dsn }, original: "Subject: x\r\n\r\nt\u00e9xt\r\n" });
    assert.equal(plain.parts[2]?.type, "message/rfc822");
    const header = partsOf(downgrade(plain.raw).toString("latin1"))[2];
    assert.deepEqual([header?.type, header?.content], ["text/rfc822-headers", "Subject: x\r\n"]);
  });

  it("allow a twin where the sender's own can be written in ASCII", async () => {
    assert.equal(isDowngradable("a@example.com"), true);
    assert.equal(isDowngradable("a@b\u00fccher.example"), true);
    assert.equal(isDowngradable("j\u00f8rgen@example.com"), false);
    const mailFrom = "a@b\u00fccher.example";
    const { raw } = await compose({ message: { smtputf8: true, mailFrom } });
    assert.ok(raw.toString().includes(`\r\nTo: <${mailFrom}>\r\n`));
    assert.ok(downgrade(raw).includes("\r\nTo: <a@xn--bcher-kva.example>\r\n"));
  });

  it("make no report of a kind that its sender cannot read", async () => {
    const { parts, smtputf8 } = await compose({ message: { rcptTo: "d\u00f6rte@example.net" } });
    assert.equal(smtputf8, false, "the message did not go by SMTPUTF8");
    assert.equal(fieldOf(parts, "Final-Recipient"), "utf-8; d\\x{F6}rte@example.net");
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

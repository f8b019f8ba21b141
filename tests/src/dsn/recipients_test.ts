import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { type Changes, compose, parse, statusOf } from "./given.ts";

describe("DSN: several recipients", () => {
  const second: Pick<Changes, "message" | "failure"> = {
    message: { rcptTo: "c@example.net", dsn: { orcpt: "rfc822;C@example.net" } },
    failure: {
      class: "mailbox-full",
      enhanced: "5.2.2",
      reason: "mx.example.net said 552 5.2.2 Full",
      reply: { code: 552, enhanced: "5.2.2", text: "Full" },
    },
  };

  it("have a group of fields each (RFC 3464, section 2.3)", async () => {
    const { parts } = await compose({ message: { dsn: { envid: "E" } }, others: [second] });
    const [message, ...recipients] = statusOf(parts).map((group) => Object.fromEntries(group));
    assert.equal(message?.["Original-Envelope-Id"], "E");
    assert.deepEqual(
      recipients.map((one) => [one["Final-Recipient"], one["Action"], one["Status"]]),
      [
        ["rfc822; b@example.net", "failed", "5.1.1"],
        ["rfc822; c@example.net", "failed", "5.2.2"],
      ],
    );
    assert.equal(recipients[0]?.["Original-Recipient"], undefined);
    assert.equal(recipients[1]?.["Original-Recipient"], "rfc822; C@example.net");
  });

  it("are listed with their reasons, and what to do about each", async () => {
    const { raw } = await compose({ others: [second] });
    const mail = await parse(raw);
    assert.equal(mail.subject, "Mail not delivered: 2 recipients");
    const text = mail.text?.replace(/\s+/g, " ") ?? "";
    assert.match(text, /was not delivered to the recipients below\. It will not be tried again/);
    assert.match(text, /Recipient: b@example\.net .* 550 5\.1\.1 No such user .* typing errors/);
    assert.match(text, /Recipient: c@example\.net .* 552 5\.2\.2 Full .* takes nothing more/);
  });

  it("may all be delayed, each tried until a time of its own", async () => {
    const until = (day: number) => Date.parse(`2026-03-0${day}T00:00:00.000Z`);
    const waits = {
      code: undefined,
      enhanced: undefined,
      remoteMTA: undefined,
      reply: undefined,
      result: "timeout",
      reason: "its destination is down: no answer",
    } as const;
    const { parts, raw } = await compose({
      message: { dsn: { ret: "FULL" } },
      report: { kind: "delayed", until: until(6), attempt: 5 },
      others: [
        { ...second, report: { kind: "delayed", until: until(7), attempt: 6 } },
        {
          message: { rcptTo: "d@example.net" },
          failure: waits,
          report: { kind: "delayed", until: until(8), attempt: 0, at: undefined },
        },
      ],
    });
    const [, ...recipients] = statusOf(parts).map((group) => Object.fromEntries(group));
    assert.deepEqual(
      recipients.map((one) => [one["Action"], one["Status"], one["Will-Retry-Until"]]),
      [
        ["delayed", "4.1.1", "Fri, 06 Mar 2026 00:00:00 +0000"],
        ["delayed", "4.2.2", "Sat, 07 Mar 2026 00:00:00 +0000"],
        ["delayed", "4.0.0", "Sun, 08 Mar 2026 00:00:00 +0000"],
      ],
    );
    assert.deepEqual(recipients.map((one) => one["Last-Attempt-Date"] !== undefined), [
      true,
      true,
      false,
    ], "RFC 3464, section 2.3.7: of an attempt that was made");
    assert.equal(parts[2]?.type, "text/rfc822-headers", "RET=FULL is for failures");
    const mail = await parse(raw);
    assert.equal(mail.subject, "Mail delayed: 3 recipients");
    const text = mail.text?.replace(/\s+/g, " ") ?? "";
    assert.match(text, /not been delivered yet to the recipients below\. It is tried again/);
    assert.match(
      text,
      /b@example\.net Last tried: .* \(5 attempts\) Tried until: Fri, 06 Mar 2026/,
    );
    assert.match(text, /d@example\.net Last tried: never Tried until: Sun, 08 Mar 2026/);
    assert.doesNotMatch(text, /not be tried again/);
  });

  it("may have fared differently", async () => {
    const relayed = {
      kind: "relayed",
      delivery: {
        host: "mx2.example.net",
        address: "192.0.2.2",
        reply: { code: 250, enhanced: "2.0.0", text: "queued as X" },
        tls: { mode: "none", verifiedBy: "none" },
        queued: 1,
      },
    } as const;
    const { parts, raw } = await compose({
      message: { dsn: { ret: "FULL" } },
      report: relayed,
      others: [second],
    });
    const [, ...recipients] = statusOf(parts).map((group) => Object.fromEntries(group));
    assert.deepEqual(recipients.map((one) => [one["Action"], one["Status"], one["Remote-MTA"]]), [
      ["relayed", "2.0.0", "dns; mx2.example.net"],
      ["failed", "5.2.2", "dns; mx.example.net"],
    ]);
    assert.equal(recipients[0]?.["Diagnostic-Code"], "smtp; 250 2.0.0 queued as X");
    assert.equal(parts[2]?.type, "message/rfc822", "RET=FULL is for the one that failed");
    assert.equal((await parse(raw)).subject, "Mail not delivered: 2 recipients");

    const alone = await compose({ message: { dsn: { ret: "FULL" } }, report: relayed });
    assert.equal(alone.parts[2]?.type, "text/rfc822-headers", "RET=FULL is for failures");
    const mail = await parse(alone.raw);
    assert.equal(mail.subject, "Mail relayed: b@example.net");
    assert.match(mail.text?.replace(/\s+/g, " ") ?? "", /took it and does not report any further/);
  });
});

describe("DSN: what the sender can do", () => {
  const hints = [
    [{ class: "unknown-user", enhanced: "5.1.1" }, /no such mailbox.*typing errors/],
    [{ class: "mailbox-full", enhanced: "5.2.2" }, /takes nothing more/],
    [{ class: "policy", enhanced: "5.7.1" }, /by its rules/],
    [{ class: "rate-limited", enhanced: "4.7.28" }, /no more mail from here for the time being/],
    [{ class: "authentication", enhanced: "5.7.26" }, /SPF, DKIM and DMARC/],
    [{ class: "content", enhanced: "5.6.0" }, /content or size/],
    [{ class: "login", enhanced: "4.7.8" }, /Our account/],
    [{ class: "dns", enhanced: "4.4.3" }, /could not be found/],
    [{ class: "tls", enhanced: "4.7.5" }, /protected/],
    [{ class: "network", enhanced: "4.4.1" }, /could not be reached/],
    [{ class: "other", enhanced: "5.0.0" }, /words above/],
    [{ class: "dns", enhanced: "5.1.10" }, /takes no mail at all/],
    [{ class: "content", enhanced: "5.3.4" }, /larger than/],
    [{ class: "tls", enhanced: "5.7.30" }, /verified TLS alone/],
  ] as const;
  for (const [failure, words] of hints) {
    it(`is told for ${failure.class}, ${failure.enhanced}`, async () => {
      const { raw } = await compose({ failure });
      assert.match((await parse(raw)).text?.replace(/\s+/g, " ") ?? "", words);
    });
  }
});

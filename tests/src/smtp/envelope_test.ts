import assert from "node:assert/strict";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import {
  commandLines,
  type Envelope,
  envelopeCommands,
  parseExtensions,
  unfit,
  UnsafeCommand,
  unsafeEnvelope,
} from "../../../src/smtp/envelope.ts";

const envelope = (changes: Partial<Envelope> = {}): Envelope => ({
  mailFrom: "alice@example.com",
  recipients: [{ rcptTo: "bob@example.org", dsn: {} }],
  size: 1000,
  has8bit: false,
  smtputf8: false,
  requireTLS: false,
  ...changes,
});
const offering = (...keywords: string[]) =>
  parseExtensions(["250-host", ...keywords.map((keyword) => `250-${keyword}`)]);
const ALL = offering("SIZE 2000", "8BITMIME", "SMTPUTF8", "DSN", "REQUIRETLS", "PIPELINING");

describe("extensions", () => {
  it("are read from all lines but the first, keywords in any case", () => {
    const extensions = parseExtensions([
      "250-SIZE",
      "250-size 100",
      "250-AUTH=LOGIN",
      "250 8bitmime",
    ]);
    assert.deepEqual([...extensions], [["SIZE", "100"], ["AUTH", "LOGIN"], ["8BITMIME", ""]]);
  });

  it("are left out where they are nonsense", () => {
    assert.equal(parseExtensions(["250-h", "250-", "250-???", `250 ${"X".repeat(65)}`]).size, 0);
  });
});

describe("the envelope", () => {
  it("is written without parameters for a server that offers none", () => {
    const message = envelope({
      recipients: [{
        rcptTo: "bob@example.org",
        dsn: { notify: ["NEVER"], envid: "x", ret: "HDRS" },
      }],
    });
    assert.deepEqual(envelopeCommands(message, offering()), {
      mail: "MAIL FROM:<alice@example.com>",
      rcpt: ["RCPT TO:<bob@example.org>"],
    });
  });

  it("carries the parameters that the server announced", () => {
    const dsn = {
      ret: "FULL" as const,
      envid: "a+b=c d",
      notify: ["SUCCESS" as const, "FAILURE" as const],
      orcpt: "rfc822;bob+x@example.net",
    };
    const message = envelope({
      has8bit: true,
      requireTLS: true,
      recipients: [{ rcptTo: "bob@example.org", dsn }],
    });
    assert.deepEqual(envelopeCommands(message, ALL), {
      mail:
        "MAIL FROM:<alice@example.com> SIZE=1000 BODY=8BITMIME REQUIRETLS RET=FULL ENVID=a+2Bb+3Dc+20d",
      rcpt: [
        "RCPT TO:<bob@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bob+2Bx@example.net",
      ],
    });
  });

  it("writes the null reverse-path", () => {
    assert.equal(envelopeCommands(envelope({ mailFrom: "" }), offering()).mail, "MAIL FROM:<>");
  });

  it("asks for SMTPUTF8 only where something needs it", () => {
    assert.ok(!envelopeCommands(envelope({ smtputf8: true }), ALL).mail.includes("SMTPUTF8"));
    const message = envelope({ smtputf8: true, mailFrom: "jürgen@example.com" });
    assert.ok(envelopeCommands(message, ALL).mail.endsWith("SMTPUTF8"));
  });

  it("writes a domain in A-labels where the transaction is not SMTPUTF8", () => {
    const message = envelope({ recipients: [{ rcptTo: "bob@bücher.example", dsn: {} }] });
    const { rcpt } = envelopeCommands(message, ALL);
    assert.deepEqual(rcpt, ["RCPT TO:<bob@xn--bcher-kva.example>"]);
  });

  it("writes an original recipient of type utf-8 in ASCII", () => {
    const dsn = { orcpt: "utf-8;jürgen@example.com" };
    const message = envelope({ recipients: [{ rcptTo: "bob@example.org", dsn }] });
    assert.ok(
      envelopeCommands(message, ALL).rcpt[0]!.endsWith("ORCPT=utf-8;j\\x{FC}rgen@example.com"),
    );
  });
});

describe("a message that the server cannot take", () => {
  const status = (message: Envelope, offered = ALL, verified = true) =>
    unfit(message, offered, verified)?.enhanced;

  it("is too large", () => {
    assert.equal(status(envelope({ size: 2001 })), "5.3.4");
    assert.equal(status(envelope({ size: 2000 })), undefined);
    assert.equal(status(envelope({ size: 2001 }), offering("SIZE", "SIZE 0")), undefined);
  });
  it("is 8-bit", () => {
    assert.equal(status(envelope({ has8bit: true }), offering()), "5.6.3");
  });
  it("is internationalized", () => {
    const message = envelope({ smtputf8: true, has8bit: true });
    assert.equal(status(message, offering("8BITMIME")), "5.6.7");
    assert.equal(status(envelope({ smtputf8: true }), offering()), undefined);
  });
  it("must not go on without verified TLS", () => {
    const message = envelope({ requireTLS: true });
    assert.equal(status(message), undefined);
    assert.equal(status(message, ALL, false), "5.7.30");
    assert.equal(status(message, offering()), "5.7.30");
  });
});

describe("injection", () => {
  const EVIL = [
    "a@b\r\nRCPT TO:<c@d>",
    "a@b\nDATA",
    "a@b\r",
    "a\0@b",
    "a@b> NOTIFY=NEVER",
    "a b@c",
    "<a@b",
    '"a\r\n"@b',
    '"a@b',
    "a\\@b",
  ];
  for (const address of EVIL) {
    it(`keeps ${JSON.stringify(address)} out of commands`, () => {
      const recipients = [{ rcptTo: address, dsn: {} }];
      assert.equal(unsafeEnvelope(envelope({ recipients }))?.enhanced, "5.1.3");
      assert.equal(unsafeEnvelope(envelope({ mailFrom: address }))?.enhanced, "5.1.7");
    });
  }

  it("lets quoted strings, literals and UTF-8 pass", () => {
    for (const address of ['"a b>\\" c"@example.org', "a@[IPv6:::1]", "jürgen@bücher.example"]) {
      assert.equal(
        unsafeEnvelope(envelope({ recipients: [{ rcptTo: address, dsn: {} }] })),
        undefined,
      );
    }
  });

  it("writes no command that holds a line end or NUL", () => {
    fc.assert(
      fc.property(fc.string(), fc.constantFrom("\r", "\n", "\0"), fc.string(), (a, c, b) => {
        assert.throws(() => commandLines(["NOOP", a + c + b]), UnsafeCommand);
      }),
    );
  });

  it("cannot be brought about by any envelope that passes", () => {
    const text = fc.string({
      unit: fc.constantFrom("a", "@", ".", '"', "\\", " ", ">", "\r", "\n", "ü"),
    });
    fc.assert(fc.property(text, text, text, (mailFrom, rcptTo, envid) => {
      const message = envelope({
        mailFrom,
        recipients: [{ rcptTo, dsn: { envid, orcpt: `rfc822;${envid}` } }],
        smtputf8: true,
      });
      if (unsafeEnvelope(message)) return;
      const { mail, rcpt } = envelopeCommands(message, ALL);
      const lines = new TextDecoder().decode(commandLines([mail, ...rcpt])).split("\r\n");
      assert.equal(lines.length, 3);
      assert.match(lines[0]!, /^MAIL FROM:<.*> SIZE=1000( SMTPUTF8)?( ENVID=\S+)?$/);
      assert.match(lines[1]!, /^RCPT TO:<.+>( ORCPT=\S+)?$/);
    }));
  });
});

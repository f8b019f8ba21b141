/** The dialogue: commands, envelope, parameters, replies, taking messages, stopping. */
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, it } from "@std/testing/bdd";
import { StoreUnavailable } from "../../../events/store.ts";
import { SmtpServer } from "../../../src/smtp/server.ts";
import { MemoryBodies, MemoryLog, MemorySubmitter, realClock } from "./fakes.ts";
import { Fixture, until } from "./raw_client.ts";

const MESSAGE = "Subject: hi\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n" +
  "Message-ID: <m1@example.com>\r\n\r\nHello\r\n";

describe("SMTP session", () => {
  const fixture = new Fixture();
  before(async () => {
    await fixture.start();
  });
  after(() => fixture.stop());
  beforeEach(() => {
    fixture.submitter.submissions.length = 0;
    fixture.submitter.failWith = undefined;
    fixture.bodies.failWith = undefined;
  });

  it("takes a message, and says so with its submission id", async () => {
    const client = await fixture.connect();
    assert.equal(await client.reply(), "220 mx.test ESMTP Postledger");
    assert.equal(
      (await client.command("EHLO client.test")).replace(/(?<=^250 FUTURERELEASE \d+ ).*/m, "T"),
      [
        "250-mx.test",
        "250-PIPELINING",
        "250-SIZE 52428800",
        "250-8BITMIME",
        "250-SMTPUTF8",
        "250-ENHANCEDSTATUSCODES",
        "250-DSN",
        "250-CHUNKING",
        "250-MT-PRIORITY",
        "250 FUTURERELEASE 604800 T",
      ].join("\n"),
    );
    assert.equal(await client.command("MAIL FROM:<a@example.com> SIZE=100"), "250 2.1.0 Ok");
    assert.equal(await client.command("RCPT TO:<b@example.org>"), "250 2.1.5 Ok");
    assert.match(await client.command("DATA"), /^354 /);
    const reply = await client.command(`${MESSAGE}.`);
    const submission = fixture.submitter.submissions[0]!;
    assert.equal(reply, `250 2.0.0 Ok: queued as ${submission.id}`);
    assert.equal(await client.command("QUIT"), "221 2.0.0 mx.test closing");
    assert.equal(await client.rest(), "");

    const { body: _, ...rest } = submission;
    assert.deepEqual(rest, {
      id: submission.id,
      account: null,
      mailFrom: "a@example.com",
      recipients: [{ rcptTo: "b@example.org", dsn: {} }],
      messageId: "<m1@example.com>",
      has8bit: false,
      smtputf8: false,
      requireTLS: false,
      source: {
        kind: "smtp",
        listener: "test",
        peer: `127.0.0.1:${client.socket.localPort}`,
        helo: "client.test",
      },
    });
    const stored = fixture.stored(submission).toString();
    assert.match(
      stored,
      /^Received: from client\.test \(\[127\.0\.0\.1\]\)\r\n\tby mx\.test with ESMTP\r\n\tid S\d+\r\n\tfor <b@example\.org>;\r\n\t\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000\r\nSubject: hi\r\n/,
    );
    assert.ok(stored.endsWith(MESSAGE));
  });

  it("answers a pipelined group with one write, and takes two messages from it", async () => {
    const client = await fixture.greeted();
    let writes = 0;
    client.socket.on("data", () => writes++);
    client.write("MAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\nRCPT TO:<c@example.org>\r\nDATA\r\n");
    assert.equal(await client.codes(4), "250 250 250 354");
    assert.equal(writes, 1);
    client.write(
      `${MESSAGE}.\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<d@example.org>\r\nDATA\r\n`,
    );
    assert.equal(await client.codes(4), "250 250 250 354");
    client.write(`${MESSAGE}.\r\nQUIT\r\n`);
    assert.equal(await client.codes(2), "250 221");
    const [first, second] = fixture.submitter.submissions;
    assert.equal(first!.mailFrom, "");
    assert.deepEqual(first!.recipients.map((r) => r.rcptTo), ["b@example.org", "c@example.org"]);
    assert.doesNotMatch(fixture.stored(first!).toString(), /\tfor </);
    assert.equal(second!.mailFrom, "a@example.com");
  });

  it("replies to a client that closes its side behind its last command", async () => {
    const client = await fixture.ready();
    client.socket.end(`DATA\r\n${MESSAGE}.\r\nQUIT\r\n`);
    assert.match(await client.rest(), /^354 .*\r\n250 .*\r\n221 .*\r\n$/);
    assert.equal(fixture.submitter.submissions.length, 1);
  });

  const refusals: [line: string, reply: RegExp][] = [
    ["RCPT TO:<b@example.org>", /^503 5\.5\.1 /],
    ["DATA", /^503 5\.5\.1 /],
    ["MAIL FROM: <a@example.com>", /^501 5\.1\.7 /],
    ["MAIL FROM:a@example.com", /^501 5\.1\.7 /],
    ["MAIL FROM:<a@-example.com>", /^501 5\.1\.7 /],
    ["MAIL FROM:<a@example.com>SIZE=1", /^501 5\.1\.7 /],
    ["MAIL <a@example.com>", /^501 5\.5\.4 /],
    ["MAIL FROM:<a@example.com> SIZE=52428801", /^552 5\.3\.4 /],
    ["MAIL FROM:<a@example.com> SIZE=1x", /^501 5\.5\.4 /],
    ["MAIL FROM:<a@example.com> SIZE=1 SIZE=2", /^501 5\.5\.4 /],
    ["MAIL FROM:<a@example.com> BODY=BINARYMIME", /^501 5\.5\.4 /],
    ["MAIL FROM:<a@example.com> X-MAGIC=1", /^555 5\.5\.4 /],
    ["MAIL FROM:<a@example.com> REQUIRETLS", /^530 5\.7\.10 /],
    ["MAIL FROM:<a@example.com> RET=ALL", /^501 5\.5\.4 /],
    [`MAIL FROM:<a@example.com> ENVID=${"x".repeat(101)}`, /^501 5\.5\.4 ENVID/],
    ["MAIL FROM:<a@example.com> ENVID=a+0Ab", /^501 5\.5\.4 ENVID/],
    ["MAIL FROM:<a@example.com> ENVID=a+4", /^501 5\.5\.4 ENVID/],
    ["MAIL FROM:<ä@example.com>", /^553 5\.6\.7 /],
    ["EHLO", /^501 5\.5\.4 /],
    ["EHLO a b", /^501 5\.5\.4 /],
    ["EHLO evil(\\", /^501 5\.5\.4 /],
    ["EHLO [127.0.0.300]", /^501 5\.5\.4 /],
    ["EXPN list", /^502 5\.5\.1 /],
    ["STARTTLS", /^502 5\.5\.1 /],
    ["VRFY", /^501 5\.5\.4 /],
    ["QUIT now", /^501 5\.5\.4 /],
    ["GET / HTTP/1.1", /^500 5\.5\.1 /],
    ["", /^500 5\.5\.1 /],
    ["MAIL FROM:<a\u0000@example.com>", /^500 5\.5\.2 /],
    ["NOOP a\rb", /^500 5\.5\.2 /],
  ];
  it("refuses what is out of order or malformed, and goes on", async () => {
    const client = await fixture.greeted();
    for (const [line, reply] of refusals) {
      assert.match(await client.command(line), reply, JSON.stringify(line));
    }
    client.write(Uint8Array.of(0x4e, 0x4f, 0x4f, 0x50, 0x20, 0xff, 13, 10));
    assert.match(await client.reply(), /^500 5\.5\.2 .*UTF-8/);
    assert.match(await client.command("MAIL FROM:<a@example.com>"), /^250 /);
  });

  const answers: [line: string, reply: RegExp][] = [
    ["NOOP whatever", /^250 2\.0\.0 /],
    ["VRFY postmaster", /^252 2\.5\.0 /],
    ["HELP", /^214 2\.0\.0 /],
    ["RSET ", /^250 2\.0\.0 /],
    ["mail from:<a@example.com>", /^250 2\.1\.0 /],
    ["MAIL FROM:<a@example.com>", /^503 5\.5\.1 /],
    ["DATA", /^554 5\.5\.1 /],
    ["RCPT TO:<>", /^501 5\.1\.3 /],
    ["RCPT TO:<b@example.org> NOTIFY=NEVER,FAILURE", /^501 5\.5\.4 NOTIFY/],
    ["RCPT TO:<b@example.org> NOTIFY=", /^501 5\.5\.4 /],
    ["RCPT TO:<b@example.org> ORCPT=b@example.org", /^501 5\.5\.4 ORCPT/],
    ["RCPT TO:<b@example.org> RET=FULL", /^555 5\.5\.4 /],
    ["rcpt to:<@relay.example,@other.example:b@example.org>", /^250 2\.1\.5 /],
    ["RCPT TO:<b@example.org>", /^250 2\.1\.5 /],
    ["RCPT TO:<POSTMASTER>", /^250 2\.1\.5 /],
  ];
  it("answers the other commands, and a recipient named twice counts once", async () => {
    const client = await fixture.greeted();
    for (const [line, reply] of answers) {
      assert.match(await client.command(line), reply, JSON.stringify(line));
    }
    await client.command("DATA");
    assert.match(await client.command(`${MESSAGE}.`), /^250 /);
    assert.deepEqual(
      fixture.submitter.submissions[0]!.recipients.map((r) => r.rcptTo),
      ["b@example.org", "postmaster@mx.test"],
    );
  });

  it("stores the DSN parameters with each recipient, decoded", async () => {
    const client = await fixture.greeted();
    client.write(
      "MAIL FROM:<a@example.com> RET=hdrs ENVID=QQ+2B314159\r\n" +
        "RCPT TO:<b@example.org> NOTIFY=FAILURE,SUCCESS ORCPT=rfc822;B+2Bx@example.org\r\n" +
        "RCPT TO:<c@example.org> NOTIFY=never\r\nRCPT TO:<d@example.org>\r\nDATA\r\n",
    );
    assert.equal(await client.codes(5), "250 250 250 250 354");
    await client.command(`${MESSAGE}.`);
    const envelope = { ret: "HDRS", envid: "QQ+314159" };
    assert.deepEqual(fixture.submitter.submissions[0]!.recipients.map((r) => r.dsn), [
      { ...envelope, notify: ["SUCCESS", "FAILURE"], orcpt: "rfc822;B+x@example.org" },
      { ...envelope, notify: ["NEVER"] },
      envelope,
    ]);
  });

  it("takes international addresses with SMTPUTF8, and knows when a message needs it", async () => {
    const client = await fixture.greeted();
    client.write(
      "MAIL FROM:<jörg@exämple.com> SMTPUTF8 BODY=8BITMIME\r\n" +
        "RCPT TO:<用户@例え.jp> ORCPT=utf-8;用户@例え.jp\r\nDATA\r\n",
    );
    assert.equal(await client.codes(3), "250 250 354");
    assert.match(await client.command("Subject: grüß\r\n\r\nGott\r\n."), /^250 /);
    client.write("MAIL FROM:<a@example.com> SMTPUTF8\r\nRCPT TO:<b@example.org>\r\nDATA\r\n");
    assert.equal(await client.codes(3), "250 250 354");
    assert.match(await client.command("Subject: plain\r\n\r\nbödy\r\n."), /^250 /);
    const [first, second] = fixture.submitter.submissions;
    assert.equal(first!.mailFrom, "jörg@exämple.com");
    assert.equal(first!.recipients[0]!.rcptTo, "用户@例え.jp");
    assert.equal(
      first!.recipients[0]!.dsn.orcpt,
      "utf-8;\\x{7528}\\x{6237}@\\x{4F8B}\\x{3048}.jp",
    );
    assert.ok(first!.smtputf8 && first!.has8bit);
    assert.match(fixture.stored(first!).toString(), /with UTF8SMTP\r\n/);
    assert.ok(!second!.smtputf8 && second!.has8bit);
  });

  it("serves HELO without extensions", async () => {
    const client = await fixture.connect();
    await client.reply();
    assert.match(await client.command("MAIL FROM:<a@example.com>"), /^503 5\.5\.1 /);
    assert.equal(await client.command("HELO [127.0.0.1]"), "250 mx.test");
    assert.match(await client.command("MAIL FROM:<a@example.com> SIZE=1"), /^555 /);
    client.write("MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n");
    assert.equal(await client.codes(3), "250 250 354");
    await client.command(`${MESSAGE}.`);
    const stored = fixture.stored(fixture.submitter.submissions[0]!).toString();
    assert.match(
      stored,
      /^Received: from \[127\.0\.0\.1\] \(\[127\.0\.0\.1\]\)\r\n\tby mx\.test with SMTP\r\n/,
    );
  });

  it("forgets the transaction with RSET and with EHLO", async () => {
    for (const command of ["RSET", "EHLO again.test"]) {
      const client = await fixture.ready();
      assert.match(await client.command(command), /^250/);
      assert.match(await client.command("DATA"), /^503 /);
    }
  });

  it("turns mail away with 452 while the store is unavailable, and goes on after", async () => {
    for (const place of [fixture.submitter, fixture.bodies]) {
      place.failWith = new StoreUnavailable("disk full");
      const client = await fixture.ready();
      await client.command("DATA");
      assert.match(await client.command(`${MESSAGE}.`), /^452 4\.3\.1 /);
      place.failWith = undefined;
      assert.match(await client.command("DATA"), /^503 /);
      client.write("MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n");
      assert.equal(await client.codes(3), "250 250 354");
      assert.match(await client.command(`${MESSAGE}.`), /^250 /);
    }
    assert.equal(fixture.bodies.unfinished, 0);
  });

  it("reads a large message to its end when the store fails in its middle", async () => {
    fixture.bodies.failWith = new StoreUnavailable("disk full");
    const client = await fixture.ready();
    await client.command("DATA");
    client.write(`${`${"x".repeat(70)}\r\n`.repeat(5000)}.\r\nNOOP\r\n`);
    assert.match(await client.reply(), /^452 4\.3\.1 /);
    assert.match(await client.reply(), /^250 /);
    assert.equal(fixture.bodies.unfinished, 0);
  });

  it("answers a fault of our own with 451, logs it, and discards the body", async () => {
    fixture.submitter.failWith = new RangeError("a bug");
    const discarded = fixture.bodies.discarded;
    const client = await fixture.ready();
    await client.command("DATA");
    assert.match(await client.command(`${MESSAGE}.`), /^451 4\.3\.0 /);
    assert.match(fixture.log.lines.at(-1)!.message, /a bug/);
    assert.equal(fixture.bodies.discarded, discarded + 1);
  });

  it("discards what a client leaves unfinished", async () => {
    const discarded = fixture.bodies.discarded;
    const client = await fixture.ready();
    await client.command("DATA");
    client.write(`${"x".repeat(70)}\r\n`.repeat(2000));
    await until(() => fixture.bodies.unfinished === 1);
    client.close();
    await until(() => fixture.bodies.discarded === discarded + 1);
    assert.equal(fixture.submitter.submissions.length, 0);
    assert.equal(fixture.bodies.unfinished, 0);
  });
});

describe("SMTP listener", () => {
  const ports = () => ({
    submitter: new MemorySubmitter(),
    bodies: new MemoryBodies(),
    log: new MemoryLog(),
    clock: realClock,
  });
  const options = { name: "l", hostname: "mx.test", port: 0, protocol: "smtp" as const };

  it("refuses addresses that others can reach", () => {
    for (const address of ["0.0.0.0", "::", "192.0.2.1", "example.com"]) {
      assert.throws(
        () => new SmtpServer(ports(), { ...options, address }),
        /listener l: .* is not a loopback address/,
      );
    }
  });

  it("refuses a host name that could not stand in a Received field", () => {
    for (const hostname of ["", "mx test", "mx.test\r\nX: y", "mx.test)"]) {
      assert.throws(
        () => new SmtpServer(ports(), { ...options, hostname, address: "127.0.0.1" }),
        /listener l: the host name .* is not a domain/s,
      );
    }
  });

  it("refuses submissions without a key", () => {
    assert.throws(
      () => new SmtpServer(ports(), { ...options, address: "127.0.0.1", protocol: "submissions" }),
      /needs a certificate/,
    );
  });

  it("names listener and address when it cannot listen", async () => {
    const fixture = await new Fixture().start();
    const second = new SmtpServer(ports(), {
      ...options,
      address: "127.0.0.1",
      port: fixture.port,
    });
    await assert.rejects(second.listen(), /listener l: cannot listen on 127\.0\.0\.1:\d+: /);
    await fixture.stop();
  });

  it("stops: 421 to who waits, and content under way may end", async () => {
    const fixture = await new Fixture().start();
    const idle = await fixture.greeted();
    const busy = await fixture.ready();
    await busy.command("DATA");
    busy.write("Subject: x\r\n");
    const chunking = await fixture.ready();
    assert.match(await chunking.command("BDAT 3\r\na"), /^250 /);
    const closed = fixture.server.close(5000);
    assert.match(await idle.reply(), /^421 4\.3\.2 /);
    assert.equal(await idle.rest(), "");
    await assert.rejects(fixture.connect());
    busy.write("\r\nlate\r\n.\r\n");
    assert.equal(await busy.codes(2), "250 421");
    chunking.write("BDAT 3 LAST\r\nb\r\n");
    assert.equal(await chunking.codes(2), "250 421");
    await closed;
    assert.equal(fixture.submitter.submissions.length, 2);
    assert.equal(fixture.server.stats().connections, 0);
  });

  it("cuts content that outlasts the grace period; nothing of it was accepted", async () => {
    const fixture = await new Fixture().start();
    const busy = await fixture.ready();
    await busy.command("DATA");
    busy.write("Subject: x\r\n");
    await fixture.server.close(20);
    assert.equal(await busy.rest(), "");
    assert.equal(fixture.submitter.submissions.length, 0);
  });
});

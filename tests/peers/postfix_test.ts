/**
 * Postfix on both sides of the queue: it receives from us over STARTTLS, it sends through us as its
 * relayhost, and a recipient that it refuses comes back as a report that others can read.
 */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { assertReplayable, dataOf, exportedEvents, historyOf } from "./history.ts";
import { type Postfix, startPostfix } from "./postfix.ts";
import { parseReport } from "./report_readers.ts";
import { everythingTo, Server } from "./serve.ts";
import { submitWithPython } from "./submit.ts";
import { until } from "./wait.ts";

const MEBIBYTE = 2 ** 20;

describe("Postfix as the next hop", () => {
  let postfix: Postfix;
  let server: Server;
  before(async () => {
    postfix = await startPostfix({ users: ["alice", "large", "sender"], tls: true });
    server = await Server.prepare({ routing: everythingTo(postfix.port) });
    await server.start();
  });
  after(async () => {
    await server?.remove();
    await postfix?.stop();
  });

  it("receives over STARTTLS, and the history says so", async () => {
    const to = "alice@example.net";
    const sent = await submitWithPython({
      port: server.smtpPort,
      from: "sender@example.net",
      to,
      subject: "starttls",
    });
    const [text] = await until("the message in the mailbox", 15_000, async () => {
      const found = await postfix.mailbox("alice");
      return found.length > 0 ? found : undefined;
    });
    assert.match(text ?? "", /using TLSv1\.[23] with cipher/);
    assert.match(text ?? "", /by queue\.example\.com/);
    assert.equal(bodyHash(text ?? ""), sent.sha256);
    assert.match(await postfix.log(), /TLS connection established from .*TLSv1\.[23]/);

    const events = await historyOf(server, to, "Delivered");
    assert.deepEqual(
      events.map(({ type }) => type).filter((type) =>
        ["Enqueued", "AttemptStarted", "TransportChosen", "HostTried", "Delivered"].includes(type)
      ),
      ["Enqueued", "AttemptStarted", "TransportChosen", "HostTried", "Delivered"],
    );
    const { tls } = dataOf(events, "HostTried") as { tls?: { protocol?: string } };
    assert.match(tls?.protocol ?? "", /^TLSv1\.[23]$/);
    await assertReplayable(server, events);
  });

  it("takes a message of 50 MiB while the server stays under 250 MB", async () => {
    const sent = await submitWithPython({
      port: server.smtpPort,
      from: "sender@example.net",
      to: "large@example.net",
      subject: "large",
      size: 50 * MEBIBYTE,
    });
    assert.equal(sent.size, 50 * MEBIBYTE);
    const [text] = await until("the large message in the mailbox", 60_000, async () => {
      const found = await postfix.mailbox("large");
      return found.length > 0 ? found : undefined;
    });
    assert.equal(bodyHash(text ?? ""), sent.sha256);
    const peak = await server.peakMemory();
    console.log(`    peak resident memory: ${(peak / 1e6).toFixed(0)} MB`);
    assert.ok(peak > 0 && peak < 250e6, `peak resident memory was ${(peak / 1e6).toFixed(0)} MB`);
  });

  it("refuses a recipient, and the sender gets a report", async () => {
    const to = "nobody@example.net";
    await submitWithPython({
      port: server.smtpPort,
      from: "sender@example.net",
      to,
      subject: "refused",
    });
    const [file] = await until("the report in the sender's mailbox", 15_000, async () => {
      const found = await postfix.mailboxFiles("sender");
      return found.length > 0 ? found : undefined;
    });
    const report = await parseReport(file ?? "");
    assert.deepEqual(report.defects, []);
    assert.equal(report.type, "multipart/report");
    assert.equal(report.reportType, "delivery-status");
    assert.equal(report.returnPath, "<>");
    assert.match(report.to ?? "", /sender@example\.net/);
    assert.match(report.autoSubmitted ?? "", /^auto-replied/);
    assert.ok(report.messageId && report.date && report.from);
    assert.deepEqual(report.parts.slice(0, 2), ["text/plain", "message/delivery-status"]);
    assert.match(report.parts[2] ?? "", /^(text\/rfc822-headers|message\/rfc822)$/);
    assert.match(report.text, /nobody@example\.net/);
    assert.match(report.original, /refused@peers\.example/);

    const [message, recipient] = report.status;
    assert.match(message?.["Reporting-MTA"] ?? "", /^dns; ?queue\.example\.com$/);
    assert.match(recipient?.["Final-Recipient"] ?? "", /^rfc822; ?nobody@example\.net$/i);
    assert.equal(recipient?.Action, "failed");
    assert.equal(recipient?.Status, "5.1.1");
    assert.match(recipient?.["Diagnostic-Code"] ?? "", /^smtp; ?550 5\.1\.1 /);
    assert.ok(recipient?.["Remote-MTA"]);

    const events = await historyOf(server, to, "DSNSent");
    const failed = dataOf(events, "Failed");
    assert.equal(failed.permanent, true);
    assert.equal(failed.enhanced, "5.1.1");
    await assertReplayable(server, events);
    const { dsn } = dataOf(events, "DSNSent") as { dsn?: string };
    const own = (await exportedEvents(server)).filter(({ stream }) => stream === dsn);
    assert.equal(dataOf(own, "Enqueued").mailFrom, "");
  });
});

describe("Postfix as a client, with the queue as its relayhost", () => {
  let inbox: Postfix;
  let server: Server;
  let client: Postfix;
  before(async () => {
    inbox = await startPostfix({ users: ["alice"] });
    server = await Server.prepare({ routing: everythingTo(inbox.port), tls: true });
    await server.start();
    client = await startPostfix({
      relay: server.smtpPort,
      main: {
        virtual_mailbox_domains: "",
        smtp_tls_security_level: "encrypt",
        smtp_tls_loglevel: "1",
      },
    });
  });
  after(async () => {
    await client?.stop();
    await server?.remove();
    await inbox?.stop();
  });

  it("hands its mail over STARTTLS, which then arrives", async () => {
    const to = "alice@example.net";
    const sent = await submitWithPython({
      port: client.port,
      from: "sender@example.org",
      to,
      subject: "relayed",
    });
    const [text] = await until("the message in the mailbox", 15_000, async () => {
      const found = await inbox.mailbox("alice");
      return found.length > 0 ? found : undefined;
    });
    assert.equal(bodyHash(text ?? ""), sent.sha256);
    const log = await client.log();
    assert.match(log, /TLS connection established to 127\.0\.0\.1/);
    assert.match(log, /status=sent \(250 /);

    const events = await historyOf(server, to, "Delivered");
    const { source } = dataOf(events, "Enqueued") as {
      source: { kind: string; helo?: string; tls?: { protocol: string } };
    };
    assert.equal(source.kind, "smtp");
    assert.equal(source.helo, "postfix.example.net");
    assert.match(source.tls?.protocol ?? "", /^TLSv1\.[23]$/);
    await assertReplayable(server, events);
  });
});

/** SHA-256 of what follows the header of a message with LF line ends, hex. */
function bodyHash(text: string): string {
  return createHash("sha256").update(text.slice(text.indexOf("\n\n") + 2)).digest("hex");
}

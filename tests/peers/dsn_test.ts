/**
 * Reports to senders, read by others: delivered by Postfix with and without DSN and SMTPUTF8, taken
 * apart by Python's email package, and understood by the bounce detector of Mailman and by a bounce
 * parser from npm. Reports on several recipients are in together_test.ts.
 */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { DELAY_WINDOW } from "../../actors/reports.ts";
import { dataOf, exportedEvents, historyOf } from "./history.ts";
import { JumpingClock } from "./jumping_clock.ts";
import { type Postfix, startPostfix } from "./postfix.ts";
import { startHere } from "./queue_here.ts";
import { detectBounce, handleBounce, parseReport } from "./report_readers.ts";
import { everythingTo, Server } from "./serve.ts";
import { submitWithDsn } from "./submit.ts";
import { until } from "./wait.ts";

const send = (server: Server, id: string, parameters: string, ...to: string[]): Promise<void> =>
  submitWithDsn({ port: server.smtpPort, from: `${id}@example.net`, id, parameters, to });

const arrived = (postfix: Postfix, user: string): Promise<string> =>
  until(`a report in the mailbox of ${user}`, 25_000, async () => {
    const [file] = await postfix.mailboxFiles(user);
    return file;
  });

const USERS = ["alice", "failed", "delayed", "both", "one", "utf"];

/** ORCPT of RFC 6533, section 3: the address in utf-8-addr-xtext, then in the xtext of RFC 3461. */
const ORCPT = "ORCPT=utf-8;d\\x{F6}rte@example.org";

/** What bounce-handler finds in a report on one recipient. */
const bounce = (id: string, recipient: string, action: string, status: string) => [
  { recipient, action, status, messageid: `<${id}@peers.example>` },
];

describe("Reports over Postfix that offers DSN and SMTPUTF8", () => {
  let postfix: Postfix;
  let server: Server;
  before(async () => {
    postfix = await startPostfix({
      users: USERS,
      main: {
        smtputf8_enable: "yes",
        smtpd_recipient_restrictions: "check_recipient_access inline:{ " +
          "{later@example.net = 450 4.7.1 Not yet}, {full@example.net = 452 4.2.2 Over quota} }",
      },
    });
    server = await Server.prepare({
      routing: everythingTo(postfix.port),
      queue: 'retry = ["1s"]\nmax_attempts = 1000\ndelay_notice_after = 2\n',
    });
    await server.start();
  });
  after(async () => {
    await server?.remove();
    await postfix?.stop();
  });

  it("tell of a failure", async () => {
    await send(server, "failed", "RET=FULL", "nobody@example.net");
    const file = await arrived(postfix, "failed");
    const report = await parseReport(file);
    assert.deepEqual(report.defects, []);
    assert.deepEqual(report.parts, ["text/plain", "message/delivery-status", "message/rfc822"]);
    const [, recipient] = report.status;
    assert.deepEqual([recipient?.["Action"], recipient?.["Status"]], ["failed", "5.1.1"]);
    assert.match(report.original, /^Message-ID: <failed@peers\.example>\n\ntext\n$/m);
    assert.deepEqual(
      await handleBounce(file),
      bounce("failed", "nobody@example.net", "failed", "5.1.1"),
    );
    assert.deepEqual(await detectBounce(file), {
      temporary: [],
      permanent: ["nobody@example.net"],
    });
    const text = await Deno.readTextFile(file);
    assert.match(text, /^In-Reply-To: <failed@peers\.example>$/m);
    assert.match(text, /^References: <failed@peers\.example>$/m);
  });

  it("tell of a delay, once, and until when it is tried", async () => {
    await send(server, "delayed", "", "later@example.net");
    const file = await arrived(postfix, "delayed");
    const report = await parseReport(file);
    assert.deepEqual(report.defects, []);
    const [, recipient] = report.status;
    assert.deepEqual([recipient?.["Action"], recipient?.["Status"]], ["delayed", "4.7.1"]);
    assert.match(recipient?.["Diagnostic-Code"] ?? "", /^smtp; 450 4\.7\.1 .*Not yet/);
    const [last, until] = ["Last-Attempt-Date", "Will-Retry-Until"].map((name) =>
      Date.parse(recipient?.[name] ?? "")
    );
    assert.ok(until! > last!, `${recipient?.["Will-Retry-Until"]}`);
    assert.match(report.text.replace(/\s+/g, " "), /after 2 attempts.* It is tried again until/);
    assert.deepEqual(
      await handleBounce(file),
      bounce("delayed", "later@example.net", "delayed", "4.7.1"),
    );
    assert.deepEqual(await detectBounce(file), { temporary: ["later@example.net"], permanent: [] });
    const events = await historyOf(server, "later@example.net", "DSNSent");
    assert.equal(dataOf(events, "DSNSent").kind, "delayed");
  });

  it("tell of several that are delayed at once", async () => {
    const clock = new JumpingClock(Date.now());
    const patient = await Server.prepare({
      routing: everythingTo(postfix.port),
      queue: 'retry = ["1h"]\ndelay_notice_after = 1\n',
    });
    const queue = await startHere(patient, clock);
    try {
      await send(patient, "both", "", "later@example.net", "full@example.net");
      for (const name of ["later", "full"]) {
        await historyOf(patient, `${name}@example.net`, "DSNPostponed");
      }
      clock.jump(DELAY_WINDOW);
      const file = await arrived(postfix, "both");
      const report = await parseReport(file);
      assert.deepEqual(report.defects, []);
      const [, ...recipients] = report.status;
      assert.deepEqual(
        recipients.map((one) => [one["Final-Recipient"], one["Action"], one["Status"]]).sort(),
        [
          ["rfc822; full@example.net", "delayed", "4.2.2"],
          ["rfc822; later@example.net", "delayed", "4.7.1"],
        ],
      );
      assert.ok(recipients.every((one) => Date.parse(one["Will-Retry-Until"] ?? "") > clock.now()));
      const bounces = [...await handleBounce(file)].sort((a, b) =>
        a.recipient < b.recipient ? -1 : 1
      );
      assert.deepEqual(bounces, [
        ...bounce("both", "full@example.net", "delayed", "4.2.2"),
        ...bounce("both", "later@example.net", "delayed", "4.7.1"),
      ]);
      assert.deepEqual(await detectBounce(file), {
        temporary: ["full@example.net", "later@example.net"],
        permanent: [],
      });
    } finally {
      await queue.stop();
      await patient.remove();
    }
  });

  it("are left to Postfix, which offers DSN, where success was asked for", async () => {
    await send(server, "one", "", "alice@example.net NOTIFY=SUCCESS");
    const report = await parseReport(await arrived(postfix, "one"));
    assert.match(report.from ?? "", /postfix\.example\.net/, "the report is Postfix's own");
    assert.equal(report.status[1]?.["Action"], "delivered");
    const events = await historyOf(server, "alice@example.net", "DSNSent");
    assert.match(String(dataOf(events, "DSNSent").notSent), /offers DSN/);
  });

  it("go by SMTPUTF8 where the message did, in letters of every script (RFC 6533)", async () => {
    await send(server, "utf", "SMTPUTF8", `g\u00f6ne@example.net ${ORCPT}`);
    const file = await arrived(postfix, "utf");
    const report = await parseReport(file);
    assert.deepEqual(report.defects, []);
    assert.deepEqual(report.parts, [
      "text/plain",
      "message/global-delivery-status",
      "message/global-headers",
    ]);
    assert.equal(report.subject, "Mail not delivered: g\u00f6ne@example.net");
    const [message, recipient, ...more] = report.status;
    assert.equal(message?.["Reporting-MTA"], "dns; queue.example.com");
    assert.deepEqual(more, []);
    assert.equal(recipient?.["Original-Recipient"], "utf-8; d\u00f6rte@example.org");
    assert.equal(recipient?.["Final-Recipient"], "utf-8; g\u00f6ne@example.net");
    assert.deepEqual([recipient?.["Action"], recipient?.["Status"]], ["failed", "5.1.1"]);
    // Postfix repeats the address in its reply, and so does the report.
    assert.match(
      recipient?.["Diagnostic-Code"] ?? "",
      /^smtp; 550 5\.1\.1 <g\u00f6ne@example\.net>/,
    );
    assert.match(report.original, /^Subject: gr\u00fc\u00dfe$/m);
    assert.match(report.text, /g\u00f6ne@example\.net was not delivered/);
    assert.deepEqual(
      await handleBounce(file),
      bounce("utf", "d\u00f6rte@example.org", "failed", "5.1.1"),
    );
    const [own] = (await exportedEvents(server)).filter(({ type, data }) =>
      type === "Enqueued" && data.rcptTo === "utf@example.net"
    );
    const delivered = await historyOf(server, "utf@example.net", "Delivered");
    assert.equal(own?.data.smtputf8, true);
    const { transcript } = dataOf(delivered, "HostTried") as { transcript: { line: string }[] };
    assert.ok(transcript.some(({ line }) => /^MAIL FROM:<>.* SMTPUTF8\b/.test(line)));
  });
});

describe("Reports over Postfix without DSN and SMTPUTF8", () => {
  let postfix: Postfix;
  let old: Postfix;
  let server: Server;
  before(async () => {
    postfix = await startPostfix({
      main: { smtputf8_enable: "yes", virtual_mailbox_domains: "example.org" },
    });
    old = await startPostfix({
      users: USERS,
      main: { smtputf8_enable: "no", smtpd_discard_ehlo_keywords: "dsn, 8bitmime" },
    });
    // Mail goes where SMTPUTF8 is, and its reports where it is not.
    server = await Server.prepare({
      routing: `
[[routes]]
to_domain = ["example.org"]
transport = "new"

[[routes]]
transport = "old"

[transports.old]
type = "smtp"
host = "127.0.0.1"
port = ${old.port}

[transports.new]
type = "smtp"
host = "127.0.0.1"
port = ${postfix.port}
`,
    });
    await server.start();
  });
  after(async () => {
    await server?.remove();
    await old?.stop();
    await postfix?.stop();
  });

  it("say that a message was relayed to a host that reports on nothing", async () => {
    await send(server, "one", "", "alice@example.net NOTIFY=SUCCESS,FAILURE");
    const file = await arrived(old, "one");
    const report = await parseReport(file);
    assert.deepEqual(report.defects, []);
    const [, recipient] = report.status;
    assert.equal(recipient?.["Final-Recipient"], "rfc822; alice@example.net");
    assert.deepEqual([recipient?.["Action"], recipient?.["Status"]], ["relayed", "2.0.0"]);
    assert.match(recipient?.["Diagnostic-Code"] ?? "", /^smtp; 250 2\.0\.0 Ok: queued as/);
    assert.deepEqual(await detectBounce(file), { temporary: [], permanent: [] });
    assert.deepEqual(
      await handleBounce(file),
      bounce("one", "alice@example.net", "relayed", "2.0.0"),
    );
  });

  it("are downgraded to their twin in ASCII", async () => {
    await send(server, "utf", "SMTPUTF8", `g\u00f6ne@example.org ${ORCPT}`);
    const file = await arrived(old, "utf");
    const text = await Deno.readTextFile(file);
    // deno-lint-ignore no-control-regex -- "only ASCII" is what it asks
    assert.match(text, /^[\x00-\x7f]*$/);
    const report = await parseReport(file);
    assert.deepEqual(report.defects, []);
    assert.deepEqual(report.parts, [
      "text/plain",
      "message/delivery-status",
      "message/global-headers",
    ]);
    assert.equal(report.subject, "Mail not delivered");
    const [message, recipient, ...more] = report.status;
    assert.equal(message?.["Reporting-MTA"], "dns; queue.example.com");
    assert.deepEqual(more, []);
    assert.equal(recipient?.["Original-Recipient"], "utf-8; d\\x{F6}rte@example.org");
    assert.equal(recipient?.["Final-Recipient"], "utf-8; g\\x{F6}ne@example.org");
    assert.deepEqual([recipient?.["Action"], recipient?.["Status"]], ["failed", "5.1.1"]);
    assert.match(recipient?.["Diagnostic-Code"] ?? "", /^smtp; 550 5\.1\.1 <g\?ne@example\.org>/);
    assert.match(report.original, /^Subject: gr\u00fc\u00dfe$/m, "the header is whole, encoded");
    assert.match(report.text, /g\u00f6ne@example\.org was not delivered/);
    assert.deepEqual(
      await handleBounce(file),
      bounce("utf", "d\\x{F6}rte@example.org", "failed", "5.1.1"),
    );
    const events = await historyOf(server, "utf@example.net", "Delivered");
    assert.equal(dataOf(events, "Enqueued").smtputf8, true, "it is stored in its form of SMTPUTF8");
    const { transcript } = dataOf(events, "HostTried") as { transcript: { line: string }[] };
    assert.ok(transcript.some(({ line }) => line.startsWith("MAIL FROM:<>")));
    assert.ok(transcript.every(({ line }) => !line.includes("SMTPUTF8")));
  });
});

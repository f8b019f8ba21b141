/**
 * Reports to senders, read by others: delivered by Postfix with and without DSN and SMTPUTF8, taken
 * apart by Python's email package, and understood by the bounce detector of Mailman.
 */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { dataOf, exportedEvents, historyOf } from "./history.ts";
import { type Postfix, run, startPostfix } from "./postfix.ts";
import { everythingTo, Server } from "./serve.ts";
import { parseReport } from "./submit.ts";
import { until } from "./wait.ts";

const PYTHON = new URL("./python/", import.meta.url).pathname;
/** Which has flufl.bounce, as the package python3-flufl.bounce brings it. */
const DEBIAN_PYTHON = "/usr/bin/python3";

const send = (
  server: Server,
  from: string,
  id: string,
  parameters: string,
  ...recipients: string[]
): Promise<string> =>
  run("python3", [
    `${PYTHON}send_dsn.py`,
    String(server.smtpPort),
    from,
    id,
    parameters,
    ...recipients,
  ]);

async function detect(file: string): Promise<{ permanent: string[]; temporary: string[] }> {
  return JSON.parse(await run(DEBIAN_PYTHON, [`${PYTHON}detect_bounce.py`, file]));
}

const arrived = (postfix: Postfix, user: string): Promise<string> =>
  until(`a report in the mailbox of ${user}`, 25_000, async () => {
    const [file] = await postfix.mailboxFiles(user);
    return file;
  });

const USERS = ["alice", "one", "many", "utf", "full"];

describe("Reports over Postfix that offers DSN and SMTPUTF8", () => {
  let postfix: Postfix;
  let server: Server;
  before(async () => {
    postfix = await startPostfix({ users: USERS, main: { smtputf8_enable: "yes" } });
    server = await Server.prepare({ routing: everythingTo(postfix.port) });
    await server.start();
  });
  after(async () => {
    await server?.remove();
    await postfix?.stop();
  });

  it("tell of several recipients at once, each with its reply, and carry ENVID and ORCPT", async () => {
    const gone = ["gone1@example.net ORCPT=rfc822;First+2BTag@example.org", "gone2@example.net"];
    await send(server, "many@example.net", "many", "RET=HDRS ENVID=QQ+2B314159", ...gone);
    const file = await arrived(postfix, "many");
    const report = await parseReport(file);
    assert.deepEqual(report.defects, []);
    assert.deepEqual([report.type, report.reportType], ["multipart/report", "delivery-status"]);
    assert.match(report.autoSubmitted ?? "", /^auto-replied/);
    const [message, ...recipients] = report.status;
    assert.equal(message?.["Original-Envelope-Id"], "QQ+314159");
    assert.deepEqual(
      recipients.map((one) => [one["Final-Recipient"], one["Action"], one["Status"]]).sort(),
      [
        ["rfc822; gone1@example.net", "failed", "5.1.1"],
        ["rfc822; gone2@example.net", "failed", "5.1.1"],
      ],
    );
    const originals = recipients.map((one) => one["Original-Recipient"]).filter(Boolean);
    assert.deepEqual(originals, ["rfc822; First+Tag@example.org"]);
    assert.match(report.text, /gone1@example\.net/);
    assert.match(report.text, /gone2@example\.net/);
    assert.match(report.text.replace(/\s+/g, " "), /typing errors/);
    assert.deepEqual(await detect(file), {
      temporary: [],
      permanent: ["First+Tag@example.org", "gone2@example.net"],
    });
    const text = await Deno.readTextFile(file);
    assert.match(text, /^In-Reply-To: <many@peers\.example>$/m);
    assert.match(text, /^References: <many@peers\.example>$/m);
    assert.equal((await postfix.mailboxFiles("many")).length, 1, "one report for both");
  });

  it("are left to Postfix, which offers DSN, where success was asked for", async () => {
    await send(server, "one@example.net", "one", "", "alice@example.net NOTIFY=SUCCESS");
    const report = await parseReport(await arrived(postfix, "one"));
    assert.match(report.from ?? "", /postfix\.example\.net/, "the report is Postfix's own");
    assert.equal(report.status[1]?.["Action"], "delivered");
    const events = await historyOf(server, "alice@example.net", "DSNSent");
    assert.match(String(dataOf(events, "DSNSent").notSent), /offers DSN/);
  });

  it("go by SMTPUTF8 where the message did", async () => {
    await send(server, "utf@example.net", "utf", "SMTPUTF8", "g\u00f6ne@example.net");
    const file = await arrived(postfix, "utf");
    const text = await Deno.readTextFile(file);
    assert.match(text, /^Content-Type: message\/global-delivery-status$/m);
    assert.match(text, /^Final-Recipient: utf-8; g\u00f6ne@example\.net$/m);
    assert.match(text, /^Content-Type: message\/global-headers$/m);
    assert.match(text, /^Subject: gr\u00fc\u00dfe$/m);
    assert.deepEqual((await parseReport(file)).parts, [
      "text/plain",
      "message/global-delivery-status",
      "message/global-headers",
    ]);
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
    await send(server, "one@example.net", "one", "", "alice@example.net NOTIFY=SUCCESS,FAILURE");
    const file = await arrived(old, "one");
    const report = await parseReport(file);
    assert.deepEqual(report.defects, []);
    const [, recipient] = report.status;
    assert.equal(recipient?.["Final-Recipient"], "rfc822; alice@example.net");
    assert.deepEqual([recipient?.["Action"], recipient?.["Status"]], ["relayed", "2.0.0"]);
    assert.match(recipient?.["Diagnostic-Code"] ?? "", /^smtp; 250 2\.0\.0 Ok: queued as/);
    assert.deepEqual(await detect(file), { temporary: [], permanent: [] });
  });

  it("are downgraded to their twin in ASCII", async () => {
    await send(server, "utf@example.net", "utf", "SMTPUTF8", "g\u00f6ne@example.org");
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
    const [, recipient] = report.status;
    assert.equal(recipient?.["Final-Recipient"], "utf-8; g\\x{F6}ne@example.org");
    assert.match(report.text, /g\u00f6ne@example\.org/);
    const own = (await exportedEvents(server)).filter(({ type, data }) =>
      type === "Enqueued" && data.rcptTo === "utf@example.net"
    );
    assert.equal(own[0]?.data.smtputf8, true, "it is stored in its form of SMTPUTF8");
  });
});

/**
 * Several recipients of one message at one destination, in as few transactions as Postfix allows:
 * it takes some, has no mailbox for others, puts one off, and takes no more than so many at a time.
 * Each recipient has its own outcome, and those that failed share a report.
 */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { assertReplayable, dataOf, exportedEvents, type LoggedEvent } from "./history.ts";
import { type Postfix, startPostfix } from "./postfix.ts";
import { detectBounce, handleBounce, parseReport } from "./report_readers.ts";
import { everythingTo, Server } from "./serve.ts";
import { submitWithDsn } from "./submit.ts";
import { until } from "./wait.ts";

/** Recipients that Postfix takes in one transaction; beyond them it says 452 4.5.3. */
const LIMIT = 2;

const GREYLISTED = "450 4.7.1 Greylisted, try again in 5 minutes";

/** In the order of RCPT, with the codes that each gets until it has an outcome. */
const RECIPIENTS = {
  alice: { codes: [250], outcome: "Delivered" },
  nobody: { codes: [550], outcome: "Failed" },
  later: { codes: [450], outcome: "Failed" },
  bob: { codes: [250], outcome: "Delivered" },
  carol: { codes: [452, 250], outcome: "Delivered" },
  dave: { codes: [452, 250], outcome: "Delivered" },
  gone: { codes: [452, 452, 550], outcome: "Failed" },
} as const;
type Name = keyof typeof RECIPIENTS;
const NAMES = Object.keys(RECIPIENTS) as Name[];

interface Tried {
  readonly reply: { readonly code: number; readonly enhanced: string };
  readonly reused?: boolean;
  readonly extensions: readonly string[];
  readonly transcript: readonly { readonly who: string; readonly line: string }[];
}

describe("several recipients of a message at one destination", () => {
  let directory: string;
  let postfix: Postfix;
  let server: Server;
  const histories = new Map<Name, readonly LoggedEvent[]>();
  const history = (name: Name): readonly LoggedEvent[] => histories.get(name) ?? [];
  const tried = (name: Name): Tried[] =>
    history(name).flatMap(({ type, data }) =>
      type === "HostTried" ? [data as unknown as Tried] : []
    );
  const greylist = (text: string) => Deno.writeTextFile(`${directory}/greylist`, text);

  before(async () => {
    directory = await Deno.makeTempDir({ prefix: "greylist-" });
    await Deno.chmod(directory, 0o755);
    await greylist(`/^later@/ ${GREYLISTED}\n`);
    postfix = await startPostfix({
      users: ["many", "alice", "bob", "carol", "dave", "later"],
      main: {
        smtpd_recipient_limit: String(LIMIT),
        max_use: "1", // so that each session meets the greylist as it is then
        smtpd_recipient_restrictions: `check_recipient_access regexp:${directory}/greylist`,
      },
    });
    server = await Server.prepare({
      routing: everythingTo(postfix.port),
      queue: 'retry = ["1h"]\n',
    });
    await server.start();
    const orcpt: Partial<Record<Name, string>> = { nobody: "rfc822;First+2BTag@example.org" };
    await submitWithDsn({
      port: server.smtpPort,
      from: "many@example.net",
      id: "many",
      parameters: "RET=HDRS ENVID=QQ+2B314159",
      to: NAMES.map((name) =>
        `${name}@example.net${orcpt[name] === undefined ? "" : ` ORCPT=${orcpt[name]}`}`
      ),
    });
    await until("an outcome for each recipient", 20_000, async () => {
      const events = await exportedEvents(server);
      return NAMES.every((name) => {
        const rcptTo = `${name}@example.net`;
        const first = events.find(({ data }) => data.rcptTo === rcptTo);
        const own = events.filter(({ stream }) => stream === first?.stream);
        histories.set(name, own);
        return own.some(({ type }) => type === "Delivered" || type === "Failed");
      });
    });
  });
  after(async () => {
    await server?.remove();
    await postfix?.stop();
    await Deno.remove(directory, { recursive: true });
  });

  it("each have the outcome that Postfix gave them", () => {
    const codes = (name: Name) => tried(name).map(({ reply }) => reply.code);
    for (const name of NAMES) {
      assert.deepEqual(codes(name), RECIPIENTS[name].codes, name);
      const outcomes = history(name).filter(({ type }) => /^(Delivered|Failed)$/.test(type));
      assert.deepEqual(outcomes.map(({ type }) => type), [RECIPIENTS[name].outcome], name);
    }
    const failed = (name: Name) => {
      const { permanent, enhanced, class: kind } = dataOf(history(name), "Failed");
      return { permanent, enhanced, kind };
    };
    const unknown = { permanent: true, enhanced: "5.1.1", kind: "unknown-user" };
    assert.deepEqual(failed("nobody"), unknown);
    assert.deepEqual(failed("gone"), unknown);
    const { permanent, enhanced } = failed("later");
    assert.deepEqual([permanent, enhanced], [false, "4.7.1"]);
    assert.equal(tried("carol")[0]?.reply.enhanced, "4.5.3", "too many recipients");
  });

  it("are each an own message of one submission, tried in one attempt", () => {
    const submissions = NAMES.map((name) => dataOf(history(name), "Enqueued").submission);
    assert.equal(new Set(submissions).size, 1);
    assert.equal(new Set(NAMES.map((name) => history(name)[0]?.stream)).size, NAMES.length);
    for (const name of NAMES) {
      const attempts = history(name).filter(({ type }) => type === "AttemptStarted");
      assert.equal(attempts.length, 1, name);
    }
  });

  it("go in one group of commands, and what was too many goes over the same session", () => {
    const [first, second] = tried("carol");
    assert.ok(first);
    assert.ok(first.extensions.includes("PIPELINING"));
    const lines = first.transcript;
    const mail = lines.findIndex(({ line }) => line.startsWith("MAIL FROM:<many@example.net>"));
    const data = lines.findIndex(({ line }) => line === "DATA");
    assert.ok(mail >= 0 && data > mail);
    assert.ok(lines.slice(mail, data).every(({ who }) => who === "C"), "nothing is waited for");
    assert.deepEqual([first.reused, second?.reused], [undefined, true]);
    const commands = lines.filter(({ line }) => line.startsWith("RCPT"));
    assert.equal(commands.length, 1, "a history has the commands of its own recipient alone");
  });

  it("reach their mailboxes once", async () => {
    for (const name of ["alice", "bob", "carol", "dave"] as const) {
      const text = await until(`the message to ${name}`, 10_000, async () => {
        const [text] = await postfix.mailbox(name);
        return text;
      });
      assert.match(text, /^Message-ID: <many@peers\.example>$/m);
      assert.equal((await postfix.mailbox(name)).length, 1);
    }
    await greylist("");
  });

  it("share a report where they failed, each with its reply, with ENVID and ORCPT", async () => {
    const file = await until("the report", 25_000, async () => {
      const [file] = await postfix.mailboxFiles("many");
      return file;
    });
    const report = await parseReport(file);
    assert.deepEqual(report.defects, []);
    assert.deepEqual([report.type, report.reportType], ["multipart/report", "delivery-status"]);
    assert.match(report.autoSubmitted ?? "", /^auto-replied/);
    const [message, ...recipients] = report.status;
    assert.equal(message?.["Original-Envelope-Id"], "QQ+314159");
    assert.deepEqual(
      recipients.map((one) => [one["Final-Recipient"], one["Action"], one["Status"]]).sort(),
      [
        ["rfc822; gone@example.net", "failed", "5.1.1"],
        ["rfc822; nobody@example.net", "failed", "5.1.1"],
      ],
    );
    for (const one of recipients) {
      assert.match(one["Diagnostic-Code"] ?? "", /^smtp; 550 5\.1\.1 <(nobody|gone)@example\.net>/);
    }
    const originals = recipients.map((one) => one["Original-Recipient"]).filter(Boolean);
    assert.deepEqual(originals, ["rfc822; First+Tag@example.org"]);
    const text = report.text.replace(/\s+/g, " ");
    assert.match(text, /nobody@example\.net.*gone@example\.net|gone@.*nobody@example\.net/);
    assert.match(text, /typing errors/);
    assert.doesNotMatch(text, /later@|alice@/);
    assert.match(report.original, /^Message-ID: <many@peers\.example>$/m);
    assert.doesNotMatch(report.original, /\n\n./, "RET=HDRS");

    assert.deepEqual(await detectBounce(file), {
      temporary: [],
      permanent: ["First+Tag@example.org", "gone@example.net"],
    });
    const bounces = [...await handleBounce(file)];
    assert.deepEqual(
      bounces.sort((a, b) => a.recipient < b.recipient ? -1 : 1),
      ["First+Tag@example.org", "gone@example.net"].map((recipient) => (
        { recipient, action: "failed", status: "5.1.1", messageid: "<many@peers.example>" }
      )),
    );
    assert.equal((await postfix.mailboxFiles("many")).length, 1, "one report for both");
  });

  it("were three transactions of one connection to Postfix, two of them with a message", async () => {
    // Seven, three and one RCPT. Postfix counts 550 and 450 as errors, and 452 4.5.3 as none.
    const session = await until("the end of the session in Postfix's log", 10_000, async () => {
      const ends = (await postfix.log()).match(/disconnect from .* mail=3 .*/g);
      return ends?.[0];
    });
    assert.match(session, / mail=3 rcpt=8\/11 data=2\/3 /);
  });

  it("are tried again alone where they were put off", async () => {
    const stream = history("later")[0]?.stream ?? "";
    const kicked = await server.command("queue", "kick", stream, "--reason", "off the greylist");
    assert.equal(kicked.code, 0, kicked.stderr);
    await until("the message in the mailbox", 10_000, async () => {
      return (await postfix.mailbox("later")).length === 1;
    });
    const own = await until("Delivered in its history", 10_000, async () => {
      const events = (await exportedEvents(server)).filter((event) => event.stream === stream);
      return events.some(({ type }) => type === "Delivered") ? events : undefined;
    });
    assert.equal(own.filter(({ type }) => type === "AttemptStarted").length, 2);
    assert.equal((await postfix.mailbox("alice")).length, 1, "nobody gets it twice");
    await assertReplayable(server, own);
  });
});

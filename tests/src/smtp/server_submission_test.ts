/**
 * What an account may send: its addresses in the envelope and in From, as much as its limits
 * allow; and what a submission server offers beside: FUTURERELEASE (RFC 4865), MT-PRIORITY
 * (RFC 6710), AUTH= (RFC 4954, section 5).
 */
import assert from "node:assert/strict";
import { after, before, describe, it } from "@std/testing/bdd";
import type { AccountConfig } from "../../../src/config/types.ts";
import { SmtpServer } from "../../../src/smtp/server.ts";
import { StoreUnavailable } from "../../../events/store.ts";
import { account, gateOver, plain } from "./accounts.ts";
import { MemoryBodies, MemoryLog, MemorySubmitter, realClock } from "./fakes.ts";
import { Fixture, type RawClient, TLS } from "./raw_client.ts";

const limits = {
  messagesPerHour: 2,
  messagesPerDay: 100,
  recipientsPerHour: 5,
  recipientsPerDay: 100,
};
const accounts: AccountConfig[] = [
  await account("alice", ["alice@example.com", "@team.example"]),
  await account("daemon", ["daemon@example.com"], { nullSender: true, checkHeaderFrom: false }),
  await account("limited", ["limited@example.com"], { limits }),
  await account("full", ["full@example.com"], { limits }),
];

describe("a submission of an account", () => {
  let fixture: Fixture;
  before(async () => {
    const used = [{ at: Date.now() - 60_000, messages: 1, recipients: 3 }];
    fixture = await new Fixture(
      { tls: TLS, protocol: "submissions" },
      realClock,
      gateOver(accounts, { used }),
    ).start();
  });
  after(() => fixture.stop());

  async function loggedIn(name: string): Promise<RawClient> {
    const client = await fixture.connect();
    await client.startTls();
    await client.reply();
    await client.command("EHLO client.test");
    assert.match(await client.command(`AUTH PLAIN ${plain(name)}`), /^235 /);
    return client;
  }

  /** The reply to the content. */
  async function send(client: RawClient, from: string, header: string): Promise<string> {
    client.write(`MAIL FROM:<${from}>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n`);
    const codes = await client.codes(3);
    assert.equal(codes, "250 250 354");
    return await client.command(`${header}\r\n\r\nbody\r\n.`);
  }

  it("comes from one of its addresses, a sub-address, or a domain that is its own", async () => {
    const client = await loggedIn("alice");
    for (
      const from of [
        "alice@example.com",
        "ALICE@EXAMPLE.COM",
        "alice+news@example.com",
        "anyone@team.example",
      ]
    ) {
      assert.match(await client.command(`MAIL FROM:<${from}>`), /^250 /, from);
      await client.command("RSET");
    }
    for (
      const from of [
        "bob@example.com",
        "alicex@example.com",
        "alice@sub.example.com",
        "anyone@sub.team.example",
        "anyone@otherteam.example",
        "",
      ]
    ) {
      assert.match(await client.command(`MAIL FROM:<${from}>`), /^553 5\.7\.1 /, from);
    }
    client.close();
  });

  it("may have no sender where the account may", async () => {
    const client = await loggedIn("daemon");
    assert.match(await send(client, "", "From: anybody@anywhere.example"), /^250 /);
    client.close();
  });

  it("names nobody else in From", async () => {
    const client = await loggedIn("alice");
    for (
      const from of [
        "From: alice@example.com",
        'From: "Bob, not" <Alice+x@Example.com>',
        "From: anyone@team.example (Bob <bob@example.com>),\r\n alice@example.com",
      ]
    ) {
      assert.match(await send(client, "alice@example.com", from), /^250 /, from);
    }
    const taken = fixture.submitter.submissions.length;
    for (
      const from of [
        "From: bob@example.com",
        "From: alice@example.com, bob@example.com",
        "From: alice@example.com\r\nFrom: bob@example.com",
        'From: "alice@example.com" <bob@example.com>',
        "From: <alice@example.com> <bob@example.com>",
        "From: undisclosed:;",
        "From:",
        "Subject: nobody",
      ]
    ) {
      assert.match(await send(client, "alice@example.com", from), /^550 5\.7\.1 /, from);
    }
    assert.equal(fixture.submitter.submissions.length, taken);
    assert.equal(fixture.bodies.unfinished, 0);
    client.close();
  });

  it("stays within the account's limits, counting what was sent before the start", async () => {
    const client = await loggedIn("limited");
    // One message with three recipients was sent before; two recipients are left.
    client.write(
      "MAIL FROM:<limited@example.com>\r\n" +
        "RCPT TO:<1@example.org>\r\nRCPT TO:<2@example.org>\r\nRCPT TO:<3@example.org>\r\n",
    );
    assert.equal(await client.codes(3), "250 250 250");
    assert.match(await client.reply(), /^450 4\.7\.1 .*limit of 5 recipients per hour is reached/);
    assert.match(await client.command("DATA"), /^354 /);
    assert.match(await client.command("From: limited@example.com\r\n\r\nx\r\n."), /^250 /);
    assert.equal(fixture.submitter.submissions.at(-1)!.recipients.length, 2);
    assert.match(
      await client.command("MAIL FROM:<limited@example.com>"),
      /^450 4\.7\.1 .*limit of 2 messages per hour is reached; try again later$/,
    );
    client.close();
  });

  it("counts nothing that was not taken, and no two at once into one place", async () => {
    const client = await loggedIn("full");
    fixture.submitter.failWith = new StoreUnavailable("no room");
    assert.match(await send(client, "full@example.com", "From: full@example.com"), /^452 /);
    fixture.submitter.failWith = undefined;
    const other = await loggedIn("full");
    for (const one of [client, other]) {
      one.write("MAIL FROM:<full@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n");
      assert.equal(await one.codes(3), "250 250 354");
    }
    assert.match(await client.command("From: full@example.com\r\n\r\nx\r\n."), /^250 /);
    assert.match(
      await other.command("From: full@example.com\r\n\r\nx\r\n."),
      /^450 4\.7\.1 /,
      "both were let in at MAIL, and there was room for one",
    );
    client.close();
    other.close();
  });

  it("may be held: FUTURERELEASE", async () => {
    const client = await loggedIn("alice");
    const offer = await client.command("EHLO client.test");
    const [, seconds, until] = /^250.FUTURERELEASE (\d+) (\S+)$/m.exec(offer)!;
    assert.equal(seconds, "604800");
    assert.ok(Math.abs(Date.parse(until!) - Date.now() - 604_800_000) < 10_000);
    const held = async (parameter: string) => {
      const reply = await client.command(`MAIL FROM:<alice@example.com> ${parameter}`);
      if (!reply.startsWith("250")) return reply;
      client.write("RCPT TO:<b@example.org>\r\nDATA\r\n");
      assert.equal(await client.codes(2), "250 354");
      assert.match(await client.command("From: alice@example.com\r\n\r\nx\r\n."), /^250 /);
      return fixture.submitter.submissions.at(-1)!.due!;
    };
    const hour = await held("HOLDFOR=3600");
    assert.ok(typeof hour === "number" && Math.abs(hour - Date.now() - 3_600_000) < 10_000);
    const tomorrow = new Date(Math.floor(Date.now() / 1_000) * 1_000 + 86_400_000);
    const text = tomorrow.toISOString();
    assert.equal(await held(`HOLDUNTIL=${text}`), tomorrow.getTime());
    assert.equal(await held(`HOLDUNTIL=${text.replace(".000", "")}`), tomorrow.getTime());
    for (
      const bad of [
        "HOLDFOR=604801",
        "HOLDFOR=0",
        "HOLDFOR=-1",
        "HOLDFOR=1h",
        "HOLDFOR",
        "HOLDUNTIL=2001-01-01T00:00:00Z",
        "HOLDUNTIL=2999-01-01T00:00:00Z",
        "HOLDUNTIL=2030-13-01T00:00:00Z",
        "HOLDUNTIL=2030-01-01T00:00:00",
        "HOLDUNTIL=tomorrow",
        `HOLDFOR=60 HOLDUNTIL=${text}`,
      ]
    ) {
      assert.match(String(await held(bad)), /^501 5\.5\.4 /, bad);
    }
    client.close();
  });

  it("may be urgent: MT-PRIORITY", async () => {
    const client = await loggedIn("alice");
    assert.match(await client.command("EHLO client.test"), /^250.MT-PRIORITY$/m);
    assert.match(
      await client.command("MAIL FROM:<alice@example.com> MT-PRIORITY=-3 AUTH=<>"),
      /^250 /,
    );
    client.write("RCPT TO:<b@example.org>\r\nDATA\r\n");
    assert.equal(await client.codes(2), "250 354");
    assert.match(await client.command("From: alice@example.com\r\n\r\nx\r\n."), /^250 /);
    const submission = fixture.submitter.submissions.at(-1)!;
    assert.equal(submission.priority, -3);
    assert.match(fixture.stored(submission).toString(), /for <b@example\.org>\r\n\tpriority -3;/);
    for (const bad of ["MT-PRIORITY=10", "MT-PRIORITY=+1", "MT-PRIORITY=-0", "MT-PRIORITY"]) {
      assert.match(await client.command(`MAIL FROM:<alice@example.com> ${bad}`), /^501 /, bad);
    }
    client.close();
  });

  it("does not pass on who is said to have submitted it before", async () => {
    const client = await loggedIn("alice");
    const mail = "MAIL FROM:<alice@example.com>";
    assert.match(await client.command(`${mail} AUTH=e+3Dmc2@example.com`), /^250 /);
    await client.command("RSET");
    assert.match(await client.command(`${mail} AUTH=e+zz@example.com`), /^501 5\.5\.4 /);
    assert.match(await client.command(`${mail} AUTH`), /^501 5\.5\.4 /);
    client.close();
  });
});

describe("a listener for everybody", () => {
  const ports = () => ({
    bodies: new MemoryBodies(),
    submitter: new MemorySubmitter(),
    log: new MemoryLog(),
    clock: realClock,
  });
  const options = { name: "open", hostname: "mx.test", address: "0.0.0.0", port: 0 } as const;

  it("asks for a login", () => {
    assert.throws(
      () => new SmtpServer(ports(), { ...options, protocol: "smtp", tls: TLS }),
      /listener open: 0\.0\.0\.0 is not a loopback address; without auth/,
    );
  });

  it("takes logins over TLS only", () => {
    const gate = gateOver(accounts);
    assert.throws(
      () => new SmtpServer({ ...ports(), gate }, { ...options, protocol: "submission" }),
      /listener open: a login needs TLS/,
    );
    new SmtpServer({ ...ports(), gate }, { ...options, protocol: "smtp", tls: TLS });
  });
});

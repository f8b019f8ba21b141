/** The suppression list over SMTP: a recipient on it is refused, the others are taken. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "@std/testing/bdd";
import { StoreUnavailable } from "../../../events/store.ts";
import { Fixture } from "./raw_client.ts";

describe("SMTP with a suppression list", () => {
  const fixture = new Fixture();
  const asked: [string, string | null][] = [];
  before(async () => {
    await fixture.start();
    Object.assign(fixture.submitter, {
      suppressed(rcptTo: string, account: string | null) {
        asked.push([rcptTo, account]);
        if (rcptTo.startsWith("torn@")) throw new StoreUnavailable("the list cannot be read");
        return rcptTo.startsWith("gone@")
          ? { cause: "bounce", since: Date.parse("2026-01-31T12:00:00.000Z") }
          : undefined;
      },
    });
  });
  after(() => fixture.stop());

  it("refuses the recipient with 550 5.1.1 and says why, and takes the others", async () => {
    const client = await fixture.connect();
    await client.reply();
    await client.command("EHLO client.test");
    assert.match(await client.command("MAIL FROM:<a@example.com>"), /^250 /);
    assert.equal(
      await client.command("RCPT TO:<gone@Example.org>"),
      "550 5.1.1 the address is on our suppression list since 2026-01-31: its server said that " +
        "there is no such user",
    );
    assert.equal(await client.command("RCPT TO:<b@example.org>"), "250 2.1.5 Ok");
    assert.match(await client.command("DATA"), /^354 /);
    assert.match(await client.command("Subject: x\r\n\r\nhi\r\n."), /^250 /);
    const [{ recipients }] = fixture.submitter.submissions as [
      typeof fixture.submitter.submissions[0],
    ];
    assert.deepEqual(recipients.map(({ rcptTo }) => rcptTo), ["b@example.org"]);
    assert.deepEqual(asked.map(([, account]) => account), [null, null]);
  });

  it("asks to come again while the list cannot be read, and the session goes on", async () => {
    const client = await fixture.connect();
    await client.reply();
    await client.command("EHLO client.test");
    await client.command("MAIL FROM:<a@example.com>");
    assert.match(await client.command("RCPT TO:<torn@example.org>"), /^452 4\.3\.1 /);
    assert.equal(await client.command("RCPT TO:<b@example.org>"), "250 2.1.5 Ok");
  });
});

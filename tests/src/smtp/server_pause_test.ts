/** A paused intake (queue drain) over SMTP: turned away before the content, for now. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "@std/testing/bdd";
import { IntakeIsPaused } from "../../../actors/admission.ts";
import { Fixture } from "./raw_client.ts";

const PAUSED = "450 4.3.2 no new mail is taken for now; try again later";

describe("SMTP while the intake is paused", () => {
  const fixture = new Fixture();
  before(async () => {
    await fixture.start();
  });
  after(() => fixture.stop());

  it("refuses MAIL, and takes it again afterwards in the same session", async () => {
    const client = await fixture.connect();
    await client.reply();
    await client.command("EHLO client.test");
    Object.assign(fixture.submitter, { paused: true });
    assert.equal(await client.command("MAIL FROM:<a@example.com>"), PAUSED);
    Object.assign(fixture.submitter, { paused: false });
    assert.equal(await client.command("MAIL FROM:<a@example.com>"), "250 2.1.0 Ok");
    assert.equal(await client.command("RCPT TO:<b@example.org>"), "250 2.1.5 Ok");
    assert.match(await client.command("DATA"), /^354 /);
    // Paused while the content was on its way.
    fixture.submitter.failWith = new IntakeIsPaused("no new mail is taken");
    assert.equal(await client.command("Subject: x\r\n\r\nhi\r\n."), PAUSED);
    fixture.submitter.failWith = undefined;
    assert.match(await client.command("NOOP"), /^250 /);
    assert.equal(fixture.submitter.submissions.length, 0);
  });
});

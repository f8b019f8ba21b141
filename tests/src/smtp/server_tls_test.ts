/** STARTTLS (RFC 3207), TLS at once (RFC 8314), REQUIRETLS (RFC 8689). */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { after, before, describe, it } from "@std/testing/bdd";
import { Fixture, TLS, until } from "./raw_client.ts";

describe("STARTTLS", () => {
  const fixture = new Fixture({ tls: TLS, limits: { handshake: 100 } });
  before(async () => {
    await fixture.start();
  });
  after(() => fixture.stop());

  it("protects the session, forgets what was said before, and is not offered again", async () => {
    const client = await fixture.connect();
    await client.reply();
    assert.match(await client.command("EHLO client.test"), /^250-STARTTLS$/m);
    client.write("MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n");
    assert.equal(await client.codes(2), "250 250");
    assert.match(await client.command("STARTTLS"), /^220 2\.0\.0 /);
    const secure = await client.startTls();
    assert.ok(secure.authorized);
    assert.match(await client.command("RCPT TO:<b@example.org>"), /^503 /);
    assert.match(await client.command("MAIL FROM:<a@example.com>"), /^503 5\.5\.1 EHLO/);
    const offered = await client.command("EHLO client.test");
    assert.doesNotMatch(offered, /STARTTLS/);
    assert.match(offered, /REQUIRETLS/);
    assert.match(await client.command("STARTTLS"), /^503 5\.5\.1 /);
    client.write("MAIL FROM:<a@example.com> REQUIRETLS\r\nRCPT TO:<b@example.org>\r\nDATA\r\n");
    assert.equal(await client.codes(3), "250 250 354");
    assert.match(await client.command("A: b\r\n\r\nsecret\r\n."), /^250 /);
    assert.match(await client.command("QUIT"), /^221 /);
    assert.equal(await client.rest(), "");

    const submission = fixture.submitter.submissions.at(-1)!;
    const cipher = secure.getCipher()?.standardName ?? "TLS_AES_256_GCM_SHA384";
    assert.deepEqual(submission.source.tls, { protocol: "TLSv1.3", cipher });
    assert.ok(submission.requireTLS);
    assert.match(
      fixture.stored(submission).toString(),
      /with ESMTPS\r\n\t\(TLSv1\.3 TLS_AES_\w+\)\r\n\tid S/,
    );
  });

  it("refuses octets in clear behind the command (command injection)", async () => {
    for (const injected of ["NOOP\r\n", "x", "MAIL FROM:<evil@example.com>\r\n"]) {
      const client = await fixture.greeted();
      client.write(`STARTTLS\r\n${injected}`);
      assert.match(await client.reply(), /^501 5\.5\.1 nothing may follow STARTTLS/);
      assert.equal(await client.rest(), "");
    }
  });

  it("takes octets that come in clear after its reply for a broken handshake", async () => {
    const client = await fixture.greeted();
    assert.match(await client.command("STARTTLS"), /^220 /);
    client.write("MAIL FROM:<evil@example.com>\r\nRCPT TO:<b@example.org>\r\n");
    const rest = Buffer.from(await client.rest(), "latin1").toString();
    assert.doesNotMatch(rest, /250/);
    await until(() => fixture.server.stats().tlsFailures === 1);
    assert.match(fixture.log.lines.at(-1)!.message, /handshake/);
  });

  it("does not wait for ever for a handshake", async () => {
    const client = await fixture.greeted();
    assert.match(await client.command("STARTTLS"), /^220 /);
    assert.equal(await client.rest(), "");
  });

  it("serves the next client after all that", async () => {
    const client = await fixture.greeted();
    assert.match(await client.command("NOOP"), /^250 /);
  });
});

describe("submissions", () => {
  it("is in TLS from the first octet", async () => {
    const fixture = await new Fixture({
      tls: TLS,
      protocol: "submissions",
      limits: { connections: 1, handshake: 100 },
    }).start();
    const client = await fixture.connect();
    await client.startTls();
    assert.match(await client.reply(), /^220 /);
    assert.match(await client.command("EHLO client.test"), /REQUIRETLS/);
    client.write("MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n");
    assert.equal(await client.codes(3), "250 250 354");
    // Dots and chunks make their way through TLS records as they do through segments.
    const body = `${"..x".repeat(300)}\r\n`.repeat(300);
    assert.match(await client.command(`A: b\r\n\r\n${body}.`), /^250 /);
    const [submission] = fixture.submitter.submissions;
    assert.equal(
      fixture.content(submission!).toString(),
      `A: b\r\n\r\n${body.replace(/^\./gm, "")}`,
    );

    const refused = await fixture.connect();
    assert.equal(await refused.rest(), "", "one too many is cut without a handshake");
    client.close();
    await until(() => fixture.server.stats().connections === 0);

    const plain = await fixture.connect();
    plain.write("EHLO client.test\r\n");
    assert.doesNotMatch(await plain.rest(), /220|250/);
    await fixture.stop();
  });
});

/**
 * A provider as people use them: Postfix with Dovecot SASL, submission over STARTTLS and over
 * implicit TLS. Every mechanism in turn logs in and gets its message delivered; what the provider
 * refuses is a temporary failure that names the transport.
 */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { type Dovecot, DOVECOT_MECHANISMS, startDovecot } from "./dovecot.ts";
import { dataOf, exportedEvents, historyOf } from "./history.ts";
import { type Postfix, startPostfix } from "./postfix.ts";
import { Server } from "./serve.ts";
import { submitWithPython } from "./submit.ts";
import { freePort, until } from "./wait.ts";

const TLS = new URL("../../fixtures/tls/", import.meta.url).pathname;
const USERNAME = "alice";
const PASSWORD = "correct horse battery";
const TOKEN = "token-that-only-the-endpoint-knows";

describe("submission to Postfix with Dovecot SASL", () => {
  let dovecot: Dovecot;
  let postfix: Postfix;
  let server: Server;
  let secrets: string;
  const submissions = freePort();

  before(async () => {
    dovecot = await startDovecot({ username: USERNAME, password: PASSWORD, token: TOKEN });
    secrets = await Deno.makeTempDir();
    await Deno.writeTextFile(`${secrets}/password`, `${PASSWORD}\n`);
    await Deno.writeTextFile(`${secrets}/wrong`, "wrong password\n");
    await Deno.writeTextFile(`${secrets}/token`, `${TOKEN}\n`);
    await Deno.writeTextFile(`${secrets}/senders`, "/^forbidden@/ somebody-else\n/./ alice\n");
    await Deno.chmod(secrets, 0o755);
    postfix = await startPostfix({
      users: ["inbox"],
      main: {
        smtpd_sasl_type: "dovecot",
        smtpd_sasl_path: dovecot.socket,
        smtpd_sasl_auth_enable: "yes",
        smtpd_sasl_security_options: "noanonymous",
        smtpd_tls_security_level: "may",
        smtpd_tls_auth_only: "yes",
        smtpd_tls_cert_file: `${TLS}localhost.cert.pem`,
        smtpd_tls_key_file: `${TLS}localhost.key.pem`,
        smtpd_tls_received_header: "yes",
        smtpd_sasl_authenticated_header: "yes",
        smtpd_sender_login_maps: `regexp:${secrets}/senders`,
        smtpd_recipient_restrictions:
          "reject_sender_login_mismatch, permit_sasl_authenticated, reject",
      },
      listeners: { [`127.0.0.1:${submissions}`]: { smtpd_tls_wrappermode: "yes" } },
    });
    const transport = (name: string, type: string, auth: string, more = "") => `
[[routes]]
from_domain = ["${name}.example"]
transport = "${name}"
[transports.${name}]
type = "${type}"
host = "127.0.0.1"
port = ${type === "submission" ? postfix.port : submissions}
ca_file = "${TLS}ca.cert.pem"
auth = { username = "${USERNAME}", ${auth} }
${more}`;
    const file = (mechanism: string) =>
      /OAUTH/.test(mechanism) ? 'token_file = "TOKEN"' : 'password_file = "PASSWORD"';
    const routing = [
      ...DOVECOT_MECHANISMS.flatMap((mechanism) =>
        ["submission", "submissions"].map((type) =>
          transport(
            `${mechanism.toLowerCase()}-${type}`,
            type,
            `${file(mechanism)}, mechanisms = ["${mechanism}"]`,
          )
        )
      ),
      transport("best", "submission", 'password_file = "PASSWORD"'),
      transport("wrong", "submission", 'password_file = "WRONG"'),
    ].join("\n");
    server = await Server.prepare({
      routing: routing
        .replaceAll('"PASSWORD"', `"${secrets}/password"`)
        .replaceAll('"WRONG"', `"${secrets}/wrong"`)
        .replaceAll('"TOKEN"', `"${secrets}/token"`),
      queue: 'retry = ["1h"]\nmax_attempts = 8\n',
    });
    await server.start();
  });
  after(async () => {
    await server?.remove();
    await postfix?.stop();
    await dovecot?.stop();
    await Deno.remove(secrets, { recursive: true });
  });

  const send = async (from: string, to: string) => {
    await submitWithPython({ port: server.smtpPort, from, to, subject: from.split("@")[1]! });
  };
  const message = (subject: string) =>
    until(
      `the message ${subject} in the mailbox`,
      15_000,
      async () =>
        (await postfix.mailbox("inbox")).find((text) => text.includes(`Subject: ${subject}`)),
    );

  it("logs in with every mechanism, over STARTTLS and implicit TLS", async () => {
    const domains = DOVECOT_MECHANISMS.flatMap((mechanism) =>
      ["submission", "submissions"].map((type) => ({
        mechanism,
        type,
        domain: `${mechanism.toLowerCase()}-${type}.example`,
      }))
    );
    for (const { domain } of domains) await send(`sender@${domain}`, "inbox@example.net");
    for (const { domain } of domains) {
      const text = await message(domain);
      assert.match(text, /using TLSv1\.[23] with cipher/);
      assert.match(text, new RegExp(`\\(Authenticated sender: ${USERNAME}\\)`));
    }
    const log = await postfix.log();
    for (const { mechanism } of domains) {
      assert.ok(log.includes(`sasl_method=${mechanism}`), `Postfix saw no ${mechanism}\n${log}`);
    }
    const events = await exportedEvents(server);
    for (const { mechanism, type, domain } of domains) {
      const stream = events.find(({ data }) => data["mailFrom"] === `sender@${domain}`)?.stream;
      const tried = dataOf(events.filter((event) => event.stream === stream), "HostTried");
      assert.deepEqual(tried["login"], { mechanism, username: USERNAME });
      assert.equal(tried["verifiedBy"], "pkix");
      const transcript = JSON.stringify(tried["transcript"]);
      assert.equal(transcript.includes("STARTTLS"), type === "submission");
    }
    const exported = JSON.stringify(events);
    for (const secret of [PASSWORD, TOKEN, btoa(PASSWORD), btoa(`\0${USERNAME}\0${PASSWORD}`)]) {
      assert.ok(!exported.includes(secret), "a secret is in the log");
    }
  });

  it("takes the most secure mechanism that Dovecot offers", async () => {
    await send("sender@best.example", "inbox@example.net");
    await message("best.example");
    assert.match(await postfix.log(), /sasl_method=SCRAM-SHA-256, sasl_username=alice/);
  });

  it("is refused with a wrong password, for now", async () => {
    await send("sender@wrong.example", "refused@example.net");
    const failed = dataOf(await historyOf(server, "refused@example.net", "Failed"), "Failed");
    assert.equal(failed["permanent"], false);
    assert.match(String(failed["reason"]), /^transport "wrong": .* said 535 5\.7\.8 .* to AUTH/);
  });

  it("is logged in and may not use a sender: for now, it is the account's matter", async () => {
    await send("forbidden@best.example", "forbidden@example.net");
    const failed = dataOf(await historyOf(server, "forbidden@example.net", "Failed"), "Failed");
    assert.equal(failed["permanent"], false, String(failed["reason"]));
    assert.match(
      String(failed["reason"]),
      /^transport "best": .*553 5\.7\.1 .*not owned by user alice/,
    );
  });
});

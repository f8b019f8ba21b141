/** AUTH on the listener (RFC 4954): every mechanism, and every way in which it can go wrong. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { after, before, describe, it } from "@std/testing/bdd";
import type { AccountGate } from "../../../src/accounts/gate.ts";
import { ClientExchange, clientMechanism } from "../../../src/smtp/sasl/client.ts";
import type { MechanismName } from "../../../src/smtp/sasl/mechanism.ts";
import { account, base64, gateOver, PASSWORD, plain } from "./accounts.ts";
import { realClock } from "./fakes.ts";
import { Fixture, type RawClient, TLS, until } from "./raw_client.ts";

const alice = await account("alice", ["alice@example.com"]);
const accounts = [alice];

/** A client in TLS that has said EHLO. */
async function secured(fixture: Fixture): Promise<RawClient> {
  const client = await fixture.greeted();
  await client.command("STARTTLS");
  await client.startTls();
  await client.command("EHLO client.test");
  return client;
}

async function logIn(client: RawClient, mechanism: MechanismName, password: string) {
  const exchange = new ClientExchange(
    clientMechanism(mechanism, { kind: "password", username: "alice", password }, {
      random: (length) => crypto.getRandomValues(new Uint8Array(length)),
    }),
  );
  let reply = await client.command(exchange.command());
  while (reply.startsWith("334")) {
    reply = await client.command(await exchange.answer(reply.slice(4)));
  }
  if (reply.startsWith("235 ")) exchange.succeed();
  return reply;
}

const total = (gate: AccountGate, mechanism: string, result: string): number =>
  gate.logins().find(({ labels }) => labels.mechanism === mechanism && labels.result === result)
    ?.count ?? 0;

describe("AUTH", () => {
  let broken: Error | undefined;
  let gate: AccountGate;
  let fixture: Fixture;
  before(async () => {
    gate = gateOver(accounts, { failWith: () => broken });
    fixture = await new Fixture({ tls: TLS, protocol: "submission" }, realClock, gate).start();
  });
  after(() => fixture.stop());

  for (const mechanism of ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"] as const) {
    it(`logs in with ${mechanism}, and the message says who submitted it`, async () => {
      const client = await secured(fixture);
      assert.equal(await logIn(client, mechanism, PASSWORD), "235 2.7.0 logged in");
      client.write("MAIL FROM:<alice@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n");
      assert.equal(await client.codes(3), "250 250 354");
      assert.match(await client.command("From: alice@example.com\r\n\r\nhi\r\n."), /^250 /);
      const submission = fixture.submitter.submissions.at(-1)!;
      assert.equal(submission.account, "alice");
      assert.equal(submission.source.login, "alice");
      assert.match(fixture.stored(submission).toString(), /by mx\.test with ESMTPSA\r\n/);
      assert.match(await client.command(`AUTH PLAIN ${plain("alice")}`), /^503 5\.5\.1 /);
      assert.doesNotMatch(await client.command("EHLO client.test"), /AUTH/);
      client.close();
    });

    it(`refuses a wrong password with ${mechanism}`, async () => {
      const client = await secured(fixture);
      const before = total(gate, mechanism, "failed");
      assert.equal(
        await logIn(client, mechanism, "not it, not at all"),
        "535 5.7.8 name or password is wrong",
      );
      assert.equal(total(gate, mechanism, "failed"), before + 1);
      assert.match(await client.command("MAIL FROM:<alice@example.com>"), /^530 5\.7\.0 /);
      assert.match(await logIn(client, mechanism, PASSWORD), /^235 /, "another try is allowed");
      client.close();
    });
  }

  it("writes SMTPUTF8 into the protocol of the Received field", async () => {
    const client = await secured(fixture);
    await logIn(client, "PLAIN", PASSWORD);
    client.write("MAIL FROM:<alice@example.com> SMTPUTF8\r\nRCPT TO:<bü@example.org>\r\nDATA\r\n");
    assert.equal(await client.codes(3), "250 250 354");
    assert.match(await client.command("From: alice@example.com\r\n\r\nhi\r\n."), /^250 /);
    const submission = fixture.submitter.submissions.at(-1)!;
    assert.match(fixture.stored(submission).toString(), /with UTF8SMTPSA\r\n/);
    client.close();
  });

  it("takes the initial response or asks for it", async () => {
    const client = await secured(fixture);
    assert.equal(await client.command("auth plain"), "334");
    assert.match(await client.command(plain("alice")), /^235 /);
    client.close();
  });

  it("offers nothing that shows a password before TLS, and says so", async () => {
    const client = await fixture.greeted();
    const offer = await client.command("EHLO client.test");
    assert.match(offer, /^250-AUTH SCRAM-SHA-256 SCRAM-SHA-1$/m, "a loopback listener");
    assert.match(await client.command(`AUTH PLAIN ${plain("alice")}`), /^504 5\.5\.4 /);
    assert.match(await client.command("MAIL FROM:<alice@example.com>"), /^530 5\.7\.0 mail takes/);
    assert.match(await logIn(client, "SCRAM-SHA-256", PASSWORD), /^235 /);
    assert.match(await client.command("MAIL FROM:<alice@example.com>"), /^250 /);
    client.close();
  });

  it("offers what shows the password once TLS protects it", async () => {
    const client = await secured(fixture);
    assert.match(
      await client.command("EHLO client.test"),
      /^250-AUTH SCRAM-SHA-256 SCRAM-SHA-1 PLAIN$/m,
    );
    client.close();
  });

  it("forgets a login that was made before TLS", async () => {
    const client = await fixture.greeted();
    assert.match(await logIn(client, "SCRAM-SHA-256", PASSWORD), /^235 /);
    await client.command("STARTTLS");
    await client.startTls();
    assert.match(await client.command("EHLO client.test"), /AUTH/);
    assert.match(await client.command("MAIL FROM:<alice@example.com>"), /^530 /);
    client.close();
  });

  const mistakes: readonly (readonly [name: string, lines: readonly string[], reply: RegExp])[] = [
    ["an unknown mechanism", ["AUTH CRAM-MD5"], /^504 5\.5\.4 /],
    ["channel binding that is not offered", ["AUTH SCRAM-SHA-256-PLUS"], /^504 5\.5\.4 /],
    ["no mechanism", ["AUTH"], /^501 5\.5\.4 /],
    ["a mechanism that is none", ["AUTH PL=AIN"], /^501 5\.5\.4 /],
    ["two initial responses", ["AUTH PLAIN AAAA BBBB"], /^501 5\.5\.4 /],
    ["an initial response that is not base64", ["AUTH PLAIN !!!!"], /^501 5\.5\.2 /],
    ["base64 in another spelling", ["AUTH PLAIN AGE"], /^501 5\.5\.2 /],
    ["an empty initial response", ["AUTH PLAIN ="], /^501 5\.5\.2 /],
    ["a login given up", ["AUTH PLAIN", "*"], /^501 5\.7\.0 the login is given up$/],
    ["a response that is not base64", ["AUTH PLAIN", "not base64!"], /^501 5\.5\.2 /],
    ["a command for a response", ["AUTH PLAIN", "QUIT"], /^501 5\.5\.2 /],
    ["an empty response", ["AUTH PLAIN", ""], /^501 5\.5\.2 /],
    ["a control in a response", ["AUTH PLAIN", "AA\u0001A"], /^501 5\.5\.2 /],
    ["a message of another mechanism", ["AUTH SCRAM-SHA-256", plain("alice")], /^501 5\.5\.2 /],
    ["no NUL", [`AUTH PLAIN ${base64("alice")}`], /^501 5\.5\.2 /],
    ["octets that are not UTF-8", ["AUTH PLAIN /////w=="], /^501 5\.5\.2 /],
    ["another's name", [`AUTH PLAIN ${plain("alice", PASSWORD, "bob")}`], /^535 5\.7\.8 /],
    ["a name that nobody has", [`AUTH PLAIN ${plain("mallory")}`], /^535 5\.7\.8 /],
    ["a line too long for a command", [`AUTH PLAIN ${"A".repeat(3_000)}`], /^500 5\.5\.2 /],
    ["a response too long", ["AUTH PLAIN", "A".repeat(12_400)], /^500 5\.5\.6 /],
    ["SCRAM that must be known", ["AUTH SCRAM-SHA-1", base64("n,,m=x,n=a,r=b")], /^501 5\.5\.2 /],
    [
      "channel binding in a mechanism without",
      ["AUTH SCRAM-SHA-1", base64("p=tls-unique,,n=alice,r=abc")],
      /^501 5\.5\.2 /,
    ],
  ];
  for (const [name, lines, expected] of mistakes) {
    it(`meets ${name} with a reply, and goes on`, async () => {
      const fixture = await new Fixture({ tls: TLS }, realClock, gateOver(accounts)).start();
      const client = await secured(fixture);
      let reply = "";
      for (const line of lines) reply = await client.command(line);
      assert.match(reply, expected);
      assert.match(await client.command(`AUTH PLAIN ${plain("alice")}`), /^235 /);
      await fixture.stop();
    });
  }

  it("takes a response as long as RFC 4954 allows", async () => {
    const client = await secured(fixture);
    await client.command("AUTH PLAIN");
    // 9,216 octets of content: too long for a password, and no fault of the line.
    const response = base64(`\0alice\0${"x".repeat(9_209)}`);
    assert.equal(response.length, 12_288);
    assert.match(await client.command(response), /^535 5\.7\.8 /);
    client.close();
  });

  it("has no login before EHLO, after HELO, or within a transaction", async () => {
    const client = await fixture.connect();
    await client.reply();
    assert.match(await client.command("AUTH SCRAM-SHA-1"), /^503 5\.5\.1 EHLO/);
    await client.command("HELO client.test");
    assert.match(await client.command("AUTH SCRAM-SHA-1"), /^503 5\.5\.1 EHLO/);
    client.close();
    const open = await secured(fixture);
    await logIn(open, "PLAIN", PASSWORD);
    await open.command("MAIL FROM:<alice@example.com>");
    assert.match(await open.command(`AUTH PLAIN ${plain("alice")}`), /^503 5\.5\.1 /);
    open.close();
  });

  it("is not there where mail takes no login", async () => {
    const fixture = await new Fixture({ tls: TLS }).start();
    const client = await fixture.greeted();
    assert.doesNotMatch(await client.command("EHLO client.test"), /AUTH/);
    assert.match(await client.command(`AUTH PLAIN ${plain("alice")}`), /^502 5\.5\.1 /);
    assert.match(await client.command("MAIL FROM:<anybody@example.com>"), /^250 /);
    await fixture.stop();
  });

  it("ends with the session when the line of a response has a bare LF", async () => {
    const client = await secured(fixture);
    await client.command("AUTH PLAIN");
    client.write(`${plain("alice")}\n`);
    assert.match(await client.reply(), /^500 5\.5\.2 /);
    assert.equal(await client.rest(), "");
  });

  it("counts a client that hangs up in the middle, and serves the next", async () => {
    const before = total(gate, "PLAIN", "cancelled");
    const client = await secured(fixture);
    await client.command("AUTH PLAIN");
    client.close();
    await until(() => total(gate, "PLAIN", "cancelled") > before);
    const next = await secured(fixture);
    assert.match(await logIn(next, "PLAIN", PASSWORD), /^235 /);
    next.close();
  });

  it("says 454 when accounts cannot be looked up, and 535 to nobody for it", async () => {
    const client = await secured(fixture);
    broken = new Error("the accounts are on fire");
    assert.match(await client.command(`AUTH PLAIN ${plain("alice")}`), /^454 4\.7\.0 /);
    assert.match(await client.command("AUTH SCRAM-SHA-1"), /^334/);
    assert.match(await client.command(base64("n,,n=alice,r=abc")), /^454 4\.7\.0 /);
    broken = undefined;
    assert.match(await client.command(`AUTH PLAIN ${plain("alice")}`), /^235 /);
    assert.ok(fixture.log.lines.some(({ message }) => message.includes("on fire")));
    client.close();
  });

  it("takes the login back when the account is taken away", async () => {
    const client = await secured(fixture);
    await logIn(client, "PLAIN", PASSWORD);
    accounts.length = 0;
    try {
      assert.match(await client.command("MAIL FROM:<alice@example.com>"), /^530 5\.7\.0 /);
    } finally {
      accounts.push(alice);
    }
    client.close();
  });

  it("logs no password and no name that is not an account's", () => {
    const said = JSON.stringify(fixture.log.lines);
    for (const secret of [PASSWORD, "not it, not at all", base64(PASSWORD), "mallory"]) {
      assert.ok(!said.includes(secret), secret);
    }
    assert.match(said, /login failed/);
  });
});

describe("guessing passwords", () => {
  it("is refused in the end, and the session with it", async () => {
    const gate = gateOver(accounts);
    // The waits are the throttle's business, and tested with it in virtual time.
    const begin = gate.throttle.begin.bind(gate.throttle);
    gate.throttle.begin = (...who) => ({ ...begin(...who), wait: 0 });
    const fixture = await new Fixture({ tls: TLS }, realClock, gate).start();
    const client = await secured(fixture);
    for (let guess = 0; guess < 10; guess++) {
      const reply = await client.command(`AUTH PLAIN ${plain("alice", `guess number ${guess}`)}`);
      assert.match(reply, /^535 5\.7\.8 /);
    }
    const reply = await client.command(`AUTH PLAIN ${plain("alice")}`);
    assert.equal(
      reply,
      "421 4.7.0 too many failed logins from your address; try again in 15 minutes, closing",
    );
    assert.equal(await client.rest(), "");
    const next = await secured(fixture);
    assert.match(await next.command(`AUTH PLAIN ${plain("alice")}`), /^421 4\.7\.0 /);
    assert.equal(total(gate, "PLAIN", "refused"), 2);
    await fixture.stop();
  });

  it("waits before it looks, keeps what comes meanwhile, and ends with the client", async () => {
    const gate = gateOver(accounts);
    let wait = 40;
    const begin = gate.throttle.begin.bind(gate.throttle);
    gate.throttle.begin = (...who) => ({ ...begin(...who), wait });
    const fixture = await new Fixture({ tls: TLS }, realClock, gate).start();
    const client = await secured(fixture);
    const at = performance.now();
    client.write(`AUTH PLAIN ${plain("alice")}\r\nNOOP\r\n`);
    assert.match(await client.reply(), /^235 /);
    assert.ok(performance.now() - at >= 39);
    assert.match(await client.reply(), /^250 /);
    wait = 60_000;
    const stuck = await secured(fixture);
    stuck.write(`AUTH PLAIN ${plain("alice")}\r\n`);
    await until(() => total(gate, "PLAIN", "ok") === 1);
    stuck.close();
    await until(() => total(gate, "PLAIN", "cancelled") === 1);
    const stopped = await secured(fixture);
    stopped.write(Buffer.from(`AUTH PLAIN ${plain("alice")}\r\n`));
    await new Promise((resolve) => setTimeout(resolve, 20));
    const closing = fixture.stop();
    assert.match(await stopped.reply(), /^421 4\.3\.2 |^$/);
    await closing;
  });
});

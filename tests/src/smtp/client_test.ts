import { Buffer } from "node:buffer";
import assert from "node:assert/strict";
import { afterEach, describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { SocketDialer } from "../../../src/delivery/dialer.ts";
import { ClientSession, type SessionOptions } from "../../../src/smtp/client.ts";
import type { Timeouts } from "../../../src/smtp/timeouts.ts";
import {
  MAX_TRANSCRIPT_LINE,
  MAX_TRANSCRIPT_LINES,
  Transcript,
} from "../../../src/smtp/transcript.ts";
import type { TlsPolicy } from "../../../src/tls/policy.ts";
import { bodyOf, MESSAGE, octets, realClock, transaction } from "./harness.ts";
import { type Answers, HANG_UP, type Script, ScriptedServer, SILENCE } from "./scripted_server.ts";

const fixture = (name: string) =>
  Deno.readTextFileSync(new URL(`../../../fixtures/tls/${name}`, import.meta.url));
const TLS = { key: fixture("localhost.key.pem"), cert: fixture("localhost.cert.pem") };
const CA = fixture("ca.cert.pem");

/** Short enough for tests, long enough for a busy machine. */
const SHORT: Partial<Timeouts> = {
  greeting: 60,
  ehlo: 60,
  tls: 60,
  mail: 60,
  rcpt: 60,
  data: 60,
  block: 60,
  end: 60,
};

let server: ScriptedServer;
let sessions: ClientSession[] = [];
const never = new AbortController().signal;

afterEach(async () => {
  for (const session of sessions) session.close();
  sessions = [];
  await server?.stop();
});

async function connect(script: Script, options: Partial<SessionOptions> = {}) {
  server = await ScriptedServer.start(script);
  const target = { address: "127.0.0.1", port: server.port };
  const connection = await new SocketDialer().connect(target, never);
  const tls: TlsPolicy = { mode: "opportunistic", serverName: "localhost" };
  const session = new ClientSession(connection, {
    clock: realClock,
    hostname: "client.test",
    tls,
    ...options,
  });
  sessions.push(session);
  return session;
}

/** Greets, expecting success. */
async function ready(script: Script, options: Partial<SessionOptions> = {}) {
  const session = await connect(script, options);
  const { verdict } = await session.greet(never);
  assert.equal(verdict.result, "ok", `${verdict.error}`);
  return session;
}

async function sendOne(session: ClientSession, changes = {}, signal = never) {
  const { recipients } = await session.send(transaction(changes), signal);
  return recipients[0]!;
}

describe("a transaction", () => {
  it("delivers the message in one group of commands where PIPELINING is offered", async () => {
    const session = await ready({ extensions: ["PIPELINING", "SIZE 1000"] });
    const verdict = await sendOne(session);
    assert.equal(verdict.result, "ok");
    assert.equal(verdict.reply?.code, 250);
    assert.equal(server.messages[0]!.content.toString(), MESSAGE);
    assert.deepEqual(server.commands, [
      "EHLO client.test",
      `MAIL FROM:<alice@example.com> SIZE=${MESSAGE.length}`,
      "RCPT TO:<bob@example.org>",
      "DATA",
    ]);
    const lines = session.transcript.take().map(({ who, line }) => `${who} ${line.slice(0, 9)}`);
    const at = lines.indexOf("C MAIL FROM");
    assert.deepEqual(lines.slice(at + 1, at + 3), ["C RCPT TO:<", "C DATA"]);
  });

  it("waits for each reply where it is not", async () => {
    const session = await ready({ extensions: [] });
    assert.equal((await sendOne(session)).result, "ok");
    const who = session.transcript.take().map((line) => line.who).join("");
    assert.equal(who, "SCSCSCSCSCS");
  });

  it("serves each recipient with an outcome of its own", async () => {
    for (const extensions of [["PIPELINING"], []]) {
      const session = await ready({
        extensions,
        answers: { RCPT: (line) => line.includes("bad") ? "550 5.1.1 who?" : "250 ok" },
      });
      const recipients = ["bad@x.test", "good@x.test", "bad2@x.test"]
        .map((rcptTo) => ({ rcptTo, dsn: {} }));
      const result = await session.send(transaction({ recipients }), never);
      const results = result.recipients.map((verdict) => `${verdict.phase} ${verdict.result}`);
      assert.deepEqual(results, ["rcpt permerror", "end ok", "rcpt permerror"]);
      assert.equal(server.messages.length, 1);
      await server.stop();
    }
  });

  it("ends with a lone dot where DATA is accepted for nobody", async () => {
    const session = await ready({ answers: { RCPT: "550 5.1.1 who?", ".": "554 no recipients" } });
    const verdict = await sendOne(session);
    assert.deepEqual([verdict.result, verdict.phase], ["permerror", "rcpt"]);
    assert.equal(verdict.reply?.enhanced, "5.1.1");
    assert.equal(server.messages[0]!.content.length, 0);
    assert.ok(session.usable);
  });

  it("is reset before the next one where it was not completed", async () => {
    let refuse = true;
    const session = await ready({
      answers: {
        RCPT: () => refuse ? "450 later" : "250 ok",
        DATA: () => refuse ? "503 no" : "354",
      },
    });
    assert.equal((await sendOne(session)).result, "temperror");
    refuse = false;
    assert.equal((await sendOne(session)).result, "ok");
    assert.equal((await sendOne(session)).result, "ok");
    assert.equal(server.commands.filter((line) => line === "RSET").length, 1);
    assert.equal(session.sent, 3);
    assert.equal(session.refusals, 1);
  });

  it("takes the refusal of the sender for all recipients, also when the server hangs up", async () => {
    const hangUp: Answers = { MAIL: "550 5.7.1 not you", RCPT: HANG_UP };
    for (const answers of [hangUp, { MAIL: "550 5.7.1 not you" }]) {
      const verdict = await sendOne(await ready({ answers }));
      assert.deepEqual([verdict.result, verdict.phase], ["permerror", "mail"]);
      await server.stop();
    }
  });

  it("is not begun where the server lacks what it needs", async () => {
    const session = await ready({ extensions: ["SIZE 10"] });
    const verdict = await sendOne(session);
    assert.deepEqual([verdict.result, verdict.enhanced], ["permerror", "5.3.4"]);
    assert.deepEqual(server.commands, ["EHLO client.test"]);
    assert.ok(session.usable);
  });

  it("is broken off for a message with a bare line end", async () => {
    const session = await ready({});
    const body = () => Promise.resolve(bodyOf(octets("a\r\n.\nQUIT\r\n")));
    const verdict = await sendOne(session, { body });
    assert.deepEqual([verdict.result, verdict.enhanced], ["permerror", "5.6.0"]);
    assert.equal(server.messages.length, 0);
    assert.ok(!session.usable);
  });

  it("throws when the body cannot be read, and hangs up without ending it", async () => {
    const session = await ready({});
    const body = () => Promise.reject(new Error("disk gone"));
    await assert.rejects(() => session.send(transaction({ body }), never), /disk gone/);
    assert.ok(!session.usable);
    assert.equal(server.messages.length, 0);
  });

  it("arrives as it was, for any content in any chunks", async () => {
    const session = await ready({});
    const line = fc.array(fc.constantFrom(46, 46, 65, 0, 255), { maxLength: 8 });
    const content = fc.array(line, { minLength: 1, maxLength: 30 })
      .map((lines) => Buffer.from(lines.flatMap((one) => [...one, 13, 10])));
    const property = fc.asyncProperty(
      content,
      fc.integer({ min: 1, max: 40 }),
      async (all, size) => {
        const chunks: Uint8Array[] = [];
        for (let at = 0; at < all.length; at += size) chunks.push(all.subarray(at, at + size));
        const verdict = await sendOne(session, { body: () => Promise.resolve(bodyOf(...chunks)) });
        assert.equal(verdict.result, "ok");
        assert.deepEqual(server.messages.at(-1)!.content, all);
      },
    );
    await fc.assert(property, { numRuns: 60 });
  });

  it("streams a large message", async () => {
    const session = await ready({});
    const chunk = octets(".0123456789abcdef\r\n".repeat(3000));
    const chunks = Array.from({ length: 12 }, () => chunk);
    const size = chunk.length * chunks.length;
    const verdict = await sendOne(session, {
      size,
      body: () => Promise.resolve(bodyOf(...chunks)),
    });
    assert.equal(verdict.result, "ok");
    assert.equal(server.messages[0]!.content.length, size);
  });
});

describe("the opening", () => {
  it("falls back to HELO where EHLO is refused", async () => {
    const session = await ready({ answers: { EHLO: "502 5.5.1 what?" } });
    assert.equal((await sendOne(session)).result, "ok");
    assert.deepEqual(server.commands.slice(0, 2), ["EHLO client.test", "HELO client.test"]);
    assert.equal(session.extensions.size, 0);
  });

  it("does not fall back for a temporary refusal", async () => {
    const { verdict } = await (await connect({ answers: { EHLO: "451 later" } })).greet(never);
    assert.deepEqual([verdict.result, verdict.phase], ["temperror", "ehlo"]);
    assert.ok(!server.commands.includes("HELO client.test"));
  });

  it("ends at a greeting that refuses", async () => {
    const session = await connect({ answers: { greeting: "554 5.7.1 go away" } });
    const { verdict } = await session.greet(never);
    assert.deepEqual([verdict.result, verdict.phase], ["permerror", "greeting"]);
    assert.ok(!session.usable);
  });

  it("ends at nonsense, at a flood, and at an unexpected code", async () => {
    const flood = `220-${"x".repeat(500)}\r\n`.repeat(200);
    for (const greeting of ["SSH-2.0-OpenSSH", flood, "250 hello"]) {
      const session = await connect({ answers: { greeting } });
      const { verdict } = await session.greet(never);
      assert.deepEqual([verdict.result, verdict.phase], ["error", "greeting"]);
      assert.ok(session.transcript.take().length < 4);
      await server.stop();
    }
  });
});

describe("STARTTLS", () => {
  const verified = (verify: (TlsPolicy & { mode: "verified" })["verify"]): TlsPolicy => ({
    mode: "verified",
    by: "pkix",
    serverName: "localhost",
    ca: [CA],
    verify,
  });

  it("is used where offered, and EHLO is said again", async () => {
    const session = await ready({ tls: TLS });
    assert.equal(session.tls.mode, "opportunistic");
    assert.equal(session.tls.verifiedBy, "none");
    assert.match(session.tls.facts!.protocol, /^TLSv1\.[23]$/);
    assert.match(session.tls.facts!.fingerprint!, /^[0-9a-f]{64}$/);
    assert.equal((await sendOne(session)).result, "ok");
    assert.ok(server.messages[0]!.tls);
    assert.deepEqual(server.commands.slice(0, 3), [
      "EHLO client.test",
      "STARTTLS",
      "EHLO client.test",
    ]);
    assert.ok(!session.extensions.has("STARTTLS"));
  });

  it("is not used under the policy none", async () => {
    const session = await ready({ tls: TLS }, { tls: { mode: "none" } });
    assert.ok(!server.commands.includes("STARTTLS"));
    assert.equal(session.tls.mode, "none");
  });

  it("hands the presented chain to the policy", async () => {
    const session = await ready({ tls: TLS }, {
      tls: verified(({ chainTrusted, chain }) => {
        return chainTrusted && chain.length >= 1 ? undefined : "no";
      }),
    });
    assert.deepEqual([session.tls.mode, session.tls.verifiedBy], ["verified", "pkix"]);
  });

  it("tells the policy that the chain is not trusted where it is not", async () => {
    const tls = { ...verified((one) => one.chainTrusted ? undefined : one.chainError) };
    const { ca: _, ...untrusting } = tls as TlsPolicy & { mode: "verified" };
    const { verdict } = await (await connect({ tls: TLS }, { tls: untrusting })).greet(never);
    assert.deepEqual([verdict.result, verdict.phase], ["error", "tls"]);
    assert.match(verdict.error!, /^the certificate is not accepted: ./);
  });

  it("ends the session where it is required and not offered, or refused", async () => {
    const required: TlsPolicy = { mode: "required" };
    let { verdict } = await (await connect({}, { tls: required })).greet(never);
    assert.match(verdict.error!, /does not offer STARTTLS/);
    await server.stop();
    const script = { tls: TLS, answers: { STARTTLS: "454 4.7.0 not now" } };
    ({ verdict } = await (await connect(script, { tls: required })).greet(never));
    assert.deepEqual([verdict.result, verdict.phase, verdict.reply?.code], [
      "temperror",
      "tls",
      454,
    ]);
  });

  it("is done without where it is refused and not required", async () => {
    const session = await ready({ tls: TLS, answers: { STARTTLS: "454 4.7.0 not now" } });
    assert.equal(session.tls.mode, "none");
    assert.equal((await sendOne(session)).result, "ok");
  });

  it("ends the session when the handshake hangs, or is preceded by more text", async () => {
    const cases = [["220 go\r\n220 injected\r\n", "error"], ["220 go\r\n", "timeout"]] as const;
    for (const [STARTTLS, result] of cases) {
      const script = { extensions: ["STARTTLS"], answers: { STARTTLS } };
      const { verdict } = await (await connect(script, { timeouts: SHORT })).greet(never);
      assert.deepEqual([verdict.result, verdict.phase], [result, "tls"]);
      // Text before the handshake is an attack; a handshake that hangs has failed.
      assert.equal(verdict.handshake ?? false, result === "timeout");
      await server.stop();
    }
  });

  it("reports a handshake that failed as such", async () => {
    const session = await connect({ extensions: ["STARTTLS"], garbleTls: true });
    const { verdict } = await session.greet(never);
    assert.deepEqual([verdict.result, verdict.phase, verdict.handshake], ["error", "tls", true]);
  });
});

describe("a server that misbehaves", () => {
  const STAGES = ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "."];
  const PHASES = ["greeting", "ehlo", "mail", "rcpt", "data", "end"];

  for (const [n, stage] of STAGES.entries()) {
    // Without PIPELINING: there a withheld reply would be seen as the next one in its place.
    const attempt = async (answers: Answers) => {
      const session = await connect({ extensions: [], answers }, { timeouts: SHORT });
      const { verdict } = await session.greet(never);
      return verdict.result === "ok" ? await sendOne(session) : verdict;
    };

    it(`hangs up at ${stage}`, async () => {
      const verdict = await attempt({ [stage]: HANG_UP });
      assert.deepEqual([verdict.result, verdict.phase], ["error", PHASES[n]]);
      assert.equal(verdict.error!.includes("outcome unknown"), stage === ".");
      assert.ok(verdict.closed);
    });

    it(`falls silent at ${stage}`, async () => {
      const verdict = await attempt({ [stage]: SILENCE });
      assert.deepEqual([verdict.result, verdict.phase], ["timeout", PHASES[n]]);
      assert.equal(verdict.error!.includes("outcome unknown"), stage === ".");
    });

    it(`says 421 at ${stage}`, async () => {
      const verdict = await attempt({ [stage]: "421 4.3.2 closing" });
      assert.deepEqual([verdict.result, verdict.phase], ["temperror", PHASES[n]]);
      assert.ok(verdict.closed);
    });
  }

  it("answers an octet at a time, and gains no time by it", async () => {
    const session = await connect({ pace: 10 }, { timeouts: SHORT });
    const begun = performance.now();
    const { verdict } = await session.greet(never);
    assert.deepEqual([verdict.result, verdict.phase], ["timeout", "greeting"]);
    assert.ok(performance.now() - begun < 1000);
  });

  it("answers the content before it has it", async () => {
    const verdict = await sendOne(await ready({ answers: { DATA: "354 go\r\n250 got it\r\n" } }));
    assert.deepEqual([verdict.result, verdict.phase], ["error", "body"]);
    assert.equal(server.messages.length, 0);
  });

  it("answers DATA with 250, the content with 354", async () => {
    let verdict = await sendOne(await ready({ answers: { DATA: "250 ok" } }));
    assert.deepEqual([verdict.result, verdict.phase], ["error", "data"]);
    await server.stop();
    verdict = await sendOne(await ready({ answers: { ".": "354 more" } }));
    assert.deepEqual([verdict.result, verdict.phase], ["error", "end"]);
  });

  it("does not take the message: the block timeout ends it", async () => {
    const session = await ready({ stopReading: true }, { timeouts: { ...SHORT, end: 5_000 } });
    const chunk = octets("x".repeat(998) + "\r\n").slice();
    const body = () =>
      Promise.resolve({
        size: 64_000_000,
        async *chunks() {
          for (let n = 0; n < 64_000; n++) yield chunk;
        },
      });
    const verdict = await sendOne(session, { size: 64_000_000, body });
    assert.deepEqual([verdict.result, verdict.phase], ["timeout", "body"]);
  });
});

describe("cancelling", () => {
  it("ends the dialogue wherever it stands", async () => {
    for (const [stage, phase] of [["greeting", "greeting"], ["RCPT", "rcpt"], [".", "end"]]) {
      const abort = new AbortController();
      const session = await connect({ extensions: [], answers: { [stage!]: SILENCE } });
      setTimeout(() => abort.abort(), 20);
      const { verdict: opened } = await session.greet(abort.signal);
      const verdict = opened.result === "ok" ? await sendOne(session, {}, abort.signal) : opened;
      assert.deepEqual([verdict.result, verdict.phase], ["canceled", phase]);
      assert.ok(!session.usable);
      await server.stop();
    }
  });

  it("before the start sends nothing", async () => {
    const session = await ready({});
    const verdict = await sendOne(session, {}, AbortSignal.abort());
    assert.deepEqual([verdict.result, verdict.phase], ["canceled", "mail"]);
    assert.deepEqual(server.commands, ["EHLO client.test"]);
  });
});

describe("the transcript", () => {
  it("has the dialogue with times, and nothing of the message", async () => {
    const session = await ready({});
    await sendOne(session);
    const lines = session.transcript.take();
    assert.ok(lines.some(({ line }) => line === `[message: ${MESSAGE.length} octets]`));
    assert.ok(!JSON.stringify(lines).match(/secret subject|nobody else/));
    assert.ok(lines.every(({ at }, n) => at >= (lines[n - 1]?.at ?? 0)));
    assert.deepEqual(session.transcript.take(), []);
  });

  it("is bounded in lines and in length, and says what is missing", () => {
    const transcript = new Transcript(realClock, realClock.monotonic());
    transcript.server(["250 " + "x".repeat(5000)]);
    for (let n = 0; n < 1000; n++) transcript.client(`NOOP ${n}`);
    const lines = transcript.take();
    assert.equal(lines.length, MAX_TRANSCRIPT_LINES);
    assert.equal(lines[0]!.line.length, MAX_TRANSCRIPT_LINE);
    assert.equal(lines.at(-1)!.line, "… left out");
    for (let n = 0; n < 100; n++) transcript.server(["x".repeat(1000)]);
    assert.ok(transcript.take().reduce((sum, { line }) => sum + line.length, 0) <= 33 * 1024);
  });

  it("keeps no secrets of AUTH", () => {
    const transcript = new Transcript(realClock, realClock.monotonic());
    transcript.client("AUTH PLAIN AGFsaWNlAHBhc3N3b3Jk");
    assert.equal(transcript.take()[0]!.line, "AUTH PLAIN [secret]");
  });
});

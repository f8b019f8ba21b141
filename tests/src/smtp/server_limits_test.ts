/** Limits: each is met with the right reply, and nothing grows without bound. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import type { Clock } from "../../../actors/ports.ts";
import { DEFAULT_SMTP_LIMITS, type SmtpLimits } from "../../../src/smtp/server/limits.ts";
import { Fixture, RawClient, settle, until } from "./raw_client.ts";

/** A clock that stands still until it is moved. */
class ManualClock implements Clock {
  #now = 0;
  readonly #timers = new Set<{ readonly at: number; readonly run: () => void }>();
  now = () => 1_767_225_600_000 + this.#now;
  monotonic = () => this.#now;
  timer(ms: number, run: () => void): () => void {
    const timer = { at: this.#now + ms, run };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }
  get timers(): number {
    return this.#timers.size;
  }
  advance(ms: number): void {
    this.#now += ms;
    for (const timer of [...this.#timers]) {
      if (timer.at <= this.#now && this.#timers.delete(timer)) timer.run();
    }
  }
}

async function withLimits(
  limits: Partial<SmtpLimits>,
  test: (fixture: Fixture) => Promise<void>,
  clock?: Clock,
): Promise<void> {
  const fixture = await new Fixture({ limits }, clock).start();
  try {
    await test(fixture);
  } finally {
    await fixture.stop();
  }
}

describe("Limits of a listener", () => {
  it("command line: 500, and the session goes on at the next line", () =>
    withLimits({}, async (fixture) => {
      const client = await fixture.greeted();
      assert.match(await client.command(`NOOP ${"x".repeat(2041)}`), /^250 /);
      assert.match(await client.command(`NOOP ${"x".repeat(2042)}`), /^500 5\.5\.2 .*too long/);
      client.write(`NOOP ${"x".repeat(5000)}`);
      await settle(5);
      client.write("y\r");
      await settle(5);
      client.write("\nNOOP\r\n");
      assert.equal(await client.codes(2), "500 250");
    }));

  it("command line without end: the session ends", () =>
    withLimits({}, async (fixture) => {
      const client = await fixture.greeted();
      client.write("x".repeat(70_000));
      assert.match(await client.reply(), /^500 5\.5\.2 .*does not end, closing/);
      assert.equal(await client.rest(), "");
    }));

  it("bare LF in a command: the session ends", () =>
    withLimits({}, async (fixture) => {
      for (const text of ["NOOP\n", `NOOP\r\nNOOP ${"x".repeat(3000)}\nMAIL FROM:<>\r\n`]) {
        const client = await fixture.greeted();
        client.write(text);
        assert.match(await client.rest(), /^(250 .*\r\n)?500 5\.5\.2 .*bare LF.*closing\r\n$/);
      }
    }));

  it("line of text: 998 octets and CRLF", () =>
    withLimits({}, async (fixture) => {
      const client = await fixture.ready();
      await client.command("DATA");
      assert.match(await client.command(`A: b\r\n\r\n.${"x".repeat(998)}\r\n.`), /^250 /);
      client.write("MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n");
      assert.equal(await client.codes(3), "250 250 354");
      const reply = await client.command(`A: b\r\n\r\n${"x".repeat(999)}\r\n.`);
      assert.match(reply, /^550 5\.6\.0 line 3 .*longer than 1000 octets/);
      assert.match(await client.command("NOOP"), /^250 /);
    }));

  it("recipients: 452, and the message goes to those before", () =>
    withLimits({}, async (fixture) => {
      const client = await fixture.greeted();
      client.write("MAIL FROM:<a@example.com>\r\n");
      for (let i = 0; i < 300; i++) client.write(`RCPT TO:<b${i}@example.org>\r\n`);
      client.write("DATA\r\n");
      assert.match(await client.codes(302), /^(250 ){101}(452 ){200}354$/);
      assert.match(await client.command("A: b\r\n."), /^250 /);
      assert.equal(fixture.submitter.submissions[0]!.recipients.length, 100);
    }));

  it("recipients far beyond: the session ends", () =>
    withLimits({ recipients: 2, recipientOvershoot: 3 }, async (fixture) => {
      const client = await fixture.greeted();
      client.write("MAIL FROM:<a@example.com>\r\n");
      for (let i = 0; i < 9; i++) client.write(`RCPT TO:<b${i}@example.org>\r\n`);
      assert.equal(await client.codes(8), "250 250 250 452 452 452 421 ");
    }));

  it("message size: 552 at the end of the content, with DATA and BDAT", () =>
    withLimits({ messageSize: 1000 }, async (fixture) => {
      for (const [size, code] of [[992, 250], [993, 552], [100_000, 552]]) {
        const content = `A: b\r\n${"x".repeat(60)}\r\n`.repeat(2000).slice(0, size!) +
          "\r\n".repeat(4);
        const octets = Math.min(content.length, size! + 8);
        const data = await fixture.ready();
        await data.command("DATA");
        assert.match(
          await data.command(`${content.slice(0, octets - 2)}\r\n.`),
          new RegExp(`^${code} `),
        );
        assert.match(await data.command("NOOP"), /^250 /);
        const bdat = await fixture.ready();
        bdat.write(`BDAT ${octets} LAST\r\n${content.slice(0, octets)}NOOP\r\n`);
        assert.equal(await bdat.codes(2), `${code} 250`);
      }
      assert.equal(fixture.bodies.unfinished, 0);
    }));

  it("header section: 552", () =>
    withLimits({ headerSize: 4096 }, async (fixture) => {
      const client = await fixture.ready();
      await client.command("DATA");
      assert.match(await client.command(`${"A: b\r\n".repeat(700)}\r\n.`), /^552 5\.3\.4 .*header/);
      assert.equal(fixture.bodies.created, 0);
    }));

  it("commands without a message: 421", () =>
    withLimits({ unproductive: 10 }, async (fixture) => {
      for (
        const command of ["NOOP", "RSET", "VRFY x", "EHLO x", "NONSENSE", "RCPT TO:<x>", "HELP"]
      ) {
        const client = await fixture.greeted();
        client.write(`${command}\r\n`.repeat(30));
        const replies = (await client.rest()).split("\r\n").filter((r) => /^\d{3} /.test(r));
        assert.equal(replies.length, 11, command);
        assert.match(replies.at(-1)!, /^421 4\.7\.0 /);
      }
    }));

  it("a message makes up for the commands before it", () =>
    withLimits({ unproductive: 10 }, async (fixture) => {
      const client = await fixture.greeted();
      for (let i = 0; i < 5; i++) {
        client.write("NOOP\r\n".repeat(5));
        assert.equal(await client.codes(5), "250 250 250 250 250");
        client.write("MAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\nBDAT 0 LAST\r\n");
        assert.equal(await client.codes(3), "250 250 250");
      }
    }));

  it("messages on a connection: 421", () =>
    withLimits({ messages: 2 }, async (fixture) => {
      const client = await fixture.greeted();
      const message = "MAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\nBDAT 0 LAST\r\n";
      client.write(message.repeat(3));
      assert.equal(await client.codes(8), "250 250 250 250 250 250 421 ");
    }));

  it("connections in total and per address: 421, and room again when one closes", async () => {
    for (const limits of [{ connections: 3 }, { connectionsPerAddress: 3 }]) {
      await withLimits(limits, async (fixture) => {
        const clients = [];
        for (let i = 0; i < 3; i++) clients.push(await fixture.greeted());
        const refused = await fixture.connect();
        assert.match(await refused.reply(), /^421 4\.7\.0 .*too many connections/);
        assert.equal(await refused.rest(), "");
        assert.equal(fixture.server.stats().connectionsRefused, 1);
        clients[0]!.write("QUIT\r\n");
        await clients[0]!.rest();
        clients[0]!.close();
        await until(() => fixture.server.stats().connections === 2);
        assert.match(await (await fixture.connect()).reply(), /^220 /);
      });
    }
  });

  it("idle: 421 when a command is not whole in time, however it dribbles in", async () => {
    const clock = new ManualClock();
    await withLimits({}, async (fixture) => {
      const client = await fixture.greeted();
      for (let i = 0; i < 4; i++) {
        clock.advance(100_000);
        client.write("N");
        await settle(5);
      }
      assert.match(await client.reply(), /^421 4\.4\.2 timeout/);
      assert.equal(await client.rest(), "");
    }, clock);
  });

  it("one timer a connection, whatever happens on it", async () => {
    const clock = new ManualClock();
    await withLimits({}, async (fixture) => {
      const client = await fixture.greeted();
      for (let i = 0; i < 20; i++) await client.command("NOOP");
      assert.equal(clock.timers, 1);
      client.close();
      await until(() => clock.timers === 0);
    }, clock);
  });

  it("content: 421 when none comes, and when it dribbles for too long", async () => {
    const { idle, content } = DEFAULT_SMTP_LIMITS;
    for (const [step, steps] of [[idle, 1], [idle - 1000, Math.ceil(content / (idle - 1000))]]) {
      const clock = new ManualClock();
      await withLimits({}, async (fixture) => {
        const client = await fixture.ready();
        await client.command("DATA");
        for (let i = 0; i < steps!; i++) {
          client.write("x");
          await settle(3);
          clock.advance(step!);
        }
        assert.match(await client.reply(), /^421 4\.4\.2 timeout/);
        assert.equal(fixture.submitter.submissions.length, 0);
      }, clock);
    }
  });

  it("a client that does not close after our last word is cut", async () => {
    const clock = new ManualClock();
    await withLimits({}, async (fixture) => {
      const client = await RawClient.connect(fixture.port);
      const half = client.socket;
      half.allowHalfOpen = true;
      await client.command("QUIT");
      assert.match(await client.reply(), /^221 /);
      await client.rest();
      assert.equal(fixture.server.stats().connections, 1);
      clock.advance(DEFAULT_SMTP_LIMITS.linger);
      await until(() => fixture.server.stats().connections === 0);
      client.close();
    }, clock);
  });

  it("a client that sends and never reads is not answered for ever", () =>
    withLimits({ unproductive: Infinity, idle: 100, linger: 50 }, async (fixture) => {
      const client = await fixture.greeted();
      client.socket.pause();
      const group = Buffer.from("HELP\r\n".repeat(10_000));
      let taken = 0;
      for (let i = 0; i < 400 && !client.socket.destroyed; i++) {
        if (client.socket.writableLength > 8 * group.length) break;
        client.socket.write(group);
        taken += group.length;
        await settle(0);
      }
      assert.ok(taken > group.length);
      await until(() => fixture.server.stats().connections === 0);
    }));

  it("a client that reads late gets every reply", () =>
    withLimits({ unproductive: Infinity }, async (fixture) => {
      const client = await fixture.greeted();
      client.socket.pause();
      client.write("HELP\r\n".repeat(150_000));
      await settle(50);
      client.write("QUIT\r\n");
      await settle();
      client.socket.resume();
      const replies = (await client.rest()).split("\r\n");
      assert.equal(replies.length, 150_002);
      assert.match(replies[150_000]!, /^221 /);
    }));

  it("a client is not read while the store writes", () =>
    withLimits({}, async (fixture) => {
      let release = () => {};
      const blocked = new Promise<void>((resolve) => release = resolve);
      fixture.bodies.beforeWrite = () => blocked;
      const client = await fixture.ready();
      await client.command("DATA");
      client.write(`A: b\r\n\r\n${`${"x".repeat(98)}\r\n`.repeat(300_000)}.\r\n`);
      await settle(50);
      // What the kernel's buffers do not take stays with the client.
      const held = client.socket.writableLength;
      assert.ok(held > 15_000_000, `the client could send all but ${held} octets`);
      release();
      assert.match(await client.reply(), /^250 /);
    }));

  it("50 MiB stream through: back-pressure keeps what is held small", () =>
    withLimits({}, async (fixture) => {
      const { bodies } = fixture;
      bodies.keep = false;
      let writes = 0;
      // A store that is slower than the client: what is not bounded would pile up.
      bodies.beforeWrite = () => ++writes % 64 === 0 ? settle(1).then(() => {}) : Promise.resolve();
      const client = await fixture.ready();
      await client.command("DATA");
      client.write("A: b\r\n\r\n");
      const block = Buffer.from(`${"x".repeat(1022 - 24)}\r\n`.repeat(64));
      let sent = 8;
      while (sent + block.length <= 50 * 1024 * 1024) {
        sent += block.length;
        if (!client.socket.write(block)) {
          await new Promise((resolve) => client.socket.once("drain", resolve));
        }
      }
      client.write(".\r\n");
      assert.match(await client.reply(), /^250 /);
      const { body } = fixture.submitter.submissions[0]!;
      assert.ok(body.size > sent && body.size < sent + 500);
      assert.ok(bodies.largestWrite <= 256 * 1024, `wrote ${bodies.largestWrite} octets at once`);
    }));
});

describe("Garbage", () => {
  it("of any kind gets replies or a closed connection, and the next client is served", () =>
    withLimits({ unproductive: 20 }, async (fixture) => {
      const word = fc.constantFrom(
        ...["EHLO x", "MAIL FROM:<a@b.c>", "RCPT TO:<d@e.f>", "DATA", "BDAT 5", "BDAT 0 LAST"],
        ...["RSET", "STARTTLS", "\r\n", "\r\n.\r\n", "\n", "\r", "\0", ".", "<", "\xff", "MAIL"],
      );
      const octets = fc.oneof(
        fc.uint8Array({ minLength: 1, maxLength: 300 }),
        fc.array(fc.oneof(word, word.map((w) => `${w}\r\n`)), { minLength: 1, maxLength: 25 })
          .map((words) => Uint8Array.from(Buffer.from(words.join(""), "latin1"))),
      );
      await fc.assert(
        fc.asyncProperty(octets, async (octets) => {
          const client = await fixture.connect();
          client.socket.end(octets);
          const text = await client.rest();
          assert.match(text, /^220 mx\.test ESMTP Postledger\r\n(?:[2345]\d\d[ -][ -~]*\r\n)*$/);
          client.close();
        }),
        { numRuns: 300 },
      );
      assert.deepEqual(fixture.log.lines, []);
      const client = await fixture.ready();
      await client.command("DATA");
      assert.match(await client.command("A: b\r\n."), /^250 /);
      assert.equal(fixture.bodies.unfinished, 0);
    }));
});

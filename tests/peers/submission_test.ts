/**
 * Clients of others submit to the server: swaks and Python's smtplib, in the clear and over STARTTLS.
 */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { type Sink, startSink } from "../load/sink.ts";
import { dataOf, historyOf } from "./history.ts";
import { everythingTo, Server } from "./serve.ts";
import { submitWithPython, submitWithSwaks } from "./submit.ts";
import { until } from "./wait.ts";

describe("submission by clients of others", () => {
  let sink: Sink;
  let server: Server;
  before(async () => {
    sink = startSink();
    server = await Server.prepare({ routing: everythingTo(sink.port), tls: true });
    await server.start();
  });
  after(async () => {
    await server?.remove();
    await sink?.close();
  });

  for (const tls of [false, true]) {
    const how = tls ? "over STARTTLS" : "in the clear";

    it(`swaks submits ${how}`, async () => {
      const before = sink.total();
      const to = `swaks-${tls}@example.net`;
      const transcript = await submitWithSwaks({
        port: server.smtpPort,
        from: "sender@example.org",
        to,
        subject: "swaks",
        tls,
      });
      assert.match(transcript, tls ? /<~\s+250 2\.\d\.\d/ : /<-\s+250 2\.\d\.\d/);
      await until("the message at the sink", 15_000, () => sink.total() > before);
      const events = await historyOf(server, to, "Delivered");
      const { source } = dataOf(events, "Enqueued") as {
        source: { helo?: string; tls?: { protocol: string } };
      };
      assert.equal(source.helo, "swaks.example");
      assert.equal(source.tls !== undefined, tls);
    });

    it(`Python's smtplib submits ${how}`, async () => {
      const before = sink.total();
      const sent = await submitWithPython({
        port: server.smtpPort,
        from: "sender@example.org",
        to: `python-${tls}@example.net`,
        subject: "python",
        tls,
      });
      assert.deepEqual(sent.refused, {});
      if (tls) assert.match(sent.tls ?? "", /^TLSv1\.[23]$/);
      else assert.equal(sent.tls, null);
      for (const extension of ["8bitmime", "chunking", "dsn", "pipelining", "size", "smtputf8"]) {
        assert.ok(sent.extensions.includes(extension), `${extension} is not announced`);
      }
      assert.equal(sent.extensions.includes("starttls"), !tls);
      await until("the message at the sink", 15_000, () => sink.total() > before);
    });
  }

  it("ends with exit code 0 on SIGTERM", async () => {
    const exit = await server.stop();
    assert.deepEqual(exit, { code: 0, signal: null });
  });
});

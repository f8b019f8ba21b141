import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { MAX_RECIPIENTS } from "../../actors/due_reports.ts";
import { REPORT_WINDOW } from "../../actors/reports.ts";
import type { StoredEventOf } from "../../events/catalogue.ts";
import { delivered, QueueHarness, refused } from "./queue_harness.ts";

describe("reports that are due", () => {
  let queue: QueueHarness;
  beforeEach(async () => {
    queue = await QueueHarness.create();
    queue.script = () => Promise.resolve(refused(true, "no such user"));
    await queue.supervisor.start();
  });
  afterEach(async () => await queue.remove());

  async function submit(...recipients: string[]): Promise<string[]> {
    const writer = queue.opened.bodies.create();
    await writer.write(new TextEncoder().encode("Subject: x\r\n\r\nhi\r\n"));
    const taken = await queue.submitter.submit({
      id: queue.submitter.newSubmissionId(),
      account: null,
      mailFrom: "alice@example.com",
      recipients: recipients.map((rcptTo) => ({
        rcptTo,
        dsn: { notify: ["SUCCESS" as const, "FAILURE" as const] },
      })),
      body: await writer.finish(),
      messageId: "<1@example.com>",
      has8bit: false,
      smtputf8: false,
      requireTLS: false,
      source: { kind: "smtp" },
    });
    return taken.map(({ stream }) => stream);
  }

  const rowOf = async (stream: string) => (await queue.opened.view.get(stream))!;

  async function notes(stream: string): Promise<StoredEventOf<"DSNSent">[]> {
    return (await queue.events(stream)).filter((event) => event.type === "DSNSent");
  }

  const untilReported = (streams: readonly string[]) =>
    queue.until(async () => {
      const rows = await Promise.all(streams.map(rowOf));
      return rows.every(({ finished, report_due }) => finished !== null && report_due === null);
    }, "everything is reported");

  const untilDue = (streams: readonly string[]) =>
    queue.until(async () => {
      const rows = await Promise.all(streams.map(rowOf));
      return rows.every(({ report_due }) => report_due !== null);
    }, "every report is due");

  it("are sent as one when the window ends, and the body is kept until then", async () => {
    const streams = await submit("a@example.net", "b@example.net", "c@example.org");
    await untilDue(streams);
    const [first] = streams;
    const { body } = await rowOf(first!);
    assert.ok(body);
    assert.deepEqual(await notes(first!), []);
    await queue.clock.advance(REPORT_WINDOW + 1);
    await untilReported(streams);
    const told = (await Promise.all(streams.map(notes))).flat().map(({ data }) => data);
    assert.equal(told.length, 3);
    assert.equal(new Set(told.map(({ dsn }) => dsn)).size, 1, "one report for all");
    assert.deepEqual(told.map(({ kind }) => kind), ["failed", "failed", "failed"]);
    const report = await rowOf(told[0]!.dsn!);
    assert.deepEqual([report.sender, report.recipient], ["", "alice@example.com"]);
    assert.equal((await rowOf(first!)).body, null);
    await assert.rejects(queue.opened.bodies.open(body));
  });

  it("tell of success and failure in one", async () => {
    queue.script = ({ message }) =>
      Promise.resolve(message.rcptTo.startsWith("a") ? delivered : refused(true));
    const streams = await submit("a@example.net", "b@example.net");
    await untilDue(streams);
    await queue.clock.advance(REPORT_WINDOW + 1);
    await untilReported(streams);
    const [one, other] = (await Promise.all(streams.map(notes))).flat().map(({ data }) => data);
    assert.deepEqual([one?.kind, other?.kind], ["relayed", "failed"]);
    assert.equal(one?.dsn, other?.dsn);
  });

  it("are not thought of again by a host that reports itself", async () => {
    queue.script = () => Promise.resolve({ ...delivered, dsnOffered: true } as typeof delivered);
    const streams = await submit("a@example.net", "b@example.net");
    await untilReported(streams);
    for (const [note] of await Promise.all(streams.map(notes))) {
      assert.match(note?.data.notSent ?? "", /offers DSN, and reports from there on/);
    }
  });

  it("outlive the process", async () => {
    const streams = await submit("a@example.net", "b@example.net");
    await untilDue(streams);
    await queue.supervisor.stop(0);
    await queue.opened.close();
    await queue.open();
    await queue.supervisor.start();
    await queue.clock.advance(REPORT_WINDOW + 1);
    await untilReported(streams);
    const told = (await Promise.all(streams.map(notes))).flat().map(({ data }) => data.dsn);
    assert.equal(told.length, 2);
    assert.equal(new Set(told).size, 1);
  });

  it("of a message with one recipient is in the append that concludes it", async () => {
    const [stream] = await submit("a@example.net");
    await queue.untilState(stream!, "failed");
    const events = await queue.events(stream!);
    assert.deepEqual(events.slice(-2).map(({ type }) => type), ["Failed", "DSNSent"]);
    assert.equal(events.at(-1)?.time, events.at(-2)?.time);
  });

  it("that cannot be made hold up no others, however many they are", async () => {
    queue.composing = ([{ message }]) => {
      if (message.rcptTo.endsWith("@example.org")) throw new TypeError("a fault of our own");
    };
    const many = Array.from({ length: MAX_RECIPIENTS + 2 }, (_, n) => `${n}@example.org`);
    const [bad, good] = [await submit(...many), await submit("a@example.net", "b@example.net")];
    await untilDue([...bad, ...good]);
    await queue.clock.advance(REPORT_WINDOW + 1);
    await untilReported(good);
    const lines = () => queue.log.lines.filter((line) => line.includes("it stays due"));
    await queue.until(() => bad.every((stream) => lines().some((line) => line.includes(stream))));
    assert.deepEqual((await Promise.all(bad.map(notes))).flat(), []);
  });

  for (
    const [end, outcome] of [
      ["failed", refused(true, "no such user")],
      ["delivered", delivered],
    ] as const
  ) {
    it(`that cannot be made leave it true that a message was ${end}, and are made later`, async () => {
      let fault = true;
      queue.composing = () => {
        if (fault) throw new TypeError("a fault of our own");
      };
      queue.script = () => Promise.resolve(outcome);
      const [stream] = await submit("a@example.net");
      await queue.untilState(stream!, end);
      assert.notEqual((await rowOf(stream!)).report_due, null);
      fault = false;
      await queue.clock.advance(2 * 3_600_000);
      await untilReported([stream!]);
      assert.equal((await notes(stream!)).length, 1);
      assert.equal(queue.jobs.filter((job) => job.stream === stream).length, 1);
    });
  }

  it("that cannot be made keep no message whose time is over in the queue", async () => {
    queue.composing = () => {
      throw new TypeError("a fault of our own");
    };
    const [stream] = await queue.submitTo(["a@example.net"], "alice@example.com", {
      due: queue.clock.now() + 3_600_000,
      expires: queue.clock.now() + 60_000,
    });
    await queue.clock.advance(61_000);
    await queue.untilState(stream!, "failed");
    assert.notEqual((await rowOf(stream!)).report_due, null);
  });

  it("wait for a disk that takes them", async () => {
    const streams = await submit("a@example.net", "b@example.net");
    await untilDue(streams);
    queue.diskFull = true;
    await queue.clock.advance(REPORT_WINDOW + 1);
    await queue.until(() => queue.log.lines.some((line) => line.includes("does not take writes")));
    assert.deepEqual((await Promise.all(streams.map(notes))).flat(), []);
    queue.diskFull = false;
    await queue.clock.advance(1_000);
    await untilReported(streams);
    assert.equal((await Promise.all(streams.map(notes))).flat().length, 2);
  });
});

/** Reports on delays: one for all recipients of a submission, while their messages live on. */
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import type { StoredEventOf } from "../../events/catalogue.ts";
import { DELAY_WINDOW } from "../../actors/reports.ts";
import { chosen, MINUTE, policy } from "./given.ts";
import { delivered, QueueHarness, refused } from "./queue_harness.ts";

const HOUR = 60 * MINUTE;
const THREE = ["a@example.net", "b@example.net", "c@example.org"];

describe("reports on delays", () => {
  let queue: QueueHarness;
  beforeEach(async () => {
    queue = await QueueHarness.create();
    queue.retry = () => ({ ...policy, waits: [HOUR], delayNoticeAfter: 1 });
    queue.script = () => Promise.resolve(refused(false, "greylisted"));
    await queue.supervisor.start();
  });
  afterEach(async () => await queue.remove());

  const rowOf = async (stream: string) => (await queue.opened.view.get(stream))!;

  /** What the sender was told of a message, and of those it was told with. */
  const told = async (stream: string): Promise<StoredEventOf<"DSNSent">["data"][]> =>
    (await queue.events(stream)).flatMap((event) => event.type === "DSNSent" ? [event.data] : []);

  const about = () =>
    queue.reports.map((report) =>
      report.map(({ kind, message }) => `${kind} ${message.rcptTo}`).sort()
    );

  async function delayed(recipients: readonly string[]): Promise<string[]> {
    const streams = await queue.submitTo(recipients);
    await untilNoted(streams);
    return streams;
  }

  async function kick(stream: string): Promise<void> {
    const due = queue.clock.now();
    await queue.supervisor.act(stream, { type: "Reschedule", who: "op", why: "it is back", due });
    await queue.clock.advance(1_000);
  }

  const untilNoted = (streams: readonly string[]) =>
    queue.until(async () => {
      const rows = await Promise.all(streams.map(rowOf));
      return rows.every(({ state, report_due }) => state === "queued" && report_due !== null);
    }, "every delay is noted");

  const untilTold = (streams: readonly string[]) =>
    queue.until(async () => {
      const rows = await Promise.all(streams.map(rowOf));
      return rows.every(({ delay_reported }) => delay_reported === 1);
    }, "every delay is told of");

  it("are sent as one when the window ends, and the messages live on", async () => {
    const streams = await delayed(THREE);
    assert.deepEqual(queue.reports, []);
    await queue.clock.advance(DELAY_WINDOW + 1);
    await untilTold(streams);
    assert.deepEqual(about(), [THREE.map((rcptTo) => `delayed ${rcptTo}`)]);
    const dsn = new Set((await Promise.all(streams.map(told))).flat().map(({ dsn }) => dsn));
    assert.equal(dsn.size, 1);
    const report = await rowOf([...dsn][0]!);
    assert.deepEqual([report.sender, report.recipient], ["", "alice@example.com"]);
    assert.ok((await rowOf(streams[0]!)).body, "the content is still needed");
    queue.script = () => Promise.resolve(delivered);
    await queue.clock.advance(HOUR);
    for (const stream of streams) await queue.untilState(stream, "delivered");
    assert.deepEqual(await queue.types(streams[0]!), [
      "Enqueued",
      "AttemptStarted",
      "TransportChosen",
      "Failed",
      "DSNPostponed",
      "DSNSent",
      "AttemptStarted",
      "TransportChosen",
      "Delivered",
    ]);
    assert.equal(queue.reports.length, 1);
  });

  it("of a message with one recipient is in the append that notes the failure", async () => {
    const stream = await queue.submit();
    await untilTold([stream]);
    const events = (await queue.events(stream)).slice(-2);
    assert.deepEqual(events.map(({ type }) => type), ["Failed", "DSNSent"]);
    assert.equal(events[0]?.time, events[1]?.time);
  });

  it("leave out a message whose history cannot be followed, which is held", async () => {
    const [a, b] = await delayed(["a@example.net", "b@example.net"]);
    const { store } = queue.opened;
    const expectedVersion = await store.version(b!);
    await store.append([{ stream: b!, expectedVersion, facts: [chosen] }]);
    await queue.clock.advance(DELAY_WINDOW + 1);
    await untilTold([a!]);
    await queue.untilState(b!, "held");
    assert.deepEqual(about(), [["delayed a@example.net"]]);
  });

  it("stand in no report on failures", async () => {
    queue.script = ({ message }) => Promise.resolve(refused(message.rcptTo.startsWith("a")));
    const [a, b, c] = await queue.submitTo(THREE);
    await untilNoted([b!, c!]);
    await queue.untilState(a!, "failed");
    await queue.clock.advance(DELAY_WINDOW + 1);
    await untilTold([b!, c!]);
    assert.deepEqual(about(), [
      ["failed a@example.net"],
      ["delayed b@example.net", "delayed c@example.org"],
    ]);
  });

  it("are sent as NOTIFY asks, and the log says why not", async () => {
    const recipients = [
      { rcptTo: "a@example.net", dsn: { notify: ["FAILURE" as const] } },
      { rcptTo: "b@example.net", dsn: { notify: ["DELAY" as const] } },
      { rcptTo: "c@example.net", dsn: {} },
    ];
    const [a, b, c] = await queue.submitTo([], "alice@example.com", { recipients });
    await untilNoted([b!, c!]);
    await queue.clock.advance(DELAY_WINDOW + 1);
    await untilTold([a!, b!, c!]);
    assert.deepEqual(about(), [["delayed b@example.net", "delayed c@example.net"]]);
    assert.deepEqual(await told(a!), [
      { kind: "delayed", notSent: "the sender asked for NOTIFY=FAILURE" },
    ]);
  });

  it("outlive the process", async () => {
    const streams = await delayed(THREE);
    await queue.supervisor.stop(0);
    await queue.opened.close();
    await queue.open();
    await queue.supervisor.start();
    await queue.clock.advance(DELAY_WINDOW + 1);
    await untilTold(streams);
    assert.equal(about().length, 1);
  });

  it("are not sent of what is delivered before, or gives up", async () => {
    const streams = await delayed(THREE);
    queue.script = ({ message }) =>
      Promise.resolve(message.rcptTo.startsWith("a") ? delivered : refused(true, "no such user"));
    for (const stream of streams.slice(0, 2)) await kick(stream);
    await queue.untilState(streams[0]!, "delivered");
    await queue.untilState(streams[1]!, "failed");
    await queue.clock.advance(DELAY_WINDOW + 1);
    await untilTold(streams.slice(2));
    assert.deepEqual(about(), [["failed b@example.net"], ["delayed c@example.org"]]);
    assert.deepEqual(await told(streams[0]!), []);
  });

  it("are not sent of what is held or cancelled; after a release, the next failure tells", async () => {
    const streams = await delayed(THREE);
    const act = { who: "op", why: "maintenance" };
    await queue.supervisor.act(streams[0]!, { type: "Hold", ...act });
    await queue.supervisor.act(streams[1]!, { type: "Cancel", ...act });
    await queue.clock.advance(DELAY_WINDOW + 1);
    await untilTold(streams.slice(2));
    assert.deepEqual(about(), [["delayed c@example.org"]]);
    await queue.supervisor.act(streams[0]!, { type: "Release", ...act, now: queue.clock.now() });
    await queue.clock.advance(1_000);
    await untilNoted(streams.slice(0, 1));
    await queue.clock.advance(DELAY_WINDOW + 1);
    await untilTold(streams.slice(0, 1));
    assert.deepEqual(about().slice(1), [["delayed a@example.net"]]);
    assert.deepEqual(await told(streams[1]!), []);
  });

  it("are taken back by an attempt, and noted anew when that fails", async () => {
    const streams = await delayed(THREE);
    await queue.clock.advance(DELAY_WINDOW / 2);
    await kick(streams[0]!);
    await queue.until(async () => (await rowOf(streams[0]!)).attempts === 2);
    await untilNoted(streams);
    await queue.clock.advance(DELAY_WINDOW / 2 + 1);
    await untilTold(streams);
    assert.deepEqual(about(), [THREE.map((rcptTo) => `delayed ${rcptTo}`)], "the first due counts");
  });

  it("are never sent while an attempt is under way", async () => {
    const streams = await delayed(THREE);
    let end = () => {};
    queue.script = ({ message }) =>
      message.mailFrom === ""
        ? Promise.resolve(delivered)
        : new Promise((resolve) => end = () => resolve(refused(false, "still greylisted")));
    await kick(streams[0]!);
    await queue.untilState(streams[0]!, "attempting");
    await queue.clock.advance(DELAY_WINDOW + 1);
    await untilTold(streams.slice(1));
    assert.deepEqual(await told(streams[0]!), []);
    end();
    await untilNoted(streams.slice(0, 1));
    await queue.clock.advance(DELAY_WINDOW + 1);
    await untilTold(streams.slice(0, 1));
    const [, report] = queue.reports;
    assert.ok(report?.length === 1 && report[0].kind === "delayed");
    assert.deepEqual([report[0].attempt, report[0].failure.reason], [2, "still greylisted"]);
  });

  it("are sent as one of messages that wait for a destination that is down", async () => {
    queue.retry = () => policy;
    const down = { kind: "failed", permanent: false, result: "timeout", reason: "-" } as const;
    queue.script = ({ message }) => Promise.resolve(message.mailFrom === "" ? delivered : down);
    for (let n = 0; n < 20; n++) await queue.submit("bob@dead.example", "other@example.com");
    await queue.until(() => queue.supervisor.running === 0);
    const streams = await queue.submitTo(["a@dead.example", "b@dead.example", "c@dead.example"]);
    for (let hour = 0; hour < 5; hour++) await queue.clock.advance(HOUR);
    await untilTold(streams);
    const alice = queue.reports.filter(([{ message }]) => message.mailFrom === "alice@example.com");
    assert.equal(alice.length, 1);
    assert.deepEqual(alice[0]?.map(({ kind }) => kind), ["delayed", "delayed", "delayed"]);
    const waits = streams.find((stream) => !queue.jobs.some((job) => job.stream === stream));
    assert.ok(waits, "some were never tried");
    assert.deepEqual(await queue.types(waits), ["Enqueued", "DSNPostponed", "DSNSent"]);
    const [, noted] = await queue.events(waits);
    assert.match(noted?.type === "DSNPostponed" && noted.data.why || "", /destination is down: -/);
  });

  it("say when a message that waits for its destination was last tried", async () => {
    queue.retry = () => policy;
    const down = { kind: "failed", permanent: false, result: "timeout", reason: "-" } as const;
    queue.script = ({ message }) => Promise.resolve(message.mailFrom === "" ? delivered : down);
    for (let n = 0; n < 10; n++) await queue.submit("bob@dead.example");
    for (let hour = 0; hour < 5; hour++) await queue.clock.advance(HOUR);
    const tried = queue.reports.map(([one]) => one).filter(({ attempt }) => attempt > 0);
    assert.ok(tried.length > 0);
    for (const { stream, attempt, at } of tried) {
      const start = (await queue.events(stream)).find(({ type, data }) =>
        type === "AttemptStarted" && data.attempt === attempt
      );
      assert.equal(Date.parse(start?.time ?? ""), at);
    }
  });
});

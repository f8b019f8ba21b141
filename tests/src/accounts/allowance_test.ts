/** Limits per hour and day: in virtual time, over restarts, and against the real queue view. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "@std/testing/bdd";
import { Allowance, BUCKET, type BucketUse } from "../../../src/accounts/allowance.ts";
import { QueueSubmitter } from "../../../actors/submitter.ts";
import { type OpenStore, openStore } from "../../../events/open.ts";
import { ulids } from "../../../src/system.ts";
import { ManualClock } from "../../actors/manual_clock.ts";

const HOUR = 3_600_000;
const START = Date.parse("2026-03-01T10:00:00Z");
const limits = {
  messagesPerHour: 3,
  messagesPerDay: 5,
  recipientsPerHour: 10,
  recipientsPerDay: 12,
};

const over = (clock: ManualClock, used: readonly BucketUse[] = []) =>
  new Allowance(clock, () => Promise.resolve([...used]));

async function take(allowance: Allowance, recipients = 1): Promise<string> {
  const taken = await allowance.take("alice", limits, recipients);
  return "giveBack" in taken ? "taken" : `${taken.limit} ${taken.what} per ${taken.per}`;
}

describe("Allowance", () => {
  it("has room for so many messages an hour, and again an hour later", async () => {
    const clock = new ManualClock(START);
    const allowance = over(clock);
    for (let i = 0; i < 3; i++) assert.equal(await take(allowance), "taken");
    assert.equal(await take(allowance), "3 messages per hour");
    await clock.advance(HOUR - 1);
    assert.equal(await take(allowance), "3 messages per hour");
    await clock.advance(BUCKET + 1);
    assert.equal(await take(allowance), "taken");
    assert.equal(await take(allowance), "taken");
    assert.equal(await take(allowance), "5 messages per day");
    await clock.advance(24 * HOUR + BUCKET);
    assert.equal(await take(allowance), "taken");
  });

  it("counts recipients, and takes no message that would go beyond", async () => {
    const allowance = over(new ManualClock(START));
    assert.deepEqual(await allowance.check("alice", limits, 11), {
      what: "recipients",
      per: "hour",
      limit: 10,
    });
    assert.equal(await take(allowance, 8), "taken");
    assert.equal(await take(allowance, 3), "10 recipients per hour");
    assert.equal(await allowance.check("alice", limits, 2), undefined);
    assert.equal(await allowance.check("bob", limits, 10), undefined, "accounts count apart");
  });

  it("gives back what was not taken in the end", async () => {
    const allowance = over(new ManualClock(START));
    for (let i = 0; i < 5; i++) {
      const taken = await allowance.take("alice", limits, 10);
      assert("giveBack" in taken);
      taken.giveBack();
    }
    assert.equal(await take(allowance, 10), "taken");
  });

  it("asks again when the queue could not be read", async () => {
    let fail = true;
    const allowance = new Allowance(
      new ManualClock(START),
      () => fail ? Promise.reject(new Error("no disk")) : Promise.resolve([]),
    );
    await assert.rejects(take(allowance), /no disk/);
    fail = false;
    assert.equal(await take(allowance), "taken");
  });
});

describe("Allowance over a restart", () => {
  let folder: string;
  let opened: OpenStore;
  const clock = new ManualClock(START);
  let draw = 0.1;
  const ids = ulids(clock, { next: () => (draw = (draw + 0.37) % 1) });

  before(async () => {
    folder = await Deno.makeTempDir();
    opened = await openStore({ dataDir: folder, clock });
  });
  after(async () => {
    await opened.close();
    await Deno.remove(folder, { recursive: true });
  });

  async function submit(account: string | null, recipients: number): Promise<void> {
    const writer = opened.bodies.create();
    await writer.write(new TextEncoder().encode("Subject: x\r\n\r\n"));
    const submitter = new QueueSubmitter({ clock, ids, store: opened.store });
    await submitter.submit({
      id: submitter.newSubmissionId(),
      account,
      mailFrom: "alice@example.com",
      recipients: Array.from({ length: recipients }, (_, n) => ({
        rcptTo: `${n}@example.org`,
        dsn: {},
      })),
      body: await writer.finish(),
      messageId: null,
      has8bit: false,
      smtputf8: false,
      requireTLS: false,
      source: { kind: "smtp" },
    });
  }

  it("is counted from the queue: what was submitted within the day, and by whom", async () => {
    await submit("alice", 9); // will be older than a day
    clock.wall += 25 * HOUR;
    await submit("alice", 2);
    await submit("alice", 3);
    await submit("bob", 1);
    await submit(null, 5);
    clock.wall += 2 * BUCKET;
    await submit("alice", 4);
    const since = clock.now() - 24 * HOUR;
    const first = Math.floor((clock.now() - 2 * BUCKET) / BUCKET) * BUCKET;
    assert.deepEqual(
      (await opened.view.submitted("alice", since, BUCKET)).map((row) => ({ ...row })),
      [
        { at: first, messages: 2, recipients: 5 },
        { at: first + 2 * BUCKET, messages: 1, recipients: 4 },
      ],
    );
    const allowance = new Allowance(clock, (...of) => opened.view.submitted(...of));
    assert.equal(await take(allowance), "3 messages per hour");
    assert.deepEqual(
      await allowance.check("alice", { ...limits, messagesPerHour: 100 }, 2),
      { what: "recipients", per: "hour", limit: 10 },
    );
    assert.equal(await allowance.check("carl", limits, 10), undefined);
  });
});

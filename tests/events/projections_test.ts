import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import fc from "fast-check";
import type { Fact } from "../../events/catalogue.ts";
import type { Projection, Row } from "../../events/projection.ts";
import { queueProjection, type QueueRow } from "../../events/projections/queue.ts";
import { SCHEDULE, WAITING } from "../../events/sqlite_queue_view.ts";
import {
  cancelled,
  delivered,
  enqueued,
  failed,
  type Given,
  givenStore,
  smallBody,
  START,
  started,
} from "./given.ts";

const act = { who: "operator", why: "test" };
const due = (minutes: number) => new Date(START + minutes * 60_000).toISOString();

const postponed = (minutes: number): Fact => ({
  type: "DSNPostponed",
  data: { kind: "delayed", due: due(minutes), until: due(60) },
});
const delayTold: Fact = { type: "DSNSent", data: { kind: "delayed", dsn: "01DSN" } };

/** Facts that may follow an Enqueued, in an order that a queue could have written. */
const life: fc.Arbitrary<Fact[]> = fc.array(
  fc.oneof(
    fc.nat(3).map((n): Fact[] => [started(n + 1), failed(false, `try ${n}`)]),
    fc.constantFrom<Fact[]>([postponed(1)], [postponed(2), delayTold]),
    fc.constant<Fact[]>([{ type: "Held", data: act }]),
    fc.nat(60).map((n): Fact[] => [{ type: "Released", data: { ...act, due: due(n) } }]),
    fc.nat(60).map((n): Fact[] => [{ type: "Rescheduled", data: { ...act, due: due(n) } }]),
    fc.constantFrom("a", null).map((transport): Fact[] => [
      { type: "TransportAssigned", data: { ...act, transport } },
    ]),
  ),
  { maxLength: 4 },
).chain((acts) =>
  fc.constantFrom<Fact[]>([], [started(9)], [started(9), delivered], [started(9), failed(true)], [
    cancelled,
  ]).map((end) => [...acts.flat(), ...end])
);

/** The projection in another version, as a later program would bring it. */
const newer: Projection<Row> = {
  ...queueProjection as unknown as Projection<Row>,
  version: queueProjection.version + 1,
};

describe("the queue projection in the store", () => {
  let given: Given;
  beforeEach(async () => {
    given = await givenStore();
  });
  afterEach(() => given.end());

  const everything = async () => ({
    rows: await given.view.list({}, { limit: 1000 }),
    depth: await given.view.depth(),
    uses: uses(given.dataDir),
  });

  it("comes back equal when it is dropped and folded again", async () => {
    let n = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(life, { maxLength: 6 }), async (lives) => {
        await Promise.all(lives.map(async (facts) => {
          const stream = `m${String(n++).padStart(6, "0")}`;
          const body = smallBody(`body ${n % 5}`);
          const first = enqueued({ body: body.sha256, rcptTo: `r@d${n % 3}.example` });
          await given.store.append([{ stream, expectedVersion: 0, facts: [first] }], [body]);
          let version = 1;
          for (const fact of facts) {
            await given.store.append([{ stream, expectedVersion: version++, facts: [fact] }]);
          }
        }));
        const kept = await everything();
        given = await given.reopen({ projections: [newer] });
        assert.deepEqual(await everything(), kept);
        given = await given.reopen({ projections: undefined });
        assert.deepEqual(await everything(), kept);
      }),
      { numRuns: 8 },
    );
  });

  it("goes on where a rebuild was cut short", async () => {
    for (let i = 0; i < 5; i++) {
      await given.store.append([{ stream: `m${i}`, expectedVersion: 0, facts: [enqueued()] }]);
    }
    const kept = await everything();
    await given.store.close();
    const db = new DatabaseSync(`${given.dataDir}/postledger.db`);
    db.exec(`UPDATE projections SET position = 3; DELETE FROM queue WHERE stream > 'm2';
             UPDATE counts SET n = 3`);
    db.close();
    given = await given.reopen();
    assert.deepEqual(await everything(), kept);
  });

  it("leaves out an event that cannot be read, says so, and folds the others", async () => {
    await given.store.append([{ stream: "m1", expectedVersion: 0, facts: [enqueued()] }]);
    await given.store.append([{ stream: "m2", expectedVersion: 0, facts: [enqueued()] }]);
    await given.store.close();
    const db = new DatabaseSync(`${given.dataDir}/postledger.db`);
    db.exec(`DROP TRIGGER events_are_not_changed;
             UPDATE events SET type = 'Sung' WHERE stream = 'm1'`);
    db.close();
    const broken: string[] = [];
    given = await given.reopen({
      projections: [newer],
      onUnreadable: ({ stream, version }) => broken.push(`${stream} ${version}`),
    });
    assert.deepEqual(broken, ["m1 1"]);
    assert.deepEqual((await given.view.list({}, { limit: 9 })).map((r) => r.stream), ["m2"]);
  });
});

describe("the queue's views", () => {
  let given: Given;
  beforeEach(async () => {
    given = await givenStore();
    const message = async (stream: string, data: Parameters<typeof enqueued>[0], more: Fact[]) => {
      await given.store.append([
        { stream, expectedVersion: 0, facts: [enqueued(data), ...more] },
      ]);
      await given.clock.advance(1000);
    };
    await message("m1", { rcptTo: "a@one.example", size: 30, due: due(5) }, []);
    await message("m2", { rcptTo: "B@Two.example", size: 10, due: due(1), account: "ann" }, []);
    await message("m3", { rcptTo: "c@two.example", size: 20 }, [started(1)]);
    await message("m4", { rcptTo: "d@one.example" }, [started(1), failed(true, "No such user")]);
    await message("m5", { rcptTo: "e@one.example", mailFrom: "" }, [started(1), delivered]);
    await message("m6", { due: due(1) }, [{ type: "Held", data: act }]);
  });
  afterEach(() => given.end());

  const streams = (rows: readonly QueueRow[]) => rows.map(({ stream }) => stream).join(" ");
  const list = async (filter: Parameters<Given["view"]["list"]>[0], page = {}) =>
    streams(await given.view.list(filter, { limit: 10, ...page }));

  it("says what is due, in order, from a cursor", async () => {
    const { view } = given;
    assert.equal(await view.nextDue(0), START + 60_000);
    assert.equal(await view.nextDue(START + 60_000), START + 300_000);
    assert.equal(await view.nextDue(START + 300_000), undefined);
    assert.equal(streams(await view.due(START, 10)), "");
    assert.equal(streams(await view.due(START + 600_000, 10)), "m2 m1");
    const [first] = await view.due(START + 600_000, 1);
    assert.ok(first);
    const cursor = { due: first.due!, stream: first.stream };
    assert.equal(streams(await view.due(START + 600_000, 10, cursor)), "m1");
    assert.equal(streams(await view.attempting(10)), "m3");
  });

  it("says whose wait ends by a deadline or by age, in order, from a cursor", async () => {
    const { view, store } = given;
    const message = (stream: string, data: Parameters<typeof enqueued>[0], more: Fact[] = []) =>
      store.append([{ stream, expectedVersion: 0, facts: [enqueued(data), ...more] }]);
    await message("n1", { expires: due(9) });
    await message("n2", { expires: due(8) }, [started(1)]);
    await message("n3", { expires: due(7) }, [{ type: "Held", data: act }]);
    await message("n4", { expires: due(6), due: due(60) });
    const later = START + 600_000;
    assert.equal(await view.nextWaiting("expires", 0), START + 6 * 60_000);
    assert.equal(await view.nextWaiting("expires", START + 9 * 60_000), undefined);
    assert.equal(streams(await view.waiting("expires", START + 9 * 60_000 - 1, 10)), "n4");
    assert.equal(streams(await view.waiting("expires", later, 10)), "n4 n1");
    const [first] = await view.waiting("expires", later, 1);
    const cursor = { at: first!.expires!, stream: first!.stream };
    assert.equal(streams(await view.waiting("expires", later, 10, cursor)), "n1");
    // A message that was to be held ages from then on, one that was released from its release.
    assert.equal(streams(await view.waiting("ages_from", later, 10)), "n1 m2 m1");
    const release = { type: "Released", data: { ...act, due: due(30) } } as const;
    await store.append([{ stream: "n3", expectedVersion: 2, facts: [release] }]);
    assert.equal(await view.nextWaiting("ages_from", later), START + 30 * 60_000);
    assert.equal(streams(await view.waiting("expires", later, 10)), "n4 n3 n1");
  });

  it("says which reports wait: those on a delay, until something else happens", async () => {
    const { view, store } = given;
    const noted = [started(1), failed(false), postponed(5)];
    const submission = "01S";
    const taken: Record<string, Fact[]> = {
      r1: [],
      r2: [delayTold],
      r3: [started(2)],
      r4: [{ type: "Held", data: act }],
      r5: [cancelled],
      r6: [{ type: "Rescheduled", data: { ...act, due: due(3) } }],
      r7: [failed(true)],
    };
    for (const [stream, more] of Object.entries(taken)) {
      const facts = [enqueued({ submission, recipients: 9 }), ...noted, ...more];
      await store.append([{ stream, expectedVersion: 0, facts }]);
    }
    const ended = [enqueued({ submission, recipients: 9 }), started(1), failed(true)].map((fact) =>
      fact.type === "Failed" ? { ...fact, data: { ...fact.data, reportDue: due(4) } } : fact
    );
    await store.append([{ stream: "r8", expectedVersion: 0, facts: ended }]);
    assert.equal(streams(await view.reports(10)), "r8 r1 r6");
    assert.equal(streams(await view.reportsOf(submission, "delay", 10)), "r1 r6");
    assert.equal(streams(await view.reportsOf(submission, "delay", 1)), "r1");
    assert.equal(streams(await view.reportsOf(submission, "end", 10)), "r8");
    const [told, waits] = [await view.get("r2"), await view.get("r1")];
    assert.deepEqual([told?.delay_reported, waits?.delay_reported], [1, 0]);
    assert.ok(told?.body && waits?.body, "a message that lives on needs its content");
  });

  it("filters by every criterion", async () => {
    assert.equal(await list({}), "m1 m2 m3 m4 m5 m6");
    assert.equal(await list({ ids: ["m5", "m1", "none"] }), "m1 m5");
    assert.equal(await list({ from: "" }), "m5");
    assert.equal(await list({ to: "b@two.EXAMPLE" }), "m2");
    assert.equal(await list({ toDomain: "TWO.example" }), "m2 m3");
    assert.equal(await list({ account: "ann" }), "m2");
    assert.equal(await list({ state: "failed" }), "m4");
    assert.equal(await list({ error: "no SUCH" }), "m4");
    assert.equal(await list({ pending: true }), "m1 m2 m3 m6");
    assert.equal(await list({ before: START + 2000 }), "m1 m2");
    assert.equal(await list({ toDomain: "one.example", state: "queued" }), "m1");
    assert.equal(await given.view.count({ toDomain: "one.example" }), 3);
    assert.equal(await list({ error: "' OR 1=1 --" }), "");
  });

  it("sorts and pages", async () => {
    assert.equal(await list({}, { descending: true, limit: 2 }), "m6 m5");
    assert.equal(await list({}, { offset: 4 }), "m5 m6");
    assert.equal(await list({ ids: ["m1", "m2", "m3"] }, { sort: "size" }), "m2 m3 m1");
    assert.equal(await list({}, { sort: "due", limit: 2 }), "m2 m1");
    assert.equal(await list({ state: "queued" }, { sort: "due", descending: true }), "m1 m2");
  });

  it("keeps the depth", async () => {
    assert.deepEqual(await given.view.depth(), {
      queued: 2,
      attempting: 1,
      held: 1,
      delivered: 1,
      failed: 1,
      cancelled: 0,
    });
  });

  it("answers what schedules attempts from an index", () => {
    const db = new DatabaseSync(`${given.dataDir}/postledger.db`, { readOnly: true });
    const plan = (sql: string) =>
      db.prepare(`EXPLAIN QUERY PLAN ${sql}`).all().map((row) => row["detail"]).join("; ");
    for (
      const [sql, index] of [
        [`SELECT * FROM ${SCHEDULE} AND due <= 1 ORDER BY due, stream`, "due"],
        [
          `SELECT * FROM ${SCHEDULE} AND due <= 9 AND (due, stream) > (1, 'a') ORDER BY due, stream`,
          "due",
        ],
        [`SELECT min(due) FROM ${SCHEDULE} AND due > 1`, "due"],
        ...(["expires", "ages_from"] as const).flatMap((by) => [
          [`SELECT * FROM ${WAITING[by]} AND ${by} <= 9 ORDER BY ${by}, stream`, by],
          [`SELECT min(${by}) FROM ${WAITING[by]} AND ${by} > 1`, by],
        ]),
        ["SELECT * FROM queue WHERE state = 'attempting' ORDER BY stream", "state"],
        ["SELECT * FROM queue WHERE finished IS NULL ORDER BY stream", "pending"],
        ["SELECT * FROM queue WHERE domain = 'a' ORDER BY stream", "domain"],
        ["SELECT * FROM queue WHERE lower(sender) = lower('a') ORDER BY stream", "sender"],
        ["SELECT * FROM queue WHERE lower(recipient) = lower('a') ORDER BY stream", "recipient"],
        ["SELECT * FROM queue WHERE account = 'a' ORDER BY stream", "account"],
      ]
    ) {
      assert.match(plan(sql!), new RegExp(`INDEX queue_${index}\\b`));
      assert.doesNotMatch(plan(sql!), /TEMP B-TREE/);
    }
    db.close();
  });
});

/** How many rows need each body, as the store keeps it. */
function uses(dataDir: string): unknown[] {
  const db = new DatabaseSync(`${dataDir}/postledger.db`, { readOnly: true });
  try {
    return db.prepare("SELECT sha256, uses FROM bodies ORDER BY 1").all();
  } finally {
    db.close();
  }
}

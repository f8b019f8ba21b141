import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { archiveFiles } from "../../events/archive.ts";
import { trail } from "../../events/audit/trail.ts";
import { verifyLog } from "../../events/audit/verify.ts";
import type { Fact, FactOf } from "../../events/catalogue.ts";
import { dayOf, dayStream, seriesOf } from "../../events/day_streams.ts";
import { examine } from "../../events/doctor.ts";
import type { DoctorFinding } from "../../events/doctor/finding.ts";
import { openReader } from "../../events/open.ts";
import { mtaStsProjection, policyStream } from "../../events/projections/mta_sts.ts";
import {
  suppressionId,
  suppressionProjection,
  suppressionStream,
} from "../../events/projections/suppression.ts";
import {
  reportId,
  reportStream,
  tlsReportsProjection,
} from "../../events/projections/tls_reports.ts";
import { webhooksProjection, webhookStream } from "../../events/projections/webhooks.ts";
import { delivered, enqueued, type Given, givenStore, started } from "./given.ts";

const DAY = 86_400_000;
const KEEP = 90 * DAY;
const A = "01KGA0000000000000000000A1";
const ADDRESS = "bob@example.net";

describe("the stream of a day", () => {
  const noon = Date.parse("2026-01-31T12:00:00Z");

  it("is named by it, behind what it is about", () => {
    const stream = dayStream("suppression", ADDRESS, noon);
    assert.equal(stream, "suppression bob@example.net 2026-01-31");
    assert.equal(dayOf(stream), Date.parse("2026-01-31T00:00:00Z"));
    assert.equal(seriesOf(stream), "suppression bob@example.net ");
  });

  it("does not come before what it follows, where the clock was set back", () => {
    const later = dayStream("suppression", ADDRESS, noon + DAY);
    assert.equal(dayStream("suppression", ADDRESS, noon, later), later);
  });
});

describe("retention of streams of days", () => {
  let given: Given;
  beforeEach(async () => {
    given = await givenStore();
  });
  afterEach(() => given.end());

  const append = async (stream: string, ...facts: Fact[]) => {
    const expectedVersion = await given.store.version(stream);
    return await given.store.append([{ stream, expectedVersion, facts }]);
  };
  const days = (n: number) => given.clock.advance(n * DAY);

  async function run(keep = KEEP) {
    let done = false;
    const over = () => void (done = true);
    const work = given.retention.run(keep, new AbortController().signal);
    work.then(over, over);
    while (!done) await given.clock.advance(1);
    return await work;
  }

  /** Two checkpoints behind what has happened, of which a start needs the last, and a long time. */
  async function later(ms = KEEP + 2 * DAY): Promise<void> {
    const paused = { who: "test", why: "a checkpoint" };
    for (const type of ["IntakePaused", "IntakeResumed"] as const) {
      await append("admission", { type, data: paused });
      await given.clock.advance(60_000);
    }
    await given.clock.advance(ms);
  }

  /** Names in the store of a kind, in order of the log. */
  async function left(kind: string): Promise<string[]> {
    const events = await given.store.readAll(0, 1_000);
    const streams = new Set(events.map(({ stream }) => stream));
    return [...streams].filter((name) => name.startsWith(`${kind} `));
  }

  /** Rows are what the events give that are left, the log verifies, and it opens again. */
  async function sound(): Promise<void> {
    const reader = openReader(given.dataDir);
    try {
      const verdict = await verifyLog(trail(reader.raw), await reader.publicKey(), reader.damaged);
      assert.deepEqual(verdict.findings, []);
    } finally {
      reader.close();
    }
    await given.close();
    const found: DoctorFinding[] = [];
    await examine(given.dataDir, {
      beginFold: () => () => {},
      others: { secret: [], open: [] },
      report: (finding) => void (finding.note || found.push(finding)),
    });
    // The messages of these tests have no content.
    assert.deepEqual(found.filter(({ kind }) => kind !== "space" && kind !== "body"), []);
    given = await given.reopen();
    assert.deepEqual(given.broken, []);
  }

  describe("of destinations", () => {
    it("lets all of them go after their day, into one file", async () => {
      const since = new Date(given.clock.now()).toISOString();
      for (const destination of ["b.example", "a.example"]) {
        const stream = () => dayStream("destination", destination, given.clock.now());
        await append(stream(), {
          type: "DestinationDown",
          data: { destination, since, until: since, why: "no answer" },
        });
        await days(1);
        await append(stream(), { type: "DestinationUp", data: { destination, since } });
      }
      await later();
      assert.deepEqual(await run(), { streams: 4, events: 4, files: 1 });
      assert.deepEqual(await left("destination"), []);
      const [file] = await archiveFiles(given.raw);
      assert.deepEqual([file?.first, file?.last], [
        "destination a.example 2026-02-01",
        "destination b.example 2026-02-01",
      ]);
      const name = "destination a.example 2026-02-01";
      assert.deepEqual((await given.raw.stream(name)).map(({ type }) => type), ["DestinationDown"]);
      await sound();
    });

    it("begins none anew that has left, where the clock was set back", async () => {
      const up = async () => {
        const since = new Date(given.clock.now()).toISOString();
        const data = { destination: "a.example", since };
        const stream = dayStream("destination", "a.example", given.store.dayTime());
        await append(stream, { type: "DestinationUp", data });
        return stream;
      };
      const first = await up();
      await later();
      assert.equal((await run()).streams, 1);
      await given.clock.advance(-KEEP - 2 * DAY);
      const again = await up();
      assert.ok(again > first, `${again} follows ${first}`);
      given = await given.reopen();
      assert.equal(await up(), again, "a start knows it, too");
      await sound();
    });

    it("keeps what is younger", async () => {
      const stream = dayStream("destination", "a.example", given.clock.now());
      await append(stream, {
        type: "DestinationUp",
        data: { destination: "a.example", since: new Date(given.clock.now()).toISOString() },
      });
      await later(KEEP);
      assert.equal((await run()).streams, 0);
      await days(1);
      assert.equal((await run()).streams, 1);
    });
  });

  describe("of suppressed addresses", () => {
    const by = { who: "ann", why: "asked us" };
    const row = (account: string | null = null) =>
      given.row(suppressionProjection, suppressionId(ADDRESS, account));
    const stream = (account: string | null) =>
      suppressionStream(ADDRESS, given.clock.now(), row(account));
    const add = (data: Partial<FactOf<"AddressSuppressed">["data"]> = {}) =>
      append(stream(data.account ?? null), {
        type: "AddressSuppressed",
        data: { ...by, address: ADDRESS, cause: "manual", ...data },
      });
    const lift = (data: Partial<FactOf<"SuppressionLifted">["data"]> = {}) =>
      append(stream(data.account ?? null), {
        type: "SuppressionLifted",
        data: { ...by, address: ADDRESS, ...data },
      });

    it("keeps what is in force, and lets go of what was before", async () => {
      await add();
      await days(1);
      await lift();
      await days(1);
      await add({ why: "again" });
      await later();
      assert.equal((await run()).streams, 2);
      assert.deepEqual(await left("suppression"), ["suppression bob@example.net 2026-02-02"]);
      await sound();
      assert.equal(row()?.why, "again");
    });

    it("keeps what came of a bounce, and that it was undone, as long as the message", async () => {
      await append(A, enqueued({ rcptTo: ADDRESS }), started(1));
      await add({ cause: "bounce", message: A });
      await days(1);
      await lift();
      await later();
      assert.equal((await run()).streams, 0, "a start would put it on the list again");
      await append(A, delivered);
      await later();
      assert.equal((await run()).streams, 1, "the message");
      assert.equal((await run()).streams, 2, "what came of it");
      await sound();
    });

    it("does not let go of a lift before what it lifts", async () => {
      await add();
      await add({ account: "shop" });
      await days(1);
      await lift({ account: "shop" });
      await later();
      assert.equal((await run()).streams, 0);
      await sound();
      assert.equal(row("shop"), undefined);
      assert.equal(row()?.why, "asked us");
    });

    it("lets go of an entry whose time has long been over, and of its row", async () => {
      await add({ expires: new Date(given.clock.now() + 100 * DAY).toISOString() });
      await later();
      assert.equal((await run()).streams, 0, "it ended not long enough ago");
      await days(100);
      assert.equal((await run()).streams, 1);
      assert.equal(row(), undefined);
      await sound();
    });
  });

  describe("of MTA-STS policies", () => {
    const DOMAIN = "example.org";
    const row = () => given.row(mtaStsProjection, DOMAIN);
    const put = (id: string, maxAge: number) =>
      append(policyStream(DOMAIN, given.clock.now(), row()), {
        type: "MtaStsPolicyStored",
        data: { domain: DOMAIN, id, mode: "enforce", mx: ["mx.example.org"], maxAge },
      });

    it("keeps the last, until it has long expired", async () => {
      await put("1", 604_800);
      await days(1);
      await put("2", 31_536_000);
      await later();
      assert.equal((await run()).streams, 1);
      assert.deepEqual(await left("mta-sts"), ["mta-sts example.org 2026-02-01"]);
      assert.equal(row()?.id, "2");
      await sound();
      await days(365);
      assert.equal((await run()).streams, 1);
      assert.equal(row(), undefined);
      await sound();
    });
  });

  describe("of TLS reports", () => {
    const DOMAIN = "example.org";
    const session: Fact = {
      type: "HostTried",
      data: {
        host: "mx.example.org",
        tlsMode: "required",
        verifiedBy: "mta-sts",
        result: "ok",
        phases: { connect: 1 },
        tlsReport: { domain: DOMAIN, results: [{ type: "sts", domain: DOMAIN, lines: [] }] },
      },
    };
    const day = "2026-01-31";
    const row = () => given.row(tlsReportsProjection, reportId(day, DOMAIN));
    const sent = () =>
      append(reportStream(DOMAIN, day), {
        type: "TLSReportSent",
        data: { domain: DOMAIN, day, to: [], notSent: "no record" },
      });

    it("keeps a report as long as a message of its day", async () => {
      await append(A, enqueued({ rcptTo: "a@example.org" }), started(1), session);
      await days(2);
      await sent();
      await later();
      assert.equal((await run()).streams, 0, "the message is not finished");
      await sound();
      assert.equal(row(), undefined);
      await append(A, delivered);
      await later();
      assert.equal((await run()).streams, 1, "the message");
      assert.equal((await run()).streams, 1, "the report");
      assert.deepEqual(await left("tls-report"), []);
      await sound();
      assert.equal(row(), undefined);
    });

    it("keeps a message as long as its sessions are to be reported", async () => {
      await append(A, enqueued({ rcptTo: "a@example.org" }), started(1), session, delivered);
      await later();
      assert.equal((await run()).streams, 0);
      assert.equal(row()?.domain, DOMAIN);
      await sent();
      await later(DAY);
      assert.equal((await run()).streams, 1);
      await sound();
    });
  });

  describe("of webhooks", () => {
    const row = () => given.row(webhooksProjection, "hook");
    const happen = (fact: Fact) => append(webhookStream("hook", given.clock.now()), fact);
    const advance = (upTo: number) =>
      happen({
        type: "WebhookAdvanced",
        data: { endpoint: "hook", upTo, told: upTo, givenUp: 0 },
      });
    const by = { endpoint: "hook", who: "ann", why: "moving" };

    it("keeps the day that its position is from", async () => {
      await advance(1);
      await days(1);
      await advance(2);
      await later();
      assert.equal((await run()).streams, 1);
      assert.deepEqual(await left("webhook"), ["webhook hook 2026-02-01"]);
      await sound();
    });

    it("keeps where a parked endpoint stands, and why it is parked", async () => {
      await advance(1);
      await days(1);
      await advance(2);
      await days(1);
      await happen({ type: "WebhookParked", data: by });
      await days(1);
      await advance(3); // what was under way
      const before = row();
      await later();
      assert.equal((await run()).streams, 1);
      await sound();
      assert.deepEqual(row(), before);
      assert.deepEqual([before?.position, before?.parked], [3, "moving"]);
    });

    it("keeps where a resumed endpoint stands", async () => {
      await advance(1);
      await days(1);
      await happen({ type: "WebhookParked", data: by });
      await days(1);
      await happen({ type: "WebhookResumed", data: { ...by, skipTo: 2 } });
      const before = row();
      await later();
      assert.equal((await run()).streams, 0);
      await sound();
      assert.deepEqual(row(), before);
      await advance(3);
      await later();
      assert.equal((await run()).streams, 3);
      await sound();
      assert.equal(row()?.parked, null);
    });
  });
});

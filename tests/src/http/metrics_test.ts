/** Metrics: what each event counts as. */
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import type { EventData, Fact } from "../../../events/catalogue.ts";
import { Metrics } from "../../../src/http/metrics.ts";
import {
  cancelled,
  delivered,
  enqueued,
  failed,
  type Given,
  givenStore,
  started,
} from "../../events/given.ts";

const ID = "01KGA000000000000000000001";

const chosen: Fact = {
  type: "TransportChosen",
  data: { transport: "relay", type: "smtp", because: { kind: "default" } },
};
const tried = (data: Partial<EventData<"HostTried">>): Fact => ({
  type: "HostTried",
  data: {
    host: "mx.example.net",
    tlsMode: "opportunistic",
    verifiedBy: "none",
    result: "ok",
    phases: {},
    ...data,
  },
});

describe("metrics", () => {
  let given: Given;
  let metrics: Metrics;
  beforeEach(async () => {
    metrics = new Metrics();
    given = await givenStore({ onCommit: metrics.onCommit });
    metrics.observe({ store: given.store, queue: given.view });
  });
  afterEach(() => given.end());

  let version = 0;
  beforeEach(() => {
    version = 0;
  });
  const append = async (...facts: Fact[]) => {
    await given.store.append([{ stream: ID, expectedVersion: version, facts }]);
    version += facts.length;
  };
  /** The samples whose name and labels begin with this, without the buckets of histograms. */
  const samples = async (name: string): Promise<string[]> =>
    (await metrics.text()).text.split("\n").filter((line) =>
      line.startsWith(`postledger_${name}`) && !line.includes("_bucket") && !/ 0$/.test(line)
    ).map((line) => line.slice("postledger_".length));

  it("count messages in and out, and the depth of the queue", async () => {
    await append(enqueued({ source: { kind: "smtp" } }));
    assert.deepEqual(await samples("messages"), ['messages_enqueued_total{source="smtp"} 1']);
    assert.deepEqual(await samples("queue_depth"), ['queue_depth{state="queued"} 1']);
    await append(cancelled);
    assert.deepEqual(await samples("messages_finished"), [
      'messages_finished_total{result="cancelled"} 1',
    ]);
    assert.deepEqual(await samples("queue_depth"), ['queue_depth{state="cancelled"} 1']);
  });

  it("time attempts from start to outcome, by attempt, transport, TLS and result", async () => {
    await append(enqueued(), started(1), chosen);
    await given.clock.advance(2_500);
    await append(tried({}), failed(false));
    await append(started(2), chosen);
    await given.clock.advance(500);
    await append(tried({ tlsMode: "verified" }), delivered);
    assert.deepEqual(await samples("delivery_seconds_sum"), [
      'delivery_seconds_sum{attempt="1",transport="relay",tls="opportunistic",result="temperror"} 2.5',
      'delivery_seconds_sum{attempt="2",transport="relay",tls="verified",result="ok"} 0.5',
    ]);
    assert.equal((await samples("delivery_seconds_count")).length, 2);
  });

  it("put late attempts together, so that the label stays small", async () => {
    await append(enqueued());
    for (const attempt of [8, 9, 700]) {
      await append(started(attempt), chosen, failed(false));
    }
    const [sample, ...more] = await samples("delivery_seconds_count");
    assert.match(sample!, /attempt="8\+",.* 3$/);
    assert.deepEqual(more, []);
  });

  it("survive an outcome whose start they did not see, and a clock set back", async () => {
    await append(enqueued(), started(1));
    const later = new Metrics();
    later.observe({ store: given.store, queue: given.view });
    await given.clock.advance(-60_000);
    await append(failed(true));
    assert.match((await samples("delivery_seconds_sum")).join() || "none", /^none$/);
    assert.match((await later.text()).text, /finished_total\{result="failed"\} 1/);
    assert.match((await metrics.text()).text, /delivery_seconds_count\{.*\} 1/);
  });

  it("count connections by how connecting ended, not by what the server said", async () => {
    await append(
      enqueued(),
      started(1),
      tried({ address: "192.0.2.1", local: "192.0.2.9" }),
      tried({ address: "192.0.2.1", local: "192.0.2.9", result: "permerror" }),
      tried({ address: "192.0.2.1", local: "192.0.2.9", result: "timeout" }), // at DATA, say
      tried({ address: "192.0.2.1", result: "timeout" }),
      tried({ address: "192.0.2.1", result: "error" }),
      tried({ address: "192.0.2.1", result: "canceled" }),
      tried({ result: "error" }), // no address: nothing was dialled
      tried({ address: "192.0.2.1", local: "192.0.2.9", reused: true }),
    );
    assert.deepEqual((await samples("connections")).sort(), [
      'connections_total{result="canceled"} 1',
      'connections_total{result="error"} 1',
      'connections_total{result="ok"} 3',
      'connections_total{result="timeout"} 1',
    ]);
    assert.equal((await samples("hosts_tried")).length, 5);
  });

  it("count destinations looked up, and reports", async () => {
    await append(
      enqueued(),
      started(1),
      {
        type: "DestinationsResolved",
        data: {
          nextHop: "example.net",
          expanded: "example.net",
          dnssec: { nextHop: "unchecked", expanded: "unchecked" },
          by: "implicit",
          hosts: [],
        },
      },
      failed(true),
      { type: "DSNSent", data: { kind: "failed", dsn: ID } },
      { type: "DSNSent", data: { kind: "failed", dsn: ID } }, // another recipient's, one report
      { type: "DSNSent", data: { kind: "delayed", notSent: "the null sender" } },
    );
    assert.deepEqual(await samples("destinations"), ['destinations_total{by="implicit"} 1']);
    assert.deepEqual(await samples("reports"), ['reports_total{kind="failed"} 1']);
  });

  it("count DNSSEC, DANE and the ladder", async () => {
    const gathered = (data: Partial<EventData<"TLSAGathered">>): Fact => ({
      type: "TLSAGathered",
      data: {
        host: "mx.example.net",
        expanded: "mx.example.net",
        dnssec: { host: "secure", expanded: "secure" },
        addresses: ["192.0.2.1"],
        dualStack: false,
        tlsa: "none",
        records: [],
        daneRequired: false,
        verdict: "try",
        tlsMode: "opportunistic",
        verifiedBy: "none",
        names: [],
        why: [],
        ...data,
      },
    });
    await append(
      enqueued(),
      started(1),
      {
        type: "DestinationsResolved",
        data: {
          nextHop: "example.net",
          expanded: "example.net",
          dnssec: { nextHop: "secure", expanded: "secure" },
          by: "mx",
          hosts: [],
        },
      },
      gathered({}),
      gathered({ tlsa: "records", daneRequired: true }),
      gathered({ tlsa: "records" }),
      gathered({ tlsa: "failed", verdict: "fail" }),
      tried({ verifiedBy: "dane" }),
      tried({ fallback: true, tlsMode: "none" }),
      {
        type: "Failed",
        data: { permanent: true, result: "error", reason: "REQUIRETLS", enhanced: "5.7.30" },
      },
    );
    assert.deepEqual(await samples("security"), [
      'security_total{what="destination-authentic"} 1',
      'security_total{what="dane-required"} 1',
      'security_total{what="dane-verified"} 1',
      'security_total{what="dane-only-unusable"} 1',
      'security_total{what="tlsa-lookup-error"} 1',
      'security_total{what="plaintext-fallback"} 1',
      'security_total{what="requiretls-not-met"} 1',
    ]);
  });

  it("know commits, and whether the store takes them", async () => {
    await append(enqueued(), started(1));
    assert.deepEqual(await samples("commit_events"), [
      "commit_events_sum 2",
      "commit_events_count 1",
    ]);
    assert.deepEqual(await samples("store_ok"), ["store_ok 1"]);
  });

  it("take totals and gauges of others as they are at each scrape", async () => {
    const counts = { accepted: 3, refused: 1 };
    metrics.totals("postledger_sessions_total", "Sessions.", "result", () => counts);
    metrics.gauge("postledger_sessions", "Sessions now.", () => 7);
    assert.deepEqual(await samples("sessions"), [
      'sessions_total{result="accepted"} 3',
      'sessions_total{result="refused"} 1',
      "sessions 7",
    ]);
    metrics.totalsBy("postledger_tries_total", "Tries.", ["how", "result"], () => [
      { labels: { how: "PLAIN", result: "ok" }, count: 2 },
      { labels: { how: "PLAIN", result: "failed" }, count: 9 },
    ]);
    assert.deepEqual(await samples("tries"), [
      'tries_total{how="PLAIN",result="ok"} 2',
      'tries_total{how="PLAIN",result="failed"} 9',
    ]);
    counts.accepted = 5;
    assert.match((await samples("sessions_total")).join("\n"), /accepted"\} 5/);
  });
});

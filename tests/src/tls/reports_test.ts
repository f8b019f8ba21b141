import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { gunzipSync } from "node:zlib";
import { simpleParser } from "mailparser";
import type { FactOf, StoredEventOf } from "../../../events/catalogue.ts";
import {
  MAX_FAILURES,
  MAX_POLICIES,
  reportId,
  tlsReportsProjection,
} from "../../../events/projections/tls_reports.ts";
import { type HttpsAnswer, HttpsError, type HttpsRequest } from "../../../src/https.ts";
import { DnsError } from "../../../src/ports.ts";
import { TlsReporter } from "../../../src/tls/reports/reporter.ts";
import { ulids } from "../../../src/system.ts";
import { type Given, givenStore, octetsOf, START } from "../../events/given.ts";
import { LogLines } from "../../actors/manual_clock.ts";
import { FakeResolver } from "../dns/fake_resolver.ts";

const HOUR = 3_600_000;
const DAY = "2026-01-31";
const octets = (text: string): Uint8Array => new TextEncoder().encode(text);
const never = new AbortController().signal;

type Results = NonNullable<FactOf<"HostTried">["data"]["tlsReport"]>["results"];
const sts = (failure?: Results[number]["failure"]): Results[number] => ({
  type: "sts",
  domain: "example.org",
  lines: ["version: STSv1", "mode: enforce", "mx: mx.example.org", "max_age: 86400"],
  mx: ["mx.example.org"],
  ...(failure ? { failure } : {}),
});

const tried = (
  results: Results,
  { domain = "example.org", host = "mx.example.org", error }: {
    domain?: string;
    host?: string;
    error?: string;
  } = {},
): FactOf<"HostTried"> => ({
  type: "HostTried",
  data: {
    host,
    address: "192.0.2.1",
    local: "198.51.100.1",
    tlsMode: "verified",
    verifiedBy: "mta-sts",
    result: error ? "error" : "ok",
    ...(error ? { error } : {}),
    phases: {},
    tlsReport: { domain, results },
  },
});

describe("TLS reports (RFC 8460)", () => {
  let given: Given;
  let streams = 0;
  let table: Record<string, ConstructorParameters<typeof FakeResolver>[0][string]>;
  let posts: HttpsRequest[];
  let answer: () => Promise<HttpsAnswer>;
  let log: LogLines;
  let reporter: TlsReporter;

  const start = () => {
    reporter = new TlsReporter({
      clock: given.clock,
      ids: ulids(given.clock, { next: () => 0.5 }),
      log,
      store: given.store,
      bodies: given.bodies,
      resolver: new FakeResolver(table),
      https: (request) => {
        posts.push(request);
        return answer();
      },
      rows: (after, limit) => given.page(tlsReportsProjection, after, limit),
      hostname: "mail.example.com",
    });
  };
  const asks = (rua: string, domain = "example.org") => {
    table[`_smtp._tls.${domain} TXT`] = { records: [[octets(`v=TLSRPTv1; rua=${rua}`)]] };
  };
  const happen = (...facts: FactOf<"HostTried" | "DestinationsResolved" | "TLSAGathered">[]) =>
    given.store.append([{ stream: `message ${++streams}`, expectedVersion: 0, facts }]);
  const events = async <T extends StoredEventOf<"Enqueued">["type"] | "TLSReportSent">(type: T) =>
    (await given.store.readAll(0, 1_000)).filter((event) => event.type === type) as StoredEventOf<
      T
    >[];
  const row = (domain = "example.org", day = DAY) =>
    given.row(tlsReportsProjection, reportId(day, domain));

  beforeEach(async () => {
    given = await givenStore();
    table = {};
    posts = [];
    log = new LogLines();
    answer = () => Promise.resolve({ status: 201, contentType: "", body: new Uint8Array() });
    start();
  });
  afterEach(async () => await given.end());

  it("counts by policy, and failures by what they have in common", async () => {
    await happen(tried([sts()]), tried([sts()]));
    await happen(tried([sts("certificate-expired")], { error: "expired" }));
    await happen(tried([sts("certificate-expired")], { error: "expired" }));
    await happen(tried([sts("validation-failure")], { host: "mx2.example.org" }));
    await happen(tried([{ type: "no-policy-found", domain: "example.org", lines: [] }]));
    const [first, second] = JSON.parse(row()?.policies ?? "[]");
    assert.deepEqual([first.ok, first.failed], [2, 3]);
    const about = { address: "192.0.2.1", local: "198.51.100.1" };
    assert.deepEqual(first.failures, [
      { type: "certificate-expired", host: "mx.example.org", ...about, info: "expired", count: 2 },
      { type: "validation-failure", host: "mx2.example.org", ...about, count: 1 },
    ]);
    assert.deepEqual([second.type, second.ok], ["no-policy-found", 1]);
  });

  it("counts policies that could not be fetched", async () => {
    const failure = "sts-policy-fetch-error" as const;
    await happen({
      type: "DestinationsResolved",
      data: {
        nextHop: "example.org",
        expanded: "example.org",
        dnssec: { nextHop: "insecure", expanded: "insecure" },
        by: "mx",
        hosts: [],
        mtaSts: { status: "error", domain: "example.org", why: "404", failure },
      },
    });
    const [policy] = JSON.parse(row()?.policies ?? "[]");
    assert.deepEqual(policy.failures, [{ type: failure, info: "404", count: 1 }]);
  });

  it("keeps rows small, whatever happens", async () => {
    for (let n = 0; n < MAX_FAILURES + 10; n++) {
      const policy = { ...sts("validation-failure"), domain: `d${n % (MAX_POLICIES + 2)}.example` };
      await happen(tried([sts("validation-failure"), policy], { error: `reason ${n}` }));
    }
    const policies = JSON.parse(row()?.policies ?? "[]");
    assert.equal(policies.length, MAX_POLICIES);
    assert.equal(policies[0].failures.length, MAX_FAILURES);
    assert.equal(policies[0].failed, MAX_FAILURES + 10);
  });

  it("go by mail when the day is over, once, over restarts too", async () => {
    asks("mailto:tls@reports.example");
    await happen(tried([sts()]), tried([sts("certificate-expired")], { error: "expired" }));
    assert.equal(await reporter.run(never), false);
    assert.deepEqual(await events("TLSReportSent"), [], "not before the day has ended");
    await given.clock.advance(24 * HOUR);
    assert.equal(await reporter.run(never), false);
    start();
    await reporter.run(never);
    const [sent, ...more] = await events("TLSReportSent");
    assert.deepEqual(more, []);
    const [enqueued, ...others] = await events("Enqueued");
    assert.deepEqual(others, []);
    assert.equal(sent?.stream, "tls-report example.org 2026-01-31");
    assert.deepEqual(sent?.data.to, [
      { uri: "mailto:tls@reports.example", message: enqueued?.stream },
    ]);
    assert.equal(sent?.position, (enqueued?.position ?? 0) - 1, "one append");
    assert.equal(row(), undefined);
    const { mailFrom, rcptTo, dsn, tlsOptional, source } = enqueued!.data;
    assert.deepEqual([mailFrom, rcptTo], ["postmaster@mail.example.com", "tls@reports.example"]);
    assert.deepEqual(dsn, { notify: ["NEVER"] });
    assert.equal(tlsOptional, true, "whatever is wrong with their TLS (section 5.3)");
    assert.deepEqual(source, { kind: "tlsrpt" });
  });

  it("are messages that a mail parser reads (section 5.3)", async () => {
    asks("mailto:tls@reports.example");
    await happen(tried([sts()]), tried([sts("certificate-expired")], { error: "expired" }));
    await given.clock.advance(24 * HOUR);
    await reporter.run(never);
    const [enqueued] = await events("Enqueued");
    const raw = Buffer.from(
      await octetsOf((await given.bodies.open(enqueued!.data.body)).chunks()),
    );
    assert.equal(raw.length, enqueued?.data.size);
    assert.doesNotMatch(raw.toString("latin1"), /[^\r\n\t -~]|[^\r]\n|\r[^\n]|[^\r\n]{999}/);
    const mail = await simpleParser(raw);
    const id = "2026-01-31.example.org@mail.example.com";
    assert.equal(
      mail.subject,
      `Report Domain: example.org Submitter: mail.example.com Report-ID: <${id}>`,
    );
    assert.equal(mail.headers.get("tls-report-domain"), "example.org");
    assert.equal(mail.headers.get("tls-report-submitter"), "mail.example.com");
    assert.equal(mail.headers.get("tls-required"), "No");
    const type = mail.headers.get("content-type") as {
      value: string;
      params: Record<string, string>;
    };
    assert.deepEqual([type.value, type.params["report-type"]], ["multipart/report", "tlsrpt"]);
    const [attachment, ...more] = mail.attachments;
    assert.deepEqual(more, []);
    assert.equal(attachment?.contentType, "application/tlsrpt+gzip");
    assert.equal(
      attachment?.filename,
      "mail.example.com!example.org!1769817600!1769903999.json.gz",
    );
    assert.deepEqual(JSON.parse(gunzipSync(attachment!.content).toString()), {
      "organization-name": "mail.example.com",
      "date-range": {
        "start-datetime": "2026-01-31T00:00:00Z",
        "end-datetime": "2026-01-31T23:59:59Z",
      },
      "contact-info": "postmaster@mail.example.com",
      "report-id": id,
      policies: [{
        policy: {
          "policy-type": "sts",
          "policy-string": sts().lines,
          "policy-domain": "example.org",
          "mx-host": ["mx.example.org"],
        },
        summary: { "total-successful-session-count": 1, "total-failure-session-count": 1 },
        "failure-details": [{
          "result-type": "certificate-expired",
          "sending-mta-ip": "198.51.100.1",
          "receiving-mx-hostname": "mx.example.org",
          "receiving-ip": "192.0.2.1",
          "failed-session-count": 1,
          "failure-reason-code": "expired",
        }],
      }],
    });
  });

  it("are closed when they are turned off: rows hold back what is archived", async () => {
    asks("https://reports.example/tls");
    await happen(tried([sts()]));
    await given.clock.advance(24 * HOUR);
    assert.equal(await reporter.run(never, true), false);
    const [sent] = await events("TLSReportSent");
    assert.deepEqual([sent?.data.to, sent?.data.notSent], [[], "reports are turned off"]);
    assert.deepEqual([posts.length, row()], [0, undefined]);
  });

  it("are not made for domains that do not ask", async () => {
    await happen(tried([sts()]));
    await given.clock.advance(24 * HOUR);
    await reporter.run(never);
    const [sent] = await events("TLSReportSent");
    assert.match(sent?.data.notSent ?? "", /asks for no TLS reports/);
    assert.deepEqual(await events("Enqueued"), []);
    assert.equal(row(), undefined);
  });

  it("wait while the record has no answer, and are given up in the end", async () => {
    const silent = { "_smtp._tls.example.org TXT": new DnsError("timeout", "no answer") };
    Object.assign(table, silent);
    await happen(tried([sts()]));
    await given.clock.advance(24 * HOUR);
    assert.equal(await reporter.run(never), true);
    await given.clock.advance(12 * HOUR);
    assert.equal(await reporter.run(never), true);
    await given.clock.advance(24 * HOUR);
    assert.equal(await reporter.run(never), false);
    assert.match((await events("TLSReportSent"))[0]?.data.notSent ?? "", /no answer/);
  });

  it("go by HTTPS where that is asked for", async () => {
    asks("https://r.example/v1,mailto:tls@reports.example");
    await happen(tried([sts()]));
    await given.clock.advance(24 * HOUR);
    await reporter.run(never);
    const [post] = posts;
    assert.deepEqual([post?.method, post?.host, post?.port, post?.path], [
      "POST",
      "r.example",
      443,
      "/v1",
    ]);
    assert.equal(post?.headers?.["content-type"], "application/tlsrpt+gzip");
    const report = JSON.parse(gunzipSync(post!.body!).toString());
    assert.equal(report.policies[0].summary["total-successful-session-count"], 1);
    const [sent] = await events("TLSReportSent");
    assert.equal(sent?.data.to.length, 2);
    assert.ok(sent?.data.to.every(({ failed }) => failed === undefined));
    assert.deepEqual(reporter.results, { mailto: 1, https: 1, failed: 0 });
  });

  it("are posted again when that failed, and given up after a day", async () => {
    asks("https://r.example/v1");
    answer = () => Promise.reject(new HttpsError("connect", "refused"));
    await happen(tried([sts()]));
    await given.clock.advance(24 * HOUR);
    assert.equal(await reporter.run(never), true);
    assert.equal(await reporter.run(never), true);
    assert.equal(posts.length, 2);
    await given.clock.advance(48 * HOUR);
    assert.equal(await reporter.run(never), false);
    assert.deepEqual((await events("TLSReportSent"))[0]?.data.to, [
      { uri: "https://r.example/v1", failed: "refused" },
    ]);
  });

  it("are not posted again after a crash: nobody knows what came of it", async () => {
    asks("https://r.example/v1");
    await happen(tried([sts()]));
    await given.clock.advance(24 * HOUR);
    answer = () => Promise.reject(new TypeError("the process dies here"));
    await assert.rejects(reporter.run(never), TypeError);
    start();
    assert.equal(await reporter.run(never), false);
    assert.equal(posts.length, 1);
    assert.deepEqual((await events("TLSReportSent"))[0]?.data.to, [
      { uri: "https://r.example/v1", failed: "interrupted, outcome unknown" },
    ]);
  });

  it("stand on the day on which they are counted", async () => {
    assert.equal(new Date(START).toISOString().slice(0, 10), DAY);
    await happen(tried([sts()]));
    await given.clock.advance(24 * HOUR);
    await happen(tried([sts()]));
    await reporter.run(never);
    assert.equal(row(), undefined);
    assert.equal(JSON.parse(row(undefined, "2026-02-01")?.policies ?? "[]")[0].ok, 1);
  });
});

/**
 * TLS reports (RFC 8460) over a small internet of real programs: sessions with Postfix on one day,
 * and on the next the reports about them, by mail and by HTTPS, as the domains ask for them.
 * The clock of the queue is put forward past midnight.
 */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { gunzipSync } from "node:zlib";
import { dkimKeyPem, dkimRecord, dkimRecordName, makeDkimKey } from "../../src/dkim/keys.ts";
import { Correspondence, directOver } from "./correspondence.ts";
import { exportedEvents, type LoggedEvent } from "./history.ts";
import { type HttpsHost, type HttpsMessage, startHttpsHost } from "./https_host.ts";
import { address, type Internet, offersTls, startInternet, WITHOUT_TLS } from "./internet.ts";
import { JumpingClock } from "./jumping_clock.ts";
import { asn1Time, CA_EXTENSIONS, forHost, type Issued, Pki } from "./pki.ts";
import { run } from "./postfix.ts";
import { type QueueHere, startHere } from "./queue_here.ts";
import { Server } from "./serve.ts";
import { faultsOf } from "./tlsrpt_schema.ts";
import { freePort, until } from "./wait.ts";

const PYTHON = new URL("./python/", import.meta.url).pathname;
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
/** In the past, and so is the day after it: signatures from the future are not valid. */
const REPORTED = new Date(Date.now() - 2 * DAY).toISOString().slice(0, 10);
const MIDNIGHT = Date.parse(REPORTED) + DAY;

const DOMAINS = {
  "sts.test": "Delivered",
  "dane.test": "Delivered",
  "plain.test": "Delivered",
  "silent.test": "Delivered",
} as const;
type Domain = keyof typeof DOMAINS;

const POLICY = "version: STSv1\r\nmode: enforce\r\nmx: *.sts.test\r\nmax_age: 604800\r\n";

/** A report that came by mail, as Python's email package reads it. */
interface Mailed {
  readonly file: string;
  readonly fields: Readonly<Record<string, string>>;
  readonly type: string;
  readonly reportType: string;
  readonly parts: readonly string[];
  readonly fileName: string;
  readonly report: unknown;
  readonly defects: readonly string[];
}

describe("TLS reports over a small internet", () => {
  const port = freePort();
  const collectorPort = freePort();
  const clock = new JumpingClock(MIDNIGHT - DAY / 2);
  const hosts: HttpsHost[] = [];
  const dkim = makeDkimKey("rsa");
  let pki: Pki;
  let internet: Internet;
  let server: Server;
  let collector: HttpsHost;
  let queue: QueueHere | undefined;
  let correspondence: Correspondence;

  before(async () => {
    pki = await Pki.create();
    const from = asn1Time(Date.now() - 4 * DAY);
    const ours = await pki.issue({ subject: "/CN=Ours", extensions: CA_EXTENSIONS, from });
    const trusted = await pki.issue({
      subject: "/CN=mx",
      extensions: forHost("mx2.sts.test", "mta-sts.sts.test"),
      issuer: ours,
      from,
    });
    const foreign = await pki.issue({
      subject: "/CN=mx",
      extensions: forHost("mx1.sts.test"),
      from,
    });
    hosts.push(
      await startHttpsHost(
        { address: address(20) },
        trusted,
        () => ({ status: 200, type: "text/plain", text: POLICY }),
      ),
      // A report may be about its certificate, and gets there all the same.
      collector = await startHttpsHost(
        { address: address(30), port: collectorPort },
        foreign,
        ({ path }) => ({ status: path === "/plain" && postsTo(path).length === 1 ? 500 : 201 }),
      ),
    );
    internet = await startInternet(await landscape(port, collectorPort, trusted, foreign, pki));
    server = await Server.prepare({
      routing: `
[domains."example.com"]
dkim = [{ selector = "2026a", key_file = "dkim.pem" }]
${directOver(internet, ours.certificate)}`,
    });
    await Deno.writeTextFile(`${server.directory}/dkim.pem`, dkimKeyPem(dkim), { mode: 0o600 });
    queue = await startHere(server, clock);
    correspondence = new Correspondence(server, "sender@sts.test");
    await correspondence.writeTo(DOMAINS);
    clock.jump(MIDNIGHT + HOUR - clock.now());
    await closed("sts.test", "dane.test", "silent.test");
  });
  after(async () => {
    await queue?.stop();
    await server?.remove();
    for (const host of hosts) await host.stop();
    await internet?.stop();
    await pki?.remove();
  });

  const postsTo = (path: string) => collector.requests.filter((request) => request.path === path);
  const reportIn = ({ body }: HttpsMessage) =>
    JSON.parse(new TextDecoder().decode(gunzipSync(body)));

  /** The word of how the reports about these domains ended, once it is there. */
  async function closed(...domains: readonly Domain[]): Promise<LoggedEvent["data"][]> {
    return await until(`the reports about ${domains.join(", ")}`, 20_000, async () => {
      const events = await exportedEvents(server);
      const found = domains.map((domain) =>
        events.find(({ type, data }) => type === "TLSReportSent" && data.domain === domain)?.data
      ).filter((data) => data !== undefined);
      return found.length === domains.length ? found : undefined;
    }).catch((error: Error) => {
      throw new Error(`${error.message}\n${queue?.said.join("\n")}`);
    });
  }

  const mailed = (domain: Domain): Promise<Mailed> =>
    until(`the mailed report about ${domain}`, 20_000, async () => {
      for (const file of await internet.postfix.mailboxFiles("all")) {
        const text = await Deno.readTextFile(file);
        if (!text.includes(`\nTLS-Report-Domain: ${domain}\n`)) continue;
        const read = await run("python3", [`${PYTHON}parse_tls_report.py`, file]);
        return { file, ...JSON.parse(read) } as Mailed;
      }
      return undefined;
    });

  const about = (domain: Domain) => ({
    "organization-name": "queue.example.com",
    "date-range": {
      "start-datetime": `${REPORTED}T00:00:00Z`,
      "end-datetime": `${REPORTED}T23:59:59Z`,
    },
    "contact-info": "postmaster@queue.example.com",
    "report-id": `${REPORTED}.${domain}@queue.example.com`,
  });
  const summary = (ok: number, failed: number) => ({
    "total-successful-session-count": ok,
    "total-failure-session-count": failed,
  });
  /** What the log has of the first host that was tried, as a failure of one session. */
  const failure = (domain: Domain, type: string) => {
    const { local, host, address, error } = correspondence.story(domain).tried[0] ?? {};
    return {
      "result-type": type,
      "sending-mta-ip": local,
      "receiving-mx-hostname": host,
      "receiving-ip": address,
      "failed-session-count": 1,
      ...(error === undefined ? {} : { "failure-reason-code": error }),
    };
  };

  it("are mailed as RFC 8460 asks, signed, and read by Python", async () => {
    const { file, ...mail } = await mailed("sts.test");
    assert.deepEqual(mail.defects, []);
    assert.deepEqual([mail.type, mail.reportType], ["multipart/report", "tlsrpt"]);
    assert.deepEqual(mail.parts, ["text/plain", "application/tlsrpt+gzip"]);
    const begin = Date.parse(REPORTED) / 1000;
    const fileName = `queue.example.com!sts.test!${begin}!${begin + 86_399}.json.gz`;
    assert.equal(mail.fileName, fileName);
    assert.equal(mail.fields["TLS-Report-Submitter"], "queue.example.com");
    assert.equal(mail.fields["TLS-Required"], "No");
    assert.equal(mail.fields["To"], "tls@reports.test");
    assert.equal(
      mail.fields["Subject"],
      "Report Domain: sts.test Submitter: queue.example.com " +
        `Report-ID: <${REPORTED}.sts.test@queue.example.com>`,
    );
    const records = { [dkimRecordName("2026a", "example.com")]: dkimRecord(dkim) };
    const verified = await run("/usr/bin/python3", [
      `${PYTHON}verify_dkim.py`,
      file,
      JSON.stringify(records),
      "--tlsrpt",
    ]);
    assert.deepEqual(JSON.parse(verified), [["example.com", "2026a", true]]);
  });

  it("count sessions under an MTA-STS policy, and say what failed where", async () => {
    const { report } = await mailed("sts.test");
    assert.equal(faultsOf(report), undefined);
    assert.deepEqual(report, {
      ...about("sts.test"),
      policies: [{
        policy: {
          "policy-type": "sts",
          "policy-string": ["version: STSv1", "mode: enforce", "mx: *.sts.test", "max_age: 604800"],
          "policy-domain": "sts.test",
          "mx-host": ["*.sts.test"],
        },
        summary: summary(1, 1),
        "failure-details": [failure("sts.test", "certificate-not-trusted")],
      }],
    });
  });

  it("are the same by HTTPS, whatever the collector's certificate is", async () => {
    const [request, ...more] = postsTo("/v1/tlsrpt");
    assert.ok(request);
    assert.deepEqual(more, []);
    assert.equal(request.method, "POST");
    assert.equal(request.host, `collector.test:${collectorPort}`);
    assert.equal(request.headers["content-type"], "application/tlsrpt+gzip");
    assert.deepEqual(reportIn(request), (await mailed("sts.test")).report);
    const [sent] = await closed("sts.test");
    const to = sent?.to as { uri: string; failed?: string; message?: string }[];
    assert.deepEqual(to.map(({ uri, failed }) => [uri, failed]), [
      [`https://collector.test:${collectorPort}/v1/tlsrpt`, undefined],
      ["mailto:tls@reports.test", undefined],
    ]);
  });

  it("count sessions under TLSA records, host by host", async () => {
    const { report } = await mailed("dane.test");
    assert.equal(faultsOf(report), undefined);
    const [first, second] = correspondence.story("dane.test").all("TLSAGathered");
    const policy = (gathered: Record<string, unknown> | undefined) => {
      const [record] = gathered?.records as { data: string }[];
      return {
        "policy-type": "tlsa",
        "policy-string": [`3 1 1 ${record?.data}`],
        "policy-domain": gathered?.host,
      };
    };
    assert.deepEqual(report, {
      ...about("dane.test"),
      policies: [
        {
          policy: policy(first),
          summary: summary(0, 1),
          "failure-details": [failure("dane.test", "validation-failure")],
        },
        { policy: policy(second), summary: summary(1, 0) },
      ],
    });
  });

  it("go nowhere where nobody asks for them", async () => {
    const [sent] = await closed("silent.test");
    assert.deepEqual(sent, {
      domain: "silent.test",
      day: REPORTED,
      to: [],
      notSent: "the domain asks for no TLS reports",
    });
  });

  it("are tried again an hour later where the collector was out of order", async () => {
    await until("the first try", 10_000, () => postsTo("/plain").length === 1);
    clock.jump(2 * HOUR);
    const [sent] = await closed("plain.test");
    assert.deepEqual(sent?.to, [{ uri: `https://collector.test:${collectorPort}/plain` }]);
    const reports = postsTo("/plain").map(reportIn);
    assert.equal(reports.length, 2);
    assert.deepEqual(reports[0], reports[1]);
    assert.equal(faultsOf(reports[1]), undefined);
    assert.deepEqual(reports[1], {
      ...about("plain.test"),
      policies: [{
        policy: { "policy-type": "no-policy-found", "policy-domain": "plain.test" },
        summary: summary(0, 1),
        "failure-details": [failure("plain.test", "starttls-not-supported")],
      }],
    });
  });

  it("are not reported on themselves, and the log verifies", async () => {
    const events = await exportedEvents(server);
    const own = events.filter(({ type, data }) =>
      type === "Enqueued" && (data.source as { kind: string }).kind === "tlsrpt"
    );
    assert.equal(own.length, 2);
    for (const { stream } of own) {
      const tried = events.filter((event) => event.stream === stream && event.type === "HostTried");
      assert.ok(tried.length > 0);
      assert.ok(tried.every(({ data }) => data.tlsReport === undefined));
    }
    const verified = await server.command("audit", "verify");
    assert.equal(verified.code, 0, verified.stdout + verified.stderr);
  });
});

async function landscape(
  port: number,
  collectorPort: number,
  trusted: Issued,
  foreign: Issued,
  pki: Pki,
) {
  const digest = async ({ spki }: Issued) =>
    new Uint8Array(await crypto.subtle.digest("SHA-256", new Uint8Array(spki))).toHex();
  const records = [
    "sts MX 10 mx1.sts",
    "sts MX 20 mx2.sts",
    `mx1.sts A ${address(2)}`,
    `mx2.sts A ${address(1)}`,
    `_mta-sts.sts TXT "v=STSv1; id=1;"`,
    `mta-sts.sts A ${address(20)}`,
    `_smtp._tls.sts TXT "v=TLSRPTv1; rua=mailto:tls@reports.test," ` +
    `"https://collector.test:${collectorPort}/v1/tlsrpt"`,

    "dane MX 10 mx1.dane",
    "dane MX 20 mx2.dane",
    `mx1.dane A ${address(2)}`,
    `mx2.dane A ${address(1)}`,
    `_${port}._tcp.mx1.dane TLSA 3 1 1 ${"00".repeat(32)}`,
    `_${port}._tcp.mx2.dane TLSA 3 1 1 ${await digest(trusted)}`,
    `_smtp._tls.dane TXT "v=TLSRPTv1;rua=mailto:tls@reports.test"`,

    "plain MX 10 mx.plain",
    `mx.plain A ${address(3)}`,
    `_smtp._tls.plain TXT "v=TLSRPTv1; rua=https://collector.test:${collectorPort}/plain"`,

    "silent MX 10 mx.silent",
    `mx.silent A ${address(1)}`,

    "reports MX 10 mx.reports",
    `mx.reports A ${address(2)}`,
    `collector A ${address(30)}`,
  ];
  return {
    smtpPort: port,
    zones: [{ name: "test", records, state: "signed" }] as const,
    hosts: [
      { addresses: [address(1)], parameters: offersTls(await pki.chainFile(trusted)) },
      { addresses: [address(2)], parameters: offersTls(await pki.chainFile(foreign)) },
      { addresses: [address(3)], parameters: WITHOUT_TLS },
    ],
  };
}

/**
 * dnscheck against loopback zones: one where all is right, and that one with one thing wrong for
 * each finding that there is. What a finding says to publish makes it go away.
 */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { run } from "../../../src/cli/dnscheck.ts";
import type { Finding } from "../../../src/dnscheck/finding.ts";
import { stsLines } from "../../../src/dnscheck/mta_sts.ts";
import { dkimKeyPem, dkimRecord, makeDkimKey } from "../../../src/dkim/keys.ts";
import { spkiDigestOfPem, tlsaOf } from "../../../src/tls/host_key.ts";
import { makeHostKey, selfSigned } from "../../../src/quickstart/host_certificate.ts";
import { tlsaLine, txtLine } from "../../../src/dnscheck/zone.ts";
import { PolicyError } from "../../../src/tls/mta_sts_policy.ts";
import { serveZone, type ZoneOptions } from "./zone_server.ts";

interface Report {
  readonly errors: number;
  readonly warnings: number;
  readonly addresses: readonly { readonly address: string }[];
  readonly findings: readonly Finding[];
}

interface Trial extends ZoneOptions {
  readonly policy?: string | PolicyError;
  readonly interfaces?: readonly string[];
  readonly args?: readonly string[];
  /** TOML behind the rest. */
  readonly more?: string;
}

const POLICY = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmax_age: 1209600\r\n";

describe("dnscheck", () => {
  let folder: string;
  let good: string[];
  let rsaRecord: string;
  before(async () => {
    folder = await Deno.makeTempDir();
    const rsa = makeDkimKey("rsa");
    rsaRecord = dkimRecord(rsa);
    const ed25519 = makeDkimKey("ed25519");
    const host = await makeHostKey("ecdsa");
    const write = (name: string, text: string) =>
      Deno.writeTextFile(`${folder}/${name}`, text, { mode: 0o600 });
    await write("rsa.pem", dkimKeyPem(rsa));
    await write("ed.pem", dkimKeyPem(ed25519));
    await write("host.key", host);
    await write("host.crt", await selfSigned("ecdsa", host, "mail.example.com", Date.now()));
    good = [
      "example.com. IN MX 10 mail.example.com.",
      'example.com. IN TXT "v=spf1 ip4:192.0.2.25 ip6:2001:db8::25 include:proxies.example.net -all"',
      'example.com. IN TXT "something else"',
      'proxies.example.net. IN TXT "v=spf1 ip4:198.51.100.0/28 -all"',
      "mail.example.com. IN A 192.0.2.25",
      "mail.example.com. IN AAAA 2001:db8::25",
      'mail.example.com. IN TXT "v=spf1 a -all"',
      "out2.example.com. IN A 198.51.100.7",
      'out2.example.com. IN TXT "v=spf1 a -all"',
      txtLine("2026r._domainkey.example.com", dkimRecord(rsa)),
      txtLine("2026e._domainkey.example.com", dkimRecord(ed25519)),
      '_dmarc.example.com. IN TXT "v=DMARC1; p=reject; rua=mailto:dmarc@reports.example.com"',
      ...stsLines("example.com", POLICY),
      '_smtp._tls.example.com. IN TXT "v=TLSRPTv1; rua=mailto:tls@example.com"',
      tlsaLine("_587._tcp.mail.example.com", tlsaOf(spkiDigestOfPem(host, "host.key"))),
      tlsaLine("_25._tcp.mail.example.com", tlsaOf(spkiDigestOfPem(host, "host.key"))),
      "25.2.0.192.in-addr.arpa. IN PTR mail.example.com.",
      "5.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. IN PTR mail.example.com.",
      "7.100.51.198.in-addr.arpa. IN PTR out2.example.com.",
    ];
  });
  after(() => Deno.remove(folder, { recursive: true }));

  async function check(lines: readonly string[], trial: Trial = {}) {
    const server = await serveZone(lines, trial);
    const file = `${folder}/config.toml`;
    await Deno.writeTextFile(
      file,
      `hostname = "mail.example.com"
dns = { servers = ["${server.name}"] }
[listen.submission]
protocol = "submission"
address = "127.0.0.1:587"
cert_file = "host.crt"
key_file = "host.key"
[domains."example.com"]
dkim = [{ selector = "2026r", key_file = "rsa.pem" }, { selector = "2026e", key_file = "ed.pem" }]
[[routes]]
to_domain = ["example.org"]
transport = "proxy"
[transports.proxy]
type = "socks"
address = "198.51.100.7:1080"
remote_ips = ["198.51.100.7"]
remote_hostname = "out2.example.com"
${trial.more ?? ""}`,
    );
    let out = "";
    let err = "";
    const { policy = POLICY, args = ["example.com"] } = trial;
    try {
      const code = await run(
        [...args, "--config", file],
        { out: (text) => out += text, err: (text) => err += text, now: () => 0 },
        {
          interfaces: () =>
            trial.interfaces ?? ["127.0.0.1", "::1", "fe80::1", "192.0.2.25", "2001:db8::25"],
          policies: () => ({
            fetch: () =>
              typeof policy === "string"
                ? Promise.resolve(new TextEncoder().encode(policy))
                : Promise.reject(policy),
          }),
        },
      );
      return { code, out, err };
    } finally {
      await server.stop();
    }
  }

  async function report(lines: readonly string[], trial: Trial = {}) {
    const { code, out, err } = await check(lines, {
      ...trial,
      args: [...trial.args ?? ["example.com"], "--json"],
    });
    assert.equal(err, "");
    return { code, ...JSON.parse(out) as Report };
  }

  it("finds nothing where all is right", async () => {
    const { code, errors, warnings, findings, addresses } = await report(good);
    const wrong = findings.filter(({ level }) => level !== "ok");
    assert.deepEqual({ code, errors, warnings, wrong }, {
      code: 0,
      errors: 0,
      warnings: 0,
      wrong: [],
    });
    assert.deepEqual(addresses.map(({ address }) => address), [
      "192.0.2.25",
      "2001:db8::25",
      "198.51.100.7",
    ]);
    assert.deepEqual([...new Set(findings.map(({ check }) => check))], [
      "spf",
      "dkim",
      "dmarc",
      "mx",
      "mta-sts",
      "tlsrpt",
      "tlsa",
      "reverse",
    ]);
    assert.ok(findings.every(({ dnssec }) => dnssec !== "not-authentic"));
    assert.ok(findings.every(({ publish }) => publish.length === 0));
  });

  it("prints a table, and one line that sums up", async () => {
    const { code, out } = await check(good);
    assert.equal(code, 0);
    assert.match(out, /^ok +dkim +secure +2026r\._domainkey\.example\.com +rsa key, 2048 bits/m);
    assert.match(out, /\nexample\.com: no errors, no warnings\n$/);
    const wrong = await check(good.filter((line) => !line.startsWith("_dmarc")));
    assert.equal(wrong.code, 1);
    assert.match(wrong.out, /^ERROR +dmarc /m);
    assert.match(wrong.out, /to publish:\n\n_dmarc\.example\.com\. IN TXT "v=DMARC1; p=quar/);
    assert.match(wrong.out, /\nexample\.com: 1 error, no warnings\n$/);
  });

  const without = (start: string) => good.filter((line) => !line.startsWith(start));
  const instead = (start: string, ...lines: string[]) => [...without(start), ...lines];
  const spf = (text: string) =>
    instead('example.com. IN TXT "v=spf1', `example.com. IN TXT "${text}"`);
  const ADDRESSES = "ip4:192.0.2.25 ip6:2001:db8::25 ip4:198.51.100.7";
  const RSA = "2026r._domainkey.example.com.";
  const dkim = (found: string, put: string) =>
    instead(RSA, txtLine(RSA.slice(0, -1), rsaRecord.replace(found, put)));
  const dmarc = (text: string) => instead("_dmarc", `_dmarc.example.com. IN TXT "${text}"`);
  const PTR = "25.2.0.192.in-addr.arpa.";

  const cases: readonly (readonly [
    what: string,
    zone: () => readonly string[],
    expected: `${Finding["level"]} ${Finding["check"]}`,
    found: RegExp,
    trial?: Trial,
  ])[] = [
    ["no SPF", () => without('example.com. IN TXT "v=spf1'), "error spf", /there is no SPF record/],
    ["two SPF records", () => [...good, 'example.com. IN TXT "v=spf1 -all"'], "error spf", /2 SPF/],
    [
      "an address that SPF leaves out",
      () => spf("v=spf1 ip4:192.0.2.25 include:proxies.example.net -all"),
      "error spf",
      /2001:db8::25 \(direct\): fail/,
    ],
    [
      "a proxy that SPF leaves out",
      () => spf("v=spf1 ip4:192.0.2.25 ip6:2001:db8::25 ~all"),
      "error spf",
      /198\.51\.100\.7 \(proxy\): softfail/,
    ],
    [
      "an SPF record that cannot be read",
      () => spf("v=spf1 ipv4:1 -all"),
      "error spf",
      /permerror/,
    ],
    [
      "SPF with too many lookups",
      () => [
        ...spf(
          `v=spf1 ${Array.from({ length: 11 }, (_, n) => `a:h${n}.example.net`).join(" ")} -all`,
        ),
        ...Array.from({ length: 11 }, (_, n) => `h${n}.example.net. IN A 203.0.113.1`),
      ],
      "error spf",
      /permerror: .*Too many DNS/,
    ],
    ["SPF for everybody", () => spf(`v=spf1 ${ADDRESSES} +all`), "warning spf", /everybody/],
    [
      "SPF without an end",
      () => spf(`v=spf1 ${ADDRESSES}`),
      "warning spf",
      /says nothing of other/,
    ],
    [
      "no SPF for the name in EHLO",
      () => without("mail.example.com. IN TXT"),
      "warning spf",
      /there is no SPF record for this name in EHLO/,
    ],
    [
      "SPF that includes what does not answer",
      () => good,
      "error spf",
      /temperror/,
      { broken: ["proxies.example.net"] },
    ],
    ["no DKIM record", () => without(RSA), "error dkim", /no record for the key that signs/],
    ["two DKIM records", () => [...good, `${RSA} IN TXT "v=DKIM1; p="`], "error dkim", /2 records/],
    [
      "another DKIM key",
      () => instead(RSA, txtLine(RSA.slice(0, -1), dkimRecord(makeDkimKey("rsa")))),
      "error dkim",
      /another key/,
    ],
    [
      "a revoked DKIM key",
      () => instead(RSA, `${RSA} IN TXT "v=DKIM1; p="`),
      "error dkim",
      /revoked/,
    ],
    ["no DKIM p=", () => instead(RSA, `${RSA} IN TXT "v=DKIM1; k=rsa"`), "error dkim", /no p=/],
    ["no tag list", () => instead(RSA, `${RSA} IN TXT "DKIM"`), "error dkim", /not a tag list/],
    [
      "a DKIM record of another kind",
      () => dkim("k=rsa", "k=ed25519"),
      "error dkim",
      /k=ed25519, but the key that signs is rsa/,
    ],
    [
      "a DKIM record of another version",
      () => dkim("DKIM1", "DKIM2"),
      "error dkim",
      /begin with v=DKIM1/,
    ],
    [
      "DKIM without SHA-256",
      () => dkim("k=rsa", "h=sha1; k=rsa"),
      "error dkim",
      /excludes sha256/,
    ],
    [
      "DKIM for another service",
      () => dkim("k=rsa", "s=tlsrpt; k=rsa"),
      "error dkim",
      /excludes email/,
    ],
    [
      "DKIM as a test",
      () => dkim("k=rsa", "t=y; k=rsa"),
      "warning dkim",
      /it is a test/,
    ],
    ["no key in the config", () => good, "warning dkim", /unsigned/, { args: ["example.org"] }],
    ["no DMARC", () => without("_dmarc"), "error dmarc", /no DMARC record, here or above/],
    [
      "two DMARC",
      () => [...good, '_dmarc.example.com. IN TXT "v=DMARC1; p=none"'],
      "error dmarc",
      /2/,
    ],
    ["DMARC none", () => dmarc("v=DMARC1; p=none"), "warning dmarc", /asks receivers for nothing/],
    ["DMARC without p", () => dmarc("v=DMARC1"), "error dmarc", /no p=/],
    [
      "a wrong DMARC policy",
      () => dmarc("v=DMARC1; p=rejct"),
      "error dmarc",
      /p=rejct is not one of/,
    ],
    [
      "a DMARC that is not first",
      () => dmarc("p=reject; v=DMARC1"),
      "error dmarc",
      /begin with v=/,
    ],
    ["a wrong pct", () => dmarc("v=DMARC1; p=reject; pct=200"), "error dmarc", /pct=200/],
    ["a part only", () => dmarc("v=DMARC1; p=reject; pct=20"), "warning dmarc", /a part only/],
    [
      "a wrong rua",
      () => dmarc("v=DMARC1; p=reject; rua=me@example.com"),
      "error dmarc",
      /rua= has/,
    ],
    [
      "reports to somebody who did not ask",
      () => dmarc("v=DMARC1; p=reject; rua=mailto:a@example.net"),
      "warning dmarc",
      /example\.net does not say that it takes reports/,
    ],
    ["no MX", () => without("example.com. IN MX"), "error mx", /no MX record and no address/],
    [
      "no MX but an address",
      () => instead("example.com. IN MX", "example.com. IN A 192.0.2.1"),
      "warning mx",
      /goes to its own address/,
    ],
    [
      "null MX",
      () => instead("example.com. IN MX", "example.com. IN MX 0 ."),
      "error mx",
      /null MX/,
    ],
    [
      "an MX without address",
      () => [...good, "example.com. IN MX 20 gone.example.com."],
      "error mx",
      /20 gone\.example\.com has no address/,
    ],
    [
      "an MX at a loopback address",
      () => [...good, "example.com. IN MX 20 lo.example.com.", "lo.example.com. IN A 127.0.0.1"],
      "error mx",
      /no address to dial/,
    ],
    [
      "an MX that is an alias",
      () => [
        ...good,
        "example.com. IN MX 20 alias.example.com.",
        "alias.example.com. IN CNAME mail.example.com.",
      ],
      "warning mx",
      /an alias/,
    ],
    ["no such domain", () => good, "error mx", /does not exist/, { args: ["example.org"] }],
    ["no MTA-STS", () => without("_mta-sts"), "warning mta-sts", /no MTA-STS record/],
    [
      "an MTA-STS record without id",
      () => instead("_mta-sts", '_mta-sts.example.com. IN TXT "v=STSv1; id="'),
      "error mta-sts",
      /MTA-STS record/,
    ],
    [
      "a policy that cannot be had",
      () => good,
      "error mta-sts",
      /no connection/,
      { policy: new PolicyError("sts-policy-fetch-error", "no connection") },
    ],
    ["a policy that is none", () => good, "error mta-sts", /not valid/, { policy: "hello" }],
    [
      "a policy without the MX",
      () => good,
      "error mta-sts",
      /does not name the MX mail\.example\.com/,
      { policy: POLICY.replace("mail.", "mx.") },
    ],
    [
      "a policy in testing without the MX",
      () => good,
      "warning mta-sts",
      /does not name the MX/,
      { policy: POLICY.replace("mail.", "*.mx.").replace("enforce", "testing") },
    ],
    [
      "a policy for an hour",
      () => good,
      "warning mta-sts",
      /less than a week/,
      { policy: POLICY.replace("1209600", "3600") },
    ],
    [
      "a policy that is off",
      () => good,
      "warning mta-sts",
      /asks senders for nothing/,
      { policy: POLICY.replace("enforce", "none") },
    ],
    ["no TLSRPT", () => without("_smtp._tls"), "warning tlsrpt", /no TLSRPT record/],
    [
      "two TLSRPT records",
      () => [...good, '_smtp._tls.example.com. IN TXT "v=TLSRPTv1; rua=mailto:b@example.com"'],
      "error tlsrpt",
      /2 records/,
    ],
    [
      "TLSRPT to nowhere",
      () =>
        instead("_smtp._tls", '_smtp._tls.example.com. IN TXT "v=TLSRPTv1; rua=tls@example.com"'),
      "error tlsrpt",
      /no mailto/,
    ],
    ["no TLSA", () => without("_587"), "warning tlsa", /there is none for the listener submission/],
    [
      "TLSA of another key",
      () => instead("_587", `_587._tcp.mail.example.com. IN TLSA 3 1 1 ${"00".repeat(32)}`),
      "error tlsa",
      /none of the 1 is the key of the listener submission/,
    ],
    ["TLSA unsigned", () => good, "warning tlsa", /sign the zone/, { signed: false }],
    ["no TLSA for the MX", () => without("_25._tcp"), "warning tlsa", /there is none for the MX/],
    [
      "TLSA of another MX key",
      () => instead("_25._tcp", `_25._tcp.mail.example.com. IN TLSA 3 1 1 ${"00".repeat(32)}`),
      "warning tlsa",
      /none is a key of our listeners/,
    ],
    ["no PTR", () => without(PTR), "error reverse", /192\.0\.2\.25 has no name/],
    [
      "a PTR that does not lead back",
      () => instead(PTR, `${PTR} IN PTR out2.example.com.`),
      "error reverse",
      /does not lead back/,
    ],
    [
      "a PTR of another name",
      () => [
        ...instead(PTR, `${PTR} IN PTR other.example.com.`),
        "other.example.com. IN A 192.0.2.25",
      ],
      "warning reverse",
      /is other\.example\.com, but says mail\.example\.com in EHLO/,
    ],
    ["two PTR", () => [...good, `${PTR} IN PTR b.example.com.`], "warning reverse", /2 names/],
    [
      "a proxy's name that leads elsewhere",
      () => instead("out2.example.com. IN A", "out2.example.com. IN A 192.0.2.99"),
      "error reverse",
      /out2\.example\.com, our name in EHLO, does not lead to 198\.51\.100\.7/,
    ],
    [
      "an address behind NAT",
      () => good,
      "warning spf",
      /sends from 192\.168\.1\.5, which no receiver sees/,
      { interfaces: ["192.168.1.5"] },
    ],
    [
      "a proxy that nobody knows",
      () => good,
      "warning spf",
      /transport dark: its config names no remote_ips/,
      {
        more: `[transports.dark]\ntype = "socks"\naddress = "192.0.2.9"\n` +
          `[[domains."example.com".routes]]\nto_domain = ["example.net"]\ntransport = "dark"\n`,
      },
    ],
    [
      "a smarthost, of which nothing can be known",
      () => good,
      "ok spf",
      /mail leaves from the addresses of relay\.example\.net; what SPF needs/,
      {
        more: `[transports.relay]\ntype = "smtp"\nhost = "relay.example.net"\n` +
          `[[domains."example.com".routes]]\nto_domain = ["example.net"]\ntransport = "relay"\n`,
      },
    ],
    [
      "no answer",
      () => good,
      "error dmarc",
      /no answer/,
      { broken: ["_dmarc.example.com"] },
    ],
  ];

  for (const [what, zone, expected, found, trial = {}] of cases) {
    it(`says so: ${what}`, async () => {
      const lines = zone();
      const { code, findings, errors } = await report(lines, trial);
      const said = findings.filter((finding) => found.test(finding.found));
      assert.ok(
        said.some(({ level, check }) => `${level} ${check}` === expected),
        JSON.stringify(findings.filter(({ level }) => level !== "ok"), null, 1),
      );
      assert.equal(code, errors > 0 ? 1 : 0);
      if (expected.startsWith("error")) assert.equal(code, 1);
    });
  }

  it("takes the policy of a domain above for one below", async () => {
    const { findings } = await report(good, { args: ["news.example.com"] });
    const [found] = findings.filter(({ check }) => check === "dmarc");
    assert.equal(found?.level, "ok");
    assert.equal(found.name, "_dmarc.example.com");
  });

  it("goes by the routes: behind one that takes all, direct is not used", async () => {
    const { addresses } = await report(good, {
      more: `[[domains."example.com".routes]]\ntransport = "proxy"\n`,
    });
    assert.deepEqual(addresses.map(({ address }) => address), ["198.51.100.7"]);
  });

  it("takes the addresses that receivers see", async () => {
    const { addresses, errors } = await report(good, {
      interfaces: ["192.168.1.5"],
      args: ["example.com", "--address", "192.0.2.25"],
    });
    assert.deepEqual(addresses.map(({ address }) => address), ["192.0.2.25", "198.51.100.7"]);
    assert.equal(errors, 0);
  });

  it("says that nothing is authentic where nothing is signed", async () => {
    const { findings, code } = await report(good, { signed: false });
    assert.equal(code, 0);
    assert.ok(findings.some(({ dnssec }) => dnssec === "not-authentic"));
    assert.ok(findings.every(({ dnssec }) => dnssec !== "secure"));
  });

  it("publishing what it says makes every error go away", async () => {
    const addresses = [
      "mail.example.com. IN A 192.0.2.25",
      "mail.example.com. IN AAAA 2001:db8::25",
    ];
    const first = await report(addresses);
    assert.ok(first.errors >= 8, String(first.errors));
    const published = first.findings.flatMap(({ publish }) => publish);
    const second = await report([...addresses, ...published]);
    const wrong = second.findings.filter(({ level }) => level === "error");
    assert.deepEqual(wrong, []);
  });

  for (
    const [args, words] of [
      [[], /a domain is missing/],
      [["exa mple"], /is not a domain name/],
      [["example.com", "more"], /one argument too many/],
      [["example.com", "--address", "nowhere"], /--address: "nowhere" is not an IP address/],
      [["example.com", "--adress", "1"], /--adress is not an option/],
    ] as const
  ) {
    it(`refuses ${args.join(" ") || "nothing at all"}`, async () => {
      const { code, out, err } = await check([], { args });
      assert.equal(code, 2);
      assert.equal(out, "");
      assert.match(err, words);
    });
  }
});

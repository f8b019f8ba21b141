/**
 * Direct delivery over a small internet of real programs: DNSSEC, DANE, and the ladder.
 */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { Correspondence, directOver } from "./correspondence.ts";
import { address, type Internet, offersTls, startInternet, WITHOUT_TLS } from "./internet.ts";
import { CA_EXTENSIONS, forHost, type Issued, Pki } from "./pki.ts";
import { runTask, Server } from "./serve.ts";
import { freePort } from "./wait.ts";

const digest = (octets: Uint8Array): string => createHash("sha256").update(octets).digest("hex");

/** The domains, and the last event of an attempt to each. */
const DOMAINS = {
  "ee.test": "Delivered",
  "ta.test": "Delivered",
  "mismatch.test": "Failed",
  "unusable.test": "Delivered",
  "unusable-plain.test": "Failed",
  "bogus.test": "Failed",
  "plain.test": "Delivered",
  "tlsacname.test": "Delivered",
  "mxcname.test": "Delivered",
  "alias.test": "Delivered",
  "dual.test": "Delivered",
  "broken.test": "Delivered",
  "nostarttls.test": "Failed",
  "implicit.test": "Delivered",
} as const;

describe("direct delivery over a small internet", () => {
  const port = freePort();
  let pki: Pki;
  let internet: Internet;
  let server: Server;
  let correspondence: Correspondence;

  before(async () => {
    pki = await Pki.create();
    const root = await pki.issue({ subject: "/CN=Anchor", extensions: CA_EXTENSIONS });
    const ee = await pki.issue({ subject: "/CN=whatever.invalid" });
    const ta = await pki.issue({
      subject: "/CN=ta",
      extensions: forHost("mx.ta.test"),
      issuer: root,
    });
    internet = await startInternet(await landscape(port, ee, ta, root, pki));
    server = await Server.prepare({
      routing: directOver(internet),
      queue: 'retry = ["2s"]\nmax_attempts = 4\ndelay_notice_after = 10\n',
    });
    await server.start();
    correspondence = new Correspondence(server, "sender@ee.test");
    await correspondence.writeTo(DOMAINS);
  });
  after(async () => {
    await server?.remove();
    await internet?.stop();
    await pki?.remove();
  });

  const story = (domain: keyof typeof DOMAINS) => correspondence.story(domain);

  it("delivers to a DANE-EE host, whatever name its certificate has", () => {
    const { gathered, tried } = story("ee.test");
    assert.equal(gathered.daneRequired, true);
    assert.equal(tried[0]?.verifiedBy, "dane");
    assert.match(String(tried[0]?.proof), /^TLSA 3 1 1 /);
  });

  it("delivers to a DANE-TA host whose anchor is in no CA store", () => {
    const { tried, gathered } = story("ta.test");
    assert.equal(tried[0]?.verifiedBy, "dane");
    assert.match(String(tried[0]?.proof), /^TLSA 2 1 1 .* for mx\.ta\.test$/);
    assert.deepEqual(gathered.names, ["mx.ta.test", "ta.test"]);
  });

  it("does not deliver where the TLSA record no longer matches", () => {
    story("mismatch.test").assertPutOff(/matches none of the TLSA records/);
    assert.equal(story("mismatch.test").tried[0]?.tlsFailure, "validation-failure");
    assert.ok(story("mismatch.test").tried.every(({ fallback }) => fallback !== true));
  });

  it("insists on TLS, not verified, where all TLSA records are unusable", () => {
    const { gathered, tried } = story("unusable.test");
    assert.equal(gathered.tlsMode, "required");
    assert.equal(tried[0]?.tlsMode, "required");
    assert.ok(tried[0]?.tls);
    story("unusable-plain.test").assertPutOff(
      /TLS is required and the host does not offer STARTTLS/,
    );
  });

  it("does not deliver to a bogus zone", () => {
    story("bogus.test").assertPutOff(/SERVFAIL \(/);
    assert.equal(story("bogus.test").tried.length, 0);
  });

  it("ignores TLSA records of an unsigned zone, without asking for them", () => {
    const { gathered, tried } = story("plain.test");
    assert.equal(gathered.tlsa, "not-asked");
    assert.equal(tried[0]?.tlsMode, "opportunistic");
  });

  it("follows a CNAME of the TLSA name", () => {
    const { gathered, tried } = story("tlsacname.test");
    assert.equal(gathered.base, "mx.tlsacname.test");
    assert.equal(tried[0]?.verifiedBy, "dane");
  });

  it("takes the end of an MX host's CNAMEs for the base domain", () => {
    const { gathered, tried } = story("mxcname.test");
    assert.equal(gathered.base, "mx.ee.test");
    assert.equal(tried[0]?.verifiedBy, "dane");
  });

  it("follows CNAMEs of the recipient's domain", () => {
    const { expanded, dnssec } = story("alias.test").data("DestinationsResolved");
    assert.equal(expanded, "ta.test");
    assert.deepEqual(dnssec, { nextHop: "secure", expanded: "secure" });
    assert.equal(story("alias.test").tried[0]?.verifiedBy, "dane");
  });

  it("applies DANE to a domain that is its own host", () => {
    assert.equal(story("implicit.test").tried[0]?.verifiedBy, "dane");
  });

  it("doubts a policy refusal of one family, and tries the other the next time", () => {
    const { tried, gathered } = story("dual.test");
    assert.equal(gathered.dualStack, true);
    const failed = story("dual.test").data("Failed");
    assert.equal(failed.permanent, false);
    assert.equal(failed.enhanced, "5.7.1");
    assert.deepEqual(tried.map((one) => one.address), ["::1", address(7)]);
    assert.equal(tried[1]?.result, "ok");
  });

  it("goes on in plain text where opportunistic TLS is broken", () => {
    const { tried } = story("broken.test");
    assert.match(String(tried[0]?.error), /the TLS handshake failed/);
    assert.equal(tried[1]?.fallback, true);
    assert.equal(tried[1]?.tlsMode, "none");
    assert.equal(tried[1]?.result, "ok");
  });

  it("does not deliver without STARTTLS where DANE is required", () => {
    story("nostarttls.test").assertPutOff(/does not offer STARTTLS/);
    assert.equal(story("nostarttls.test").tried[0]?.tlsFailure, "starttls-not-supported");
  });

  it("says all this in replay and in `queue show`", async () => {
    const stream = story("mismatch.test").events[0]?.stream ?? "";
    const shown = await server.command("queue", "show", stream);
    assert.equal(shown.code, 0, shown.stderr);
    assert.match(shown.stdout, /dnssec +mismatch\.test secure/);
    assert.match(shown.stdout, /TLSA of mx\.mismatch\.test: 3 1 1 0{32}/);
    assert.match(shown.stdout, /required: verified by dane/);
    const replay = await server.command("replay", stream);
    assert.match(replay.stdout, /TLSAGathered.*required: verified by dane/);
  });

  it("counts it", async () => {
    const { text } = await server.get("/metrics");
    const count = (what: string) =>
      Number(new RegExp(`security_total\\{what="${what}"\\} (\\d+)`).exec(text)?.[1]);
    assert.ok(count("dane-verified") >= 6, text);
    assert.ok(count("dane-only-unusable") >= 2);
    assert.ok(count("plaintext-fallback") >= 1);
    assert.ok(count("destination-authentic") >= 12);
  });

  it("resolves a domain without sending anything", async () => {
    const before = (await internet.postfix.log()).match(/status=sent/g)?.length;
    const config = ["--config", server.config, "--transport", "out"];
    const good = await runTask("resolve", ["ee.test", ...config, "--json"]);
    assert.equal(good.code, 0, good.stderr + good.stdout);
    const found = JSON.parse(good.stdout);
    assert.equal(found.destination.dnssec.expanded, "secure");
    assert.equal(found.hosts[0].gathered.daneRequired, true);
    assert.equal(found.hosts[0].addresses[0].verdict, "ok");
    assert.equal(found.hosts[0].addresses[0].verifiedBy, "dane");
    const bad = await runTask("resolve", ["mismatch.test", ...config]);
    assert.equal(bad.code, 1);
    assert.match(bad.stdout, /matches none of the TLSA records/);
    assert.equal((await internet.postfix.log()).match(/status=sent/g)?.length, before);
  });
});

async function landscape(port: number, ee: Issued, ta: Issued, root: Issued, pki: Pki) {
  const tlsa = (host: string, record: string) => `_${port}._tcp.${host} TLSA ${record}`;
  const own = `3 1 1 ${digest(ee.spki)}`;
  const eeTls = offersTls(await pki.chainFile(ee));
  const taTls = offersTls(await pki.chainFile(ta, root));
  const refuses = {
    ...WITHOUT_TLS,
    smtpd_client_restrictions: "reject",
    smtpd_delay_reject: "yes",
    access_map_reject_code: "550",
    reject_code: "550",
    maps_rbl_reject_code: "550",
  };
  const hosts = [
    { addresses: [address(1)], parameters: eeTls },
    { addresses: [address(2)], parameters: taTls },
    { addresses: [address(3)], parameters: WITHOUT_TLS },
    { addresses: [address(4)], parameters: { ...eeTls, smtpd_tls_protocols: "TLSv1.1" } },
    { addresses: ["::1"], parameters: refuses },
    { addresses: [address(7)], parameters: WITHOUT_TLS },
  ];
  const records = [
    "ee MX 10 mx.ee",
    `mx.ee A ${address(1)}`,
    tlsa("mx.ee", own),
    "ta MX 10 mx.ta",
    `mx.ta A ${address(2)}`,
    tlsa("mx.ta", `2 1 1 ${digest(root.spki)}`),
    "mismatch MX 10 mx.mismatch",
    `mx.mismatch A ${address(1)}`,
    tlsa("mx.mismatch", `3 1 1 ${"00".repeat(32)}`),
    "unusable MX 10 mx.unusable",
    `mx.unusable A ${address(1)}`,
    tlsa("mx.unusable", `1 1 1 ${"00".repeat(32)}`),
    tlsa("mx.unusable", `3 1 9 ${"00".repeat(32)}`),
    "unusable-plain MX 10 mx.unusable-plain",
    `mx.unusable-plain A ${address(3)}`,
    tlsa("mx.unusable-plain", `0 0 1 ${"00".repeat(32)}`),
    "tlsacname MX 10 mx.tlsacname",
    `mx.tlsacname A ${address(1)}`,
    `_${port}._tcp.mx.tlsacname CNAME _dane.ee`,
    `_dane.ee TLSA ${own}`,
    "mxcname MX 10 mx.mxcname",
    "mx.mxcname CNAME mx.ee",
    "alias CNAME ta",
    "dual MX 10 mx.dual",
    "mx.dual AAAA ::1",
    `mx.dual A ${address(7)}`,
    "broken MX 10 mx.broken",
    `mx.broken A ${address(4)}`,
    "nostarttls MX 10 mx.nostarttls",
    `mx.nostarttls A ${address(3)}`,
    tlsa("mx.nostarttls", own),
    `implicit A ${address(1)}`,
    tlsa("implicit", own),
  ];
  const wrong = ["@ MX 10 mx", `mx A ${address(1)}`, tlsa("mx", `3 1 1 ${"00".repeat(32)}`)];
  return {
    smtpPort: port,
    zones: [
      { name: "test", records, state: "signed" },
      { name: "plain.test", records: wrong, state: "unsigned" },
      { name: "bogus.test", records: wrong, state: "bogus" },
    ] as const,
    hosts,
  };
}

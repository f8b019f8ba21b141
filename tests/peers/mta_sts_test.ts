/**
 * MTA-STS over a small internet of real programs: policies over HTTPS from a private CA, Postfix
 * with certificates that fit them and others that do not.
 */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { Correspondence, directOver } from "./correspondence.ts";
import { assertReplayable, exportedEvents } from "./history.ts";
import { type HttpsHost, type HttpsMessage, startHttpsHost } from "./https_host.ts";
import { address, type Internet, offersTls, startInternet, WITHOUT_TLS } from "./internet.ts";
import { CA_EXTENSIONS, forHost, type Issued, Pki } from "./pki.ts";
import { runTask, Server } from "./serve.ts";
import { freePort } from "./wait.ts";

/** The domains, and the last event of an attempt to each. */
const DOMAINS = {
  "enforce.test": "Delivered",
  "wildcard.test": "Delivered",
  "foreign.test": "Failed",
  "wrongname.test": "Failed",
  "plain.test": "Failed",
  "unlisted.test": "Failed",
  "partly.test": "Delivered",
  "testing.test": "Delivered",
  "badca.test": "Delivered",
  "html.test": "Delivered",
  "alias.test": "Delivered",
} as const;
type Domain = keyof typeof DOMAINS;

const policy = (mode: string, ...mx: string[]) =>
  `version: STSv1\r\nmode: ${mode}\r\n${mx.map((name) => `mx: ${name}\r\n`).join("")}` +
  "max_age: 86400\r\n";

const POLICIES: Readonly<Record<string, string>> = {
  "enforce.test": policy("enforce", "mx.enforce.test"),
  "wildcard.test": policy("enforce", "*.wildcard.test"),
  "foreign.test": policy("enforce", "mx.foreign.test"),
  "wrongname.test": policy("enforce", "mx.wrongname.test"),
  "plain.test": policy("enforce", "mx.plain.test"),
  "unlisted.test": policy("enforce", "other.unlisted.test"),
  "partly.test": policy("enforce", "mx2.partly.test"),
  "testing.test": policy("testing", "mx.testing.test"),
  "badca.test": policy("enforce", "nothing.badca.test"),
  "html.test": policy("enforce", "nothing.html.test"),
};

describe("MTA-STS over a small internet", () => {
  const port = freePort();
  let pki: Pki;
  let internet: Internet;
  let server: Server;
  let correspondence: Correspondence;
  const policyHosts: HttpsHost[] = [];

  before(async () => {
    pki = await Pki.create();
    const ours = await pki.issue({ subject: "/CN=Ours", extensions: CA_EXTENSIONS });
    const theirs = await pki.issue({ subject: "/CN=Theirs", extensions: CA_EXTENSIONS });
    const names = ["enforce", "wildcard", "wrong", "partly"].map((name) =>
      name === "partly" ? "mx2.partly.test" : `mx.${name}.test`
    );
    const extensions = forHost(...names);
    const trusted = await pki.issue({ subject: "/CN=mx", extensions, issuer: ours });
    const foreign = await pki.issue({
      subject: "/CN=mx",
      extensions: forHost("mx.foreign.test", "mx.testing.test"),
      issuer: theirs,
    });
    const hosts = Object.keys(DOMAINS).map((domain) => `mta-sts.${domain}`);
    const policyCertificate = (issuer: Issued) =>
      pki.issue({ subject: "/CN=policies", extensions: forHost(...hosts), issuer });
    for (const [n, issuer] of [[20, ours], [21, theirs]] as const) {
      const certificate = await policyCertificate(issuer);
      policyHosts.push(await startHttpsHost({ address: address(n) }, certificate, servePolicy));
    }
    internet = await startInternet(await landscape(port, trusted, foreign, pki));
    server = await Server.prepare({
      routing: directOver(internet, ours.certificate),
      queue: 'retry = ["60s"]\nmax_attempts = 4\ndelay_notice_after = 10\n',
    });
    await server.start();
    correspondence = new Correspondence(server, "sender@enforce.test");
    await correspondence.writeTo(DOMAINS);
  });
  after(async () => {
    await server?.remove();
    for (const host of policyHosts) await host.stop();
    await internet?.stop();
    await pki?.remove();
  });

  const story = (domain: Domain, user?: string) => correspondence.story(domain, user);
  const policyOf = (domain: Domain, user?: string) =>
    story(domain, user).data("DestinationsResolved").mtaSts as Record<string, unknown>;

  it("delivers where an enforced policy and the certificate agree", () => {
    const { tried } = story("enforce.test");
    const policy = policyOf("enforce.test");
    assert.equal(policy.status, "policy");
    assert.equal(policy.mode, "enforce");
    assert.equal(policy.from, "fetched");
    assert.equal(tried[0]?.verifiedBy, "mta-sts");
    assert.equal(tried[0]?.tlsMode, "verified");
  });

  it("takes a wildcard for the hosts that it stands for", () => {
    assert.equal(story("wildcard.test").tried[0]?.verifiedBy, "mta-sts");
  });

  it("does not deliver to a host whose certificate a foreign CA signed", () => {
    story("foreign.test").assertPutOff(/certificate is not accepted/);
    assert.equal(story("foreign.test").tried[0]?.tlsFailure, "certificate-not-trusted");
    assert.equal(story("foreign.test").tried.length, 1, "and does not fall back");
  });

  it("does not deliver to a host whose certificate is for another name", () => {
    story("wrongname.test").assertPutOff(/not mx\.wrongname\.test/);
    assert.equal(story("wrongname.test").tried[0]?.tlsFailure, "certificate-host-mismatch");
  });

  it("does not deliver to a host without STARTTLS", () => {
    story("plain.test").assertPutOff(/STARTTLS/);
    assert.equal(story("plain.test").tried[0]?.tlsFailure, "starttls-not-supported");
  });

  it("passes over hosts that the policy does not name, all of them if need be", () => {
    story("unlisted.test").assertPutOff(/names none of its hosts: mx\.unlisted\.test/);
    assert.equal(story("unlisted.test").tried.length, 0);
    const partly = story("partly.test");
    assert.deepEqual(partly.all("TLSAGathered").map(({ host, verdict }) => [host, verdict]), [
      ["mx1.partly.test", "skip"],
      ["mx2.partly.test", "try"],
    ]);
    assert.deepEqual(partly.tried.map(({ host }) => host), ["mx2.partly.test"]);
  });

  it("finds out in testing, and enforces nothing", () => {
    const { tried } = story("testing.test");
    const testing = tried[0]?.testing as Record<string, unknown>;
    assert.equal(testing.ok, false);
    assert.equal(testing.type, "certificate-not-trusted");
    assert.equal(tried[0]?.result, "ok");
  });

  it("goes on without a policy that cannot be believed", () => {
    const policy = policyOf("badca.test");
    assert.equal(policy.status, "error");
    assert.equal(policy.failure, "sts-webpki-invalid");
    assert.equal(policyOf("html.test").failure, "sts-policy-invalid");
  });

  it("goes by the policy of the recipient's domain, not of the name it is an alias of", () => {
    assert.equal(policyOf("alias.test").status, "none");
    assert.equal(story("alias.test").tried[0]?.verifiedBy, "none");
  });

  it("keeps policies in the log, over a restart, though the policy host is gone", async () => {
    const stored = (await exportedEvents(server)).filter(({ type }) =>
      type === "MtaStsPolicyStored"
    );
    assert.ok(stored.some(({ stream }) => stream.startsWith("mta-sts enforce.test ")));
    await server.stop();
    for (const host of policyHosts.splice(0)) await host.stop();
    await server.start();
    await correspondence.writeTo({ "enforce.test": "Delivered" }, "carol");
    assert.equal(policyOf("enforce.test", "carol").from, "cache");
    assert.equal(story("enforce.test", "carol").tried[0]?.verifiedBy, "mta-sts");
    await assertReplayable(server, story("enforce.test", "carol").events);
    const { text } = await server.get("/metrics");
    assert.match(text, /postledger_mta_sts_fetches_total\{result="ok"\} 0/);
  });

  it("counts sessions for the reports to their domains", () => {
    const report = (domain: Domain) =>
      story(domain).tried[0]?.tlsReport as { results: Record<string, unknown>[] };
    assert.equal(report("enforce.test").results[0]?.type, "sts");
    assert.equal(report("enforce.test").results[0]?.failure, undefined);
    assert.equal(report("foreign.test").results[0]?.failure, "certificate-not-trusted");
    assert.equal(report("testing.test").results[0]?.failure, "certificate-not-trusted");
    assert.equal(report("alias.test").results[0]?.type, "no-policy-found");
  });

  it("resolves a domain: the policy host is gone, the record is there", async () => {
    const config = ["--config", server.config, "--transport", "out"];
    const { stdout, stderr } = await runTask("resolve", ["enforce.test", ...config]);
    assert.match(stdout, /^mta-sts +no policy to go by: mta-sts\.enforce\.test/m, stderr);
  });
});

/** Policies by the name that is asked. */
function servePolicy({ host, path }: HttpsMessage) {
  const domain = host.replace(/^mta-sts\./, "");
  const text = path === "/.well-known/mta-sts.txt" ? POLICIES[domain] : undefined;
  if (text === undefined) return { status: 404 };
  return { status: 200, type: domain === "html.test" ? "text/html" : "text/plain", text };
}

async function landscape(port: number, trusted: Issued, foreign: Issued, pki: Pki) {
  const records = Object.keys(DOMAINS).flatMap((domain) => {
    const name = domain.replace(".test", "");
    if (domain === "alias.test") return ["alias CNAME unlisted"];
    const at = domain === "plain.test"
      ? address(3)
      : domain === "foreign.test" || domain === "testing.test"
      ? address(2)
      : address(1);
    const hosts = domain === "partly.test"
      ? [`${name} MX 10 mx1.${name}`, `${name} MX 20 mx2.${name}`, `mx1.${name} A ${at}`]
      : [`${name} MX 10 mx.${name}`];
    return [
      ...hosts,
      `${domain === "partly.test" ? "mx2" : "mx"}.${name} A ${at}`,
      `_mta-sts.${name} TXT "v=STSv1; " "id=20260101;"`,
      `mta-sts.${name} A ${domain === "badca.test" ? address(21) : address(20)}`,
    ];
  });
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

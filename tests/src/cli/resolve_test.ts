/** `resolve`: what is surveyed of a domain, and how it is shown. */
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { surveyText } from "../../../src/cli/resolve.ts";
import { type Survey, surveyDomain, type SurveyPorts } from "../../../src/delivery/survey.ts";
import { DnsError } from "../../../src/ports.ts";
import type { MtaSts, MtaStsFinding } from "../../../src/tls/requirements.ts";
import { World } from "../delivery/world.ts";
import { FakeResolver, mx } from "../dns/fake_resolver.ts";
import { realClock } from "../smtp/harness.ts";

const fixture = (name: string): string =>
  readFileSync(new URL(`../../../fixtures/tls/${name}`, import.meta.url), "utf8");
const LOCALHOST = { key: fixture("localhost.key.pem"), cert: fixture("localhost.cert.pem") };

let world: World;
beforeEach(() => {
  world = new World([], "us.example");
});
afterEach(() => world.stop());

function survey(changes: Partial<SurveyPorts> = {}, needs = {}): Promise<Survey> {
  return surveyDomain(
    {
      clock: realClock,
      random: { next: () => 0.5 },
      resolver: world,
      dialer: world,
      hostname: "us.example",
      ...changes,
    },
    "example.org",
    {
      port: 25,
      family: "any",
      allowLoopback: false,
      needs: { requireTLS: false, tlsOptional: false, ...needs },
      connect: 50,
    },
    new AbortController().signal,
  );
}

const policies = (finding: Awaited<ReturnType<MtaSts["find"]>>): MtaSts => ({
  find: () => Promise.resolve(finding),
});
const policy = (mode: "enforce" | "testing", ...hosts: string[]): MtaStsFinding => ({
  status: "policy",
  domain: "example.org",
  mode,
  id: "7",
  mx: hosts,
  maxAge: 1,
  from: "fetched",
});

describe("resolve", () => {
  it("takes every host as far as TLS, and sends no message", async () => {
    world.domain("example.org", [10, "mx1.example.org"], [20, "mx2.example.org"]);
    const secure = await world.host("mx1.example.org", "192.0.2.1", {
      extensions: ["STARTTLS"],
      tls: LOCALHOST,
    });
    await world.host("mx2.example.org", "192.0.2.2", { extensions: ["STARTTLS"], garbleTls: true });
    const found = await survey();
    assert.equal(found.deliverable, true);
    assert.deepEqual(found.hosts.map(({ addresses }) => addresses[0]?.verdict), ["ok", "plain"]);
    assert.ok(found.hosts[0]?.addresses[0]?.tls);
    assert.deepEqual(secure.messages, []);
    assert.ok(!secure.commands.some((command) => command.startsWith("MAIL")));
    const text = surveyText(found);
    assert.match(
      text,
      /^ok +\[192\.0\.2\.1\], TLSv1\.[23] .*\(opportunistic, verified by none\)$/m,
    );
    assert.match(text, /^plain .*handshake failed.*mail would go in plain text$/m);
    assert.match(text, /^verdict +mail would be delivered$/m);
  });

  it("passes over hosts that an enforced policy does not name, and judges the others", async () => {
    world.domain("example.org", [10, "mx1.example.org"], [20, "mx2.example.org"]);
    for (const [name, address] of [["mx1", "192.0.2.1"], ["mx2", "192.0.2.2"]] as const) {
      await world.host(`${name}.example.org`, address, {
        extensions: ["STARTTLS"],
        tls: LOCALHOST,
      });
    }
    const found = await survey({ mtaSts: policies(policy("enforce", "mx2.example.org")) });
    assert.deepEqual(found.hosts.map(({ gathered }) => gathered?.verdict), ["skip", "try"]);
    assert.equal(found.hosts[1]?.addresses[0]?.verdict, "failed");
    assert.equal(found.deliverable, false);
    const text = surveyText(found);
    assert.match(text, /^mta-sts +enforce, mx2\.example\.org \(id 7, fetched\)$/m);
    assert.match(text, /^host +10 mx1.*no address$/m);
    assert.match(text, /^failed .*\(verified, and it was not\), the certificate is not accepted/m);
  });

  it("says what a policy in testing would have refused", async () => {
    world.domain("example.org", [10, "mx1.example.org"]);
    await world.host("mx1.example.org", "192.0.2.1", { extensions: ["STARTTLS"], tls: LOCALHOST });
    const found = await survey({ mtaSts: policies(policy("testing", "mx1.example.org")) });
    assert.equal(found.deliverable, true);
    assert.equal(found.hosts[0]?.addresses[0]?.testing?.ok, false);
    assert.match(surveyText(found), /MTA-STS in testing would refuse: /);
  });

  it("fails a message with REQUIRETLS where nothing vouches for the host", async () => {
    world.domain("example.org", [10, "mx1.example.org"]);
    await world.host("mx1.example.org", "192.0.2.1");
    const found = await survey({}, { requireTLS: true });
    assert.equal(found.deliverable, false);
    assert.match(found.hosts[0]?.failure ?? "", /REQUIRETLS/);
  });

  it("ends at no answer about the policy", async () => {
    world.domain("example.org", [10, "mx1.example.org"]);
    const unknown = { status: "temporary", domain: "example.org", reason: "SERVFAIL" } as const;
    const found = await survey({ mtaSts: policies(unknown) });
    assert.match(found.failure ?? "", /MTA-STS: SERVFAIL/);
    assert.equal(found.deliverable, false);
  });

  it("shows an MX host whose CNAMEs lead around in a circle", async () => {
    const loop = new DnsError("malformed", "mx1.example.org A: its CNAMEs loop at mx1.example.org");
    const resolver = new FakeResolver({
      "example.org MX": { records: mx([10, "mx1.example.org"]) },
      "mx1.example.org A": loop,
      "mx1.example.org AAAA": loop,
    });
    const found = await survey({ resolver });
    assert.match(found.hosts[0]?.failure ?? "", /CNAMEs loop/);
    assert.match(surveyText(found), /^failure +.*CNAMEs loop/m);
  });

  it("shows why a domain takes no mail", async () => {
    world.domain("example.org", [0, "."]);
    const found = await survey();
    assert.match(surveyText(found), /^failure +permanent: .*null MX.*\(5\.1\.10\)$/m);
  });
});

/** `[[destinations]]` and `[accounts.NAME.queue]`: what is refused, and which policy follows. */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { join } from "node:path";
import { retryPolicy } from "../../../src/config/destinations.ts";
import { loadConfig } from "../../../src/config/load.ts";
import { ConfigError } from "../../../src/config/problems.ts";
import { Destinations } from "../../../src/delivery/destinations.ts";
import { policy, stored } from "../../actors/given.ts";

const HOUR = 3_600_000;
let folder = "";
before(async () => {
  folder = await Deno.makeTempDir({ prefix: "postledger-destinations-" });
});
after(() => Deno.remove(folder, { recursive: true }));

function load(toml: string) {
  const file = join(folder, "config.toml");
  Deno.writeTextFileSync(file, toml);
  return loadConfig({ file, env: new Map(), systemHostname: () => "mail.example.com" });
}
function refused(toml: string, ...lines: RegExp[]) {
  assert.throws(() => load(toml), (error: unknown) => {
    assert.ok(error instanceof ConfigError);
    assert.equal(error.lines.length, lines.length, error.message);
    for (const [n, line] of lines.entries()) assert.match(error.lines[n]!, line);
    return true;
  });
}

const RELAY = `[transports.relay]\ntype = "smtp"\nhost = "relay.example"\n`;

describe("[[destinations]]", () => {
  it("is refused where it names nothing, or two things", () => {
    refused("[[destinations]]\nconcurrency = 3", /destinations\[0\].*none is there/);
    refused(
      `[[destinations]]\nmatch = ["a.example"]\nmx = ["b.example"]\nconcurrency = 3`,
      /there are match and mx/,
    );
    refused(`[[destinations]]\nmatch = ["a.example"]`, /sets nothing/);
    refused(`[[destinations]]\nmatch = ["a.example"]\ncolour = "red"`, /colour/);
  });

  it("is refused where earlier entries match all that it would", () => {
    const entry = (criterion: string) => `[[destinations]]\n${criterion}\nconcurrency = 3\n`;
    refused(
      entry('match = [".example"]') + entry('match = ["a.example", ".b.example"]'),
      /destinations\[1\].*can never match: destinations\[0\] comes first/,
    );
    refused(entry('mx = [".mx.example"]') + entry('mx = [".mx.example"]'), /can never match/);
    refused(RELAY + entry('transport = "relay"') + entry('transport = "relay"'), /can never match/);
    load(entry('match = ["a.example"]') + entry('match = [".example"]'));
    load(entry('match = [".example"]') + entry('mx = [".example"]'));
  });

  it("is refused for a transport that is none, or that has many destinations", () => {
    refused(`[[destinations]]\ntransport = "nowhere"\nconcurrency = 3`, /there are direct/);
    refused(`[[destinations]]\ntransport = "direct"\nconcurrency = 3`, /match or mx/);
  });

  it("is refused where it allows more than the queue has", () => {
    refused(
      `[queue]\nconcurrency = 20\n[[destinations]]\nmatch = ["a.example"]\nconcurrency = 21`,
      /more than queue\.concurrency, which is 20/,
    );
  });

  it("lets routes count the attempts that a destination or an account allows", () => {
    const route = "[[routes]]\nminimum_attempts = 15\n";
    refused(route, /never reached/);
    load(`${route}[[destinations]]\nmatch = ["a.example"]\nmax_attempts = 16\n`);
    load(`${route}[accounts.shop.queue]\nmax_attempts = 16\n`);
  });
});

describe("the policy for a message", () => {
  it("has the waits of the destination before those of the account", () => {
    assert.deepEqual(retryPolicy(policy, { waits: [1] }, { waits: [2] }).waits, [2]);
    assert.deepEqual(retryPolicy(policy, { waits: [1] }).waits, [1]);
    assert.deepEqual(retryPolicy(policy), policy);
  });
  it("has the least lifetime that either sets, also where that is more than the queue's", () => {
    assert.equal(retryPolicy(policy, { lifetime: HOUR }, { lifetime: 2 * HOUR }).lifetime, HOUR);
    assert.equal(retryPolicy(policy, {}, { lifetime: 900 * HOUR }).lifetime, 900 * HOUR);
    assert.equal(retryPolicy(policy, { maxAttempts: 9 }, { maxAttempts: 3 }).maxAttempts, 3);
  });
});

describe("destinations", () => {
  const config = () =>
    load(`${RELAY}
[[destinations]]
match = ["own.example"]
concurrency = 2
[[destinations]]
mx = [".mx.example", "mx.example.net"]
messages_per_minute = 30
messages_per_connection = 7
retry = ["5s"]
[[destinations]]
transport = "relay"
messages_per_hour = 100
[accounts.shop.queue]
lifetime = "1h"
`);
  const resolvedTo = (nextHop: string, host: string) =>
    stored([{
      type: "DestinationsResolved",
      data: {
        nextHop,
        expanded: nextHop,
        dnssec: { nextHop: "unchecked", expanded: "unchecked" },
        by: "mx",
        hosts: [{ host, preference: 10 }, { host: "other.example.org", preference: 20 }],
      },
    }]);

  it("are one where domains share the MX hosts of an entry, once that was learnt", () => {
    const destinations = new Destinations(config());
    assert.equal(destinations.keyOf("a.example"), "a.example");
    destinations.learn(resolvedTo("a.example", "in1.mx.example"));
    destinations.learn(resolvedTo("b.example", "MX.example.net"));
    destinations.learn(resolvedTo("own.example", "in1.mx.example"));
    destinations.learn(resolvedTo("else.example", "mx.else.example"));
    assert.equal(destinations.keyOf("a.example"), "mx:.mx.example");
    assert.equal(destinations.keyOf("b.example"), "mx:.mx.example");
    assert.equal(destinations.keyOf("own.example"), "own.example", "its entry comes first");
    assert.equal(destinations.keyOf("else.example"), "else.example");
  });

  it("have the limits of the first entry that matches", () => {
    const destinations = new Destinations(config());
    assert.deepEqual(destinations.limits("own.example"), { concurrency: 2 });
    assert.deepEqual(destinations.limits("mx:.mx.example"), { concurrency: 20, perMinute: 30 });
    assert.deepEqual(destinations.limits("transport:relay"), { concurrency: 20, perHour: 100 });
    assert.deepEqual(destinations.limits("x.own.example"), { concurrency: 20 });
    assert.equal(destinations.perConnection("mx:.mx.example"), 7);
    assert.equal(destinations.perConnection("own.example"), undefined);
  });

  it("change the retry policy, and so do accounts", () => {
    const destinations = new Destinations(config());
    const at = (account: string | null, destination: string) =>
      destinations.retry({ account, destination });
    assert.deepEqual(at(null, "mx:.mx.example").waits, [5_000]);
    assert.equal(at("shop", "own.example").lifetime, HOUR);
    assert.equal(at("other", "own.example").lifetime, 120 * HOUR);
    assert.deepEqual(destinations.lifetimes(), [120 * HOUR, HOUR], "every one there may be");
  });

  it("follow a configuration that is put in force", () => {
    const destinations = new Destinations(config());
    destinations.learn(resolvedTo("a.example", "in1.mx.example"));
    assert.deepEqual(destinations.limits("own.example"), { concurrency: 2 });
    destinations.use(load(""));
    assert.deepEqual(destinations.limits("own.example"), { concurrency: 20 });
    assert.equal(destinations.keyOf("a.example"), "a.example");
  });
});

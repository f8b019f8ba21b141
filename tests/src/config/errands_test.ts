import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { loadConfig } from "../../../src/config/load.ts";
import { ConfigError } from "../../../src/config/problems.ts";

const SECRET = "0123456789abcdef0123456789abcdef";

function load(toml: string, env: Record<string, string> = {}) {
  const file = Deno.makeTempFileSync({ prefix: "postledger-", suffix: ".toml" });
  try {
    Deno.writeTextFileSync(file, toml);
    return loadConfig({
      file,
      env: new Map(Object.entries(env)),
      systemHostname: () => "h.example",
    });
  } finally {
    Deno.removeSync(file);
  }
}

function refusal(toml: string): string {
  try {
    load(toml);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.lines.join("\n");
  }
  assert.fail("it was taken");
}

describe("config: webhooks, suppression, retention", () => {
  it("has defaults", () => {
    const { webhooks, suppression, retention } = load("");
    assert.deepEqual(webhooks, []);
    assert.deepEqual(suppression, { automatic: true });
    assert.deepEqual(retention, { keep: 90 * 86_400_000 });
  });

  it("reads what is set, the secret from the environment", () => {
    const { webhooks: [hook], suppression, retention } = load(
      `
      [webhooks.crm]
      url = "https://crm.example.com/mail?x=1"
      secret = "\${CRM_SECRET}"
      events = ["failed", "suppressed"]
      accounts = ["shop"]
      concurrency = 8
      park_after = "2h"
      [suppression]
      automatic = false
      expire = "30d"
      [retention]
      keep = "365d"
      `,
      { CRM_SECRET: SECRET },
    );
    assert.equal(hook!.secret.reveal(), SECRET);
    assert.ok(!JSON.stringify(hook).includes(SECRET));
    assert.deepEqual(
      [hook!.name, hook!.url, hook!.events, hook!.accounts, hook!.concurrency, hook!.parkAfter],
      ["crm", "https://crm.example.com/mail?x=1", ["failed", "suppressed"], ["shop"], 8, 7_200_000],
    );
    assert.deepEqual(suppression, { automatic: false, expire: 30 * 86_400_000 });
    assert.equal(retention.keep, 365 * 86_400_000);
  });

  it("tells an endpoint 32 events at a time, and has an old secret vouch too where one is set", () => {
    const old = SECRET.toUpperCase();
    const [hook] = load(
      `[webhooks.a]\nurl = "https://a.example/"\nsecret = "${SECRET}"\nold_secret = "${old}"`,
    ).webhooks;
    assert.equal(hook!.concurrency, 32);
    assert.equal(hook!.oldSecret!.reveal(), old);
    assert.ok(!JSON.stringify(hook).includes(old));
  });

  it("takes http for loopback, and elsewhere only where that is said", () => {
    const hook = (url: string, more = "") =>
      `[webhooks.a]\nurl = "${url}"\nsecret = "${SECRET}"\n${more}`;
    for (const url of ["http://127.0.0.1:9/x", "http://[::1]:9/", "http://localhost/"]) {
      assert.equal(load(hook(url)).webhooks[0]!.url, url);
    }
    assert.match(refusal(hook("http://crm.example.com/")), /webhooks\.a\.url.*in clear/);
    assert.ok(load(hook("http://crm.example.com/", "insecure_http = true")));
  });

  it("refuses what cannot be meant", () => {
    const hook = (lines: string) => `[webhooks.a]\n${lines}`;
    const url = 'url = "https://crm.example.com/"\n';
    assert.match(refusal(hook(`${url}secret = "short"`)), /webhooks\.a\.secret.*shorter/);
    assert.ok(!refusal(hook(`${url}secret = "hunter2"`)).includes("hunter2"));
    assert.match(refusal(hook(`${url}`)), /webhooks\.a\.secret/);
    const sound = `secret = "${SECRET}"\n`;
    assert.match(refusal(hook(`${sound}url = "ftp://x/"`)), /http or https URL/);
    assert.match(refusal(hook(`${sound}${url}concurrency = 0`)), /webhooks\.a\.concurrency/);
    assert.match(refusal(hook(`${sound}${url}concurrency = 257`)), /webhooks\.a\.concurrency/);
    assert.ok(!refusal(hook(`${sound}${url}old_secret = "hunter2"`)).includes("hunter2"));
    assert.match(refusal(hook(`${sound}url = "https://u:p@x.example/"`)), /without user/);
    assert.match(refusal(hook(`${sound}${url}events = ["opened"]`)), /webhooks\.a\.events/);
    assert.match(refusal(hook(`${sound}${url}events = []`)), /names no event/);
    assert.match(refusal('[retention]\nkeep = "1ms"'), /retention\.keep/);
    assert.match(refusal('[suppression]\nexpires = "1d"'), /expires/);
  });
});

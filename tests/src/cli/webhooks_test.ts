/** `webhooks list|park|resume`, through the API of a running queue. */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { run } from "../../../src/cli/webhooks.ts";
import { HttpHarness } from "../http/harness.ts";
import { ran } from "./given_queue.ts";

describe("webhooks", () => {
  let http: HttpHarness;
  before(async () => {
    http = await HttpHarness.create();
  });
  after(() => http.remove());
  const webhooks = (...args: string[]) => ran(run, [...args, "--data", http.dataDir]);

  it("lists endpoints, parks one and resumes it, and says why it is parked", async () => {
    const list = await webhooks("list");
    assert.equal(list.code, 0);
    assert.match(list.stdout, /NAME +URL +STATE +TOLD +GIVEN UP +BEHIND/);
    assert.match(list.stdout, /^hook +https:\/\/example\.com\/hook +well +0 +0 +\d+/m);
    const parked = await webhooks("park", "hook", "--reason", "too loud");
    assert.equal(parked.code, 0);
    assert.match(parked.stdout, /parked since \d{4}-\S+Z: too loud/);
    const json = JSON.parse((await webhooks("list", "--json")).stdout);
    assert.equal(json.webhooks[0].parked.why, "too loud");
    const again = await webhooks("park", "hook");
    assert.equal(again.code, 1);
    assert.match(again.stderr, /parked already/);
    assert.match((await webhooks("resume", "hook", "--skip")).stdout, /^hook .* well /m);
  });

  it("refuses what cannot be meant", async () => {
    assert.equal((await webhooks("park")).code, 2);
    const unknown = await webhooks("resume", "nobody");
    assert.equal(unknown.code, 1);
    assert.match(unknown.stderr, /no webhook of this name/);
    assert.match((await webhooks("resume", "hook")).stderr, /not parked/);
  });
});

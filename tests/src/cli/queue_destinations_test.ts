/** `queue destinations`, through the API of a running queue. */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { run } from "../../../src/cli/queue.ts";
import { HttpHarness } from "../http/harness.ts";
import { START } from "../../events/given.ts";
import { ran } from "./given_queue.ts";

describe("queue destinations", () => {
  let http: HttpHarness;
  before(async () => {
    http = await HttpHarness.create();
  });
  after(() => http.remove());
  const queue = (...args: string[]) => ran(run, ["destinations", ...args, "--data", http.dataDir]);

  it("says so when there is none", async () => {
    const { code, stdout } = await queue();
    assert.deepEqual([code, stdout], [0, "Nothing is being delivered, and nothing is down.\n"]);
  });

  it("lists what is down first, with since when, until when, and why", async () => {
    const at = (minutes: number) => new Date(START + (60 + minutes) * 60_000).toISOString();
    http.destinations = [
      { key: "busy.example", running: 4, waiting: 100, window: 5 },
      {
        key: "dead.example",
        running: 0,
        waiting: 3,
        window: 1,
        down: { since: at(-90), until: at(10), why: "connection refused\x1b[2J" },
      },
    ];
    const { code, stdout } = await queue();
    assert.equal(code, 0);
    const [head, first, second, summary] = stdout.split("\n");
    assert.match(head!, /DESTINATION +RUNNING +WINDOW +WAITING +DOWN +PROBE +WHY/);
    assert.match(first!, /^dead\.example +0 +1 +3 +1h30m +\S+ +connection refused/);
    assert.ok(!stdout.includes("\x1b"));
    assert.match(second!, /^busy\.example +4 +5 +100/);
    assert.equal(summary, "2 destinations, 1 down");
    assert.match((await queue("--limit", "1")).stdout, /2 destinations, 1 down, 1 shown/);
    const json = JSON.parse((await queue("--json")).stdout);
    assert.equal(json.destinations[0].down.why, "connection refused\x1b[2J");
    assert.equal((await queue("--limit", "0")).code, 2);
  });
});

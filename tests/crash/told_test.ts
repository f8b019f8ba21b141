import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { Books } from "./books.ts";
import { BEGAN, delivered, enqueued, failed, on, readAll, secondsAfter, started } from "./given.ts";
import type { Fact } from "./given.ts";
import type { Post } from "./hook.ts";
import { compareTold, HookBooks, type ToldFindings } from "./told.ts";

const advanced = (upTo: number): Fact =>
  on("webhook all", { type: "WebhookAdvanced", data: { endpoint: "all", upTo } });

/** Positions 2 to 6: one message, delayed (4) and delivered (6). */
const MESSAGE = [enqueued(), started, failed(), started, delivered];
const LOG = [advanced(0), ...MESSAGE];

const body = (version: number, attempts: number, more = {}) =>
  JSON.stringify({
    id: `m:${version}`,
    type: version === 3 ? "delayed" : "delivered",
    time: new Date(secondsAfter(version + 1)).toISOString(),
    message: { id: "m", attempts },
    ...more,
  });
const post = (version: number, more: Partial<Post> = {}): Post => ({
  endpoint: "all",
  id: `m:${version}`,
  body: version === 3 ? body(3, 1) : body(5, 2),
  life: 0,
  taken: true,
  ...more,
});

interface Case {
  readonly log?: readonly Fact[];
  readonly kinds?: readonly string[];
  readonly lives?: readonly number[];
}

function told(posts: readonly Post[], { log = LOG, kinds, lives = [BEGAN] }: Case = {}) {
  const books = new Books();
  const hooks = new HookBooks(books.byStream);
  readAll(log, books.read, hooks.read);
  const endpoints = new Map([["all", kinds ?? ["delivered", "delayed"]]]);
  return compareTold(hooks, { posts, endpoints, lives });
}
const wrong = (...args: Parameters<typeof told>): string => told(...args).violations.join();

describe("the webhooks of a crash test", () => {
  it("are in order when each event was told once, and in order", () => {
    const right: ToldFindings = { told: 2, posts: 2, notTaken: 0, toldAgain: 0, violations: [] };
    assert.deepEqual(told([post(3), post(5)]), right);
  });

  it("miss an event that was never told, or never taken", () => {
    assert.match(wrong([post(3)]), /all was never told of m:5/);
    assert.match(wrong([post(3), post(5, { taken: false })]), /never told of m:5/);
    assert.equal(wrong([post(3)], { kinds: ["delayed"] }), "", "it is not told of that");
  });

  it("find what is told and not in the log, or of no concern to the endpoint", () => {
    assert.match(wrong([post(3), post(5), post(7)]), /of m:7, which the log does not have/);
    assert.match(wrong([post(3), post(5)], { kinds: ["delayed"] }), /m:5, which the log does not/);
    const late = [enqueued(), started, failed(), advanced(3), started, delivered];
    const positions = { log: late };
    const at = (version: number, n: number) =>
      post(version, {
        body: body(version, 2, { time: new Date(secondsAfter(n)).toISOString() }),
      });
    assert.equal(wrong([at(5, 6)], positions), "", "what was before it began is not told");
    assert.match(wrong([at(3, 3), at(5, 6)], positions), /m:3, which the log does not have/);
    assert.match(wrong([post(3), post(5), post(3, { endpoint: "x" })]), /posted to x: nobody's/);
  });

  it("are not about reports", () => {
    const report = [enqueued({ source: { kind: "dsn", of: "m" } }), ...MESSAGE.slice(1)];
    assert.match(wrong([post(3), post(5)], { log: [advanced(0), ...report] }), /does not have/);
    assert.equal(wrong([], { log: [advanced(0), ...report] }), "");
  });

  it("have the same words each time, and those of the log", () => {
    const again = { life: 1, body: body(3, 1, { more: true }) };
    const lives = [BEGAN, secondsAfter(50)];
    assert.match(wrong([post(3), post(3, again), post(5)], { lives }), /m:3 again in other words/);
    assert.match(wrong([post(3, { body: body(3, 2) }), post(5)]), /the log .*"m",1/);
    assert.match(wrong([post(3, { body: "" }), post(5)]), /not JSON/);
  });

  it("keep the order of a message until the one before was taken", () => {
    assert.match(wrong([post(5), post(3)]), /m:5 before it had taken m:3/);
    assert.match(
      wrong([post(3, { taken: false }), post(5), post(3)]),
      /m:5 before it had taken m:3/,
    );
  });

  it("repeat what was not taken, and after a kill what the position does not cover", () => {
    assert.equal(wrong([post(3, { taken: false }), post(3), post(5)]), "");
    const lives = [BEGAN, secondsAfter(50)];
    const again = [post(3), post(5), post(3, { life: 1 }), post(5, { life: 1 })];
    assert.equal(wrong(again, { lives }), "");
    assert.equal(told(again, { lives }).toldAgain, 2);
  });

  it("do not repeat what one process had an answer to", () => {
    assert.match(wrong([post(3), post(5), post(5)]), /m:5 again by the same process/);
  });

  it("do not repeat what the position covered when the process began", () => {
    const log = [...LOG, advanced(4)];
    const lives = [BEGAN, secondsAfter(50)];
    const again = (version: number) => [post(3), post(5), post(version, { life: 1 })];
    assert.equal(wrong(again(5), { log, lives }), "");
    assert.match(wrong(again(3), { log, lives }), /m:3, at 4; the log had it at 4 already/);
    // Recorded by the very process that repeats it: only what came before it counts.
    assert.equal(wrong(again(3), { log, lives: [BEGAN, secondsAfter(6)] }), "");
  });
});

import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { Branch, type BranchShape, Escalation, type Part } from "../../actors/supervision.ts";
import { LogLines, ManualClock } from "./manual_clock.ts";

class Probe implements Part {
  fail: (cause: unknown) => void = () => {};
  refuse: Error | undefined;
  constructor(readonly name: string, readonly history: string[]) {}
  start(failed: (cause: unknown) => void): Promise<void> {
    this.history.push(`+${this.name}`);
    if (this.refuse) return Promise.reject(this.refuse);
    this.fail = failed;
    return Promise.resolve();
  }
  stop(): Promise<void> {
    this.history.push(`-${this.name}`);
    return Promise.resolve();
  }
}

function tree(shape: Partial<BranchShape> = {}) {
  const history: string[] = [];
  const [a, b, c] = ["a", "b", "c"].map((name) => new Probe(name, history)) as [
    Probe,
    Probe,
    Probe,
  ];
  const clock = new ManualClock(0);
  const log = new LogLines();
  const branch = new Branch({
    name: "top",
    restart: "alone",
    atMost: 3,
    within: 10_000,
    parts: [a, b, c],
    ...shape,
  }, { clock, log });
  const escalated: unknown[] = [];
  return {
    a,
    b,
    c,
    clock,
    log,
    branch,
    escalated,
    start: () => branch.start((cause) => escalated.push(cause)),
    history: () => history.splice(0).join(" "),
  };
}

describe("supervision", () => {
  it("starts in order and stops in reverse", async () => {
    const t = tree();
    await t.start();
    await t.branch.stop();
    assert.equal(t.history(), "+a +b +c -c -b -a");
  });

  it("restarts a failed part alone", async () => {
    const t = tree();
    await t.start();
    t.history();
    t.b.fail(new Error("boom"));
    await t.clock.advance(1_000);
    assert.equal(t.history(), "-b +b");
    assert.ok(t.log.lines[0]?.includes("boom"), t.log.lines.join("\n"));
  });

  it("restarts the parts after it too, where they lean on it", async () => {
    const t = tree({ restart: "with those after it" });
    await t.start();
    t.history();
    t.b.fail(new Error("boom"));
    await t.clock.advance(1_000);
    assert.equal(t.history(), "-c -b +b +c");
  });

  it("starts none twice when one fails while those after it are being started", async () => {
    const t = tree({ restart: "with those after it" });
    const slow = Promise.withResolvers<void>();
    const startOfB = t.b.start.bind(t.b);
    t.b.start = async (failed) => {
      await startOfB(failed);
      await slow.promise;
    };
    const started = t.start();
    t.a.fail(new Error("boom"));
    await t.clock.advance(1_000);
    assert.equal(t.history(), "+a +b", "c has still to be started");
    slow.resolve();
    await started;
    await t.clock.advance(1_000);
    assert.equal(t.history(), "+c -c -b -a +a +b +c");
  });

  it("stopped while it starts, starts no more", async () => {
    const t = tree();
    const started = t.start();
    await t.branch.stop();
    await started;
    assert.equal(t.history(), "+a -c -b -a");
  });

  it("hears one failure per start, and none of a part that was replaced", async () => {
    const t = tree();
    await t.start();
    t.history();
    const old = t.b.fail;
    old(new Error("first"));
    old(new Error("again"));
    await t.clock.advance(1_000);
    old(new Error("late"));
    await t.clock.advance(1_000);
    assert.equal(t.history(), "-b +b");
  });

  it("escalates when failures come too often, with the last reason", async () => {
    const t = tree();
    await t.start();
    for (let i = 1; i <= 4; i++) {
      t.a.fail(new Error(`boom ${i}`));
      await t.clock.advance(1_000);
    }
    assert.equal(t.escalated.length, 1);
    assert.ok(t.escalated[0] instanceof Escalation);
    assert.match(String(t.escalated[0]), /top: more than 3 failures within 10 s.*a: .*boom 4/);
  });

  it("forgives failures that are far apart", async () => {
    const t = tree();
    await t.start();
    for (let i = 1; i <= 12; i++) {
      t.a.fail(new Error(`boom ${i}`));
      await t.clock.advance(5_000);
    }
    assert.equal(t.escalated.length, 0);
  });

  it("counts a part that cannot be started again as failing again", async () => {
    const t = tree();
    await t.start();
    t.b.refuse = new Error("address in use");
    t.b.fail(new Error("boom"));
    await t.clock.advance(5_000);
    assert.match(String(t.escalated[0]), /address in use/);
  });

  it("does not start at all when a part cannot, and leaves nothing running", async () => {
    const t = tree();
    t.b.refuse = new Error("address in use");
    await assert.rejects(t.start(), /address in use/);
    assert.equal(t.history(), "+a +b -b -a");
  });

  it("restarts a branch as a whole when it escalates inside another", async () => {
    const history: string[] = [];
    const clock = new ManualClock(0);
    const log = new LogLines();
    const leaf = new Probe("leaf", history);
    const shape = { restart: "alone", atMost: 1, within: 10_000 } as const;
    const inner = new Branch({ ...shape, name: "inner", parts: [leaf] }, { clock, log });
    const outer = new Branch({ ...shape, name: "outer", parts: [inner] }, { clock, log });
    const escalated: unknown[] = [];
    await outer.start((cause) => escalated.push(cause));
    for (let i = 0; i < 2; i++) {
      leaf.fail(new Error("boom"));
      await clock.advance(1_000);
    }
    assert.equal(escalated.length, 0);
    for (let i = 0; i < 2; i++) {
      leaf.fail(new Error("boom"));
      await clock.advance(1_000);
    }
    assert.match(String(escalated[0]), /outer: .*inner: .*boom/);
  });
});

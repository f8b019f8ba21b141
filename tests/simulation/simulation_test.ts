/** A few worlds as part of the tests; `deno task simulate` runs as many as there is time for. */
import assert from "node:assert/strict";
import { describe, it } from "@std/testing/bdd";
import { BUGS } from "./sabotage.ts";
import { type Report, World } from "./world.ts";

const SEEDS = 20;
/** A bug that is put in on purpose must be found within this many worlds. */
const FOUND_WITHIN = 500;

/** A world in which something happens, but not much. */
async function smallWorld(
  interesting: (report: Report) => boolean,
  may: (world: World) => boolean = () => true,
): Promise<Report> {
  for (let seed = 1;; seed++) {
    const world = new World(seed, {}, 0);
    if (!may(world)) continue;
    const report = await world.run();
    if (interesting(report)) return report;
  }
}

const archives = (world: World): boolean => world.archives.keep !== undefined;

describe("the simulation", () => {
  it(`finds nothing wrong in ${SEEDS} worlds`, async () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const { violation, trace } = await new World(seed).run();
      assert.equal(violation, undefined, `seed ${seed}\n${trace.slice(-30).join("\n")}`);
    }
  });

  it("loses nothing when it is killed at any one moment of a small world", async () => {
    const { seed, boundaries } = await smallWorld((world) =>
      world.messages >= 3 && world.boundaries < 350
    );
    for (let killAt = 1; killAt <= boundaries; killAt++) {
      const { violation } = await new World(seed, {}, killAt).run();
      assert.equal(violation, undefined, `seed ${seed}, killed at moment ${killAt}`);
    }
  });

  it("loses nothing when it is killed at any one moment of archiving", async () => {
    const { seed, archiving } = await smallWorld(
      (world) => world.archives >= 2 && world.boundaries < 700,
      archives,
    );
    for (const killAt of archiving) {
      const { violation } = await new World(seed, {}, killAt).run();
      assert.equal(violation, undefined, `seed ${seed}, killed at moment ${killAt}`);
    }
  });

  it("runs the same way again for the same seed", async () => {
    for (const seed of [1, 2, 3]) {
      const first = await new World(seed).run();
      const second = await new World(seed).run();
      assert.equal(second.traceHash, first.traceHash);
      assert.equal(second.logHash, first.logHash);
      assert.equal(second.steps, first.steps);
    }
  });

  it("runs another way for another seed", async () => {
    const hashes = new Set<string>();
    for (const seed of [1, 2, 3]) hashes.add((await new World(seed).run()).logHash);
    assert.equal(hashes.size, 3);
  });

  for (const [bug, sabotage] of Object.entries(BUGS)) {
    it(`finds a queue that ${bug}`, async () => {
      for (let seed = 1; seed <= FOUND_WITHIN; seed++) {
        const world = new World(seed, sabotage);
        if ("retention" in sabotage && !archives(world)) continue;
        const { violation } = await world.run();
        if (violation) return;
      }
      assert.fail(`not found in ${FOUND_WITHIN} worlds`);
    });
  }
});

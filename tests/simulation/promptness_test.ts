/** What is late and heals by itself is found by promptness alone. */
import assert from "node:assert/strict";
import { describe, it } from "@std/testing/bdd";
import type { Clock, QueueView } from "../../actors/ports.ts";
import type { WaitLimit } from "../../events/projections/queue.ts";
import { HOUR } from "./clock.ts";
import type { Sabotage } from "./program.ts";
import { World } from "./world.ts";

/** A bug must be found within this many worlds. */
const FOUND_WITHIN = 500;

const otherwise = <T extends object>(real: T, change: Partial<T>): T =>
  new Proxy(real, {
    get(target, name) {
      const member: unknown = Reflect.get(name in change ? change : target, name);
      return typeof member === "function" ? member.bind(target) : member;
    },
  });

/** Now and then a timer of the supervisor comes hours after its time. */
function sleepy(): Sabotage {
  let timers = 0;
  const timer = (real: Clock): Clock["timer"] => (ms, run) =>
    real.timer(++timers % 50 === 0 ? ms + 5 * HOUR : ms, run);
  return { clock: (real) => otherwise(real, { timer: timer(real) }) };
}

/** One of the orders in which waits end is empty. */
function blind(to: WaitLimit): Sabotage {
  const waiting = (real: QueueView): QueueView["waiting"] => (by, ...rest) =>
    by === to ? Promise.resolve([]) : real.waiting(by, ...rest);
  return { view: (real) => otherwise(real, { waiting: waiting(real) }) };
}

/** With the seed at which the search begins: few worlds can show that deadlines are not seen. */
const BUGS = {
  "wakes up hours late": [sleepy, /is due since/, 1],
  "does not see deadlines": [() => blind("expires"), /its deadline was/, 200],
  "does not see lifetimes": [() => blind("ages_from"), /its lifetime ended/, 20],
} as const;

describe("promptness, in the simulation", () => {
  for (const [bug, [sabotage, complaint, first]] of Object.entries(BUGS)) {
    it(`finds a queue that ${bug}`, async () => {
      for (let seed: number = first; seed < first + FOUND_WITHIN; seed++) {
        const { violation } = await new World(seed, sabotage()).run();
        if (violation && complaint.test(violation.message)) return;
      }
      assert.fail(`not found in ${FOUND_WITHIN} worlds`);
    });
  }
});

import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { DueReader } from "../../actors/due_reader.ts";
import type { QueueRow, QueueView } from "../../actors/ports.ts";
import { T0 } from "./given.ts";
import { ManualClock } from "./manual_clock.ts";

describe("the reader of what is due", () => {
  it("does not lose what becomes due between its two questions", async () => {
    const clock = new ManualClock(T0);
    const row = { stream: "01A", due: T0 + 1 } as QueueRow;
    const view = {
      due: (now: number) => {
        const due = row.due! <= now ? [row] : [];
        clock.wall += 2; // time passes while the answer is on its way
        return Promise.resolve(due);
      },
      nextDue: (after: number) => Promise.resolve(row.due! > after ? row.due! : undefined),
    } as unknown as QueueView;
    const offered: string[] = [];
    const reader = new DueReader({ clock, view }, {
      full: () => false,
      offer: ({ stream }) => {
        offered.push(stream);
        return undefined;
      },
      read: () => {},
      failed: (cause) => assert.fail(String(cause)),
    });
    reader.open();
    await clock.advance(60_000);
    reader.close();
    assert.ok(offered.includes("01A"));
  });
});

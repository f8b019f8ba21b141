/** Reports on messages whose time ended while they waited: that it did, and what was last said. */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { compose, fieldOf, parse } from "./given.ts";

const textOf = async (raw: Parameters<typeof parse>[0]) =>
  (await parse(raw)).text?.replace(/\s+/g, " ") ?? "";

describe("DSN: a message that waited too long", () => {
  it("that was tried: its time is over, and the last reply stands beside it", async () => {
    const reply = { code: 451, enhanced: "4.7.1", text: "Greylisted" };
    const { parts, raw } = await compose({
      report: { attempt: 3 },
      failure: {
        result: "timeout",
        class: "rate-limited",
        reason: "gave up after 120 hours: mx.example.net (192.0.2.1) said 451 4.7.1 Greylisted",
        code: undefined,
        enhanced: "4.4.7",
        reply,
      },
    });
    assert.equal(fieldOf(parts, "Status"), "4.4.7");
    assert.equal(fieldOf(parts, "Action"), "failed");
    assert.equal(fieldOf(parts, "Remote-MTA"), "dns; mx.example.net");
    assert.equal(fieldOf(parts, "Diagnostic-Code"), "smtp; 451 4.7.1 Greylisted");
    assert.equal(fieldOf(parts, "Last-Attempt-Date"), "Wed, 04 Mar 2026 05:00:00 +0000");
    const text = await textOf(raw);
    assert.match(text, /was not delivered, after 3 attempts\. It will not be tried again/);
    assert.match(text, /gave up after 120 hours: mx\.example\.net .* said 451 4\.7\.1 Greylisted/);
    assert.match(text, /could not be delivered in time/);
  });

  it("that was never tried has no last attempt, and says so", async () => {
    const { parts, raw } = await compose({
      report: { attempt: 0, at: undefined },
      failure: {
        result: "timeout",
        class: "network",
        reason: "gave up for the deadline 2026-03-04T02:00:00.000Z: its turn did not come",
        code: undefined,
        enhanced: "5.4.7",
        remoteMTA: undefined,
        reply: undefined,
      },
    });
    assert.equal(fieldOf(parts, "Status"), "5.4.7");
    assert.equal(fieldOf(parts, "Last-Attempt-Date"), undefined);
    assert.equal(fieldOf(parts, "Remote-MTA"), undefined);
    const text = await textOf(raw);
    assert.match(text, /was not delivered, and could not be tried\. It will not be tried again/);
    assert.match(text, /Last tried: never/);
    assert.match(text, /gave up for the deadline 2026-03-04T02:00:00\.000Z/);
  });
});

/**
 * The reckoning itself: it must find what it is there to find, or a crash test that passes means
 * nothing.
 */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { type Book, bookOf, compare } from "./books.ts";

const INTERRUPTED = "interrupted, outcome unknown";

const enqueued = { type: "Enqueued", data: { rcptTo: "1@x.example", due: "now" } };
const started = { type: "AttemptStarted", data: { attempt: 1 } };
const delivered = { type: "Delivered", data: {} };
const failed = (data: Record<string, unknown>) => ({
  type: "Failed",
  data: { permanent: false, result: "temperror", reason: "451", next: "later", ...data },
});
const interrupted = failed({ result: "canceled", reason: INTERRUPTED });

/** What is wrong with one message "1". */
function violations(
  { acknowledged = true, received = 1, events }: {
    acknowledged?: boolean;
    received?: number;
    events?: Parameters<typeof bookOf>[1];
  },
): readonly string[] {
  const books = new Map<string, Book>();
  if (events) books.set("1", bookOf("stream", events));
  return compare(
    new Set(acknowledged ? ["1"] : []),
    new Map(received > 0 ? [["1", received]] : []),
    books,
  ).violations;
}

describe("the books of a crash test", () => {
  it("are in order when an acknowledged message was delivered once", () => {
    assert.deepEqual(violations({ events: [enqueued, started, delivered] }), []);
  });

  it("are in order when it is still queued with a due time", () => {
    const events = [enqueued, started, failed({})];
    assert.deepEqual(violations({ received: 0, events }), []);
  });

  it("miss an acknowledged message that is not in the log", () => {
    assert.match(violations({}).join(), /acknowledged and is not in the log/);
    assert.match(violations({ received: 0 }).join(), /acknowledged and not received/);
  });

  it("miss a message that the log has as delivered and nobody received", () => {
    const events = [enqueued, started, delivered];
    assert.match(violations({ received: 0, events }).join(), /is Delivered in the log and was not/);
  });

  it("explain as many duplicates as attempts were cut, and no more", () => {
    const events = [enqueued, started, interrupted, started, delivered];
    assert.deepEqual(violations({ received: 2, events }), []);
    assert.match(violations({ received: 3, events }).join(), /3 times, the log explains 2/);
  });

  it("do not take a refusal, or a connection that was never made, for a cut attempt", () => {
    for (const failure of [failed({}), failed({ result: "error", reason: "refused" })]) {
      const events = [enqueued, started, failure, started, delivered];
      assert.match(violations({ received: 2, events }).join(), /2 times, the log explains 1/);
    }
  });

  it("want exactly one outcome of every attempt", () => {
    const events = [enqueued, started, delivered];
    assert.match(
      violations({ events: [...events, delivered] }).join(),
      /1 attempts and 2 outcomes/,
    );
    assert.match(
      violations({ events: [enqueued, started], received: 1 }).join(),
      /1 attempts and 0 outcomes/,
    );
  });

  it("wonder at a message that was given up or that the log does not know", () => {
    const events = [enqueued, started, failed({ permanent: true, next: undefined })];
    assert.match(violations({ received: 0, events }).join(), /given up/);
    assert.match(violations({ acknowledged: false }).join(), /received and is not in the log/);
  });
});

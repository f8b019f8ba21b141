/**
 * The reckoning itself: it must find what it is there to find, or a crash test that passes means
 * nothing.
 */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { compare, type Findings } from "./books.ts";
import {
  booksOf,
  delivered,
  enqueued,
  type Fact,
  failed,
  interrupted,
  on,
  refused,
  started,
} from "./given.ts";
import { NOBODY } from "./mail.ts";

interface Told {
  /** The client had its 250. */
  readonly acknowledged?: boolean;
  /** How often the sink has it. */
  readonly received?: number;
  readonly events?: readonly Fact[];
}

/** What is found of one message "1". */
function found({ acknowledged = true, received = 1, events = [] }: Told): Findings {
  return compare(
    new Set(acknowledged ? ["1"] : []),
    new Map(received > 0 ? [["1", received]] : []),
    booksOf(...events).byId,
  );
}
const violations = (told: Told): string => found(told).violations.join();

const held: Fact = { type: "Held", data: { who: "operator", why: "because" } };
const released: Fact = { type: "Released", data: { who: "operator", why: "", due: "now" } };

describe("the books of a crash test", () => {
  it("are in order when an acknowledged message was delivered once", () => {
    assert.equal(violations({ events: [enqueued(), started, delivered] }), "");
  });

  it("are in order when it is still queued with a due time", () => {
    const told = { received: 0, events: [enqueued(), started, failed()] };
    assert.equal(violations(told), "");
    assert.equal(found(told).queued, 1);
  });

  it("miss an acknowledged message that is not in the log", () => {
    assert.match(violations({}), /acknowledged and is not in the log/);
    assert.match(violations({ received: 0 }), /acknowledged and not received/);
  });

  it("miss a message that the log has as delivered and nobody received", () => {
    const events = [enqueued(), started, delivered];
    assert.match(violations({ received: 0, events }), /is Delivered in the log and was not/);
  });

  it("explain as many duplicates as attempts were cut, and no more", () => {
    const events = [enqueued(), started, interrupted, started, delivered];
    assert.equal(violations({ received: 2, events }), "");
    assert.match(violations({ received: 3, events }), /3 times, the log explains 2/);
  });

  it("do not take a refusal, or a connection that was never made, for a cut attempt", () => {
    for (const failure of [failed(), failed({ result: "error", reason: "refused" })]) {
      const events = [enqueued(), started, failure, started, delivered];
      assert.match(violations({ received: 2, events }), /2 times, the log explains 1/);
    }
  });

  it("want exactly one outcome of every attempt", () => {
    const events = [enqueued(), started, delivered];
    assert.match(violations({ events: [...events, delivered] }), /1 attempts and 2 outcomes/);
    assert.match(violations({ events: [enqueued(), started] }), /1 attempts and 0 outcomes/);
  });

  it("wonder at a message that was given up or that the log does not know", () => {
    const events = [enqueued(), started, refused];
    assert.match(violations({ received: 0, events }), /given up/);
    assert.match(violations({ acknowledged: false }), /received and is not in the log/);
  });

  it("take a refusal for good where there is nobody, and only there", () => {
    const events = [enqueued({ rcptTo: `1@${NOBODY}` }), started, refused];
    assert.equal(violations({ received: 0, events }), "");
    assert.equal(found({ received: 0, events }).refused, 1);
  });

  it("owe a report that is in the log like mail that was acknowledged", () => {
    const report = { rcptTo: "s@x.example", messageId: "<r>", source: { kind: "dsn", of: "m" } };
    const events = [enqueued(), started, delivered].concat(
      [enqueued(report), started, delivered].map((fact) => on("r", fact)),
    );
    assert.match(violations({ events }), /<r> was acknowledged and not received/);
    const { byId } = booksOf(...events);
    const both = new Map([["1", 1], ["<r>", 1]]);
    assert.deepEqual(compare(new Set(["1"]), both, byId).violations, []);
    assert.match(
      compare(new Set(["1"]), both.set("<r>", 2), byId).violations.join(),
      /<r> was received 2 times, the log explains 1/,
    );
  });

  it("find a message that was tried while it was held, or that is held still", () => {
    const events = [enqueued(), held, released, started, delivered];
    assert.equal(violations({ events }), "");
    const tried = events.filter((fact) => fact !== released);
    assert.match(violations({ events: tried }), /was tried while it was held/);
    assert.match(violations({ received: 0, events: [enqueued(), held] }), /is held, though/);
  });

  it("cannot be read when a stream has a gap, or something came in twice", () => {
    const { read } = booksOf(enqueued());
    const event = { position: 3, stream: "m", version: 3, time: "", ...started };
    assert.throws(() => read(event), /goes from version 1 to 3/);
    assert.throws(() => read({ ...event, stream: "n" }), /begins with version 3/);
    assert.throws(() => booksOf(enqueued(), on("n", enqueued())), /1 was enqueued twice/);
  });
});

/** What bounces feed, and the destination that is down. */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { Bounces } from "./bounces.ts";
import { Books } from "./books.ts";
import {
  BEGAN,
  delivered,
  enqueued,
  type Fact,
  on,
  readAll,
  refused,
  secondsAfter,
  started,
} from "./given.ts";
import { LAME, LAME_TRANSPORT, NOBODY } from "./mail.ts";
import { Outages } from "./outages.ts";

describe("the suppression list of a crash test", () => {
  const suppressed = on("list", {
    type: "AddressSuppressed",
    data: { cause: "bounce", message: "m" },
  });
  const manual = on("list", { type: "AddressSuppressed", data: { cause: "manual" } });
  const BOUNCE = [enqueued({ rcptTo: `1@${NOBODY}` }), started, refused];

  function check(...log: Fact[]) {
    const books = new Books();
    const bounces = new Bounces();
    readAll(log, books.read, bounces.read);
    return bounces.findings(books.byId);
  }

  it("has every bounce once", () => {
    assert.deepEqual(check(...BOUNCE, suppressed, manual), { bounced: 1, violations: [] });
    assert.match(check(...BOUNCE, manual).violations.join(), /list 0 times by 1/);
    assert.match(check(...BOUNCE, suppressed, suppressed).violations.join(), /list 2 times by 1/);
  });

  it("has nothing but bounces", () => {
    const log = [enqueued(), started, delivered];
    assert.deepEqual(check(...log), { bounced: 0, violations: [] });
    assert.match(check(...log, suppressed).violations.join(), /list 1 times by 1/);
  });
});

describe("the outages of a crash test", () => {
  const destination = `transport:${LAME_TRANSPORT}`;
  const down = on("destination", {
    type: "DestinationDown",
    data: { destination, until: new Date(secondsAfter(1_000)).toISOString() },
  });
  const up = on("destination", { type: "DestinationUp", data: { destination } });
  const MAIL = enqueued({ rcptTo: `1@${LAME}` });
  const attempts = (n: number) => new Array<Fact>(n).fill(started);

  function check(log: readonly Fact[], lives = [BEGAN]) {
    const books = new Books();
    const outages = new Outages(books.byStream, lives);
    readAll(log, books.read, outages.read);
    return outages.findings();
  }

  it("are spared attempts, but for those under way", () => {
    assert.deepEqual(check([MAIL, down, ...attempts(20), up, ...attempts(30)]), {
      down: 1,
      up: 1,
      violations: [],
    });
    assert.match(
      check([MAIL, down, ...attempts(21)]).violations.join(),
      /more than 20 attempts at lame\.example, which was down/,
    );
  });

  it("end with the process that knew of them, and concern nobody else", () => {
    assert.deepEqual(check([MAIL, down, ...attempts(25)], [BEGAN, secondsAfter(4)]).violations, []);
    assert.deepEqual(check([enqueued(), down, ...attempts(25)]).violations, []);
  });
});

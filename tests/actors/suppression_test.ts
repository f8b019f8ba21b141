import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import { CommandRefused } from "../../actors/message.ts";
import {
  comparable,
  type SuppressionPolicy,
  type SuppressionPorts,
  Suppressions,
} from "../../actors/suppression.ts";
import type { Fact, FactOf } from "../../events/catalogue.ts";
import {
  suppressionId,
  suppressionProjection,
  suppressionStream,
} from "../../events/projections/suppression.ts";
import { StoreUnavailable } from "../../events/store.ts";
import { enqueued, type Given, givenStore, started } from "../events/given.ts";
import { LogLines, ManualClock, settle } from "./manual_clock.ts";

const UNKNOWN = { code: 550, enhanced: "5.1.1", text: "no such user\nhere" };

const bounced = (data: Partial<FactOf<"Failed">["data"]> = {}): Fact => ({
  type: "Failed",
  data: {
    permanent: true,
    result: "permerror",
    reason: "refused",
    class: "unknown-user",
    reply: UNKNOWN,
    ...data,
  },
});
const tried = (data: Partial<FactOf<"HostTried">["data"]> = {}): Fact => ({
  type: "HostTried",
  data: {
    host: "mx.example.net",
    tlsMode: "none",
    verifiedBy: "none",
    result: "permerror",
    phases: { connect: 1, envelope: 2 },
    ...data,
  },
});

describe("the suppression list", () => {
  let given: Given;
  let clock: ManualClock;
  let policy: SuppressionPolicy;
  let list: Suppressions;
  const make = (ports: Partial<SuppressionPorts> = {}) =>
    new Suppressions({
      clock,
      log: new LogLines(),
      store: given.store,
      view: {
        list: (limit, after = "") => given.page(suppressionProjection, after, limit),
        get: (address, account) =>
          given.row(suppressionProjection, suppressionId(address, account)),
      },
      policy: () => policy,
      ...ports,
    });
  beforeEach(async () => {
    given = await givenStore();
    clock = new ManualClock(given.clock.now());
    policy = { automatic: true };
    list = make();
  });
  afterEach(async () => {
    await list.stop();
    await given.end();
  });
  const manual = { who: "ann", why: "asked us", cause: "manual" } as const;
  const mail = (stream: string, rcptTo: string, ...facts: Fact[]) =>
    given.store.append([
      { stream, expectedVersion: 0, facts: [enqueued({ rcptTo }), started(1), ...facts] },
    ]);
  const rest = async () => {
    for (let n = 0; n < 6; n++) await settle();
  };

  it("refuses an address however it is written, until it is lifted", async () => {
    await list.add({ ...manual, address: "Bob.Builder@Example.NET" });
    for (const written of ["bob.builder@example.net", "BOB.BUILDER@EXAMPLE.NET"]) {
      assert.equal(list.against(written, null)?.why, "asked us");
    }
    assert.equal(list.against("bob@example.net", null), undefined);
    await list.lift({ who: "ann", why: "mistake", address: "bob.builder@EXAMPLE.net" });
    assert.equal(list.against("bob.builder@example.net", null), undefined);
    const stream = suppressionStream("bob.builder@example.net", clock.now());
    const acts = await given.store.readStream(stream);
    assert.deepEqual(acts.map(({ type }) => type), ["AddressSuppressed", "SuppressionLifted"]);
    await assert.rejects(
      list.lift({ who: "ann", why: "again", address: "bob.builder@example.net" }),
      CommandRefused,
    );
  });

  it("takes a domain in Unicode for the same in A-labels", () => {
    assert.equal(comparable("Bob@BÜCHER.example"), "bob@xn--bcher-kva.example");
  });

  it("has one form of an address, whatever it is", () => {
    fc.assert(fc.property(fc.emailAddress(), (address) => {
      assert.equal(comparable(comparable(address)), comparable(address));
      assert.equal(comparable(address.toUpperCase()), comparable(address));
    }));
  });

  it("is of one account where it says so", async () => {
    await list.add({ ...manual, address: "b@example.net", account: "shop" });
    assert.ok(list.against("b@example.net", "shop"));
    assert.equal(list.against("b@example.net", "other"), undefined);
    assert.equal(list.against("b@example.net", null), undefined);
    await list.add({ ...manual, address: "b@example.net" });
    await list.lift({ who: "ann", why: "mistake", address: "b@example.net", account: "shop" });
    assert.ok(list.against("b@example.net", "shop"), "that of everybody still stands");
  });

  it("lets an entry end by itself", async () => {
    await list.add({ ...manual, address: "b@example.net", lasts: 1_000 });
    assert.ok(list.against("b@example.net", null));
    await clock.advance(1_001);
    assert.equal(list.against("b@example.net", null), undefined);
  });

  it("is fed by servers that do not know the user, with what they said", async () => {
    policy = { automatic: true, lasts: 5_000 };
    list.start();
    await mail("m1", "Gone@Example.net", tried(), bounced());
    await rest();
    const row = list.against("gone@example.net", null);
    assert.deepEqual(
      [row?.who, row?.cause, row?.message, row?.why],
      ["supervisor", "bounce", "m1", "550 5.1.1 no such user here"],
    );
    await clock.advance(5_001);
    assert.equal(list.against("gone@example.net", null), undefined);
  });

  it("is not fed by anything else", async () => {
    list.start();
    await mail("m1", "a@example.net", tried(), bounced({ class: "policy" }));
    await mail(
      "m2",
      "b@example.net",
      tried(),
      bounced({ permanent: false, next: "2026-02-01T00:00:00.000Z" }),
    );
    await mail("m3", "c@example.net", tried(), bounced({ reply: { code: 450, text: "later" } }));
    await mail("m4", "d@example.net", bounced());
    await mail("m5", "e@example.net", tried({ phases: { envelope: 1, data: 2 } }), bounced());
    await mail("m6", "f@example.net", tried(), {
      type: "Failed",
      data: { permanent: true, result: "error", reason: "no MX", class: "unknown-user" },
    });
    await rest();
    assert.deepEqual(list.list(10), []);
    policy = { automatic: false };
    await mail("m7", "g@example.net", tried(), bounced());
    await rest();
    assert.deepEqual(list.list(10), []);
  });

  it("tells a refused recipient from refused content where others were taken", async () => {
    list.start();
    const line = (who: "C" | "S", text: string) => ({ at: 1, who, line: text });
    const transcript = [
      line("C", "RCPT TO:<a@example.net>"),
      line("S", "550 5.1.1 no such user"),
      line("S", "250 ok"),
      line("C", "DATA"),
      line("S", "354 go on"),
      line("S", "250 taken"),
    ];
    await mail("m1", "a@example.net", tried({ phases: { data: 1 }, transcript }), bounced());
    await rest();
    assert.ok(list.against("a@example.net", null));
  });

  it("has what a crash left without its consequence, and once", async () => {
    await mail("m1", "gone@example.net", tried(), bounced());
    list.start();
    await rest();
    assert.ok(list.against("gone@example.net", null));
    await list.lift({ who: "ann", why: "is back", address: "gone@example.net" });
    await list.stop();
    list = make();
    list.start();
    await rest();
    assert.equal(list.against("gone@example.net", null), undefined, "lifted stays lifted");
  });

  it("looks again for what a crash left when the log could not be read", async () => {
    await mail("m1", "gone@example.net", tried(), bounced());
    const { store } = given;
    let fails = true;
    list = make({
      store: {
        append: (appends) => store.append(appends),
        readStream: (stream) => store.readStream(stream),
        version: (stream) => store.version(stream),
        readAll: (after, limit) =>
          fails ? Promise.reject(new StoreUnavailable("torn")) : store.readAll(after, limit),
        dayTime: () => store.dayTime(),
        head: () => store.head(),
        subscribe: (listener) => store.subscribe(listener),
        health: () => store.health(),
      },
    });
    list.start();
    await rest();
    assert.equal(list.against("gone@example.net", null), undefined);
    fails = false;
    await clock.advance(5_000);
    await rest();
    assert.ok(list.against("gone@example.net", null));
  });

  it("reads on where pages of the log are short, since parts of it cannot be read", async () => {
    await mail("m1", "first@example.net", tried(), bounced());
    await mail("m2", "second@example.net", tried(), bounced());
    const { store } = given;
    const short = new Proxy(store, {
      get(target, name) {
        if (name === "readAll") return (after: number) => target.readAll(after, 1);
        const member: unknown = Reflect.get(target, name);
        return typeof member === "function" ? member.bind(target) : member;
      },
    });
    list = make({ store: short });
    list.start();
    await rest();
    assert.deepEqual(list.list(10).map(({ address }) => address), [
      "first@example.net",
      "second@example.net",
    ]);
  });

  it("has all of more failures than may wait in memory", async () => {
    list = make({ mostWaiting: 2 });
    list.start();
    const bounces = (from: number, to: number) =>
      Promise.all(
        Array.from({ length: to - from }, (_, n) =>
          mail(`m${from + n}`, `gone${from + n}@example.net`, tried(), bounced())),
      );
    await bounces(0, 9);
    await rest();
    await bounces(9, 16);
    for (let n = 0; n < 10; n++) await rest();
    assert.equal(list.list(100).length, 16);
  });

  it("counts from the failure, however late that is recorded", async () => {
    policy = { automatic: true, lasts: 5_000 };
    await mail("m1", "gone@example.net", tried(), bounced());
    const failedAt = clock.now();
    await clock.advance(3_000);
    list.start();
    await rest();
    assert.equal(list.against("gone@example.net", null)?.expires, failedAt + 5_000);
    await list.stop();

    await mail("m2", "other@example.net", tried(), bounced());
    await clock.advance(60_000);
    list = make();
    list.start();
    await rest();
    assert.deepEqual(list.list(10).map(({ address }) => address), ["gone@example.net"]);
  });

  it("shortens no entry that stands", async () => {
    policy = { automatic: true, lasts: 5_000 };
    await list.add({ ...manual, cause: "complaint", address: "cross@example.net" });
    await list.add({ ...manual, address: "away@example.net", lasts: 1_000 });
    list.start();
    await mail("m1", "cross@example.net", tried(), bounced());
    await mail("m2", "away@example.net", tried(), bounced());
    await rest();
    assert.equal(list.against("cross@example.net", null)?.cause, "complaint");
    assert.equal(list.against("away@example.net", null)?.cause, "bounce");
  });

  it("undoes nothing that somebody did since the failure", async () => {
    await mail("m1", "back@example.net", tried(), bounced());
    await list.add({ ...manual, address: "back@example.net" });
    await list.lift({ who: "ann", why: "is back", address: "back@example.net" });
    list.start();
    await rest();
    assert.equal(list.against("back@example.net", null), undefined);
  });

  it("says that it cannot be read, and fails nobody who tells it of events", async () => {
    await list.add({ ...manual, address: "b@example.net" });
    let fails = true;
    const torn = <T>(found: T): T => {
      if (fails) throw new Error("disk I/O error");
      return found;
    };
    list = make({
      view: {
        list: (limit, after = "") => torn(given.page(suppressionProjection, after, limit)),
        get: (address, account) =>
          torn(given.row(suppressionProjection, suppressionId(address, account))),
      },
    });
    assert.throws(() => list.against("b@example.net", null), StoreUnavailable);
    await assert.rejects(
      list.lift({ who: "ann", why: "x", address: "b@example.net" }),
      StoreUnavailable,
    );
    fails = false;
    assert.ok(list.against("b@example.net", null));
  });

  it("counts what is on disk although writing it failed", async () => {
    assert.equal(list.against("b@example.net", null), undefined);
    const { store } = given;
    list = make({
      store: {
        append: async (appends) => {
          await store.append(appends);
          throw new StoreUnavailable("fsync failed");
        },
        readStream: (stream) => store.readStream(stream),
        version: (stream) => store.version(stream),
        readAll: (after, limit) => store.readAll(after, limit),
        dayTime: () => store.dayTime(),
        head: () => store.head(),
        subscribe: () => () => {},
        health: () => store.health(),
      },
    });
    assert.equal(list.against("b@example.net", null), undefined);
    await assert.rejects(list.add({ ...manual, address: "b@example.net" }), StoreUnavailable);
    assert.ok(list.against("b@example.net", null));
  });

  it("costs nothing while it is empty", () => {
    const idle = new Suppressions({
      clock,
      log: new LogLines(),
      store: given.store,
      view: { list: () => [], get: () => assert.fail("it asked") },
      policy: () => policy,
    });
    assert.equal(idle.against("a@example.net", "shop"), undefined);
  });
});

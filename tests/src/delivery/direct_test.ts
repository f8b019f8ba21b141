import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import { checkFact } from "../../../events/catalogue.ts";
import { HANG_UP, SILENCE } from "../smtp/scripted_server.ts";
import { DIRECT, failure, World } from "./world.ts";

let world: World;
beforeEach(() => {
  world = new World([DIRECT], "us.example", { mail: 60, end: 60 });
});
afterEach(() => world.stop());

const deliver = (rcptTo = "bob@example.org", changes = {}) =>
  world.attempt("direct", rcptTo, changes);

describe("direct delivery", () => {
  it("goes to the best MX host and tells all about it", async () => {
    world.domain("example.org", [20, "mx2.example.org"], [10, "mx1.example.org"]);
    await world.host("mx1.example.org", "192.0.2.1", { extensions: ["DSN", "SIZE 999"] });
    const outcome = await deliver();
    assert.deepEqual(outcome, {
      kind: "delivered",
      host: "mx1.example.org",
      address: "192.0.2.1",
      reply: { code: 250, enhanced: "2.0.0", text: "queued" },
      tls: { mode: "none", verifiedBy: "none" },
      dsnOffered: true,
    });
    assert.deepEqual(world.findings[0], {
      type: "DestinationsResolved",
      data: {
        nextHop: "example.org",
        expanded: "example.org",
        dnssec: { nextHop: "insecure", expanded: "insecure" },
        by: "mx",
        hosts: [
          { host: "mx1.example.org", preference: 10 },
          { host: "mx2.example.org", preference: 20 },
        ],
      },
    });
    const [tried] = world.tried;
    assert.equal(tried!.result, "ok");
    assert.deepEqual(tried!.extensions, ["DSN", "SIZE"]);
    assert.ok(tried!.transcript!.length > 8);
    assert.deepEqual(
      Object.keys(tried!.phases),
      ["connect", "greeting", "ehlo", "envelope", "data", "total"],
    );
    for (const finding of world.findings) checkFact(finding);
  });

  it("goes to the domain itself where it has no MX, and to address literals", async () => {
    await world.host("example.org", "192.0.2.1");
    assert.equal((await deliver()).kind, "delivered");
    assert.equal((await deliver("bob@[192.0.2.1]")).kind, "delivered");
    const kinds = world.findings.flatMap((f) => f.type === "DestinationsResolved" ? f.data.by : []);
    assert.deepEqual(kinds, ["implicit", "literal"]);
  });

  it("goes on to the next host after a temporary failure, its finding on disk first", async () => {
    world.domain("example.org", [10, "mx1.example.org"], [20, "mx2.example.org"]);
    await world.host("mx1.example.org", "192.0.2.1", { answers: { RCPT: "450 4.7.1 greylisted" } });
    await world.host("mx2.example.org", "192.0.2.2");
    assert.equal((await deliver()).kind, "delivered");
    assert.deepEqual(world.diary, [
      "note DestinationsResolved",
      "note TLSAGathered",
      "dial 192.0.2.1",
      "note HostTried",
      "flush",
      "note TLSAGathered",
      "dial 192.0.2.2",
      "note HostTried",
    ]);
    assert.deepEqual(world.tried.map((one) => one.result), ["temperror", "ok"]);
  });

  it("ends at a permanent refusal, whatever other hosts there are", async () => {
    world.domain("example.org", [10, "mx1.example.org"], [20, "mx2.example.org"]);
    await world.host("mx1.example.org", "192.0.2.1", { answers: { RCPT: "550 5.1.1 who?" } });
    const backup = await world.host("mx2.example.org", "192.0.2.2");
    const outcome = failure(await deliver());
    assert.deepEqual(outcome, {
      kind: "failed",
      permanent: true,
      result: "permerror",
      reason: "mx1.example.org (192.0.2.1) said 550 5.1.1 who? to RCPT TO",
      code: 550,
      enhanced: "5.1.1",
      remoteMTA: "mx1.example.org",
      reply: { code: 550, enhanced: "5.1.1", text: "who?" },
    });
    assert.equal(backup.connections, 0);
  });

  it("takes a host that does not talk to us for temporarily out, even with 554", async () => {
    world.domain("example.org", [10, "mx1.example.org"]);
    await world.host("mx1.example.org", "192.0.2.1", { answers: { greeting: "554 5.7.1 listed" } });
    const outcome = failure(await deliver());
    assert.equal(outcome.permanent, false);
    assert.equal(outcome.result, "temperror");
    assert.match(outcome.reason, /said 554 5\.7\.1 listed in its greeting/);
    assert.equal(world.tried[0]!.result, "permerror");
  });

  it("takes a domain for out when all its hosts say that they take no mail (521)", async () => {
    world.domain("example.org", [10, "mx1.example.org"]);
    await world.host("mx1.example.org", "192.0.2.1", { answers: { greeting: "521 no mail here" } });
    assert.equal(failure(await deliver()).permanent, true);
  });

  it("tries each address of a host that does not answer", async () => {
    world.domain("example.org", [10, "mx1.example.org"]);
    world.names.set("mx1.example.org", {
      AAAA: ["2001:db8::1"],
      A: ["192.0.2.1", "192.0.2.2", "192.0.2.3"],
    });
    world.silent.add("192.0.2.1");
    await world.serve("192.0.2.2", { answers: { greeting: HANG_UP } });
    await world.serve("192.0.2.3");
    assert.equal((await deliver()).kind, "delivered");
    assert.deepEqual(
      world.tried.map((one) => [one.address, one.result]),
      [["2001:db8::1", "error"], ["192.0.2.1", "timeout"], ["192.0.2.2", "error"], [
        "192.0.2.3",
        "ok",
      ]],
    );
    assert.equal(world.diary.filter((entry) => entry === "flush").length, 3);
  });

  it("says which host got furthest when none takes the message", async () => {
    world.domain("example.org", [10, "mx1.example.org"], [20, "mx2.example.org"]);
    world.names.set("mx1.example.org", { A: ["192.0.2.9"] });
    await world.host("mx2.example.org", "192.0.2.2", { answers: { DATA: "451 4.3.0 disk" } });
    const outcome = failure(await deliver());
    assert.equal(outcome.permanent, false);
    assert.equal(outcome.remoteMTA, "mx2.example.org");
    assert.match(outcome.reason, /451 4\.3\.0 disk to DATA \(2 addresses tried\)$/);
  });

  it("leaves the outcome open, and asks no other host, when it is lost at the end", async () => {
    for (const [last, result] of [[HANG_UP, "error"], [SILENCE, "timeout"]] as const) {
      world.domain("example.org", [10, "mx1.example.org"], [20, "mx2.example.org"]);
      const first = await world.host("mx1.example.org", "192.0.2.1", { answers: { ".": last } });
      const backup = await world.host("mx2.example.org", "192.0.2.2");
      const outcome = failure(await deliver());
      assert.deepEqual([outcome.permanent, outcome.result], [false, result]);
      assert.match(outcome.reason, /outcome unknown/);
      assert.equal(backup.connections, 0);
      await first.stop();
      await backup.stop();
    }
  });

  it("asks the next host when one lacks an extension, and fails when all do", async () => {
    world.domain("example.org", [10, "mx1.example.org"], [20, "mx2.example.org"]);
    await world.host("mx1.example.org", "192.0.2.1", { extensions: [] });
    const second = await world.host("mx2.example.org", "192.0.2.2");
    assert.equal((await deliver(undefined, { has8bit: true })).kind, "delivered");
    second.script.extensions = [];
    await world.sessions.close();
    const outcome = failure(await deliver(undefined, { has8bit: true }));
    assert.deepEqual([outcome.permanent, outcome.enhanced], [true, "5.6.3"]);
  });

  it("fails for good where the DNS says so", async () => {
    world.domain("null.example", [0, "."]);
    world.domain("gone.example", [10, "gone.invalid"]);
    const statuses = [];
    for (
      const rcptTo of ["a@null.example", "a@nowhere.example", "a@gone.example", "a@[nonsense]"]
    ) {
      const { permanent, enhanced } = failure(await deliver(rcptTo));
      statuses.push([permanent, enhanced]);
    }
    assert.deepEqual(statuses, [[true, "5.1.10"], [true, "5.1.2"], [true, "5.4.4"], [
      true,
      "5.1.2",
    ]]);
  });

  it("fails for now where the DNS does not answer", async () => {
    world.names.set("example.org", "servfail");
    assert.equal(failure(await deliver()).permanent, false);
    world.domain("example.net", [10, "mx1.example.net"], [20, "gone.invalid"]);
    world.names.set("mx1.example.net", "servfail");
    const outcome = failure(await deliver("a@example.net"));
    assert.deepEqual([outcome.permanent, outcome.enhanced], [false, "4.4.3"]);
    assert.deepEqual(world.tried.map((one) => one.address), [undefined, undefined]);
  });

  it("does not dial itself: loopback addresses, and hosts from our own name on", async () => {
    world.domain("trap.example", [10, "localhost.trap.example"]);
    world.names.set("localhost.trap.example", { A: ["127.0.0.1"] });
    assert.equal(failure(await deliver("a@trap.example")).enhanced, "5.4.4");

    world.domain("example.org", [10, "us.example"], [20, "mx2.example.org"]);
    const loop = failure(await deliver());
    assert.deepEqual([loop.permanent, loop.enhanced], [true, "5.4.6"]);

    world.domain("example.org", [20, "us.example"], [30, "worse.example.org"], [
      10,
      "best.example",
    ]);
    await world.host("best.example", "192.0.2.1", { answers: { MAIL: "451 later" } });
    assert.equal(failure(await deliver()).permanent, false);
    assert.deepEqual(world.tried.map((one) => one.host).slice(-1), ["best.example"]);
  });

  it("ends when it is canceled", async () => {
    world.domain("example.org", [10, "mx1.example.org"], [20, "mx2.example.org"]);
    await world.host("mx1.example.org", "192.0.2.1", { answers: { DATA: SILENCE } });
    const abort = new AbortController();
    setTimeout(() => abort.abort(), 20);
    const outcome = failure(await world.attempt("direct", "bob@example.org", {}, abort.signal));
    assert.deepEqual([outcome.permanent, outcome.result], [false, "canceled"]);
    assert.equal(world.tried.length, 1);

    const before = failure(await world.attempt("direct", "b@c.example", {}, AbortSignal.abort()));
    assert.equal(before.result, "canceled");
  });

  it("refuses an address that would not fit in a command, without dialling", async () => {
    const outcome = failure(await deliver("bob@example.org> NOTIFY=NEVER"));
    assert.deepEqual([outcome.permanent, outcome.enhanced], [true, "5.1.3"]);
    assert.deepEqual(world.diary, []);
  });
});

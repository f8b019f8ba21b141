import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import type { Clock } from "../../../actors/ports.ts";
import { SocketDialer } from "../../../src/delivery/dialer.ts";
import { ClientSession } from "../../../src/smtp/client.ts";
import { type SessionLimits, Sessions } from "../../../src/smtp/sessions.ts";
import { transaction } from "./harness.ts";
import { ScriptedServer } from "./scripted_server.ts";

/** A clock that a test moves on; timers run when their time has come. */
class HandClock implements Clock {
  #now = 0;
  #timers = new Set<{ at: number; run: () => void }>();
  now = () => this.#now;
  monotonic = () => this.#now;
  timer(ms: number, run: () => void): () => void {
    const timer = { at: this.#now + ms, run };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }
  get timers(): number {
    return this.#timers.size;
  }
  advance(ms: number): void {
    this.#now += ms;
    for (const timer of [...this.#timers]) {
      if (timer.at > this.#now) continue;
      this.#timers.delete(timer);
      timer.run();
    }
  }
}

const never = new AbortController().signal;

describe("kept sessions", () => {
  let server: ScriptedServer;
  let clock: HandClock;
  let opened: ClientSession[];

  beforeEach(async () => {
    server = await ScriptedServer.start();
    clock = new HandClock();
    opened = [];
  });
  afterEach(async () => {
    for (const session of opened) session.close();
    await server.stop();
  });

  const open = async () => {
    const target = { address: "127.0.0.1", port: server.port };
    const connection = await new SocketDialer().connect(target, never);
    const tls = { mode: "none" } as const;
    const session = new ClientSession(connection, { clock, hostname: "client.test", tls });
    opened.push(session);
    await session.greet(never);
    return session;
  };
  const pool = (limits: Partial<SessionLimits> = {}) => new Sessions(clock, limits);

  it("are given out under their own key only, the latest first", async () => {
    const sessions = pool();
    const [a, b] = [await open(), await open()];
    sessions.give("one", a);
    sessions.give("one", b);
    assert.equal(sessions.take("other"), undefined);
    assert.equal(sessions.take("one"), b);
    assert.equal(sessions.take("one"), a);
    assert.equal(sessions.take("one"), undefined);
  });

  it("run one timer while they are idle, and none otherwise", async () => {
    const sessions = pool();
    assert.equal(clock.timers, 0);
    sessions.give("one", await open());
    sessions.give("two", await open());
    assert.equal(clock.timers, 1);
    sessions.take("one");
    sessions.take("two");
    assert.equal(clock.timers, 0);
  });

  it("take leave when they were idle for too long", async () => {
    const sessions = pool({ idle: 1000 });
    sessions.give("one", await open());
    clock.advance(600);
    sessions.give("one", await open());
    clock.advance(600);
    assert.equal(sessions.size, 1);
    clock.advance(600);
    assert.equal(sessions.size, 0);
    assert.equal(clock.timers, 2, "of two QUITs");
    await sessions.close();
    assert.equal(server.commands.filter((line) => line === "QUIT").length, 2);
  });

  it("are not given out after their time even when the timer is late", async () => {
    const sessions = pool({ idle: 1000 });
    const late: Clock = { now: clock.now, monotonic: clock.monotonic, timer: () => () => {} };
    const unswept = new Sessions(late, { idle: 1000 });
    unswept.give("one", await open());
    clock.advance(1000);
    assert.equal(unswept.take("one"), undefined);
    assert.equal(sessions.size, 0);
  });

  it("are bounded per key and in all; the oldest go first", async () => {
    const sessions = pool({ perKey: 2, total: 3 });
    const [a, b, c, d, e] = await Promise.all([open(), open(), open(), open(), open()]);
    for (const session of [a, b, c]) sessions.give("one", session);
    assert.equal(sessions.size, 2);
    assert.equal(a.usable, false);
    sessions.give("two", d);
    sessions.give("three", e);
    assert.equal(sessions.size, 3);
    assert.equal(b.usable, false);
    assert.equal(sessions.take("one"), c);
  });

  it("are worn out by as many messages as a destination takes over one", async () => {
    const sessions = pool({ messages: 10 });
    const session = await open();
    await session.send(transaction(), never);
    sessions.give("a", session, 2);
    assert.equal(sessions.take("a"), session, "one message more");
    await session.send(transaction(), never);
    sessions.give("a", session, 2);
    assert.equal(sessions.take("a"), undefined);
  });

  it("are worn out by messages, refusals and age", async () => {
    const sessions = pool({ messages: 2, refusals: 1, age: 5000 });
    const session = await open();
    await session.send(transaction(), never);
    sessions.give("one", session);
    assert.equal(sessions.take("one"), session);
    await session.send(transaction(), never);
    sessions.give("one", session);
    assert.equal(sessions.size, 0);

    const refused = await open();
    server.script.answers = { RCPT: "550 no" };
    await refused.send(transaction(), never);
    sessions.give("one", refused);
    assert.equal(sessions.size, 0);

    const old = await open();
    clock.advance(5000);
    sessions.give("one", old);
    assert.equal(sessions.size, 0);
  });

  it("are not kept when they are closed", async () => {
    const sessions = pool();
    const session = await open();
    session.close();
    sessions.give("one", session);
    assert.equal(sessions.size, 0);
  });

  it("go together when one of them was found dead", async () => {
    const sessions = pool();
    const [a, b] = [await open(), await open()];
    sessions.give("one", a);
    sessions.give("one", b);
    sessions.give("two", await open());
    sessions.drop("one");
    assert.equal(sessions.size, 1);
    assert.ok(!a.usable && !b.usable);
  });

  it("take leave in order when the pool is closed, and later ones at once", async () => {
    const sessions = pool();
    sessions.give("one", await open());
    const busy = await open();
    await sessions.close();
    sessions.give("one", busy);
    assert.equal(sessions.size, 0);
    assert.ok(!busy.usable);
    await sessions.close();
    assert.equal(server.commands.filter((line) => line === "QUIT").length, 2);
  });
});

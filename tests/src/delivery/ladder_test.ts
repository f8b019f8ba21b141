/**
 * The ladder beyond its table: doubts, fallbacks over several addresses, what messages ask for, and
 * what the log keeps of it. Over real sockets and a resolver of the test's own.
 */
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import type { Outcome } from "../../../actors/ports.ts";
import { checkFact } from "../../../events/catalogue.ts";
import { deliverDirect, type DirectPorts } from "../../../src/delivery/direct.ts";
import { Party } from "../../../src/delivery/party.ts";
import type { MtaStsFinding, MtaStsUnknown } from "../../../src/tls/requirements.ts";
import { realClock } from "../smtp/harness.ts";
import { HANG_UP, type Script } from "../smtp/scripted_server.ts";
import { BODIES, type JobChanges, jobOf } from "./job.ts";
import { failure, World } from "./world.ts";

let world: World;
beforeEach(() => {
  world = new World([], "us.example");
});
afterEach(() => world.stop());

interface Trial extends JobChanges {
  readonly policy?: MtaStsFinding | MtaStsUnknown;
}

async function deliver({ policy, ...changes }: Trial = {}): Promise<Outcome> {
  const ports: DirectPorts = {
    clock: realClock,
    random: { next: () => 0.5 },
    resolver: world,
    dialer: world,
    sessions: world.sessions,
    bodies: BODIES,
    hostname: "us.example",
    dialLimits: { connect: 50 },
    ...(policy ? { mtaSts: { find: () => Promise.resolve(policy) } } : {}),
  };
  const config = { port: 25, ipFamily: "any", allowLoopback: false } as const;
  const { signal } = new AbortController();
  const [outcome] = await deliverDirect(ports, config, [new Party(jobOf(changes), world)], signal);
  for (const finding of world.findings) checkFact(finding);
  return outcome!;
}

const V6 = "2001:db8::1";
const V4 = "192.0.2.1";
const gathered = () =>
  world.findings.flatMap((one) => one.type === "TLSAGathered" ? [one.data] : []);

async function dualStack(script: Parameters<World["serve"]>[1]): Promise<void> {
  world.domain("example.org", [10, "mx1.example.org"], [20, "mx2.example.org"]);
  world.names.set("mx1.example.org", { AAAA: [V6], A: [V4] });
  world.names.set("mx2.example.org", { A: ["192.0.2.2"] });
  await world.serve(V6, script);
  await world.serve(V4);
  await world.serve("192.0.2.2", { answers: { RCPT: "450 4.2.0 later" } });
}

describe("a policy refusal of a dual-stack host", () => {
  for (const command of ["MAIL", "RCPT", "DATA", "."]) {
    it(`counts as temporary at ${command} in the first attempt, and the next host follows`, async () => {
      await dualStack({ answers: { [command]: "550 5.7.1 not from there" } });
      const outcome = failure(await deliver());
      assert.equal(outcome.permanent, false);
      assert.deepEqual(world.tried.map(({ address }) => address), [V6, "192.0.2.2"]);
      assert.match(world.tried[0]?.error ?? "", /may be meant for IPv6 alone/);
      assert.equal(world.tried[0]?.result, "permerror");
    });
  }

  it("is believed the second time", async () => {
    await dualStack({ answers: { RCPT: "550 5.7.1 not from there" } });
    const before = [
      { attempt: 1, host: "mx1.example.org", address: V4, result: "permerror" },
    ] as const;
    const outcome = failure(await deliver({ attempt: 2, tried: before }));
    assert.equal(outcome.permanent, true);
    assert.equal(outcome.remoteMTA, "mx1.example.org");
    assert.deepEqual(outcome.reply, { code: 550, enhanced: "5.7.1", text: "not from there" });
    assert.deepEqual(world.tried.map(({ address }) => address), [V6]);
  });

  it("is not doubted where it is no matter of policy, or there is one family", async () => {
    await dualStack({ answers: { RCPT: "550 5.1.1 who?" } });
    assert.equal(failure(await deliver()).permanent, true);
    world.names.set("mx1.example.org", { AAAA: [V6] });
    await world.serve(V6, { answers: { RCPT: "550 5.7.1 no" } });
    assert.equal(failure(await deliver()).permanent, true);
  });

  it("makes the next attempt begin with the other family", async () => {
    await dualStack({ answers: { RCPT: "550 5.7.1 not from there" } });
    const before = [
      { attempt: 1, host: "mx1.example.org", address: V6, result: "permerror" },
    ] as const;
    assert.equal((await deliver({ attempt: 2, tried: before })).kind, "delivered");
    assert.deepEqual(world.tried.map(({ address }) => address), [V4]);
  });
});

describe("plain text after broken TLS", () => {
  it("is one connection per host, and only where nothing more is required", async () => {
    world.domain("example.org", [10, "mx1.example.org"]);
    world.names.set("mx1.example.org", { A: [V4, "192.0.2.3"] });
    const script: Script = {
      extensions: ["STARTTLS"],
      answers: { MAIL: HANG_UP },
      garbleTls: true,
    };
    await world.serve(V4, script);
    await world.serve("192.0.2.3", script);
    failure(await deliver());
    assert.deepEqual(
      world.tried.map(({ address, fallback = false }) => [address, fallback]),
      [[V4, false], [V4, true], ["192.0.2.3", false]],
    );
    assert.equal(world.tried[0]?.tlsFailure, "validation-failure");
  });
});

describe("what messages ask for", () => {
  beforeEach(async () => {
    world.domain("example.org", [10, "mx1.example.org"]);
    await world.host("mx1.example.org", V4);
  });

  it("REQUIRETLS fails for good where nothing vouches for the host, and nothing is dialled", async () => {
    const outcome = failure(await deliver({ message: { requireTLS: true } }));
    assert.equal(outcome.permanent, true);
    assert.equal(outcome.enhanced, "5.7.10");
    assert.ok(!world.diary.some((line) => line.startsWith("dial")));
    assert.equal(gathered()[0]?.verdict, "fail");
  });

  const enforced: MtaStsFinding = {
    status: "policy",
    domain: "example.org",
    mode: "enforce",
    id: "1",
    mx: ["mx.example.net"],
    maxAge: 86_400,
    from: "cache",
  };

  it("an enforced policy that names no host is a temporary failure that says so", async () => {
    const outcome = failure(await deliver({ policy: enforced }));
    assert.equal(outcome.permanent, false);
    assert.match(outcome.reason, /MTA-STS policy of example\.org .* names none of its hosts: mx1/);
    assert.equal(gathered()[0]?.verdict, "skip");
  });

  it("TLS-Required: No goes on in spite of it, and in spite of no answer about it", async () => {
    const message = { tlsOptional: true };
    assert.equal((await deliver({ message, policy: enforced })).kind, "delivered");
    assert.match(gathered()[0]?.why.join() ?? "", /TLS-Required: No/);
    const unknown = { status: "temporary", domain: "example.org", reason: "SERVFAIL" } as const;
    assert.equal((await deliver({ message, policy: unknown })).kind, "delivered");
  });

  it("no answer about the policy fails the attempt temporarily", async () => {
    const policy = { status: "temporary", domain: "example.org", reason: "SERVFAIL" } as const;
    const outcome = failure(await deliver({ policy }));
    assert.equal(outcome.permanent, false);
    assert.match(outcome.reason, /MTA-STS policy cannot be found out: SERVFAIL/);
  });
});

describe("destinations in the log", () => {
  it("have their Unicode form, and the MX records that were left out", async () => {
    world.names.set("xn--bcher-kva.example", {
      MX: [{ preference: 10, exchange: "192.0.2.7" }, {
        preference: 20,
        exchange: "mx.xn--bcher-kva.example",
      }],
    });
    await world.host("mx.xn--bcher-kva.example", V4);
    const message = { rcptTo: "bob@bücher.example" };
    assert.equal((await deliver({ message })).kind, "delivered");
    const resolved = world.findings.flatMap((f) =>
      f.type === "DestinationsResolved" ? [f.data] : []
    );
    assert.equal(resolved[0]?.nextHop, "xn--bcher-kva.example");
    assert.equal(resolved[0]?.unicode, "bücher.example");
    assert.deepEqual(resolved[0]?.ignored, ["10 192.0.2.7"]);
    assert.equal(gathered()[0]?.unicode, "mx.bücher.example");
  });

  it("a domain that is its own host and has no address is refused for good", async () => {
    world.names.set("example.org", { TXT: [] });
    const outcome = failure(await deliver());
    assert.equal(outcome.permanent, true);
    assert.equal(outcome.enhanced, "5.4.4");
    assert.match(outcome.reason, /has no IP address/);
  });
});

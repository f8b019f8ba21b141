/** SCRAM with somebody in between who alters, cuts, repeats and reorders messages. */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import { SaslError } from "../../../../src/smtp/sasl/error.ts";
import { fromUtf8, joined, sameOctets, utf8 } from "../../../../src/smtp/sasl/octets.ts";
import { type Between, login } from "./login.ts";
import { client, fails, NAMES, server } from "./scram_sides.ts";

/** Ways to alter a message; each gives something else than it got. */
const alteration = fc.oneof(
  fc.record({ at: fc.nat(), by: fc.integer({ min: 1, max: 255 }) }).map(
    ({ at, by }) => (data: Uint8Array) =>
      data.map((octet, n) => n === at % data.length ? octet ^ by : octet),
  ),
  fc.nat().map((at) => (data: Uint8Array) => data.subarray(0, at % data.length)),
  fc.record({ at: fc.nat(), more: fc.uint8Array({ minLength: 1, maxLength: 4 }) }).map((
    { at, more },
  ) =>
  (data: Uint8Array) => {
    const n = at % (data.length + 1);
    return joined(data.subarray(0, n), more, data.subarray(n));
  }),
  fc.tuple(fc.nat(), fc.nat()).map(([a, b]) => (data: Uint8Array) => {
    const parts = fromUtf8(data).split(",");
    const [from, to] = [a % parts.length, b % parts.length];
    parts.splice(to, 0, ...parts.splice(from, 1));
    return utf8(parts.join(","));
  }),
  fc.constantFrom(",x=y", ",m=1", ",r=a", ",i=4096", ",p=AAAA", ",v=AAAA", "=", "\0", " ").map(
    (more) => (data: Uint8Array) => joined(data, utf8(more)),
  ),
  fc.constantFrom("\uFEFF", "m=x,", "x=y,").map((more) => (data: Uint8Array) =>
    joined(utf8(more), data)
  ),
);

const altered = (
  who: "client" | "server",
  which: number,
  alter: (data: Uint8Array) => Uint8Array,
) => {
  let changed = false;
  const between: Between = (from, number, data) => {
    if (from !== who || number !== which) return data;
    const result = data.length === 0 ? utf8("x") : alter(data);
    changed ||= !sameOctets(result, data);
    return result;
  };
  return { between, changed: () => changed };
};

describe("SCRAM with messages altered on the way", () => {
  const runs = { numRuns: 250 };

  it("the client never accepts an altered message of the server", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...NAMES),
        fc.constantFrom(0, 1),
        alteration,
        async (name, which, alter) => {
          const { between, changed } = altered("server", which, alter);
          const end = await login(client({ name }), server({ name }), between);
          fc.pre(changed());
          assert.equal(end.clientDone, false);
          assert.notEqual(end.server.kind, "success");
        },
      ),
      runs,
    );
  });

  it("nor when what follows is what it would have got unaltered", async () => {
    const record: Uint8Array[] = [];
    await login(client(), server(), (from, _number, data) => {
      if (from === "server") record.push(data);
      return data;
    });
    const [serverFirst, serverFinal] = record;
    await fc.assert(
      fc.asyncProperty(alteration, async (alter) => {
        const message = alter(serverFirst!);
        fc.pre(!sameOctets(message, serverFirst!));
        const one = client();
        one.start();
        await assert.rejects(async () => {
          await one.step(message);
          await one.step(serverFinal!);
        }, SaslError);
        assert.equal(one.done(), false);
      }),
      runs,
    );
  });

  it("the server never accepts an altered message of the client", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...NAMES),
        fc.constantFrom(0, 1, 2),
        alteration,
        async (name, which, alter) => {
          const { between, changed } = altered("client", which, alter);
          const end = await login(client({ name }), server({ name }), between);
          fc.pre(changed());
          assert.notEqual(end.server.kind, "success");
        },
      ),
      runs,
    );
  });

  it("neither takes messages out of order", async () => {
    const one = client();
    await assert.rejects(one.step(utf8("v=AAAA")), fails("out-of-order"));
    assert.equal(one.done(), false);
    assert.throws(() => one.start(), fails("out-of-order"));

    const record: Uint8Array[] = [];
    await login(client(), server(), (from, _number, data) => {
      if (from === "server") record.push(data);
      return data;
    });
    const two = client();
    two.start();
    await assert.rejects(two.step(record[1]!), fails("malformed"), "the last message first");
    await assert.rejects(two.step(record[0]!), fails("out-of-order"), "it has failed already");
    const three = client();
    three.start();
    await three.step(record[0]!);
    await assert.rejects(three.step(record[0]!), fails("malformed"), "the first message twice");
    assert.equal(three.done(), false);

    const late = server();
    await login(client(), late);
    assert.equal((await late.step(new Uint8Array(0))).kind, "failure");
  });

  it("a second challenge while the first is computed ends the login", async () => {
    const one = client();
    const start = fromUtf8(one.start()!);
    const step = await server().step(utf8(start));
    assert(step.kind === "challenge");
    const first = one.step(step.data);
    await assert.rejects(one.step(step.data), fails("out-of-order"));
    await assert.rejects(first, fails("out-of-order"));
  });
});

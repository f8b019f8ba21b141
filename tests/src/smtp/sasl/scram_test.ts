/** SCRAM: the RFCs' examples, client against server, and every way of cheating either. */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import type { ChannelBinding } from "../../../../src/smtp/sasl/mechanism.ts";
import { SaslError, type SaslReason } from "../../../../src/smtp/sasl/error.ts";
import { fromBase64, fromUtf8, joined, utf8 } from "../../../../src/smtp/sasl/octets.ts";
import {
  remembering,
  type SaltedPassword,
  saltedPassword,
  type ScramName,
} from "../../../../src/smtp/sasl/scram.ts";
import { scramClient, type ScramClientOptions } from "../../../../src/smtp/sasl/scram_client.ts";
import { scramServer, type ScramServerOptions } from "../../../../src/smtp/sasl/scram_server.ts";
import { accountsWith, type Between, login, seeded } from "./login.ts";

const NAMES: readonly ScramName[] = [
  "SCRAM-SHA-256",
  "SCRAM-SHA-256-PLUS",
  "SCRAM-SHA-1",
  "SCRAM-SHA-1-PLUS",
];
const BINDING: ChannelBinding = { type: "tls-exporter", data: new Uint8Array(32).fill(3) };
const ACCOUNTS = await accountsWith({
  "us,er=": "pencil",
  user: "pencil",
  pässwörd: "\u2168\u00ADx",
});
const remembered = remembering();

const client = (options: Partial<ScramClientOptions> = {}) =>
  scramClient({
    name: "SCRAM-SHA-256",
    username: "user",
    password: "pencil",
    channelBinding: BINDING,
    random: seeded("client"),
    saltedPassword: remembered,
    maxIterations: 20_000,
    ...options,
  });

const server = (options: Partial<ScramServerOptions> = {}) =>
  scramServer({
    name: "SCRAM-SHA-256",
    accounts: ACCOUNTS,
    random: seeded("server"),
    channelBindings: [{ type: "tls-server-end-point", data: new Uint8Array(32) }, BINDING],
    ...options,
  });

const fails = (reason: SaslReason) => (error: unknown) =>
  error instanceof SaslError && error.reason === reason && !error.message.includes("pencil");

describe("SCRAM client: examples of the RFCs", () => {
  const examples = [
    {
      rfc: "RFC 5802, section 5",
      name: "SCRAM-SHA-1" as const,
      nonce: "fyko+d2lbbFgONRv9qkxdawL",
      serverFirst: "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
      clientFinal:
        "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
      serverFinal: "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    },
    {
      rfc: "RFC 7677, section 3",
      name: "SCRAM-SHA-256" as const,
      nonce: "rOprNGfwEbeRWgbNEkqO",
      serverFirst: "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0," +
        "s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
      clientFinal: "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0," +
        "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
      serverFinal: "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    },
  ];
  for (const { rfc, name, nonce, serverFirst, clientFinal, serverFinal } of examples) {
    it(`${rfc}: ${name}`, async () => {
      const one = client({ name, random: () => fromBase64(nonce), saltedPassword });
      assert.equal(fromUtf8(one.start()!), `n,,n=user,r=${nonce}`);
      assert.equal(fromUtf8(await one.step(utf8(serverFirst))), clientFinal);
      assert.equal(one.done(), false, "the server has not proved itself yet");
      assert.deepEqual(await one.step(utf8(serverFinal)), new Uint8Array(0));
      assert.equal(one.done(), true);
    });
  }
});

describe("SCRAM client against server", () => {
  for (const name of NAMES) {
    it(`${name} logs in`, async () => {
      const end = await login(client({ name }), server({ name }));
      assert.deepEqual(end, { clientDone: true, server: { kind: "success", username: "user" } });
    });
    it(`${name} refuses a wrong password and an unknown user alike`, async () => {
      const wrong = await login(client({ name, password: "pen" }), server({ name }));
      const unknown = await login(client({ name, username: "nobody" }), server({ name }));
      const failure = { kind: "failure", reason: "credentials" };
      assert.deepEqual(wrong, {
        clientDone: false,
        server: { ...failure, username: "user", detail: "wrong password" },
      });
      assert.deepEqual(unknown, {
        clientDone: false,
        server: { ...failure, username: "nobody", detail: "no such account" },
      });
    });
  }

  it("escapes names and prepares both name and password", async () => {
    const escaped = client({ username: "us,er=" });
    assert.match(fromUtf8(escaped.start()!), /^n,,n=us=2Cer=3D,r=/);
    const end = await login(client({ username: "us,er=" }), server());
    assert.deepEqual(end.server, { kind: "success", username: "us,er=" });
    const composed = client({ username: "pa\u0308sswo\u0308rd", password: "IXx" });
    assert.deepEqual((await login(composed, server())).server, {
      kind: "success",
      username: "pässwörd",
    });
  });

  it("takes one's own name as authorization identity and no other", async () => {
    const own = await login(client({ authzid: "user" }), server());
    assert.equal(own.server.kind, "success");
    const other = await login(client({ authzid: "us,er=" }), server());
    assert.partialDeepStrictEqual(other.server, { kind: "failure", reason: "credentials" });
  });

  it("refuses to go on without -PLUS when the offer of it was removed on the way", async () => {
    const end = await login(client({ bindingNotOffered: true }), server({ offersPlus: true }));
    assert.partialDeepStrictEqual(end.server, { kind: "failure", reason: "credentials" });
    const honest = await login(client({ bindingNotOffered: true }), server({ offersPlus: false }));
    assert.equal(honest.server.kind, "success");
  });

  it("notices that the two TLS sessions are not one", async () => {
    const name = "SCRAM-SHA-256-PLUS";
    const elsewhere = { ...BINDING, data: new Uint8Array(32).fill(4) };
    const end = await login(client({ name, channelBinding: elsewhere }), server({ name }));
    assert.partialDeepStrictEqual(end.server, { kind: "failure", reason: "credentials" });
    assert.equal(end.clientDone, false);
  });

  it("shows an unknown user the same salt each time, and as many octets as a known one", async () => {
    const first = async (n: string) => {
      const step = await server().step(utf8(`n,,n=${n},r=abc`));
      return step.kind === "challenge" ? fromUtf8(step.data) : assert.fail("no challenge");
    };
    assert.equal(await first("nobody"), await first("nobody"));
    assert.notEqual(await first("nobody"), await first("somebody"));
    assert.equal((await first("nobody")).length, (await first("user")).length);
  });
});

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
    changed ||= !(result.length === data.length && result.every((octet, n) => octet === data[n]));
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
        fc.pre(fromUtf8Lenient(message) !== fromUtf8Lenient(serverFirst!));
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

describe("SCRAM client: a hostile server", () => {
  const nonce = fromUtf8(client().start()!).split("r=")[1]!;
  const first = (over: Partial<Record<"r" | "s" | "i", string>> = {}) => {
    const { r, s, i } = { r: `${nonce}abc`, s: "QSXCR+Q6sek8bf92", i: "4096", ...over };
    return `r=${r},s=${s},i=${i}`;
  };
  const cases: readonly (readonly [string, string, SaslReason])[] = [
    ["10 million iterations", first({ i: "10000000" }), "iterations"],
    ["more iterations than a number holds", first({ i: "9".repeat(400) }), "iterations"],
    ["too few iterations", first({ i: "4095" }), "iterations"],
    ["no iterations", first({ i: "0" }), "malformed"],
    ["a count with a leading zero", first({ i: "04096" }), "malformed"],
    ["a negative count", first({ i: "-4096" }), "malformed"],
    ["our own nonce and no more", first({ r: nonce }), "nonce"],
    ["another nonce", first({ r: "x".repeat(40) }), "nonce"],
    ["a nonce that only ends in ours", first({ r: `x${nonce}` }), "nonce"],
    ["a nonce without end", first({ r: nonce + "x".repeat(2000) }), "malformed"],
    ["a nonce with white space", first({ r: `${nonce} x` }), "malformed"],
    ["no salt", first({ s: "" }), "malformed"],
    ["a salt that is not base64", first({ s: "QSXCR+Q6sek8bf9" }), "bad-base64"],
    ["a salt in base64 of another spelling", first({ s: "QR==" }), "bad-base64"],
    ["an endless salt", first({ s: "A".repeat(2000) }), "malformed"],
    ["a mandatory extension", `m=x,${first()}`, "extension"],
    ["an attribute twice", `${first()},i=4096`, "malformed"],
    ["attributes in another order", `r=${nonce}abc,i=4096,s=QSXCR+Q6sek8bf92`, "malformed"],
    ["an attribute without a name", `${first()},=x`, "malformed"],
    ["an error", "e=other-error", "refused"],
    ["nothing", "", "malformed"],
    ["the server's signature", "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=", "malformed"],
    ["a message too long", `${first()},x=${"y".repeat(10_000)}`, "too-long"],
  ];
  for (const [what, message, reason] of cases) {
    it(`is refused for ${what}`, async () => {
      let computed = 0;
      const counting: SaltedPassword = (...args) => (computed++, remembered(...args));
      const one = client({ saltedPassword: counting, maxIterations: undefined });
      one.start();
      await assert.rejects(one.step(utf8(message)), fails(reason));
      assert.equal(computed, 0, "nothing is computed for it");
      assert.equal(one.done(), false);
    });
  }

  it("is refused for octets that are not UTF-8", async () => {
    const one = client();
    one.start();
    const message = joined(utf8(first()), Uint8Array.of(0xff));
    await assert.rejects(one.step(message), fails("malformed"));
  });

  it("may add extensions that need not be known, under its signature", async () => {
    const one = client();
    one.start();
    assert.match(fromUtf8(await one.step(utf8(`${first()},x=y`))), /^c=biws,r=/);
  });

  it("has its errors repeated only where they are those of the RFC", async () => {
    for (
      const [message, text] of [
        ["e=invalid-proof", /: invalid-proof$/],
        ["e=pencil\r\n250 ok", /: other-error$/],
      ] as const
    ) {
      const one = client();
      one.start();
      await one.step(utf8(first()));
      await assert.rejects(one.step(utf8(message)), text);
    }
  });

  it("is refused for a wrong signature, a cut one and one with an extension", async () => {
    const signatures = [`v=${"A".repeat(43)}=`, "v=AAAA", "v=", `v=${"A".repeat(43)}=,x=y`];
    const reasons: readonly SaslReason[] = ["signature", "signature", "malformed", "malformed"];
    for (const [n, message] of signatures.entries()) {
      const one = client();
      one.start();
      await one.step(utf8(first()));
      await assert.rejects(one.step(utf8(message)), fails(reasons[n]!));
      assert.equal(one.done(), false);
    }
  });
});

describe("SCRAM server: a hostile client", () => {
  const cases = {
    "nothing": "",
    "no GS2 header": "n=user,r=abc",
    "binding without -PLUS": "p=tls-exporter,,n=user,r=abc",
    "a mandatory extension": "n,,m=x,n=user,r=abc",
    "no nonce": "n,,n=user",
    "an empty name": "n,,n=,r=abc",
    "a name escaped wrongly": "n,,n=us=2cer,r=abc",
    "a name with control characters": "n,,n=us\u0007er,r=abc",
    "a nonce too long": `n,,n=user,r=${"a".repeat(1025)}`,
    "a nonce with white space": "n,,n=user,r=a b",
    "an attribute twice": "n,,n=user,r=abc,n=user",
    "10 kB": `n,,n=user,r=abc,x=${"y".repeat(10_000)}`,
  };
  for (const [what, message] of Object.entries(cases)) {
    it(`fails for ${what}`, async () => {
      const one = server();
      assert.equal((await one.step(utf8(message))).kind, "failure");
      assert.equal((await one.step(utf8("n,,n=user,r=abc"))).kind, "failure", "and stays failed");
    });
  }

  it("fails with -PLUS and no binding, or one that is not had here", async () => {
    for (const header of ["n,,", "y,,", "p=tls-unique,,"]) {
      const step = await server({ name: "SCRAM-SHA-256-PLUS" }).step(utf8(`${header}n=user,r=abc`));
      assert.equal(step.kind, "failure");
    }
  });

  it("an arbitrary message is a step, never an exception", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 4 }),
        async (all) => {
          const one = server();
          for (const message of all) assert.notEqual((await one.step(message)).kind, "success");
        },
      ),
    );
  });
});

describe("remembering", () => {
  it("computes once for the same asking, and forgets what failed and what is old", async () => {
    let computed = 0;
    const salt = Uint8Array.of(1);
    const fast = remembering((_hash, password) => {
      computed++;
      return password === "bad" ? Promise.reject(new Error("no")) : Promise.resolve(salt);
    }, 2);
    await fast("sha256", "a", salt, 4096);
    await fast("sha256", "a", salt, 4096);
    assert.equal(computed, 1);
    await fast("sha1", "a", salt, 4096);
    await fast("sha1", "a", salt, 4097);
    await fast("sha256", "a", salt, 4096);
    assert.equal(computed, 4, "only the last two are kept");
    await assert.rejects(fast("sha256", "bad", salt, 4096));
    await assert.rejects(fast("sha256", "bad", salt, 4096));
    assert.equal(computed, 6);
  });
});

function fromUtf8Lenient(octets: Uint8Array): string {
  return new TextDecoder("latin1").decode(octets);
}

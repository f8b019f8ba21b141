/** SCRAM: the RFCs' examples, client against server, and hostile input to either. */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import type { SaslReason } from "../../../../src/smtp/sasl/error.ts";
import { fromBase64, fromUtf8, joined, utf8 } from "../../../../src/smtp/sasl/octets.ts";
import {
  remembering,
  type SaltedPassword,
  saltedPassword,
} from "../../../../src/smtp/sasl/scram.ts";
import { login } from "./login.ts";
import { ACCOUNTS, BINDING, client, fails, NAMES, remembered, server } from "./scram_sides.ts";

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

  it("lets nobody in whom the lookup does not know, whatever its credentials", async () => {
    const unknown = {
      find: async (name: string) => ({ ...await ACCOUNTS.find(name), known: false }),
    };
    for (const name of NAMES) {
      const end = await login(client({ name }), server({ name, accounts: unknown }));
      assert.partialDeepStrictEqual(end.server, { kind: "failure", reason: "credentials" });
      assert.equal(end.clientDone, false);
    }
  });

  it("names the nonce when it is that of another login", async () => {
    const end = await login(
      client(),
      server(),
      (from, number, data) =>
        from === "client" && number === 1
          ? utf8(fromUtf8(data).replace(/r=[^,]+/, "r=another"))
          : data,
    );
    assert.partialDeepStrictEqual(end.server, {
      kind: "failure",
      reason: "credentials",
      detail: "the nonce is not that of this login",
    });
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

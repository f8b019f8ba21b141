/** PLAIN, LOGIN, CRAM-MD5, OAUTHBEARER and XOAUTH2: the RFCs' examples, and bad input. */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import fc from "fast-check";
import { cramMd5Client } from "../../../../src/smtp/sasl/cram_md5.ts";
import { SaslError, type SaslReason } from "../../../../src/smtp/sasl/error.ts";
import { oauthBearerClient, xoauth2Client } from "../../../../src/smtp/sasl/oauth.ts";
import { fromBase64, fromUtf8, toBase64, utf8 } from "../../../../src/smtp/sasl/octets.ts";
import { loginClient, plainClient } from "../../../../src/smtp/sasl/plain.ts";
import { plainServer } from "../../../../src/smtp/sasl/plain_server.ts";
import { serverMechanism } from "../../../../src/smtp/sasl/server.ts";
import { accountsWith, login, seeded } from "./login.ts";

const fails = (reason: SaslReason) => (error: unknown) =>
  error instanceof SaslError && error.reason === reason && !/tanstaaf|vF9/.test(error.message);

const ACCOUNTS = await accountsWith({ tim: "tanstaaftanstaaf", "\u2168": "\u00AA\u00ADb" });

describe("PLAIN client", () => {
  it("says what RFC 4616, section 4, shows", () => {
    const tim = plainClient("tim", "tanstaaftanstaaf");
    assert.equal(tim.done(), false);
    assert.equal(fromUtf8(tim.start()!), "\0tim\0tanstaaftanstaaf");
    assert.equal(tim.done(), true);
    const ursel = plainClient("Kurt", "xipj3plmq", "Ursel");
    assert.equal(fromUtf8(ursel.start()!), "Ursel\0Kurt\0xipj3plmq");
  });

  it("is over when a challenge comes", async () => {
    const one = plainClient("tim", "tanstaaftanstaaf");
    one.start();
    await assert.rejects(one.step(new Uint8Array(0)), fails("out-of-order"));
    assert.equal(one.done(), false);
    assert.throws(() => one.start(), fails("out-of-order"));
  });

  it("refuses what its message cannot carry, without repeating it", () => {
    for (const password of ["", "tanstaaf\0x", "tanstaaf".repeat(200), "tanstaaf\ud800"]) {
      assert.throws(() => plainClient("tim", password), fails("credentials"));
      assert.throws(() => loginClient("tim", password), fails("credentials"));
    }
    assert.throws(() => plainClient("", "x"), fails("credentials"));
    assert.throws(() => plainClient("a", "x", ""), fails("credentials"));
  });
});

describe("PLAIN server", () => {
  it("lets in who knows the password, however it is spelled in Unicode", async () => {
    const end = await login(plainClient("tim", "tanstaaftanstaaf"), plainServer(ACCOUNTS));
    assert.deepEqual(end, { clientDone: true, server: { kind: "success", username: "tim" } });
    const own = await login(plainClient("tim", "tanstaaftanstaaf", "tim"), plainServer(ACCOUNTS));
    assert.equal(own.server.kind, "success");
    const spelled = await accountsWith({ IX: "ab" });
    const other = await login(plainClient("\u2168", "\u00AA\u00ADb"), plainServer(spelled));
    assert.deepEqual(other.server, { kind: "success", username: "IX" });
  });

  it("refuses a wrong password, an unknown user and another's name", async () => {
    for (
      const [client, username, detail] of [
        [plainClient("tim", "tanstaaf"), "tim", "wrong password"],
        [plainClient("tom", "tanstaaftanstaaf"), "tom", "no such account"],
        [plainClient("tim", "tanstaaftanstaaf", "tom"), "tim", "asks for another's name"],
      ] as const
    ) {
      const { server } = await login(client, plainServer(ACCOUNTS));
      assert.deepEqual(server, { kind: "failure", reason: "credentials", username, detail });
    }
  });

  it("lets nobody in whom the lookup does not know, whatever its credentials", async () => {
    const unknown = {
      find: async (name: string) => ({ ...await ACCOUNTS.find(name), known: false }),
    };
    const { server } = await login(plainClient("tim", "tanstaaftanstaaf"), plainServer(unknown));
    assert.partialDeepStrictEqual(server, { kind: "failure", reason: "credentials" });
  });

  it("no message altered by an octet or cut is let in, and none makes it throw", async () => {
    const right = utf8("\0tim\0tanstaaftanstaaf");
    const message = fc.oneof(
      fc.record({ at: fc.nat(right.length - 1), by: fc.integer({ min: 1, max: 255 }) })
        .map(({ at, by }) => right.map((octet, n) => n === at ? octet ^ by : octet)),
      fc.nat(right.length - 1).map((at) => right.subarray(0, at)),
      fc.uint8Array({ maxLength: 30 }),
    );
    await fc.assert(fc.asyncProperty(message, async (octets) => {
      assert.equal((await plainServer(ACCOUNTS).step(octets)).kind, "failure");
    }));
  });

  it("takes one message only, of bounded size", async () => {
    const one = plainServer(ACCOUNTS);
    await one.step(utf8("\0tim\0wrong"));
    const again = await one.step(utf8("\0tim\0tanstaaftanstaaf"));
    assert.partialDeepStrictEqual(again, { kind: "failure", reason: "malformed" });
    const long = await plainServer(ACCOUNTS).step(utf8(`\0tim\0${"x".repeat(10_000)}`));
    assert.partialDeepStrictEqual(long, { kind: "failure", reason: "malformed" });
  });
});

describe("The server's mechanisms by name", () => {
  const options = { accounts: ACCOUNTS, random: seeded("server") };
  it("are those offered and no others", () => {
    assert.equal(serverMechanism("PLAIN", options)?.name, "PLAIN");
    assert.equal(serverMechanism("SCRAM-SHA-1", options)?.name, "SCRAM-SHA-1");
    assert.equal(serverMechanism("SCRAM-SHA-256-PLUS", options), undefined);
    assert.equal(serverMechanism("LOGIN", options), undefined);
    const channelBindings = [{ type: "tls-exporter" as const, data: new Uint8Array(32) }];
    const bound = serverMechanism("SCRAM-SHA-256-PLUS", { ...options, channelBindings });
    assert.equal(bound?.name, "SCRAM-SHA-256-PLUS");
  });
});

describe("LOGIN client", () => {
  it("answers two questions, whatever they are", async () => {
    const one = loginClient("tim", "tanstaaftanstaaf");
    assert.equal(one.start(), undefined);
    assert.equal(fromUtf8(await one.step(utf8("User Name\0"))), "tim");
    assert.equal(one.done(), false, "the password is not given yet");
    assert.equal(fromUtf8(await one.step(new Uint8Array(0))), "tanstaaftanstaaf");
    assert.equal(one.done(), true);
    await assert.rejects(one.step(utf8("Password:")), fails("out-of-order"));
    assert.equal(one.done(), false);
  });
});

describe("CRAM-MD5 client", () => {
  const challenge = "<1896.697170952@postoffice.reston.mci.net>";

  it("answers as RFC 2195, section 2, shows", async () => {
    const one = cramMd5Client("tim", "tanstaaftanstaaf");
    assert.equal(one.start(), undefined);
    assert.equal(one.done(), false);
    assert.equal(
      fromUtf8(await one.step(utf8(challenge))),
      "tim b913a602c7eda7a495b4e6e7334d3890",
    );
    assert.equal(one.done(), true);
    await assert.rejects(one.step(utf8(challenge)), fails("out-of-order"));
    assert.equal(one.done(), false);
  });

  it("prepares the password, and keys its digest with all of a challenge's octets", async () => {
    const one = cramMd5Client("tim", "\u2168");
    one.start();
    const octets = Uint8Array.of(0, 255, 13, 10);
    const digest = createHmac("md5", "IX").update(octets).digest("hex");
    assert.equal(fromUtf8(await one.step(octets)), `tim ${digest}`);
  });

  it("refuses an empty challenge", async () => {
    const one = cramMd5Client("tim", "tanstaaftanstaaf");
    one.start();
    await assert.rejects(one.step(new Uint8Array(0)), fails("malformed"));
    assert.equal(one.done(), false);
  });
});

describe("OAUTHBEARER and XOAUTH2 clients", () => {
  const token = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==";
  const username = "user@example.com";
  const host = "server.example.com";

  it("say what RFC 7628, section 4, shows", () => {
    const one = oauthBearerClient({ username, token, host, port: 587 });
    assert.equal(
      toBase64(one.start()!),
      "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9NTg3AWF1dGg9QmVhcmVy" +
        "IHZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB",
    );
    assert.equal(one.done(), true);
    assert.equal(
      fromUtf8(xoauth2Client({ username, token }).start()!),
      `user=user@example.com\x01auth=Bearer ${token}\x01\x01`,
    );
  });

  it("acknowledge the server's error and say why, repeating nothing that is not defined", async () => {
    const error = fromBase64(
      "eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIiwic2NvcGUiOiJleGFtcGxlX3Njb3BlIiwib3BlbmlkLWNvbmZpZ3Vy" +
        "YXRpb24iOiJodHRwczovL2V4YW1wbGUuY29tLy53ZWxsLWtub3duL29wZW5pZC1jb25maWd1cmF0aW9uIn0=",
    );
    const one = oauthBearerClient({ username, token });
    one.start();
    assert.equal(toBase64(await one.step(error)), "AQ==");
    assert.equal(one.done(), false);
    assert.equal(one.refusal, "the token is refused: invalid_token");
    await assert.rejects(one.step(error), fails("out-of-order"));

    for (
      const [message, refusal] of [
        ['{"status":"401","schemes":"bearer"}', "the token is refused: 401"],
        [`{"status":"${token}"}`, "the token is refused"],
        ['{"status":{}}', "the token is refused"],
        ["null", "the token is refused"],
        ["not JSON", "the token is refused"],
      ] as const
    ) {
      const two = xoauth2Client({ username, token });
      two.start();
      assert.deepEqual(await two.step(utf8(message)), new Uint8Array(0));
      assert.equal(two.refusal, refusal);
      assert.equal(two.done(), false);
    }
  });

  it("refuse what would end a field or is no token", () => {
    const bad = [
      { username, token: "vF9\x01auth=Bearer x" },
      { username, token: "vF9 x" },
      { username, token: "vF9\n" },
      { username, token: "" },
      { username, token: "v".repeat(7000) },
      { username: "user\x01auth=x", token },
      { username: "", token },
    ];
    for (const credentials of bad) {
      assert.throws(() => oauthBearerClient(credentials), fails("credentials"));
      assert.throws(() => xoauth2Client(credentials), fails("credentials"));
    }
    assert.throws(() => oauthBearerClient({ username, token, host: "a\x01" }), SaslError);
    assert.throws(() => oauthBearerClient({ username, token, port: 65536 }), SaslError);
    const escaped = oauthBearerClient({ username: "a,b=c", token });
    assert(fromUtf8(escaped.start()!).startsWith("n,a=a=2Cb=3Dc,\x01auth=Bearer "));
  });
});

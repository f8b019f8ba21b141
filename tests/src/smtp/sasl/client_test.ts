/** A whole login in lines, as the SMTP client runs it. */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import {
  type ClientCredentials,
  ClientExchange,
  clientMechanism,
} from "../../../../src/smtp/sasl/client.ts";
import { SaslError, type SaslReason } from "../../../../src/smtp/sasl/error.ts";
import {
  decodeResponse,
  encodeLine,
  parseAuthArguments,
} from "../../../../src/smtp/sasl/framing.ts";
import { type MechanismName, MECHANISMS } from "../../../../src/smtp/sasl/mechanism.ts";
import { toBase64, utf8 } from "../../../../src/smtp/sasl/octets.ts";
import { serverMechanism } from "../../../../src/smtp/sasl/server.ts";
import { accountsWith, seeded } from "./login.ts";

const PASSWORD: ClientCredentials = { kind: "password", username: "user", password: "pencil" };
const TOKEN: ClientCredentials = { kind: "token", username: "user", token: "abc123" };
const BINDING = { type: "tls-exporter" as const, data: new Uint8Array(32) };
const SERVER = {
  accounts: await accountsWith({ user: "pencil" }),
  random: seeded("server"),
  channelBindings: [BINDING],
};

const exchange = (name: MechanismName, credentials: ClientCredentials = PASSWORD) =>
  new ClientExchange(
    clientMechanism(name, credentials, { random: seeded("client"), channelBinding: BINDING }),
  );

const fails = (reason: SaslReason) => (error: unknown) =>
  error instanceof SaslError && error.reason === reason && !error.message.includes("pencil");

/** Runs it against the real server's side; true when the server says 235. */
async function run(client: ClientExchange): Promise<boolean> {
  const command = client.command();
  const { mechanism, initial } = parseAuthArguments(command.slice("AUTH ".length));
  const server = serverMechanism(mechanism, SERVER)!;
  let response = initial;
  if (response === undefined) {
    const line = decodeResponse(await client.answer(""));
    assert(line.kind === "response");
    response = line.data;
  }
  for (;;) {
    const step = await server.step(response);
    if (step.kind !== "challenge") return step.kind === "success";
    const line = decodeResponse(await client.answer(encodeLine(step.data)));
    assert(line.kind === "response");
    response = line.data;
  }
}

describe("A login in lines", () => {
  for (
    const name of [
      "SCRAM-SHA-256-PLUS",
      "SCRAM-SHA-1-PLUS",
      "SCRAM-SHA-256",
      "SCRAM-SHA-1",
      "PLAIN",
    ] as const
  ) {
    it(`${name} succeeds, and only at its end`, async () => {
      const client = exchange(name);
      assert.equal(await run(client), true);
      client.succeed();
    });
    it(`${name} fails with the wrong password`, async () => {
      const client = exchange(name, { ...PASSWORD, password: "wrong" } as ClientCredentials);
      assert.equal(await run(client), false);
    });
  }

  it("a long initial response is held back until the server asks for it", async () => {
    const username = "u".repeat(500);
    const client = exchange("PLAIN", { ...PASSWORD, username } as ClientCredentials);
    assert.equal(client.command(), "AUTH PLAIN");
    assert.throws(() => client.succeed(), fails("out-of-order"), "nothing was said yet");
    assert.equal(await client.answer(""), toBase64(utf8(`\0${username}\0pencil`)));
    client.succeed();
    const other = exchange("PLAIN", { ...PASSWORD, username } as ClientCredentials);
    other.command();
    await assert.rejects(other.answer("dGlt"), fails("malformed"), "a challenge with content");
  });

  it("success before the server's proof is refused, at every stage", async () => {
    for (const name of MECHANISMS.filter((one) => one.startsWith("SCRAM"))) {
      const client = exchange(name);
      const { mechanism, initial } = parseAuthArguments(client.command().slice(5));
      assert.throws(() => client.succeed(), fails("out-of-order"));
      const server = serverMechanism(mechanism, SERVER)!;
      const first = await server.step(initial!);
      assert(first.kind === "challenge");
      const final = decodeResponse(await client.answer(encodeLine(first.data)));
      assert.throws(() => client.succeed(), fails("out-of-order"));
      assert(final.kind === "response");
      const proof = await server.step(final.data);
      assert(proof.kind === "challenge");
      assert.equal(await client.answer(encodeLine(proof.data)), "");
      client.succeed();
    }
    for (const name of ["LOGIN", "CRAM-MD5"] as const) {
      const client = exchange(name);
      client.command();
      assert.throws(() => client.succeed(), fails("out-of-order"));
    }
  });

  it("a challenge that is not base64, or too long, is refused", async () => {
    for (
      const [text, reason] of [["not base64", "bad-base64"], [
        "A".repeat(12292),
        "too-long",
      ]] as const
    ) {
      const client = exchange("SCRAM-SHA-256");
      client.command();
      await assert.rejects(client.answer(text), fails(reason));
      assert.throws(() => client.succeed(), fails("out-of-order"));
    }
  });

  it("a refused token is acknowledged, and success after it is not believed", async () => {
    for (const [name, line] of [["OAUTHBEARER", "AQ=="], ["XOAUTH2", ""]] as const) {
      const client = exchange(name, TOKEN);
      client.command();
      assert.equal(await client.answer(toBase64(utf8('{"status":"invalid_token"}'))), line);
      assert.equal(client.refusal, "the token is refused: invalid_token");
      assert.throws(() => client.succeed(), fails("out-of-order"));
    }
  });

  it("every mechanism is made from its kind of credentials, and from no other", () => {
    for (const name of MECHANISMS) {
      const token = name === "OAUTHBEARER" || name === "XOAUTH2";
      assert.match(exchange(name, token ? TOKEN : PASSWORD).command(), new RegExp(`^AUTH ${name}`));
      assert.throws(() => exchange(name, token ? PASSWORD : TOKEN), /needs a/);
    }
    const other = { ...PASSWORD, authzid: "other" } as ClientCredentials;
    assert.throws(() => exchange("LOGIN", other), fails("credentials"));
    assert.throws(() => exchange("CRAM-MD5", other), fails("credentials"));
  });
});

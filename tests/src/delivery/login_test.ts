/**
 * Logins at smarthosts: each mechanism over each way to TLS, and what a server that refuses, lies or
 * breaks the protocol is answered with. Every failure is temporary and names the transport.
 */
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import { checkFact } from "../../../events/catalogue.ts";
import { Secret } from "../../../src/config/secret.ts";
import type { AuthConfig, SmarthostTransportConfig } from "../../../src/config/types.ts";
import type { SecretReader } from "../../../src/delivery/credentials.ts";
import { tlsServerEndPoint } from "../../../src/smtp/sasl/channel_binding.ts";
import type { MechanismName } from "../../../src/smtp/sasl/mechanism.ts";
import { serverMechanism } from "../../../src/smtp/sasl/server.ts";
import { accountsWith, seeded } from "../smtp/sasl/login.ts";
import {
  type Answer,
  type Answers,
  HANG_UP,
  type Script,
  type ScriptedServer,
  SILENCE,
} from "../smtp/scripted_server.ts";
import { failure, World } from "./world.ts";

const fixture = (name: string) =>
  Deno.readTextFileSync(new URL(`../../../fixtures/tls/${name}`, import.meta.url));
const TLS = { key: fixture("localhost.key.pem"), cert: fixture("localhost.cert.pem") };
const CA = fixture("ca.cert.pem");
const DER = Uint8Array.from(
  atob(TLS.cert.replace(/-----[^-]+-----|\s/g, "")),
  (character) => character.charCodeAt(0),
);

const USER = "alice";
const PASSWORD = "correct horse";
const TOKEN = "ya29.token-that-nobody-may-see";

const base64 = (text: string) => btoa(text);
const plain = (text: string) => atob(text);

const password: AuthConfig = {
  username: USER,
  secret: { kind: "password", value: new Secret(PASSWORD) },
  insecurePlain: false,
};
const token: AuthConfig = {
  username: USER,
  secret: { kind: "token_command", argv: ["helper"] },
  insecurePlain: false,
};

const PROVIDER: SmarthostTransportConfig = {
  type: "submission",
  name: "provider",
  host: "localhost",
  port: 587,
  tls: "verified",
  ipFamily: "any",
  ca: [CA],
  auth: password,
};

/** A server that answers AUTH with the real mechanisms, or with those of the script's author. */
async function realAuth(): Promise<NonNullable<Script["auth"]>> {
  const accounts = await accountsWith({ [USER]: PASSWORD });
  const bindings = [tlsServerEndPoint(DER)!];
  let mechanism: ReturnType<typeof serverMechanism>;
  return async (line, turn) => {
    let response: string | undefined = line;
    if (turn === 0) {
      const [, name = "", initial] = line.split(" ");
      mechanism = serverMechanism(name, {
        accounts,
        random: seeded("server"),
        channelBindings: bindings,
      });
      if (!mechanism) return "504 5.5.4 not known";
      if (initial === undefined) return "334 ";
      response = initial === "=" ? "" : initial;
    }
    const octets = Uint8Array.from(plain(response), (one) => one.charCodeAt(0));
    const step = await mechanism!.step(octets);
    if (step.kind === "challenge") {
      return `334 ${btoa(String.fromCharCode(...step.data))}`;
    }
    return step.kind === "success" ? "235 2.7.0 welcome" : "535 5.7.8 no";
  };
}

const cramMd5: NonNullable<Script["auth"]> = (line, turn) => {
  const challenge = "<17.42@sink.test>";
  if (turn === 0) return `334 ${base64(challenge)}`;
  const digest = createHmac("md5", PASSWORD).update(challenge).digest("hex");
  return plain(line) === `${USER} ${digest}` ? "235 2.7.0 welcome" : "535 5.7.8 no";
};

const loginMechanism: NonNullable<Script["auth"]> = (line, turn) => {
  if (turn === 0) return `334 ${base64("Username:")}`;
  if (turn === 1) return plain(line) === USER ? `334 ${base64("Password:")}` : "535 5.7.8 no";
  return plain(line) === PASSWORD ? "235 2.7.0 welcome" : "535 5.7.8 no";
};

const bearer: NonNullable<Script["auth"]> = (line) =>
  plain(line.split(" ")[2]!).includes(`auth=Bearer ${TOKEN}`)
    ? "235 2.7.0 welcome"
    : "535 5.7.8 no";

describe("a login at a smarthost", () => {
  let world: World;
  let scram: NonNullable<Script["auth"]>;
  let tokens: number;
  const secrets: SecretReader = {
    file: () => Promise.reject(new Error("there is no file password")),
    command: () => {
      tokens++;
      return Promise.resolve(`${TOKEN}\n`);
    },
  };
  beforeEach(async () => {
    scram = await realAuth();
    tokens = 0;
  });
  afterEach(() => world?.stop());

  const open = async (
    script: Script,
    changes: Partial<SmarthostTransportConfig> = {},
    timeouts = {},
  ): Promise<ScriptedServer> => {
    world = new World([{ ...PROVIDER, ...changes }], "us.example", timeouts, { secrets });
    return await world.host("localhost", "192.0.2.1", { tls: TLS, ...script });
  };
  const offering = (names: string, auth: NonNullable<Script["auth"]>): Script => ({
    extensions: ["PIPELINING", `AUTH ${names}`],
    auth,
  });
  const attempt = () => world.attempt("provider", "bob@anywhere.example");
  const refusal = async (): Promise<string> => {
    const outcome = failure(await attempt());
    assert.equal(outcome.permanent, false, outcome.reason);
    assert.match(outcome.reason, /^transport "provider": /);
    for (const finding of world.findings) checkFact(finding);
    const log = JSON.stringify([world.findings, outcome]);
    for (const secret of [PASSWORD, TOKEN, base64(`\0${USER}\0${PASSWORD}`), base64(PASSWORD)]) {
      assert(!log.includes(secret), "a secret is in the log");
    }
    return outcome.reason;
  };

  const mechanisms: [MechanismName, AuthConfig, () => NonNullable<Script["auth"]>][] = [
    ["SCRAM-SHA-256-PLUS", password, () => scram],
    ["SCRAM-SHA-1-PLUS", password, () => scram],
    ["SCRAM-SHA-256", password, () => scram],
    ["SCRAM-SHA-1", password, () => scram],
    ["CRAM-MD5", password, () => cramMd5],
    ["PLAIN", password, () => scram],
    ["LOGIN", password, () => loginMechanism],
    ["XOAUTH2", token, () => bearer],
    ["OAUTHBEARER", token, () => bearer],
  ];
  for (const [mechanism, auth, server] of mechanisms) {
    for (const type of ["submission", "submissions"] as const) {
      it(`${mechanism} works over ${type}, and leaves no secret in the log`, async () => {
        const implicitTls = type === "submissions";
        const sink = await open(
          { ...offering(mechanism, server()), implicitTls },
          // A server that offers no -PLUS to one who could use it is told so, and may object.
          { type, auth: { ...auth, mechanisms: [mechanism] } },
        );
        const outcome = await attempt();
        assert.equal(outcome.kind, "delivered", JSON.stringify(outcome));
        assert.equal(sink.messages.length, 1);
        const [tried] = world.tried;
        assert.deepEqual(tried!.login, { mechanism, username: USER });
        assert.equal(tried!.verifiedBy, "pkix");
        assert.equal(sink.commands.includes("STARTTLS"), !implicitTls);
        assert.ok(tried!.phases["login"] !== undefined);
        for (const finding of world.findings) checkFact(finding);
        const log = JSON.stringify(world.findings);
        for (const secret of sink.commands.filter((line) => /^AUTH \S+ ./.test(line))) {
          assert(!log.includes(secret.split(" ")[2]!), "the initial response is in the log");
        }
        assert(!log.includes(base64(PASSWORD)) && !log.includes(TOKEN), "a secret is in the log");
      });
    }
  }

  it("takes the most secure mechanism that both sides have, or the first of the list", async () => {
    const all = "LOGIN PLAIN SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-256-PLUS";
    await open(offering(all, scram));
    await attempt();
    assert.equal(world.tried[0]!.login!.mechanism, "SCRAM-SHA-256-PLUS");
    await world.stop();
    await open(offering(all, scram), {
      auth: { ...password, mechanisms: ["PLAIN", "SCRAM-SHA-256"] },
    });
    await attempt();
    assert.equal(world.tried[0]!.login!.mechanism, "PLAIN");
  });

  it("is made once per session, and a token is fetched once", async () => {
    const sink = await open(offering("XOAUTH2", bearer), { auth: token });
    await attempt();
    await attempt();
    assert.equal(sink.commands.filter((line) => line.startsWith("AUTH")).length, 1);
    assert.deepEqual(world.tried.map(({ reused = false }) => reused), [false, true]);
    assert.deepEqual(world.tried[1]!.login, { mechanism: "XOAUTH2", username: USER });
    sink.cut();
    await attempt();
    assert.equal(sink.commands.filter((line) => line.startsWith("AUTH")).length, 2);
    assert.equal(tokens, 1);
  });

  it("fetches a new token after one was refused", async () => {
    let refuse = true;
    await open(offering("XOAUTH2", () => refuse ? "535 5.7.8 expired" : "235 2.7.0 ok"), {
      auth: token,
    });
    assert.match(
      await refusal(),
      /said 535 5\.7\.8 expired to AUTH: the login as "alice" by XOAUTH2/,
    );
    refuse = false;
    assert.equal((await attempt()).kind, "delivered");
    assert.equal(tokens, 2);
  });

  it("sessions are not shared with a transport that logs in as somebody else", async () => {
    const sink = await open(offering("PLAIN", () => "235 ok"));
    await attempt();
    const other = { ...PROVIDER, auth: { ...password, username: "bob" } };
    world.transports.reload({
      hostname: "us.example",
      transports: new Map([["provider", other]]),
    });
    await attempt();
    assert.equal(sink.connections, 2);
    assert.equal(world.tried[1]!.login!.username, "bob");
  });

  it("that is refused is not repeated at other addresses", async () => {
    const sink = await open(offering("PLAIN", () => "535 5.7.8 wrong"));
    world.names.set("localhost", { A: ["192.0.2.1", "192.0.2.2"] });
    world.servers.set("192.0.2.2", sink);
    assert.match(
      await refusal(),
      /535 5\.7\.8 wrong to AUTH: the login as "alice" by PLAIN was refu/,
    );
    assert.equal(world.tried.length, 1);
    world.servers.delete("192.0.2.2");
  });

  it("is not tried with PLAIN over a certificate that was not checked, or in plain text", async () => {
    const sink = await open(offering("PLAIN LOGIN", scram), { tls: "required" });
    assert.match(await refusal(), /PLAIN needs verified TLS, and the server's certificate is not/);
    await world.stop();
    const clear = await open({ ...offering("PLAIN", scram) }, { type: "smtp", tls: "none" });
    assert.match(await refusal(), /PLAIN needs verified TLS, and the connection is in plain text/);
    for (const { commands } of [sink, clear]) {
      assert(!commands.some((line) => line.startsWith("AUTH")));
    }
    await world.stop();
    const insists = { ...password, insecurePlain: true };
    await open(offering("PLAIN", scram), { type: "smtp", tls: "none", auth: insists });
    assert.equal((await attempt()).kind, "delivered");
  });

  it("is not tried where STARTTLS is missing or the certificate is another's", async () => {
    const sink = await open({ extensions: ["AUTH PLAIN"], tls: undefined! });
    assert.match(await refusal(), /TLS is required and the host does not offer STARTTLS/);
    assert(!sink.commands.some((line) => line.startsWith("AUTH")));
    await world.stop();
    await open(offering("PLAIN", scram), { ca: undefined! });
    assert.match(await refusal(), /the certificate is not accepted/);
  });

  const serverFirst = (line: string, more: string) => {
    const nonce = /r=([^,]+)/.exec(plain(line.split(" ")[2]!))![1]!;
    return `334 ${base64(more.replace("NONCE", nonce))}`;
  };
  const lies: [string, (line: string, turn: number) => Answer, RegExp][] = [
    ["sends bad base64", () => "334 !!!", /the challenge is not base64/],
    [
      "sends a nonce that does not extend ours",
      (line, turn) => turn === 0 ? serverFirst(line, "r=other,s=c2FsdA==,i=4096") : "501 cancelled",
      /nonce does not extend ours/,
    ],
    [
      "asks for ten million iterations",
      (line, turn) =>
        turn === 0 ? serverFirst(line, "r=NONCEx,s=c2FsdA==,i=10000000") : "501 cancelled",
      /asks for more than \d+ iterations/,
    ],
    [
      "sends a wrong signature",
      (line, turn) =>
        turn === 0
          ? serverFirst(line, "r=NONCEx,s=c2FsdA==,i=4096")
          : turn === 1
          ? `334 ${base64(`v=${btoa("x".repeat(32))}`)}`
          : "235 2.7.0 welcome",
      /the server's signature is wrong/,
    ],
    [
      "reports success before proof",
      () => "235 2.7.0 welcome",
      /the server reports success before SCRAM-SHA-256 is through/,
    ],
    [
      "reports success instead of its signature",
      (line, turn) => turn === 0 ? serverFirst(line, "r=NONCEx,s=c2FsdA==,i=4096") : "235 ok",
      /reports success before SCRAM-SHA-256 is through/,
    ],
    ["hangs up", () => HANG_UP, /while we waited for the login/],
    ["says nothing", () => SILENCE, /gave up after 0 s waiting for the login/],
    ["speaks nonsense", () => "hello", /not an SMTP reply/],
    ["is busy", () => "454 4.7.0 later", /said 454 4\.7\.0 later to AUTH/],
  ];
  for (const [name, auth, expected] of lies) {
    it(`fails for now at a server that ${name}, and no message is given to it`, async () => {
      const sink = await open(
        offering("SCRAM-SHA-256", (line, turn) => line === "*" ? "501 5.0.0 ok" : auth(line, turn)),
        { auth: { ...password, mechanisms: ["SCRAM-SHA-256"] } },
        name === "says nothing" ? { login: 50 } : {},
      );
      assert.match(await refusal(), expected);
      assert(!sink.commands.some((line) => line.startsWith("MAIL")));
      assert.equal(world.sessions.size, 0);
    });
  }

  it("does not stop at a server that asks on and on", async () => {
    await open(offering("LOGIN", (line) => line === "*" ? "501 ok" : `334 ${base64("More:")}`));
    assert.match(await refusal(), /LOGIN has exactly two challenges/);
  });

  it("keeps a reply that repeats the secret out of the log", async () => {
    await open(offering("PLAIN", (line) => `535 5.7.8 cannot take ${line}, nor ${PASSWORD}`));
    assert.match(await refusal(), /535 \[left out: it repeats what we sent\]/);
  });

  it("that has nothing to log in with is a temporary failure", async () => {
    const secret = { kind: "password_file", path: "/gone" } as const;
    await open(offering("PLAIN", scram), { auth: { ...password, secret } });
    assert.match(await refusal(), /password_file: there is no file password/);
  });

  it("that is taken does not make a refused sender the message's fault", async () => {
    const refusals: Answers[] = [
      { MAIL: "550 5.7.1 not your address" },
      { RCPT: "553 5.7.1 <a@b>: Sender address rejected: not owned by user alice" },
    ];
    for (const answers of refusals) {
      await open({ ...offering("PLAIN", scram), answers });
      assert.match(await refusal(), /said 55[03] 5\.7\.1/);
      await world.stop();
    }
    await open({ ...offering("PLAIN", scram), answers: { RCPT: "550 5.1.1 no such user" } });
    assert.equal(failure(await attempt()).permanent, true);
  });

  it("that is asked for and not configured is a temporary failure", async () => {
    await open(
      { extensions: ["AUTH PLAIN"], answers: { MAIL: "530 5.7.0 Authentication required" } },
      { auth: undefined! },
    );
    assert.match(await refusal(), /530 5\.7\.0 Authentication required/);
  });
});

describe("a smarthost", () => {
  it("that asks for a certificate is shown ours", async () => {
    const world = new World([{
      ...PROVIDER,
      auth: undefined!,
      certificate: { cert: TLS.cert, key: new Secret(TLS.key) },
    }]);
    const sink = await world.host("localhost", "192.0.2.1", { tls: TLS, requestCert: true });
    assert.equal((await world.attempt("provider", "bob@anywhere.example")).kind, "delivered");
    assert.match(sink.messages[0]!.clientCertificate!, /^[0-9a-f]{64}$/);
    await world.stop();
  });

  it("is dialled from the local address, in the family that was asked for", async () => {
    const world = new World([{
      ...PROVIDER,
      tls: "none",
      auth: undefined!,
      ipFamily: "ipv4",
      localAddresses: { ipv4: "127.0.0.9" },
    }]);
    await world.host("localhost", "192.0.2.1");
    world.names.set("localhost", { A: ["192.0.2.1"], AAAA: ["2001:db8::1"] });
    await world.attempt("provider", "bob@anywhere.example");
    assert.deepEqual(world.tried.map(({ address, local }) => [address, local]), [
      ["192.0.2.1", "127.0.0.9"],
    ]);
    await world.stop();
  });

  it("is not dialled from an address that is not ours, and the failure says so", async () => {
    const world = new World([{
      ...PROVIDER,
      auth: undefined!,
      localAddresses: { ipv4: "::1" }, // of another family it is as impossible as a foreign one
    }]);
    await world.host("localhost", "192.0.2.1");
    const outcome = failure(await world.attempt("provider", "bob@anywhere.example"));
    assert.equal(outcome.permanent, false);
    assert.match(outcome.reason, /transport "provider": .*local_address ::1 cannot be/);
    await world.stop();
  });
});

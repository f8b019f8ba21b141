/** Passwords and tokens from files and commands of the system. */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { join } from "node:path";
import { Secret } from "../../../src/config/secret.ts";
import type { AuthConfig } from "../../../src/config/types.ts";
import { forbiddenCommands, loginOf, systemSecrets } from "../../../src/delivery/credentials.ts";
import { CredentialsUnavailable } from "../../../src/smtp/login.ts";
import { ManualClock } from "../../actors/manual_clock.ts";
import { realClock } from "../smtp/harness.ts";

const SERVER = { host: "smtp.example", port: 465 };
const never = new AbortController().signal;

describe("credentials", () => {
  let folder: string;
  before(async () => {
    folder = await Deno.makeTempDir();
    await Deno.writeTextFile(join(folder, "long"), "x".repeat(20_000));
    await Deno.writeTextFile(join(folder, "empty"), "\n");
    await Deno.writeFile(join(folder, "octets"), new Uint8Array([0xff, 0xfe]));
  });
  after(() => Deno.remove(folder, { recursive: true }));

  const login = (secret: AuthConfig["secret"], clock = realClock) =>
    loginOf({ username: "u", secret, insecurePlain: false }, SERVER, clock, systemSecrets);
  const file = (name: string, kind: "password_file" | "token_file" = "password_file") =>
    login({ kind, path: join(folder, name) });
  const unavailable = (credentials: Promise<unknown>, words: RegExp) =>
    assert.rejects(credentials, (error) => {
      assert(error instanceof CredentialsUnavailable, String(error));
      assert.match(error.message, words);
      return true;
    });

  it("come from the config", async () => {
    const found = await login({ kind: "password", value: new Secret("p") }).credentials(never);
    assert.deepEqual(found, { kind: "password", username: "u", password: "p" });
  });

  it("are read from a file for every login, its first line alone", async () => {
    const from = file("changing");
    await Deno.writeTextFile(join(folder, "changing"), "one\r\nmore\n");
    assert.equal((await from.credentials(never) as { password: string }).password, "one");
    await Deno.writeTextFile(join(folder, "changing"), " two ");
    assert.equal((await from.credentials(never) as { password: string }).password, " two ");
  });

  it("carry the server where they are a token", async () => {
    await Deno.writeTextFile(join(folder, "token"), "t\n");
    const found = await file("token", "token_file").credentials(never);
    assert.deepEqual(found, { kind: "token", username: "u", token: "t", ...SERVER });
  });

  it("are missed with words: no file, an empty one, a long one, one that is not text", async () => {
    await unavailable(file("gone").credentials(never), /^password_file: there is no file .*gone$/);
    await unavailable(file("empty").credentials(never), /^password_file: its first line is empty$/);
    await unavailable(file("long").credentials(never), /is longer than 16384 octets$/);
    await unavailable(file("octets").credentials(never), /it is not UTF-8 text$/);
  });

  const command = (...args: string[]): AuthConfig["secret"] => ({
    kind: "token_command",
    argv: ["deno", "eval", ...args],
  });

  it("are what a command prints", async () => {
    const found = await login(command("console.log('tok' + 'en')")).credentials(never);
    assert.equal((found as { token: string }).token, "token");
  });

  it("are missed when the command fails, prints too much, or is not there", async () => {
    await unavailable(
      login(command("Deno.exit(3)")).credentials(never),
      /^token_command: deno exited with 3$/,
    );
    await unavailable(
      login(command("for (;;) console.log('x'.repeat(5000))")).credentials(never),
      /^token_command: the command prints more than a token$/,
    );
    await unavailable(
      login({ kind: "token_command", argv: ["/no/such/program"] }).credentials(never),
      /^token_command: /,
    );
  });

  it("are given up when the attempt is, and after half a minute", async () => {
    const hanging = command("setTimeout(() => {}, 60_000)");
    const abort = new AbortController();
    const canceled = login(hanging).credentials(abort.signal);
    abort.abort();
    await unavailable(canceled, /^token_command: canceled$/);

    const clock = new ManualClock(0);
    const late = unavailable(
      login(hanging, clock).credentials(never),
      /^token_command: the command did not end within 30 s$/,
    );
    await clock.advance(30_000);
    await late;
  });

  it("of commands that may not be run are refused when the config is read", () => {
    const transport = {
      type: "submissions",
      name: "a b",
      host: "smtp.example",
      port: 465,
      tls: "verified",
      ipFamily: "any",
    } as const;
    const auth = { username: "u", insecurePlain: false };
    const withSecret = (secret: AuthConfig["secret"]) => ({
      ...transport,
      auth: { ...auth, secret },
    });
    assert.deepEqual(forbiddenCommands([transport, withSecret(command())]), []);
    const secret = { kind: "token_command", argv: ["a-program-that-is-not-permitted"] } as const;
    const may = Deno.permissions.querySync({ name: "run" }).state === "granted";
    const lines = forbiddenCommands([withSecret(secret)]);
    assert.equal(lines.length, may ? 0 : 1);
    if (!may) assert.match(lines[0]!, /^config: transports\."a b"\.auth\.token_command: this proc/);
  });
});

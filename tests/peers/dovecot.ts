/**
 * A private Dovecot that does nothing but SASL, for Postfix as its client: one user, every mechanism
 * that Dovecot has, tokens vouched for by an HTTP endpoint of the test. Needs root, as Dovecot does.
 */
import { run } from "./postfix.ts";
import { until } from "./wait.ts";

export interface DovecotOptions {
  readonly username: string;
  readonly password: string;
  readonly token: string;
}

export interface Dovecot {
  /** Path of the socket for `smtpd_sasl_path`. */
  readonly socket: string;
  log(): Promise<string>;
  stop(): Promise<void>;
}

/** The mechanisms that it is asked to offer. */
export const DOVECOT_MECHANISMS = [
  "PLAIN",
  "LOGIN",
  "CRAM-MD5",
  "SCRAM-SHA-1",
  "SCRAM-SHA-256",
  "XOAUTH2",
  "OAUTHBEARER",
] as const;

/** @throws Error when Dovecot is not installed, or with its log when it does not start */
export async function startDovecot(options: DovecotOptions): Promise<Dovecot> {
  await run("dovecot", ["--version"]).catch(() => {
    throw new Error("Dovecot is not installed: apt-get install dovecot-core");
  });
  const { username, password, token } = options;
  const directory = await Deno.makeTempDir({ prefix: "dovecot-" });
  await Deno.chmod(directory, 0o755);
  const path = (name: string) => `${directory}/${name}`;
  for (const name of ["run", "state"]) await Deno.mkdir(path(name));

  // The endpoint that says whose token it is (RFC 7662 in spirit; Dovecot's tokeninfo_url).
  const tokens = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    (request) =>
      new URL(request.url).searchParams.get("access_token") === token
        ? Response.json({ username, active: "true" })
        : Response.json({ error: "invalid_token" }, { status: 401 }),
  );
  await Deno.writeTextFile(path("users"), `${username}:{PLAIN}${password}\n`);
  await Deno.writeTextFile(
    path("oauth2.conf"),
    `tokeninfo_url = http://127.0.0.1:${tokens.addr.port}/?access_token=
username_attribute = username
active_attribute = active
active_value = true
`,
  );
  await Deno.writeTextFile(
    path("dovecot.conf"),
    `base_dir = ${path("run")}
state_dir = ${path("state")}
log_path = ${path("dovecot.log")}
protocols =
ssl = no
disable_plaintext_auth = no
auth_mechanisms = ${DOVECOT_MECHANISMS.join(" ").toLowerCase()}
auth_failure_delay = 0
passdb {
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = ${path("oauth2.conf")}
}
passdb {
  driver = passwd-file
  mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256
  args = scheme=PLAIN ${path("users")}
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=/tmp
}
service auth {
  unix_listener ${path("sasl")} {
    mode = 0666
  }
}
`,
  );
  const log = () => Deno.readTextFile(path("dovecot.log")).catch(() => "");
  const child = new Deno.Command("dovecot", {
    args: ["-F", "-c", path("dovecot.conf")],
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const said = new Response(child.stderr).text();
  const stop = async () => {
    try {
      child.kill("SIGTERM");
    } catch {
      // it has ended by itself
    }
    await child.status;
    await tokens.shutdown();
    await Deno.remove(directory, { recursive: true });
  };
  try {
    await until("Dovecot's socket", 10_000, async () => {
      await Deno.stat(path("sasl"));
      return true;
    });
  } catch (error) {
    const lines = await log();
    await stop();
    throw new Error(`Dovecot did not start: ${error}\n${await said}${lines}`);
  }
  return { socket: path("sasl"), log, stop };
}

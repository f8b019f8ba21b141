/**
 * A private Postfix: own configuration, queue, mailboxes and log in a directory of its own, on a
 * loopback port, beside whatever Postfix the machine runs. Needs root, as Postfix's master does.
 *
 * It accepts mail for `example.net` into Maildirs of the users it is given (others are refused
 * with 550 5.1.1) and relays everything else from loopback to `relay`, where there is one.
 */
import { freePort, greets, until } from "./wait.ts";

export interface PostfixOptions {
  /** Local parts at example.net that have a mailbox. */
  readonly users?: readonly string[];
  /** Next hop for all other mail, a port on 127.0.0.1. */
  readonly relay?: number;
  /** Offers STARTTLS with a self-signed certificate for `localhost`. */
  readonly tls?: boolean;
  /** Further listeners: "address:port" (IPv6 in brackets), each with parameters of its own. */
  readonly listeners?: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** Further parameters of main.cf. */
  readonly main?: Readonly<Record<string, string>>;
}

export interface Postfix {
  readonly port: number;
  readonly directory: string;
  readonly version: string;
  /** Pid of the master process. */
  readonly pid: number;
  /** The mail log so far. */
  log(): Promise<string>;
  /** The messages in a user's Maildir, as text. */
  mailbox(user: string): Promise<string[]>;
  /** Paths of the messages in a user's Maildir. */
  mailboxFiles(user: string): Promise<string[]>;
  /** Ends the instance and removes its directory. */
  stop(): Promise<void>;
}

const MASTER = `
127.0.0.1:PORT inet n - n - - smtpd
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
smtp      unix  - - n - - smtp
relay     unix  - - n - - smtp
error     unix  - - n - - error
retry     unix  - - n - - error
virtual   unix  - n n - - virtual
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
`;

/** Runs a command to its end and gives what it printed. @throws Error when it exits other than 0 */
export async function run(command: string, args: readonly string[]): Promise<string> {
  const output = await new Deno.Command(command, { args: [...args], stdin: "null" }).output();
  const text = new TextDecoder().decode(output.stdout);
  if (output.success) return text;
  const error = new TextDecoder().decode(output.stderr);
  throw new Error(`${command} ${args.join(" ")} exited ${output.code}: ${text}${error}`);
}

/** The version of the installed Postfix, undefined where none is. */
export async function postfixVersion(): Promise<string | undefined> {
  try {
    return (await run("postconf", ["-dh", "mail_version"])).trim();
  } catch {
    return undefined;
  }
}

/**
 * Starts an instance; resolves when it greets.
 * @throws Error when Postfix is not installed, when not root, or with its log when it does not start
 */
export async function startPostfix(options: PostfixOptions = {}): Promise<Postfix> {
  const version = await postfixVersion();
  if (version === undefined) throw new Error("Postfix is not installed: apt-get install postfix");
  if (Deno.uid() !== 0) throw new Error("an own Postfix instance can only be started by root");

  const directory = await Deno.makeTempDir({ prefix: "postfix-" });
  await Deno.chmod(directory, 0o755);
  const path = (name: string) => `${directory}/${name}`;
  for (const name of ["etc", "queue", "data", "mail"]) await Deno.mkdir(path(name));
  await run("chown", ["postfix", path("data"), path("mail")]);
  const mailUid = (await run("id", ["-u", "postfix"])).trim();
  const mailGid = (await run("id", ["-g", "postfix"])).trim();

  const port = freePort();
  const users = options.users ?? [];
  await Deno.writeTextFile(
    path("etc/mailboxes"),
    users.map((user) => `/^${user}@example\\.net$/ ${user}/\n`).join("") + "/^!$/ none\n",
  );
  const main: Record<string, string> = {
    compatibility_level: "3.6",
    queue_directory: path("queue"),
    data_directory: path("data"),
    maillog_file: path("mail.log"),
    maillog_file_prefixes: directory,
    myhostname: "postfix.example.net",
    mydestination: "",
    mynetworks: "127.0.0.0/8",
    inet_interfaces: "127.0.0.1",
    inet_protocols: "ipv4",
    alias_maps: "",
    alias_database: "",
    local_recipient_maps: "",
    local_transport: "error:no local delivery",
    virtual_mailbox_domains: "example.net",
    virtual_mailbox_base: path("mail"),
    virtual_mailbox_maps: `regexp:${path("etc/mailboxes")}`,
    virtual_uid_maps: `static:${mailUid}`,
    virtual_gid_maps: `static:${mailGid}`,
    virtual_minimum_uid: "1",
    virtual_mailbox_limit: "0",
    message_size_limit: "83886080",
    smtpd_peername_lookup: "no",
    disable_dns_lookups: "yes",
    smtp_host_lookup: "native",
    smtpd_relay_restrictions: "permit_mynetworks, reject",
    minimal_backoff_time: "1s",
    maximal_backoff_time: "2s",
    queue_run_delay: "1s",
    ...(options.relay === undefined ? {} : { relayhost: `[127.0.0.1]:${options.relay}` }),
    ...options.main,
  };
  if (options.tls) {
    await selfSigned(path("etc"));
    main.smtpd_tls_security_level = "may";
    main.smtpd_tls_cert_file = path("etc/cert.pem");
    main.smtpd_tls_key_file = path("etc/key.pem");
    main.smtpd_tls_loglevel = "1";
    main.smtpd_tls_received_header = "yes";
  }
  await Deno.writeTextFile(
    path("etc/main.cf"),
    Object.entries(main).map(([key, value]) => `${key} = ${value}\n`).join(""),
  );
  const listeners = Object.entries(options.listeners ?? {}).map(([where, parameters]) =>
    `${where} inet n - n - - smtpd\n` +
    Object.entries(parameters).map(([key, value]) => `  -o { ${key} = ${value} }\n`).join("")
  );
  await Deno.writeTextFile(
    path("etc/master.cf"),
    MASTER.replace("PORT", String(port)) + listeners.join(""),
  );

  const log = () => Deno.readTextFile(path("mail.log")).catch(() => "");
  const master = new Deno.Command("postfix", {
    args: ["-c", path("etc"), "start-fg"],
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  const ended = master.status;
  // What was spawned is a script that the master outlives; the master's own pid is in its lock file.
  const masterPid = async () => Number(await Deno.readTextFile(path("queue/pid/master.pid")));
  const stop = async () => {
    try {
      await run("kill", ["-TERM", String(await masterPid())]); // the master ends its children with it
    } catch {
      // it has ended by itself
    }
    await ended;
    await until("the end of Postfix's children", 10_000, () => noProcessIn(directory));
    await Deno.remove(directory, { recursive: true });
  };
  try {
    await until("Postfix's greeting", 15_000, () => greets(port));
  } catch (error) {
    const said = await log();
    await stop();
    throw new Error(
      `Postfix did not start: ${error instanceof Error ? error.message : ""}\n${said}`,
    );
  }

  const mailboxFiles = async (user: string): Promise<string[]> => {
    const found: string[] = [];
    try {
      for await (const file of Deno.readDir(path(`mail/${user}/new`))) {
        found.push(path(`mail/${user}/new/${file.name}`));
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    return found.sort();
  };
  return {
    port,
    directory,
    version,
    pid: await masterPid(),
    log,
    mailboxFiles,
    mailbox: async (user) =>
      await Promise.all((await mailboxFiles(user)).map((file) => Deno.readTextFile(file))),
    stop,
  };
}

/** Writes key.pem and cert.pem, self-signed, for `localhost`. */
export async function selfSigned(directory: string): Promise<void> {
  // deno-fmt-ignore
  await run("openssl", [
    "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
    "-keyout", `${directory}/key.pem`, "-out", `${directory}/cert.pem`, "-days", "30",
    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
  ]);
}

/** Whether no process works in the directory any more (Postfix's daemons chdir to their queue). */
async function noProcessIn(directory: string): Promise<boolean> {
  const found = await new Deno.Command("find", {
    args: ["/proc", "-maxdepth", "2", "-name", "cwd", "-lname", `${directory}/*`],
    stdin: "null",
    stderr: "null", // complains of processes that end in between
  }).output();
  return found.stdout.length === 0;
}

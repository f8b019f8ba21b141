/**
 * A small internet on loopback, from Debian's packages: nsd serves a private root and zones below
 * it, signed with ldns-signzone; unbound resolves from that root and validates with its key as the
 * trust anchor; Postfix receives on an address per host, each with its certificate. Needs root, for
 * port 53 on an address of its own in 127.0.0.0/8.
 */
import { type Postfix, type PostfixOptions, run, startPostfix } from "./postfix.ts";
import { freePort, until } from "./wait.ts";

export interface Zone {
  /** Without the dot at the end; "" is the root. */
  readonly name: string;
  /** Lines in zone file syntax, relative names allowed; SOA and NS are added. */
  readonly records: readonly string[];
  /** `signed` with its DS in the parent; `unsigned`; `bogus`: signed, the parent names another key. */
  readonly state: "signed" | "unsigned" | "bogus";
}

/** A mail host: name, addresses, and what its Postfix is told. */
export interface MailHost {
  readonly addresses: readonly string[];
  readonly parameters: Readonly<Record<string, string>>;
}

/** Parameters of a mail host that offers STARTTLS, with key and certificates from a file. */
export const offersTls = (chainFile: string): MailHost["parameters"] => ({
  smtpd_tls_security_level: "may",
  smtpd_tls_chain_files: chainFile,
});

/** Parameters of a mail host that does not. */
export const WITHOUT_TLS: MailHost["parameters"] = { smtpd_tls_security_level: "none" };

export interface Internet {
  /** "127.0.0.1:PORT" of the validating resolver. */
  readonly resolver: string;
  /** The port of every mail host. */
  readonly smtpPort: number;
  readonly postfix: Postfix;
  /** Ends everything and removes what was written. */
  stop(): Promise<void>;
}

export interface InternetOptions {
  readonly smtpPort: number;
  /** All but the root; parents before their children. */
  readonly zones: readonly Zone[];
  readonly hosts: readonly MailHost[];
  /** Of the Postfix instance as a whole. */
  readonly main?: PostfixOptions["main"];
}

/** Octets of 127.a.b.0/24 for this process: tests may run beside others. */
const NETWORK = `127.${100 + Deno.pid % 100}.${Math.floor(Deno.pid / 100) % 250}`;

/** An address for host number `n`, 1 to 254. */
export const address = (n: number): string => `${NETWORK}.${n}`;

/** The address of the only name server. */
const NAME_SERVER = address(253);

/** @throws Error naming the program that is missing, or with what it said */
export async function startInternet(options: InternetOptions): Promise<Internet> {
  const directory = await Deno.makeTempDir({ prefix: "internet-" });
  await Deno.chmod(directory, 0o755);
  const running: Deno.ChildProcess[] = [];
  let postfix: Postfix | undefined;
  const stop = async () => {
    for (const child of running.reverse()) {
      try {
        child.kill("SIGTERM");
      } catch {
        // it has ended by itself
      }
      await child.status;
    }
    await postfix?.stop();
    await Deno.remove(directory, { recursive: true });
  };
  try {
    const anchor = await writeZones(directory, options.zones);
    running.push(await startNsd(directory, options.zones));
    const port = freePort();
    running.push(await startUnbound(directory, port, anchor));
    const { smtpPort } = options;
    const listeners = Object.fromEntries(
      options.hosts.flatMap(({ addresses, parameters }) =>
        addresses.map((one) => {
          const where = one.includes(":") ? `[${one}]:${smtpPort}` : `${one}:${smtpPort}`;
          return [where, parameters];
        })
      ),
    );
    postfix = await startPostfix({
      users: [],
      listeners,
      main: {
        inet_protocols: "all",
        virtual_mailbox_domains: "static:all",
        virtual_mailbox_maps: "static:all/",
        mynetworks: "127.0.0.0/8 [::1]/128",
        ...options.main,
      },
    });
    return { resolver: `127.0.0.1:${port}`, smtpPort, postfix, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

interface Keys {
  /** Base names of the key files. */
  readonly keySigning: string;
  readonly zoneSigning: string;
  /** DS records of the key signing key. */
  readonly ds: string;
}

/** Writes and signs all zones, children first. @returns the file of the trust anchor */
async function writeZones(directory: string, zones: readonly Zone[]): Promise<string> {
  const all: Zone[] = [{ name: "", records: [], state: "signed" }, ...zones];
  const keys = new Map<string, Keys>();
  for (const { name, state } of all) {
    if (state !== "unsigned") keys.set(name, await newKeys(directory, name));
  }
  for (const zone of all) {
    const children = all.filter((other) => other !== zone && parentOf(other, all) === zone.name);
    const delegations: string[] = [];
    for (const child of children) {
      delegations.push(`${child.name}. NS ns.${child.name}.`, `ns.${child.name}. A ${NAME_SERVER}`);
      const own = keys.get(child.name);
      if (child.state === "signed" && own) delegations.push(own.ds);
      // A DS of a key that the zone does not have: what it signs proves nothing.
      if (child.state === "bogus") delegations.push((await newKeys(directory, child.name)).ds);
    }
    const origin = zone.name === "" ? "." : `${zone.name}.`;
    const server = zone.name === "" ? "ns." : `ns.${zone.name}.`;
    const file = `${directory}/${fileOf(zone)}`;
    const lines = [
      `$ORIGIN ${origin}`,
      "$TTL 60",
      `@ SOA ${server} hostmaster.${zone.name === "" ? "" : `${zone.name}.`} 1 3600 600 86400 60`,
      `@ NS ${server}`,
      `${server} A ${NAME_SERVER}`,
      ...delegations,
      ...zone.records,
    ];
    await Deno.writeTextFile(file, `${lines.join("\n")}\n`);
    const own = keys.get(zone.name);
    if (own) {
      // deno-fmt-ignore
      await run("ldns-signzone", ["-f", `${file}.served`, "-o", origin, file, own.zoneSigning, own.keySigning]);
    } else await Deno.copyFile(file, `${file}.served`);
  }
  const root = keys.get("");
  if (!root) throw new Error("the root has no key");
  const anchor = `${directory}/anchor`;
  await Deno.writeTextFile(anchor, `${root.ds}\n`);
  return anchor;
}

/** The longest zone that a zone is below. */
function parentOf(zone: Zone, all: readonly Zone[]): string | undefined {
  if (zone.name === "") return undefined;
  const above = all.filter(({ name }) =>
    name !== zone.name && (name === "" || zone.name.endsWith(`.${name}`))
  );
  return above.toSorted((a, b) => b.name.length - a.name.length)[0]?.name;
}

const fileOf = ({ name }: Zone): string => name === "" ? "root" : name;

async function newKeys(directory: string, name: string): Promise<Keys> {
  const zone = name === "" ? "." : `${name}.`;
  const make = async (...options: string[]) => {
    const output = await new Deno.Command("ldns-keygen", {
      args: ["-a", "ECDSAP256SHA256", ...options, zone],
      cwd: directory,
      stdin: "null",
    }).output().catch(() => {
      throw new Error("ldns-keygen is not installed: apt-get install ldnsutils");
    });
    if (!output.success) throw new Error(new TextDecoder().decode(output.stderr));
    return `${directory}/${new TextDecoder().decode(output.stdout).trim()}`;
  };
  const keySigning = await make("-k");
  const zoneSigning = await make();
  const ds = (await Deno.readTextFile(`${keySigning}.ds`)).trim();
  return { keySigning, zoneSigning, ds };
}

async function startNsd(directory: string, zones: readonly Zone[]): Promise<Deno.ChildProcess> {
  const all: Zone[] = [{ name: "", records: [], state: "signed" }, ...zones];
  const config = `${directory}/nsd.conf`;
  await Deno.writeTextFile(
    config,
    `server:
  ip-address: ${NAME_SERVER}@53
  server-count: 1
  username: ""
  chroot: ""
  zonesdir: "${directory}"
  pidfile: "${directory}/nsd.pid"
  logfile: "${directory}/nsd.log"
  zonelistfile: "${directory}/nsd.zones"
  xfrdfile: "${directory}/nsd.xfrd"
  xfrdir: "${directory}"
  database: ""
remote-control:
  control-enable: no
${
      all.map((zone) =>
        `zone:\n  name: "${zone.name || "."}"\n  zonefile: "${fileOf(zone)}.served"\n`
      ).join("")
    }`,
  );
  const child = daemon("nsd", ["-d", "-c", config]);
  await until("nsd", 10_000, () => answers(NAME_SERVER, 53)).catch(async (error) => {
    child.kill("SIGTERM");
    throw new Error(`${error.message}: ${await logOf(`${directory}/nsd.log`)}`);
  });
  return child;
}

async function startUnbound(
  directory: string,
  port: number,
  anchor: string,
): Promise<Deno.ChildProcess> {
  const config = `${directory}/unbound.conf`;
  await Deno.writeTextFile(`${directory}/hints`, `. 3600 NS ns.\nns. 3600 A ${NAME_SERVER}\n`);
  await Deno.writeTextFile(
    config,
    `server:
  interface: 127.0.0.1
  port: ${port}
  outgoing-interface: ${NAME_SERVER}
  do-ip6: no
  do-daemonize: no
  num-threads: 1
  username: ""
  chroot: ""
  directory: "${directory}"
  pidfile: "${directory}/unbound.pid"
  logfile: "${directory}/unbound.log"
  use-syslog: no
  root-hints: "${directory}/hints"
  trust-anchor-file: "${anchor}"
  do-not-query-localhost: no
  local-zone: "test." nodefault
  module-config: "validator iterator"
  ede: yes
  val-log-level: 1
remote-control:
  control-enable: no
`,
  );
  const child = daemon("unbound", ["-d", "-p", "-c", config]);
  await until("unbound", 10_000, () => answers("127.0.0.1", port)).catch(async (error) => {
    child.kill("SIGTERM");
    throw new Error(`${error.message}: ${await logOf(`${directory}/unbound.log`)}`);
  });
  return child;
}

function daemon(program: string, args: string[]): Deno.ChildProcess {
  try {
    return new Deno.Command(program, { args, stdin: "null", stdout: "null", stderr: "null" })
      .spawn();
  } catch {
    throw new Error(`${program} is not installed: apt-get install ${program}`);
  }
}

const logOf = (file: string): Promise<string> => Deno.readTextFile(file).catch(() => "");

/** Whether a name server takes connections. */
async function answers(hostname: string, port: number): Promise<boolean> {
  try {
    (await Deno.connect({ hostname, port })).close();
    return true;
  } catch {
    return false;
  }
}

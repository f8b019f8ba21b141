/** Transports in a config: what each type means, and what is refused with which words. */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { join, resolve } from "node:path";
import { loadConfig } from "../../../src/config/load.ts";
import { ConfigError } from "../../../src/config/problems.ts";
import { Secret } from "../../../src/config/secret.ts";
import type {
  SmarthostTransportConfig,
  SocksTransportConfig,
  TransportConfig,
} from "../../../src/config/types.ts";

const TLS = resolve(import.meta.dirname!, "../../../fixtures/tls");

describe("transports of a config", () => {
  let folder: string;
  before(() => {
    folder = Deno.makeTempDirSync();
    Deno.writeTextFileSync(join(folder, "password"), "secret\n");
  });
  after(() => Deno.removeSync(folder, { recursive: true }));

  const load = (toml: string, env: Record<string, string> = {}) => {
    const file = join(folder, "test.toml");
    Deno.writeTextFileSync(file, `hostname = "a.example"\n${toml}\n`);
    return loadConfig({ file, env: new Map(Object.entries(env)) });
  };
  const transport = <T extends TransportConfig>(body: string, env = {}): T =>
    load(`[transports.a]\n${body}`, env).transports.get("a") as T;
  const refusal = (body: string): string => {
    try {
      transport(body);
    } catch (error) {
      assert(error instanceof ConfigError, String(error));
      return error.message;
    }
    return assert.fail("the config was taken");
  };

  const smarthost = (type: string, more = "") => `type = "${type}"\nhost = "b.example"\n${more}\n`;

  it("have the port and the TLS of their type, unless they say otherwise", () => {
    const rows: [string, string, number, string][] = [
      ["smtp", "", 25, "opportunistic"],
      ["smtp", "starttls_insecure_skip_verify = true", 25, "required"],
      ["smtp", "no_starttls = true", 25, "none"],
      ["smtp", 'tls = "verified"', 25, "verified"],
      ["submission", "", 587, "verified"],
      ["submission", "starttls_insecure_skip_verify = true", 587, "required"],
      ["submission", "no_starttls = true\nport = 2587", 2587, "none"],
      ["submissions", "", 465, "verified"],
      ["submissions", "starttls_insecure_skip_verify = true", 465, "required"],
    ];
    for (const [type, more, port, tls] of rows) {
      const found = transport<SmarthostTransportConfig>(smarthost(type, more));
      assert.deepEqual([found.type, found.port, found.tls], [type, port, tls], `${type} ${more}`);
    }
  });

  it("take logins, certificates and addresses", () => {
    const found = transport<SmarthostTransportConfig>(
      smarthost(
        "submission",
        `ip_family = "ipv4"\nlocal_address = "127.0.0.9"\nca_file = "${TLS}/ca.cert.pem"
client_cert_file = "${TLS}/localhost.cert.pem"\nclient_key_file = "${TLS}/localhost.key.pem"
auth = { username = "u", password = "\${P}", mechanisms = ["SCRAM-SHA-256", "PLAIN"] }`,
      ),
      { P: "hunter2" },
    );
    assert.deepEqual(found.localAddresses, { ipv4: "127.0.0.9" });
    assert.equal(found.ipFamily, "ipv4");
    assert.match(found.ca![0]!, /^-----BEGIN CERTIFICATE-----/);
    assert.match(found.certificate!.key.reveal(), /PRIVATE KEY/);
    assert.deepEqual(found.auth!.mechanisms, ["SCRAM-SHA-256", "PLAIN"]);
    const { secret } = found.auth!;
    assert(secret.kind === "password");
    assert.equal(secret.value.reveal(), "hunter2");
    assert(!JSON.stringify(found).includes("hunter2"), "the config shows the password");
    assert(!Deno.inspect(found).includes("hunter2"), "the config shows the password");
  });

  it("take tokens and passwords from files and commands", () => {
    const auth = (what: string) =>
      transport<SmarthostTransportConfig>(
        smarthost("submissions", `auth = { username = "u", ${what} }`),
      ).auth!.secret;
    assert.deepEqual(auth('password_file = "password"'), {
      kind: "password_file",
      path: join(folder, "password"),
    });
    assert.deepEqual(auth('token_file = "password"'), {
      kind: "token_file",
      path: join(folder, "password"),
    });
    assert.deepEqual(auth('token_command = ["helper", "-x"]'), {
      kind: "token_command",
      argv: ["helper", "-x"],
    });
  });

  it("reach MX hosts through a proxy, in the families of its addresses", () => {
    const found = transport<SocksTransportConfig>(
      `type = "socks"\naddress = "198.51.100.7"\nusername = "u"\npassword = "\${P}"
remote_ips = ["198.51.100.7"]\nremote_hostname = "Out2.example.com"`,
      { P: "p" },
    );
    const { password, ...rest } = found;
    assert(password instanceof Secret);
    assert.deepEqual(rest, {
      type: "socks",
      name: "a",
      proxy: { address: "198.51.100.7", port: 1080 },
      username: "u",
      remoteIps: ["198.51.100.7"],
      remoteHostname: "out2.example.com",
      port: 25,
      ipFamily: "ipv4",
      allowLoopback: false,
    });
  });

  it("warn of a password in the clear, and say how to use the environment", () => {
    const body = smarthost("submission", 'auth = { username = "u", password = "hunter2" }');
    const [line, ...more] = load(`[transports.my-relay]\n${body}`).warnings!;
    assert.equal(more.length, 0);
    assert.match(line!, /^config: transports\.my-relay\.auth\.password: the password stands in/);
    assert.match(
      line!,
      /password = "\$\{MY_RELAY_PASSWORD\}" and set MY_RELAY_PASSWORD in the env/,
    );
    assert(!line!.includes("hunter2"));
    const socks = 'type = "socks"\naddress = "127.0.0.1:1"\nusername = "u"\npassword = "hunter2"';
    assert.match(load(`[transports.p]\n${socks}`).warnings![0]!, /transports\.p\.password/);
    const hidden = smarthost("submission", 'auth = { username = "u", password = "${P}" }');
    assert.equal(load(`[transports.a]\n${hidden}`, { P: "x" }).warnings, undefined);
  });

  const mistakes: readonly (readonly [name: string, body: string, line: string])[] = [
    [
      "two ways to say what TLS",
      smarthost("smtp", 'tls = "none"\nno_starttls = true'),
      "transports.a.no_starttls: and tls say the same thing",
    ],
    [
      "no STARTTLS where there is none",
      smarthost("submissions", "no_starttls = true"),
      "transports.a.no_starttls: true cannot be set: submissions is TLS from the first octet",
    ],
    [
      "plain text on 465",
      smarthost("submissions", 'tls = "none"'),
      'transports.a.tls: "none" is not one of "required", "verified"',
    ],
    [
      "no secret",
      smarthost("submission", 'auth = { username = "u" }'),
      "transports.a.auth: has none of password, password_file, token_command and token_file",
    ],
    [
      "two secrets",
      smarthost("submission", 'auth = { username = "u", password = "a", token_file = "password" }'),
      "transports.a.auth: has more than one of password",
    ],
    [
      "a password file that is not there",
      smarthost("submission", 'auth = { username = "u", password_file = "gone" }'),
      "transports.a.auth.password_file: ",
    ],
    [
      "an unknown mechanism",
      smarthost("submission", 'auth = { username = "u", password = "p", mechanisms = ["PLAN"] }'),
      'transports.a.auth.mechanisms[0]: "PLAN" is not one of',
    ],
    [
      "a token mechanism for a password",
      smarthost(
        "submission",
        'auth = { username = "u", password = "p", mechanisms = ["XOAUTH2"] }',
      ),
      'transports.a.auth.mechanisms[0]: "XOAUTH2" takes a token, and auth has a password',
    ],
    [
      "PLAIN where nobody checks the certificate",
      smarthost("smtp", 'auth = { username = "u", password = "p", mechanisms = ["PLAIN"] }'),
      'transports.a.auth.mechanisms[0]: "PLAIN" goes only over verified TLS',
    ],
    [
      "a token where nobody checks the certificate",
      smarthost("smtp", 'auth = { username = "u", token_file = "password" }'),
      "transports.a.auth.token_file: goes only over verified TLS",
    ],
    [
      "half a client certificate",
      smarthost("submission", `client_cert_file = "${TLS}/localhost.cert.pem"`),
      "transports.a.client_key_file: is missing",
    ],
    [
      "a key of another certificate",
      smarthost(
        "submission",
        `client_cert_file = "${TLS}/ca.cert.pem"\nclient_key_file = "${TLS}/localhost.key.pem"`,
      ),
      "transports.a.client_key_file: is not the key of the certificate",
    ],
    [
      "trust anchors without checks",
      smarthost("smtp", `ca_file = "${TLS}/ca.cert.pem"`),
      "transports.a.ca_file: is never used",
    ],
    [
      "trust anchors that are none",
      smarthost("submission", 'ca_file = "password"'),
      "transports.a.ca_file: has no certificates in PEM",
    ],
    [
      "an address of a family that is not dialled",
      smarthost("submission", 'ip_family = "ipv6"\nlocal_address = "192.0.2.1"'),
      "transports.a.local_address: has 192.0.2.1, which is never used: ip_family is ipv6",
    ],
    [
      "two addresses of a family",
      'type = "direct"\nlocal_address = ["192.0.2.1", "192.0.2.2"]',
      "transports.a.local_address: has two addresses of ipv4",
    ],
    [
      "a name for a proxy",
      'type = "socks"\naddress = "proxy.example:1080"',
      'transports.a.address: "proxy.example:1080" is not the IP address of a proxy',
    ],
    [
      "half a login at a proxy",
      'type = "socks"\naddress = "127.0.0.1:1080"\nusername = "u"',
      "transports.a.password: is missing",
    ],
    [
      "a family that the proxy does not have",
      'type = "socks"\naddress = "127.0.0.1:1080"\nip_family = "ipv6"\nremote_ips = ["192.0.2.1"]',
      'transports.a.ip_family: "ipv6" is a family that remote_ips has no address of',
    ],
    [
      "a name that differs in case",
      'type = "direct"\n[transports.A]\ntype = "direct"',
      "transports.A: differs from transports.a in case alone",
    ],
  ];
  for (const [name, body, line] of mistakes) {
    it(`refuse ${name}`, () => {
      const lines = refusal(body);
      assert(lines.split("\n").some((one) => one.startsWith(`config: ${line}`)), lines);
    });
  }
});

/** Config files: what a good one means, and what each mistake is answered with. */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { join, resolve } from "node:path";
import fc from "fast-check";
import { deriveCredentials, serializeCredentials } from "../../../src/smtp/sasl/credentials.ts";
import { loadConfig } from "../../../src/config/load.ts";
import { ConfigError } from "../../../src/config/problems.ts";
import type { Config } from "../../../src/config/types.ts";

const FIXTURES = resolve(import.meta.dirname!, "../../../fixtures/configs");

function linesOf(load: () => unknown): readonly string[] {
  try {
    load();
  } catch (error) {
    assert(error instanceof ConfigError, String(error));
    return error.lines;
  }
  throw new assert.AssertionError({ message: "the config was taken" });
}

/** Credentials of a password, as cheap as they may be. */
const CREDENTIALS = serializeCredentials(
  await deriveCredentials("a password", (length) => new Uint8Array(length), {
    iterations: 4096,
    scrypt: { ln: 4, r: 1, p: 1 },
  }),
);

describe("loadConfig", () => {
  let folder: string;
  before(() => {
    folder = Deno.makeTempDirSync();
  });
  after(() => Deno.removeSync(folder, { recursive: true }));

  const write = (text: string | Uint8Array, name = "test.toml"): string => {
    const file = join(folder, name);
    if (typeof text === "string") Deno.writeTextFileSync(file, text);
    else Deno.writeFileSync(file, text);
    return file;
  };
  const load = (text: string, env: Record<string, string> = {}): Config =>
    loadConfig({ file: write(text), env: new Map(Object.entries(env)) });

  it("has a configuration without a file: everything on loopback", () => {
    const config = loadConfig({ env: new Map(), systemHostname: () => "Box.example" });
    assert.equal(config.hostname, "box.example");
    assert.equal(config.dataDir, resolve("data"));
    assert.deepEqual(
      config.listeners.map(({ name, protocol, listen }) => [name, protocol, listen]),
      [
        ["local", "smtp", { address: "127.0.0.1", port: 2525 }],
        ["web", "http", { address: "127.0.0.1", port: 8025 }],
      ],
    );
    assert.deepEqual(config.queue, {
      retry: {
        waits: [7.5, 15, 30, 60, 120, 240, 480, 960].map((minutes) => minutes * 60_000),
        maxAttempts: 8,
        delayNoticeAfter: 5,
        lifetime: 432_000_000,
      },
      concurrency: 200,
      destinationConcurrency: 20,
    });
    assert.deepEqual([...config.transports.values()], [
      { type: "direct", name: "direct", port: 25, ipFamily: "any", allowLoopback: false },
    ]);
    assert.equal(config.file, undefined);
  });

  it("gives a host without a usable name that of the loopback", () => {
    const named = (name: string) =>
      loadConfig({ env: new Map(), systemHostname: () => name }).hostname;
    assert.equal(named("not a name"), "localhost");
    assert.equal(named(""), "localhost");
  });

  it("reads every setting", () => {
    const file = join(FIXTURES, "full.toml");
    const env = new Map([["TO", "example.org"], ["RELAY", "relay.example.net"]]);
    const config = loadConfig({ file, env });
    assert.deepEqual(config, {
      file,
      hostname: "mail.xn--bcher-kva.example",
      dataDir: join(FIXTURES, "state"),
      tls: { reports: true },
      dns: {
        servers: [{ address: "192.0.2.53", port: 53 }, { address: "2001:db8::53", port: 5353 }],
        trustAd: true,
      },
      listeners: [
        {
          protocol: "smtp",
          name: "in",
          listen: { address: "::1", port: 2500 },
          auth: "none",
          certificate: { certFile: file, keyFile: file },
          limits: {
            maxSize: 10 * 2 ** 20,
            maxRecipients: 200,
            maxConnections: 30,
            maxConnectionsPerAddress: 10,
            maxIdleCommands: 5,
            idleTimeout: 90_000,
            maxHold: 7 * 86_400_000,
          },
        },
        { protocol: "http", name: "out", listen: { address: "127.0.0.2", port: 0 } },
      ],
      queue: {
        retry: {
          waits: [500, 3_600_000],
          maxAttempts: 3,
          delayNoticeAfter: 1,
          lifetime: 432_000_000,
        },
        concurrency: 50,
        destinationConcurrency: 2,
      },
      accounts: [],
      destinations: [{
        mx: [{ domain: "mx.example", below: true }],
        concurrency: 4,
        messagesPerConnection: 10,
        perMinute: 60,
        perHour: 1_000,
        retry: { waits: [60_000], maxAttempts: 20, lifetime: 86_400_000 },
      }],
      accountQueues: new Map([["shop", {
        waits: [1_000],
        maxAttempts: 2,
        lifetime: 3_600_000,
        delayNoticeAfter: 1,
      }]]),
      dkim: new Map(),
      webhooks: [],
      suppression: { automatic: true },
      retention: { keep: 90 * 86_400_000 },
      routes: {
        accounts: new Map([["shop", []]]),
        domains: new Map(),
        global: [
          {
            at: ["routes", 0],
            path: "routes[0]",
            fromDomain: [
              { domain: "example.com", below: false },
              { domain: "example.net", below: true },
            ],
            toDomain: [{ domain: "xn--bcher-kva.example", below: true }],
            minimumAttempts: 2,
            toMx: [{ domain: "mx.example", below: true }],
            sizeOver: 10 * 2 ** 20,
            header: { name: "List-Id", value: "<news.example>" },
            transport: "relay",
          },
          {
            at: ["routes", 1],
            path: "routes[1]",
            toDomain: [{ domain: "example.org", below: false }],
            transport: "direct",
          },
        ],
      },
      transports: new Map<string, unknown>([
        ["direct", {
          type: "direct",
          name: "direct",
          port: 26,
          ipFamily: "ipv4",
          allowLoopback: true,
        }],
        ["relay", {
          type: "smtp",
          name: "relay",
          host: "relay.example.net",
          port: 2525,
          tls: "verified",
          ipFamily: "any",
        }],
      ]),
    });
  });

  it("lets --data win over the file", () => {
    const file = write('data_dir = "elsewhere"');
    assert.equal(loadConfig({ file, env: new Map() }).dataDir, join(folder, "elsewhere"));
    const dataDir = "mine";
    assert.equal(loadConfig({ file, env: new Map(), dataDir }).dataDir, resolve("mine"));
  });

  it("reads accounts and listeners that ask for a login", () => {
    const file = join(folder, "accounts.toml");
    Deno.writeTextFileSync(
      file,
      `
[listen.in]
protocol = "submission"
address = "192.0.2.1:587"
cert_file = "accounts.toml"
key_file = "accounts.toml"
max_hold = "2d"

[accounts.alice]
addresses = ["Alice@Example.com", "@bücher.example"]
password_hash = "${CREDENTIALS}"
check_header_from = false
null_sender = true
recipients_per_day = 5

[accounts.routed.routes]
`.replace("[accounts.routed.routes]", "[[accounts.routed.routes]]"),
    );
    const { accounts, listeners, routes } = loadConfig({ file, env: new Map() });
    const [alice, ...more] = accounts;
    assert.deepEqual(more, [], "routes alone make no account");
    assert.deepEqual([...routes.accounts.keys()], ["alice", "routed"]);
    const { credentials, ...rest } = alice!;
    assert.equal(serializeCredentials(credentials!), CREDENTIALS);
    assert.deepEqual(rest, {
      name: "alice",
      addresses: [
        { text: "Alice@Example.com", localPart: "alice", domain: "example.com" },
        { text: "@bücher.example", domain: "xn--bcher-kva.example" },
      ],
      checkHeaderFrom: false,
      nullSender: true,
      limits: {
        messagesPerHour: 1_000,
        messagesPerDay: 5_000,
        recipientsPerHour: 2_000,
        recipientsPerDay: 5,
      },
    });
    const [listener] = listeners;
    assert(listener?.protocol === "submission");
    assert.equal(listener.auth, "required");
    assert.equal(listener.limits.maxHold, 2 * 86_400_000);
  });

  it("says all that is wrong at once, each with its path", () => {
    const file = join(FIXTURES, "mistakes.toml");
    const lines = linesOf(() => loadConfig({ file, env: new Map() }));
    const expected = [
      "routes[1].from_domain[0]: ${SENDERS} is not set; set it in the environment or in .env",
      'hostname: "mail example" is not a domain name',
      'dns.servers[0]: "resolver.example" is not the IP address of a resolver',
      'dns.trust_ad: "yes" is not "auto", true or false',
      'listen.local.max_size: "50 megs" is not a size',
      'listen.in.protocol: "smpt" is not one of "smtp", "submission", "submissions", "http" (did you mean "smtp"?)',
      'queue.retry[0]: "7x" is not a duration',
      "queue.max_attempts: 0 is too small; the least is 1",
      'queue.concurrency: "many" is not a whole number',
      'queue.retri: is not a setting (did you mean "retry"?)',
      "routes[0].to_domain: an empty list matches nothing",
      "routes[1].minimum_attempts: 1.5 is not a whole number",
      'transports.smarthost.host: "relay.example.net:25" is not a host',
      'transports.smarthost.tls: "strict" is not one of "none", "opportunistic"',
      'hostnam: is not a setting (did you mean "hostname"?)',
      'routes[0].transport: "smarthst" is not a transport (did you mean "smarthost"?)',
    ];
    assert.equal(lines.length, expected.length, lines.join("\n"));
    for (const words of expected) {
      assert(
        lines.some((line) => line.startsWith(`config: ${words}`)),
        `${words}\n\n${lines.join("\n")}`,
      );
    }
  });

  it("refuses by name what the format has and this version does not", () => {
    const file = join(FIXTURES, "design.toml");
    const env = new Map([["PROVIDER_PASSWORD", "hunter2"]]);
    const lines = linesOf(() => loadConfig({ file, env }));
    assert.deepEqual(lines.map((line) => line.split(": ")[1]), ["accounts.alice.password_hash"]);
    assert(!lines.join().includes("argon2"), "a secret was shown");
  });

  const mistakes: readonly (readonly [name: string, toml: string, line: string])[] = [
    ["no port", 'listen.a = { protocol = "http", address = "127.0.0.1" }', "listen.a.address: "],
    [
      "a listener without protocol",
      'listen.a = { address = "127.0.0.1:1" }',
      "listen.a.protocol: is missing",
    ],
    ["a listener that is text", 'listen.a = "x"', 'listen.a: "x" is not a section'],
    [
      "a listener for everybody without logins",
      'listen.a = { protocol = "smtp", address = "0.0.0.0:1" }',
      'listen.a.address: "0.0.0.0:1" is not a loopback address, so anybody could send through it',
    ],
    [
      "submission for everybody without logins",
      'listen.a = { protocol = "submission", address = "[::]:1", auth = "none" }',
      'listen.a.address: "[::]:1" is not a loopback address, so anybody could send through it',
    ],
    [
      "logins without TLS",
      'listen.a = { protocol = "submission", address = "192.0.2.1:1" }',
      "listen.a.cert_file: is missing: passwords come in over TLS only",
    ],
    [
      "TLS without a certificate",
      'listen.a = { protocol = "submissions", address = "127.0.0.1:1" }',
      "listen.a.cert_file: is missing: the protocol is TLS",
    ],
    [
      "a login of another kind",
      'listen.a = { protocol = "smtp", address = "127.0.0.1:1", auth = "optional" }',
      'listen.a.auth: "optional" is not one of "none", "required"',
    ],
    [
      "HTTP for everybody",
      'listen.a = { protocol = "http", address = "0.0.0.0:1" }',
      'listen.a.address: "0.0.0.0:1" is not a loopback address',
    ],
    [
      "an account without addresses",
      `accounts.a = { password_hash = "${CREDENTIALS}" }`,
      "accounts.a.addresses: is missing",
    ],
    [
      "an address that is none",
      'accounts.a = { addresses = ["a@b@c"] }',
      'accounts.a.addresses[0]: "a@b@c" is not an address; write "alice@example.com", or "@example',
    ],
    [
      "a password where its hash belongs",
      'accounts.a = { addresses = ["a@example.com"], password_hash = "secret" }',
      "accounts.a.password_hash: the value (not shown) cannot be used: stored credentials are not",
    ],
    [
      "a name that nobody can type",
      'accounts."a b" = { addresses = ["a@example.com"] }',
      'accounts."a b": is not a name for logins',
    ],
    [
      "a limit of nothing",
      'accounts.a = { addresses = ["a@example.com"], messages_per_hour = 0 }',
      "accounts.a.messages_per_hour: 0 is too small; the least is 1",
    ],
    [
      "an address used twice",
      'listen.a = { protocol = "http", address = "127.0.0.1:1" }\n' +
      'listen.b = { protocol = "smtp", address = "127.0.0.1:1" }',
      'listen.b.address: "127.0.0.1:1" is the address of listen.a too',
    ],
    [
      "half a certificate",
      'listen.a = { protocol = "smtp", address = "127.0.0.1:1", key_file = "test.toml" }',
      "listen.a.cert_file: is missing; TLS takes both",
    ],
    [
      "a certificate that is not there",
      'listen.a = { protocol = "smtp", address = "127.0.0.1:1", key_file = "test.toml", ' +
      'cert_file = "gone.pem" }',
      "listen.a.cert_file: ",
    ],
    [
      "a size below the standard's",
      'listen.a = { protocol = "smtp", address = "127.0.0.1:1", max_size = "1KiB" }',
      'listen.a.max_size: "1KiB" is less than the 64 KiB',
    ],
    [
      "direct that is not",
      'transports.direct = { type = "smtp", host = "a.example" }',
      'transports.direct.type: "smtp" cannot be the type of the transport named "direct"',
    ],
    [
      "a port too high",
      'transports.a = { type = "direct", port = 70000 }',
      "transports.a.port: 70000 is too large; the most is 65535",
    ],
    [
      "more per destination than in all",
      "queue = { concurrency = 5, destination_concurrency = 6 }",
      "queue.destination_concurrency: 6 is more than queue.concurrency",
    ],
    [
      "no retries",
      "queue.retry = []",
      "queue.retry: an empty list has no wait; write at least one",
    ],
    [
      "a wait of nothing",
      'queue.retry = ["0s"]',
      'queue.retry[0]: "0s" is not a duration above zero',
    ],
    ["a wait without end", 'queue.retry = ["9999w"]', 'queue.retry[0]: "9999w" is not a duration'],
    [
      "a domain twice",
      '[domains."Example.com"]\n[domains."example.com"]',
      'domains."example.com": is example.com again',
    ],
    ["no domain", '[domains."exa mple"]', 'domains."exa mple": is not a domain name'],
    [
      "a wildcard",
      '[[routes]]\nto_domain = ["*.example.org"]',
      'routes[0].to_domain[0]: "*.example.org" is not a domain; write',
    ],
    [
      "a pattern twice",
      '[[routes]]\nto_domain = [".a.example", "B.a.example"]',
      'routes[0].to_domain[1]: "B.a.example" is meant by to_domain[0] already',
    ],
    [
      "an attempt that never comes",
      "[[routes]]\nminimum_attempts = 8",
      "routes[0].minimum_attempts: 8 is never reached: queue.max_attempts is 8",
    ],
    [
      "a foreign sender in a domain's routes",
      '[["domains"."a.example".routes]]\nfrom_domain = ["b.example"]',
      'domains."a.example".routes[0].from_domain: can never match',
    ],
    [
      "an unknown transport in an account",
      '[[accounts.a.routes]]\ntransport = "x"',
      'accounts.a.routes[0].transport: "x" is not a transport',
    ],
    [
      "a reference without end",
      'hostname = "${HOST"',
      'hostname: "${HOST" has a ${ that no name and } follow',
    ],
    ["a reference without name", 'hostname = "${}"', 'hostname: "${}" has a ${ that'],
    ["controls in a key", '"a\\u001b[2J" = 1', '"a\\u001b[2J": is not a setting'],
    [
      "a very long value",
      `hostname = "${"x".repeat(1000)}!"`,
      `hostname: "${"x".repeat(60)}…" is not a domain name`,
    ],
  ];
  for (const [name, toml, line] of mistakes) {
    it(`refuses ${name}`, () => {
      const lines = linesOf(() => load(toml));
      assert.equal(lines.length, 1, lines.join("\n"));
      assert(lines[0]!.startsWith(`config: ${line}`), lines[0]!);
      // deno-lint-ignore no-control-regex
      assert(!/[\x00-\x1f\x7f-\x9f]/.test(lines[0]!), "a control character was printed");
    });
  }

  describe("routes that can never match", () => {
    const route = (criteria: string) => `[[routes]]\n${criteria}\n`;
    const shadowing: readonly (readonly [string, string, string])[] = [
      ["one without criteria before it", route(""), route('to_domain = ["a.example"]')],
      ["the same", route('to_domain = ["a.example"]'), route('to_domain = ["A.example"]')],
      ["a domain above", route('to_domain = [".example"]'), route('to_domain = ["a.example"]')],
      ["fewer attempts", route("minimum_attempts = 2"), route("minimum_attempts = 3")],
      [
        "fewer criteria",
        route('to_domain = ["a.example"]'),
        route('from_domain = ["b.example"]\nto_domain = ["a.example"]'),
      ],
      [
        "each of several",
        route('to_domain = [".a.example", "b.example"]'),
        route('to_domain = ["b.example", "x.a.example"]'),
      ],
    ];
    for (const [name, first, second] of shadowing) {
      it(`finds ${name}`, () => {
        assert.deepEqual(linesOf(() => load(first + second)), [
          "config: routes[1]: can never match: routes[0] comes first and takes every message that " +
          "this one would; move this one up or remove it",
        ]);
      });
      it(`takes ${name} the other way round`, () => {
        if (name === "the same") return assert.equal(linesOf(() => load(second + first)).length, 1);
        assert.equal(load(second + first).routes.global.length, 2);
      });
    }

    it("finds what several routes take together", () => {
      const lines = linesOf(() =>
        load(
          route('from_domain = ["a.example"]') + route('from_domain = [".b.example"]') +
            route('from_domain = ["x.b.example", "a.example"]\nto_domain = ["c.example"]'),
        )
      );
      assert.deepEqual(lines, [
        "config: routes[2]: can never match: routes[1] and routes[0] come first and take every " +
        "message that this one would; move this one up or remove it",
      ]);
    });

    it("finds a global route whose senders' domains take it all", () => {
      const lines = linesOf(() =>
        load('[[domains."a.example".routes]]\n[[routes]]\nfrom_domain = ["a.example"]\n')
      );
      assert.equal(lines.length, 1);
      assert.match(
        lines[0]!,
        /^config: routes\[0\]: can never match: domains\."a\.example"\.routes\[0\]/,
      );
      load('[[domains."a.example".routes]]\n[[routes]]\nfrom_domain = [".a.example"]\n');
    });
  });

  describe("${NAME}", () => {
    it("takes the process before .env, and .env before nothing", () => {
      write("A_HOST=from-file.example\nB_HOST='b.example' # comment\n", ".env");
      const text = '[transports]\na = { type = "smtp", host = "${A_HOST}" }\n' +
        'b = { type = "smtp", host = "${B_HOST}" }\n';
      const hosts = (env: Record<string, string>) =>
        [...load(text, env).transports.values()]
          .flatMap((transport) => transport.type === "smtp" ? [transport.host] : []);
      try {
        assert.deepEqual(hosts({}), ["from-file.example", "b.example"]);
        assert.deepEqual(hosts({ A_HOST: "env.example" }), ["env.example", "b.example"]);
      } finally {
        Deno.removeSync(join(folder, ".env"));
      }
    });

    it("fills in parts, several times, and does not look again at what it filled in", () => {
      const env = { A: "${B}", B: "x", DIR: "d" };
      assert.equal(load('data_dir = "${DIR}/${DIR}"', env).dataDir, join(folder, "d/d"));
      assert.equal(load('data_dir = "${A}"', env).dataDir, join(folder, "${B}"));
      assert.equal(load('data_dir = "$${B}"', env).dataDir, join(folder, "${B}"));
      assert.equal(load('data_dir = "$B"', env).dataDir, join(folder, "$B"));
    });

    it("never shows what it filled in", () => {
      const lines = linesOf(() =>
        load(
          'hostname = "${SECRET}"\ndns.servers = ["${SECRET}"]\n[[routes]]\ntransport = "${SECRET}"',
          {
            SECRET: "s3cr3t value",
          },
        )
      );
      assert.equal(lines.length, 3);
      for (const line of lines) {
        assert(!line.includes("s3cr3t"), line);
        assert(line.includes('"${SECRET}"'), line);
      }
    });
  });

  it("says where a file is not TOML", () => {
    const file = write('a = 1\nb = "\n');
    assert.match(
      linesOf(() => loadConfig({ file, env: new Map() }))[0]!,
      /test\.toml:2:\d+: not TOML: /,
    );
  });

  it("refuses what is no config file", () => {
    const line = (file: string) => linesOf(() => loadConfig({ file, env: new Map() }))[0]!;
    assert.match(line(join(folder, "gone")), /gone: cannot be read: there is no such file$/);
    assert.match(line(folder), /is not a file/);
    assert.match(line(write(new Uint8Array([0xff, 0xfe, 0x00]))), /is not UTF-8 text$/);
    const big = write("", "big.toml");
    Deno.truncateSync(big, 5 * 2 ** 20);
    assert.match(line(big), /has 5242880 octets, which is no config/);
  });

  it("answers any text with a config or with lines", () => {
    const words = fc.constantFrom(
      "[",
      "]",
      "[[",
      "]]",
      "=",
      "\n",
      '"',
      "routes",
      "listen",
      "transports",
      "domains",
      "accounts",
      ".a",
      "1",
      "true",
      "{",
      "}",
      ",",
      "type",
      "protocol",
      '"smtp"',
      '"direct"',
      "${",
      "__proto__",
      "1979-05-27",
      "0x7f",
      "inf",
    );
    fc.assert(
      fc.property(fc.array(words, { maxLength: 30 }), (parts) => {
        try {
          load(parts.join(" "));
        } catch (error) {
          assert(error instanceof ConfigError, String(error));
          assert(
            error.lines.length > 0 && error.lines.every((line) => line.startsWith("config: ")),
          );
        }
      }),
      { numRuns: 300 },
    );
  });
});

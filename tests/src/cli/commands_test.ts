/** The commands that read: what they print, what they refuse, and with which exit code. */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { join, resolve } from "node:path";
import { run as audit } from "../../../src/cli/audit.ts";
import { run as queue } from "../../../src/cli/queue.ts";
import { run as replay } from "../../../src/cli/replay.ts";
import { run as route } from "../../../src/cli/route.ts";
import type { Given } from "../../events/given.ts";
import { DELIVERED, givenQueue, HELD, HOSTILE, type Ran, ran, UNKNOWN } from "./given_queue.ts";

const ROOT = resolve(import.meta.dirname!, "../../..");
const ROUTES = join(ROOT, "fixtures/configs/routes.toml");

/** Everything but LF that a terminal would obey, or that is not plain to see. */
const UNSAFE =
  // deno-lint-ignore no-control-regex
  /[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u{e0000}-\u{e0fff}]/u;

describe("commands", () => {
  let given: Given;
  before(async () => {
    given = await givenQueue();
  });
  after(() => given.end());

  type Run = Parameters<typeof ran>[0];
  const withData = (run: Run, ...args: string[]): Promise<Ran> =>
    ran(run, [...args, "--data", given.dataDir]);
  const ids = async (...args: string[]): Promise<string[]> => {
    const { stdout } = await withData(queue, "list", "--json", ...args);
    return JSON.parse(stdout).messages.map((message: { id: string }) => message.id);
  };

  describe("queue list", () => {
    it("shows what is not finished as an aligned table", async () => {
      const { code, stdout, stderr } = await withData(queue, "list");
      assert.equal(code, 0);
      assert.equal(stderr, "");
      const lines = stdout.split("\n");
      assert.deepEqual(lines[0]!.split(/ +/), [
        "ID",
        "STATE",
        "TRIES",
        "AGE",
        "SIZE",
        "NEXT",
        "FROM",
        "TO",
        "LAST",
        "ERROR",
      ]);
      assert.match(lines[1]!, new RegExp(`^${HOSTILE}  queued {6}1  59m55s  4\\.0KiB   due  "`));
      assert.match(lines[2]!, new RegExp(`^${HELD}  held {8}0  59m52s  4\\.0KiB {8}<> +bounce@`));
      assert.equal(lines[3], "2 messages");
    });

    it("selects by every criterion", async () => {
      assert.deepEqual(await ids("--all"), [DELIVERED, HOSTILE, HELD]);
      assert.deepEqual(await ids("--all", "--descending"), [HELD, HOSTILE, DELIVERED]);
      assert.deepEqual(await ids("--all", "--limit", "1", "--offset", "1"), [HOSTILE]);
      assert.deepEqual(await ids("--state", "delivered"), [DELIVERED]);
      assert.deepEqual(await ids("--from", "<>"), [HELD]);
      assert.deepEqual(await ids("--to", "BOUNCE@example.com"), [HELD]);
      assert.deepEqual(await ids("--to-domain", "Example.org"), [HOSTILE]);
      assert.deepEqual(await ids("--account", "alice"), []);
      assert.deepEqual(await ids("--account", "alice", "--all"), [DELIVERED]);
      assert.deepEqual(await ids("--error", "ODD"), [HELD]);
      assert.deepEqual(await ids("--older-than", "59m53s"), [HOSTILE]);
      assert.deepEqual(await ids(DELIVERED.toLowerCase(), HELD), [DELIVERED, HELD]);
    });

    it("counts all that match, however few are shown", async () => {
      const { stdout } = await withData(queue, "list", "--all", "--limit", "2", "--offset", "1");
      assert.match(stdout, /2 to 3 of 3 messages\n$/);
      assert.equal(
        JSON.parse((await withData(queue, "list", "--json", "--limit", "1")).stdout).total,
        2,
      );
    });

    it("says when nothing is there", async () => {
      const none = await withData(queue, "list", "--to-domain", "none.example");
      assert.equal(none.stdout, "The queue is empty; --all shows finished messages too.\n");
      assert.equal(none.code, 0);
      const missing = await withData(queue, "list", HELD, UNKNOWN);
      assert.equal(missing.code, 1);
      assert.match(missing.stderr, /^postledger: queue list: 1 of the ids are not there; .*\n$/);
    });

    it("refuses what it cannot read", async () => {
      const refusals: readonly (readonly [string[], RegExp])[] = [
        [["--state", "gone"], /--state: it is not one of queued, attempting/],
        [["--older-than", "soon"], /--older-than: it is not a duration/],
        [["--limit", "0"], /--limit: "0" is not a whole number from 1/],
        [["--offset", "-1"], /--offset: "-1" is not a whole number/],
        [["--sort", "colour"], /--sort: it takes one of created, due/],
        [["--stat", "held"], /--stat is not an option \(did you mean "--state"\?\)/],
        [["--state"], /--state takes a value: --state STATE/],
        [["--json=yes"], /--json takes no value/],
        [["--json", "--json"], /--json is given twice/],
        [["12"], /"12" is not a message id/],
        [["\x1b[2J"], /"\\x1b\[2J" is not a message id/],
      ];
      for (const [args, words] of refusals) {
        const { code, stdout, stderr } = await ran(queue, [
          "list",
          "--data",
          given.dataDir,
          ...args,
        ]);
        assert.equal(code, 2, args.join(" "));
        assert.equal(stdout, "");
        assert.match(stderr, words);
        assert.match(stderr, /^postledger: queue list: [^\n]*\n$/);
      }
    });
  });

  describe("queue show", () => {
    it("shows the envelope and every attempt", async () => {
      const { code, stdout } = await withData(queue, "show", DELIVERED);
      assert.equal(code, 0);
      for (
        const words of [
          `${DELIVERED}  delivered\n`,
          "from        sender@example.com\n",
          "account     alice\n",
          "attempt 1, 2026-01-31T09:30:01.000Z\n  transport   direct, no route matched\n",
          "  next hop    example.net by mx: 10 mx1.example.net\n",
          "mx1.example.net [192.0.2.1]:25, TLSv1.3 TLS_AES_256_GCM_SHA384 (opportunistic",
          "temporary: greylisted; next 2026-01-31T09:40:00.000Z\n",
          "  transport   relay, routes[0] (to_domain example.net)\n",
          "  delivered   2026-01-31T09:30:04.000Z, to mx.example.net [192.0.2.1]",
        ]
      ) assert(stdout.includes(words), `${words}\n\n${stdout}`);
      assert(!stdout.includes("S: 220"), "the transcript was not asked for");
    });

    it("shows transcripts when asked", async () => {
      const { stdout } = await withData(queue, "show", DELIVERED, "--transcript");
      assert.match(stdout, / 3 S: 220 hello /);
      const json = async (...args: string[]) =>
        JSON.parse((await withData(queue, "show", DELIVERED, "--json", ...args)).stdout);
      assert.equal((await json()).history[0].hosts[0].transcript, undefined);
      assert.equal((await json("--transcript")).history[0].hosts[0].transcript.length, 1);
    });

    it("knows what it does not have", async () => {
      assert.deepEqual(await withData(queue, "show", UNKNOWN), {
        code: 1,
        stdout: "",
        stderr: `postledger: queue show: there is no message ${UNKNOWN}\n`,
      });
      assert.equal((await withData(queue, "show")).code, 2);
    });
  });

  it("send a terminal nothing that it would obey", async () => {
    const all = [
      await withData(queue, "list", "--all"),
      await withData(queue, "list", "--all", "--json"),
      await withData(queue, "show", HOSTILE, "--transcript"),
      await withData(queue, "show", HOSTILE, "--transcript", "--json"),
      await withData(replay, HOSTILE),
      await withData(replay, HOSTILE, "--json"),
      await ran(queue, ["\x1b]0;x\x07"]),
      await ran(route, ["--from", "\u202e@x", "--to", "a@b.example"]),
    ];
    for (const { stdout, stderr } of all) {
      assert(stdout + stderr !== "");
      const found = UNSAFE.exec(stdout + stderr);
      assert.equal(found, null, JSON.stringify(found?.[0]));
    }
  });

  describe("replay", () => {
    it("shows each event and what it changed", async () => {
      const { code, stdout } = await withData(replay, DELIVERED);
      assert.equal(code, 0);
      const steps = stdout.split(/\n(?=\d)/);
      assert.equal(steps.length, 10);
      assert.equal(
        steps[1],
        "2  2026-01-31T09:30:01.000Z  AttemptStarted  attempt 1, the next one at " +
          "2026-01-31T09:37:30.000Z should it fail\n" +
          "     status          queued → attempting\n" +
          "     attempts        0 → 1\n" +
          "     due             2026-01-31T09:30:00.000Z → 2026-01-31T09:37:30.000Z\n" +
          "     attempt since   2026-01-31T09:30:01.000Z",
      );
      assert.match(steps[9]!, /^10 .* Delivered .*\n {5}status {10}attempting → delivered\n/);
    });

    it("stops at a version or a time", async () => {
      const versions = async (until: string) => {
        const { stdout } = await withData(replay, DELIVERED, "--json", "--until", until);
        return JSON.parse(stdout).steps.map(({ event }: { event: { version: number } }) =>
          event.version
        );
      };
      assert.deepEqual(await versions("2"), [1, 2]);
      assert.deepEqual(await versions("2026-01-31T09:30:01Z"), [1, 2, 3]);
      assert.deepEqual(await versions("2026-01-31T10:30:00.5+01:00"), [1]);
      assert.equal((await withData(replay, DELIVERED, "--until", "then")).code, 2);
    });

    it("shows where the routes of a config would send each attempt today", async () => {
      const { stdout } = await withData(replay, DELIVERED, "--config", ROUTES);
      const today = stdout.split("\n").filter((line) => line.includes("routes today"));
      assert.equal(today.length, 2);
      assert.match(today[0]!, /smarthost: routes\[0\] \(from_domain example\.com, to_domain/);
    });

    it("prints the same twice", async () => {
      const [once, twice] = [await withData(replay, DELIVERED), await withData(replay, DELIVERED)];
      assert.deepEqual(once, twice);
    });
  });

  describe("audit", () => {
    it("exports what verifies, and verifying finds one changed word", async () => {
      const { code, stdout } = await withData(audit, "export");
      assert.equal(code, 0);
      const file = await Deno.makeTempFile({ suffix: ".jsonl" });
      try {
        await Deno.writeTextFile(file, stdout);
        const verified = await withData(audit, "verify", file);
        assert.equal(verified.code, 0, verified.stdout);
        assert.match(verified.stdout, /ok: 17 events/);
        await Deno.writeTextFile(file, stdout.replace("greylisted", "whitelisted"));
        const broken = await withData(audit, "verify", file);
        assert.equal(broken.code, 1);
        assert.match(broken.stdout, new RegExp(`message ${DELIVERED}, version 5: hash does not`));
      } finally {
        await Deno.remove(file);
      }
    });

    it("verifies the log itself", async () => {
      const { code, stdout } = await withData(audit, "verify", "--json");
      assert.equal(code, 0);
      assert.equal(JSON.parse(stdout).events, 17);
    });

    it("exports a part, as JSON lines or CSV", async () => {
      const lines = async (...args: string[]) =>
        (await withData(audit, "export", ...args)).stdout.trimEnd().split("\n").length;
      assert.equal(await lines("--message", HELD), 3);
      assert.equal(await lines("--since", "2026-01-31T09:30:08Z"), 3);
      assert.equal(await lines("--until", "2026-01-31T09:30:01Z", "--format", "csv"), 2);
      assert.equal(await lines("--since", "59m52s", "--format", "csv"), 3);
    });

    it("refuses what it cannot do", async () => {
      const code = async (...args: string[]) => (await withData(audit, ...args)).code;
      assert.equal(await code("export", "--format", "xml"), 2);
      assert.equal(await code("export", "--since", "2026-99-99"), 2);
      assert.equal(await code("export", "--message", UNKNOWN), 1);
      assert.equal(await code("verify", join(given.dataDir, "gone.jsonl")), 1);
    });
  });

  describe("route", () => {
    it("shows every criterion, and which route wins", async () => {
      const { code, stdout } = await ran(route, [
        "--config",
        ROUTES,
        "--from",
        "a@example.com",
        "--to",
        "b@example.net",
        "--attempts",
        "3",
      ]);
      assert.equal(code, 0);
      assert.equal(
        stdout,
        'domains."example.com".routes[0] to provider: matches first, and is taken\n' +
          "    yes  minimum_attempts 3: it is 3\n" +
          "routes[0] to smarthost: matches, after another\n" +
          "    yes  from_domain example.com: it is example.com\n" +
          "    yes  to_domain example.net: it is example.net\n" +
          "routes[1] to smarthost: does not match\n" +
          "    no   to_domain .xn--bcher-kva.example, [192.0.2.1]: it is example.net\n" +
          "routes[2] to smarthost: does not match\n" +
          "    no   minimum_attempts 5: it is 3\n" +
          "a@example.com to b@example.net, attempt 4: provider, smtp to " +
          "smtp.provider.example:2525 (TLS opportunistic), because: " +
          'domains."example.com".routes[0] (minimum_attempts 3)\n',
      );
    });

    it("takes the null sender and an account", async () => {
      const { stdout } = await ran(route, [
        "--config",
        ROUTES,
        "--from",
        "<>",
        "--to",
        "b@example.org",
        "--account",
        "alice",
        "--json",
      ]);
      const { transport, because } = JSON.parse(stdout);
      assert.equal(transport.host, "relay.example.net");
      assert.equal(because.owner, "alice");
    });

    it("refuses addresses that are none, and configs with mistakes", async () => {
      const refused = async (...args: string[]) => {
        const { code, stderr } = await ran(route, args);
        assert.equal(code, 2);
        return stderr;
      };
      assert.match(await refused("--to", "b@c.example"), /--from is missing/);
      assert.match(await refused("--from", "a", "--to", "b@c.example"), /--from: /);
      assert.match(await refused("--from", "<>", "--to", "<>"), /--to: /);
      const config = join(ROOT, "fixtures/configs/mistakes.toml");
      const lines = await refused("--from", "<>", "--to", "b@c.example", "--config", config);
      assert.equal(lines.trimEnd().split("\n").length, 16);
      assert(
        lines.split("\n").every((line) => line === "" || line.startsWith("postledger: config: ")),
      );
    });
  });

  it("help with every option", async () => {
    for (
      const [run, ...args] of [
        [queue, "list", "--help"],
        [queue, "show", "-h"],
        [replay, "--help"],
        [audit, "export", "--help"],
        [audit, "verify", "--help"],
        [route, "--help"],
      ] as const
    ) {
      const { code, stdout } = await ran(run, args);
      assert.equal(code, 0);
      assert.match(stdout, /^deno task \w+.*\n\n.*\n\n( {2}--[\w-]+.*\n)+$/);
    }
    const { code, stdout } = await ran(queue, ["--help"]);
    assert.equal(code, 0);
    assert.match(stdout, /queue list .*\n.*\n {2}deno task queue show ID/);
  });

  it("say in one line when there is no queue, or no database", async () => {
    const folder = await Deno.makeTempDir();
    try {
      const line = async () => {
        const { code, stderr } = await ran(queue, ["list", "--data", folder]);
        assert.equal(code, 1);
        assert.match(stderr, /^postledger: queue list: [^\n]+\n$/);
        return stderr;
      };
      assert.match(await line(), /there is no queue in /);
      await Deno.writeTextFile(join(folder, "postledger.db"), "garbage ".repeat(1000));
      assert.match(await line(), /not a database/);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });

  it("run as a process with the permissions of their task, beside a running queue", async () => {
    const { tasks } = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.json")));
    const flags = tasks.queue.split(" ").filter((word: string) => word.startsWith("--"));
    const { code, stdout, stderr } = await new Deno.Command("deno", {
      args: [
        "run",
        "--no-check",
        ...flags,
        "src/cli/queue.ts",
        "list",
        "--json",
        "--data",
        given.dataDir,
      ],
      cwd: ROOT,
    }).output();
    const text = (octets: Uint8Array) => new TextDecoder().decode(octets);
    assert.equal(code, 0, text(stderr));
    assert.equal(JSON.parse(text(stdout)).total, 2);
  });
});

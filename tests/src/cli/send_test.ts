/** sendmail: its options, what it makes of a message, where that goes, and what is kept of failures. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { after, afterEach, before, beforeEach, describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { addressesIn, BadList, qualifyList } from "../../../src/cli/send/addresses.ts";
import { MessageInput } from "../../../src/cli/send/input.ts";
import { BadUsage, readOptions } from "../../../src/cli/send/options.ts";
import { personOf } from "../../../src/cli/send/person.ts";
import { send, type SendWorld } from "../../../src/cli/send.ts";
import { SocketDialer } from "../../../src/delivery/dialer.ts";
import { SmtpServer } from "../../../src/smtp/server.ts";
import { MemoryBodies, MemoryLog, MemorySubmitter } from "../smtp/fakes.ts";
import { realClock } from "../smtp/harness.ts";

const bodies = new MemoryBodies();
const submitter = new MemorySubmitter();
let server: SmtpServer;
let port: number;
let folder: string;

before(async () => {
  server = new SmtpServer({ submitter, bodies, clock: realClock, log: new MemoryLog() }, {
    name: "local",
    hostname: "mx.test",
    address: "127.0.0.1",
    port: 0,
    protocol: "smtp",
    limits: { messageSize: 100_000 },
  });
  ({ port } = await server.listen());
});
after(() => server.close(0));
beforeEach(async () => {
  folder = await Deno.makeTempDir({ prefix: "postledger-" });
  await Deno.mkdir(`${folder}/home`);
  await Deno.mkdir(`${folder}/shared`);
  config();
  submitter.submissions.length = 0;
  submitter.failWith = undefined;
});
afterEach(() => Deno.remove(folder, { recursive: true }));

function config(text = `domain = "example.com"\n${toPort(port)}`): void {
  Deno.writeTextFileSync(`${folder}/sendmail.toml`, text);
}
const toPort = (port: number) =>
  `[server]\ntype = "smtp"\nhost = "127.0.0.1"\nport = ${port}\ntls = "none"\n`;

async function* inPieces(octets: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < octets.length; at += size) yield octets.slice(at, at + size);
}

async function run(
  args: readonly string[],
  input: string | AsyncIterable<Uint8Array>,
  world: Partial<SendWorld> = {},
) {
  let err = "";
  let out = "";
  const code = await send(args, {
    clock: realClock,
    dialer: new SocketDialer(),
    env: new Map([["POSTLEDGER_SENDMAIL", `${folder}/sendmail.toml`]]),
    hostname: () => "www.test",
    person: () => ({ login: "www-data", fullName: "Web Server" }),
    places: { home: `${folder}/home`, cwd: undefined, shared: `${folder}/shared` },
    stdin: typeof input === "string" ? inPieces(Buffer.from(input), 7) : input,
    stdout: (octets) => {
      out += new TextDecoder().decode(octets);
      return Promise.resolve();
    },
    terminal: {
      out: (text) => out += text,
      err: (text) => err += text,
      now: () => Date.now(),
    },
    ...world,
  });
  return { code, err, out };
}

/** The one message that was taken, without the Received field. */
function taken() {
  const [submission, ...more] = submitter.submissions;
  assert.ok(submission);
  assert.deepEqual(more, []);
  const text = bodies.bodies.get(submission.body.sha256)!.toString();
  return {
    from: submission.mailFrom,
    to: submission.recipients.map(({ rcptTo }) => rcptTo),
    dsn: submission.recipients[0]!.dsn,
    text: text.replace(/^Received:.*\r\n(?:[ \t].*\r\n)*/, ""),
  };
}

const letter = () => Deno.readTextFileSync(`${folder}/home/dead.letter`);
const noLetter = () => assert.throws(letter, Deno.errors.NotFound);

describe("sendmail", () => {
  it("hands a message over, with the fields that it lacks", async () => {
    const { code, err } = await run(["-i", "bob@example.org"], "Subject: x\n\nHi\n");
    assert.deepEqual([code, err], [0, ""]);
    const { from, to, text } = taken();
    assert.equal(from, "www-data@example.com");
    assert.deepEqual(to, ["bob@example.org"]);
    assert.match(
      text,
      /^Subject: x\r\nFrom: Web Server <www-data@example\.com>\r\nDate: .* \+0000\r\nMessage-ID: <[\w-]+@example\.com>\r\n\r\nHi\r\n$/,
    );
    noLetter();
  });

  it("takes what has no header for a body", async () => {
    assert.equal((await run(["bob@example.org"], "just text\nmore\n")).code, 0);
    assert.match(taken().text, /^From: .*\r\n\r\njust text\r\nmore\r\n$/s);
  });

  it("takes recipients from the header, and Bcc out of it, folded and in any case", async () => {
    const message =
      "From: a@example.com\nTo: Bob <bob@example.org>,\n\tgroup: c@example.org, d;\n" +
      "bCC : secret@example.org,\n  other@example.org\nCc: bob@example.org (again)\n\nHi\n";
    assert.equal((await run(["-t", "extra@example.org"], message)).code, 0);
    const { to, text } = taken();
    assert.deepEqual(to, [
      "extra@example.org",
      "bob@example.org",
      "c@example.org",
      "d@example.com",
      "secret@example.org",
      "other@example.org",
    ]);
    assert.doesNotMatch(text, /bcc|secret|other/i);
    assert.match(text, /\tgroup: c@example\.org, d@example\.com;\r\n/);
  });

  it("goes by the Resent fields of a message that is sent on", async () => {
    const message = "From: a@example.com\nTo: b@example.org\nResent-To: c@example.org\n" +
      "Resent-Bcc: d@example.org\n\nHi\n";
    assert.equal((await run(["-t"], message)).code, 0);
    const { to, text } = taken();
    assert.deepEqual(to, ["c@example.org", "d@example.org"]);
    assert.doesNotMatch(text, /Resent-Bcc/);
  });

  it("completes local names in the envelope and in the header", async () => {
    const message = "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@www> date\n\nSun\n";
    const cron = ["-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root"];
    assert.equal((await run(cron, message)).code, 0);
    const { from, to, text } = taken();
    assert.equal(from, "root@example.com");
    assert.deepEqual(to, ["root@example.com"]);
    assert.match(text, /^From: root@example\.com \(Cron Daemon\)\r\nTo: root@example\.com\r\n/);
  });

  it("ends at a dot alone, unless that is content", async () => {
    await run(["bob@example.org"], "Subject: x\n\na\n.\nb\n");
    assert.match(taken().text, /\r\n\r\na\r\n$/);
    for (const option of ["-i", "-oi"]) {
      submitter.submissions.length = 0;
      await run([option, "bob@example.org"], "Subject: x\n\na\n.\nb\n..\n");
      assert.match(taken().text, /\r\n\r\na\r\n\.\r\nb\r\n\.\.\r\n$/);
    }
  });

  it("takes the null sender, a full name, and the parameters of reports", async () => {
    const args = ["-f", "<>", "-F", 'Max "M" Müller', "-N", "failure,delay", "-R", "hdrs"];
    assert.equal((await run([...args, "-V", "id 1", "b@example.org"], "\nHi\n")).code, 0);
    const { from, dsn, text } = taken();
    assert.equal(from, "");
    assert.deepEqual(dsn, { notify: ["FAILURE", "DELAY"], ret: "HDRS", envid: "id 1" });
    assert.match(text, /^From: =\?utf-8\?B\?[\w+/=]+\?= <www-data@example\.com>\r\n/);
  });

  it("hands a message to hundreds over in several transactions", async () => {
    const many = Array.from({ length: 250 }, (_, n) => `u${n}@example.org`);
    assert.equal((await run(many, "\nHi\n")).code, 0);
    assert.deepEqual(submitter.submissions.map(({ recipients }) => recipients.length), [
      100,
      100,
      50,
    ]);
  });

  it("shows the dialogue with -v, and says nothing without", async () => {
    const { err } = await run(["-v", "b@example.org"], "\nHi\n");
    assert.match(err, /C: RCPT TO:<b@example\.org>\n[^]*S: 250 2\.1\.5 Ok\n/);
  });

  it("answers mailq and newaliases", async () => {
    assert.equal((await run([], "", { calledAs: "newaliases" })).code, 0);
    assert.equal((await run(["-bi"], "")).code, 0);
    const { code, err } = await run([], "", { calledAs: "mailq" });
    assert.equal(code, 69);
    assert.match(err, /deno task queue list/);
  });

  it("speaks SMTP with -bs", async () => {
    const dialogue = "EHLO me.test\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n" +
      "DATA\r\nSubject: x\r\n\r\nHi\r\n.\r\nQUIT\r\n";
    const { code, out } = await run(["-bs"], dialogue);
    assert.equal(code, 0);
    assert.match(out, /^220 mx\.test .*354 .*250 2\.0\.0 Ok: queued as .*221 /s);
    assert.deepEqual(taken().to, ["b@example.org"]);
  });
});

describe("sendmail, when it cannot be", () => {
  const MESSAGE = "Subject: x\nBcc: secret@example.org\n\nFrom me\n>From you\nbye\n";

  it("has no recipients: EX_USAGE", async () => {
    const { code, err } = await run([], MESSAGE);
    assert.equal(code, 64);
    assert.match(err, /^sendmail: there is no recipient/);
    const none = await run(["-t"], "Subject: x\n\nHi\n");
    assert.equal(none.code, 64);
    assert.match(none.err, /names no recipient\n.*saved in .*dead\.letter\n$/s);
  });

  it("cannot read standard input: EX_IOERR", async () => {
    async function* broken(): AsyncGenerator<Uint8Array> {
      yield Buffer.from("Subject: x\n\nbegun\n");
      await Promise.reject(new Error("Input/output error"));
    }
    const { code, err } = await run(["b@example.org"], broken());
    assert.equal(code, 74);
    assert.match(err, /standard input cannot be read: Input\/output error/);
    assert.match(letter(), /begun/);
    assert.equal(submitter.submissions.length, 0);
  });

  it("finds the queue down: EX_TEMPFAIL, and the message is kept whole for its owner", async () => {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port: closed } = listener.addr;
    listener.close();
    config(`domain = "example.com"\n${toPort(closed)}`);
    const { code, err } = await run(["-f", "me", "b@example.org", "c@example.org"], MESSAGE);
    assert.equal(code, 75);
    assert.match(err, /b@example\.org, c@example\.org: 127\.0\.0\.1:\d+ cannot be reached/);
    assert.match(err, /the message is saved in .*\/home\/dead\.letter\n$/);
    const file = `${folder}/home/dead.letter`;
    assert.equal(Deno.statSync(file).mode! & 0o777, 0o600);
    assert.match(
      letter(),
      /^From me@example\.com \w{3} \w{3} \d\d [\d:]{8} \d{4}\nX-Dead-Letter-Why: .*\nX-Envelope-From: <me@example\.com>\nX-Envelope-To: <b@example\.org>\nX-Envelope-To: <c@example\.org>\nSubject: x\nBcc: secret@example\.org\n\n>From me\n>>From you\nbye\n\n$/,
    );
    const first = letter();
    await run(["b@example.org"], "Subject: second\n\nHi\n");
    assert.ok(letter().startsWith(first));
    assert.match(letter().slice(first.length), /^From .*Subject: second\n\nHi\n\n$/s);
  });

  it("does not follow a link for a dead letter, nor give up where one place fails", async () => {
    config("domain = 1\n");
    await Deno.writeTextFile(`${folder}/victim`, "mine");
    await Deno.symlink(`${folder}/victim`, `${folder}/home/dead.letter`);
    const { code, err } = await run(["b@example.org"], MESSAGE);
    assert.equal(code, 78);
    assert.match(err, /sendmail\.toml: config: domain: /);
    assert.equal(await Deno.readTextFile(`${folder}/victim`), "mine");
    const [saved, ...more] = [...Deno.readDirSync(`${folder}/shared`)];
    assert.match(saved!.name, /^dead\.letter\.[0-9a-f-]{36}$/);
    assert.deepEqual(more, []);
  });

  it("has a config that is wrong: EX_CONFIG, with its path", async () => {
    config('[server]\ntype = "submission"\nhost = "mail.test"\nauth = { username = "u" }\n');
    const { code, err } = await run(["b@example.org"], MESSAGE);
    assert.equal(code, 78);
    assert.match(err, /server\.auth: has none of password, password_file/);
    assert.match(letter(), /bye/);
    config('[server]\ntype = "direct"\n');
    const direct = await run(["b@example.org"], MESSAGE);
    assert.match(direct.err, /server\.type: "direct" is not a server that takes mail/);
  });

  it("has a message that is too large: EX_UNAVAILABLE, and all of it is kept", async () => {
    config(`max_size = 1000\n${toPort(port)}`);
    const body = Array.from({ length: 300 }, (_, n) => `line ${n}\n`).join("");
    const { code, err } = await run(["b@example.org"], `Subject: x\n\n${body}`);
    assert.equal(code, 69);
    assert.match(err, /more than 1000 octets/);
    assert.ok(letter().endsWith(`\n\n${body}\n`));
    assert.equal(submitter.submissions.length, 0);
  });

  it("is refused by the server: EX_UNAVAILABLE where it is too large there", async () => {
    const { code, err } = await run(["b@example.org"], `\n${"x\n".repeat(60_000)}`);
    assert.equal(code, 69);
    assert.match(err, /the host takes 100000/);
    assert.match(letter(), /x\nx\n/);
  });

  it("is put off by the server: EX_TEMPFAIL", async () => {
    submitter.failWith = new Error("disk");
    const { code } = await run(["b@example.org"], MESSAGE);
    assert.equal(code, 75);
    assert.match(letter(), /bye/);
  });

  it("has an address that is none: EX_NOUSER, and the others get it", async () => {
    const { code, err } = await run(["b@example.org", "c@@example.org"], MESSAGE);
    assert.equal(code, 67);
    assert.match(err, /c@@example\.org: is not an address/);
    assert.deepEqual(taken().to, ["b@example.org"]);
    assert.match(letter(), /X-Envelope-To: <c@@example\.org>\nSubject/);
  });

  it("has a header that cannot be read: EX_DATAERR", async () => {
    const { code, err } = await run(["-t"], 'To: "unclosed <b@example.org>\n\nHi\n');
    assert.equal(code, 65);
    assert.match(err, /the field to cannot be read/);
    assert.match(letter(), /unclosed/);
  });

  it("is spoken to with -bs while the queue is down", async () => {
    config(toPort(1));
    const { code, out } = await run(["-bs"], "QUIT\r\n");
    assert.equal(code, 75);
    assert.match(out, /^421 4\.3\.2 /);
  });
});

describe("sendmail options", () => {
  it("are those of sendmail(1), attached or apart", () => {
    const options = readOptions(["-Fname", "-f", "a@b", "-ti", "-om", "-o", "i", "--", "-x@y"]);
    assert.equal(options.fullName, "name");
    assert.equal(options.sender, "a@b");
    assert.equal(options.fromHeader, true);
    assert.equal(options.ignoreDots, true);
    assert.deepEqual(options.recipients, ["-x@y"]);
  });

  it("that programs give and nobody needs are taken", () => {
    const args = [
      "-Am",
      "-B8BITMIME",
      "-G",
      "-U",
      "-h",
      "5",
      "-m",
      "-n",
      "-odi",
      "-oem",
      "-O",
      "x=y",
    ];
    assert.deepEqual(readOptions([...args, "-L", "tag", "-X", "log", "-d9", "b@c"]).recipients, [
      "b@c",
    ]);
  });

  for (
    const args of [
      ["-z"],
      ["-f"],
      ["-bd"],
      ["-q30m"],
      ["-N", "often"],
      ["-N", "never,delay"],
      [
        "-R",
        "all",
      ],
      ["-B", "9BIT"],
      ["-V", "ü"],
    ]
  ) {
    it(`that cannot be meant are refused: ${args.join(" ")}`, () => {
      assert.throws(() => readOptions(args), BadUsage);
    });
  }
});

describe("a list of addresses", () => {
  it("is read with names, comments, groups and quotes", () => {
    const list =
      'Bob <bob@x>, "a, b" <c@x>, "odd one"@x, (note) d (x\\)y), e: f, <g>;, , h@[1.2.3.4]';
    assert.deepEqual(addressesIn(list).map(({ spec }) => spec), [
      "bob@x",
      "c@x",
      '"odd one"@x',
      "d",
      "f",
      "g",
      "h@[1.2.3.4]",
    ]);
    assert.equal(
      qualifyList("root (Cron), Bob <bob>, g: a, b@c;", "x.y"),
      "root@x.y (Cron), Bob <bob@x.y>, g: a@x.y, b@c;",
    );
  });

  it("is read or refused, whatever it is, and completed only once", () => {
    const piece = fc.constantFrom("a", "@", "<", ">", ",", " ", '"', "(", ")", ":", ";", "\\", "[");
    fc.assert(fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
      try {
        const once = qualifyList(pieces.join(""), "x.y");
        assert.equal(qualifyList(once, "x.y"), once);
      } catch (error) {
        if (!(error instanceof BadList)) throw error;
      }
    }));
  });
});

describe("a message on standard input", () => {
  const read = (text: string, size: number, ignoreDots = true) => {
    const input = new MessageInput(ignoreDots, 1e6);
    const octets = Buffer.from(text);
    for (let at = 0; at < octets.length; at += size) {
      if (input.push(octets.subarray(at, at + size))) break;
    }
    return input.end().toString();
  };

  it("has CRLF at each end of a line, and nothing that a server would refuse", () => {
    for (const size of [1, 2, 3, 100]) {
      assert.equal(
        read("a\r\nb\nc\rd\0e\n\r\n\nlast", size),
        "a\r\nb\r\nc d e\r\n\r\n\r\nlast\r\n",
      );
      assert.equal(read("a\r\n.\r\nb\n", size, false), "a\r\n");
    }
  });

  it("has no line over 998 octets, and no character torn", () => {
    fc.assert(fc.property(fc.integer({ min: 900, max: 3000 }), fc.nat(3), (length, offset) => {
      const text = "x".repeat(offset) + "ü".repeat(length);
      const lines = read(`${text}\n`, 500).split("\r\n");
      for (const line of lines) assert.ok(Buffer.byteLength(line) <= 998);
      assert.equal(lines.join("").replaceAll(" ", ""), text);
    }));
  });
});

describe("the caller", () => {
  it("is known by /etc/passwd, or by the environment", () => {
    const passwd = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:& Data,,,:/var/www:/bin/sh\n";
    assert.deepEqual(personOf(33, passwd, new Map()), { login: "www", fullName: "Www Data" });
    assert.deepEqual(personOf(7, passwd, new Map([["USER", "joe"]])), {
      login: "joe",
      fullName: undefined,
    });
  });
});

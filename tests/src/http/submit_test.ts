/** POST /messages over real sockets: what comes in is what is stored, and what is refused. */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { connect } from "node:net";
import { simpleParser } from "mailparser";
import { answered, HttpHarness, MESSAGE, problem } from "./harness.ts";

const ENVELOPE = "from=ann@example.com&to=bob@example.net";
const LETTER = { from: "ann@example.com", to: ["bob@example.net"], text: "hello" };

describe("POST /messages", () => {
  let http: HttpHarness;
  before(async () => {
    http = await HttpHarness.create({ json: 256 * 1024, message: 2 * 2 ** 20, idle: 40 });
  });
  after(() => http.remove());

  describe("message/rfc822", () => {
    it("stores the message with its trace, one stream per recipient", async () => {
      const { submission, messages } = await answered(
        await http.raw(
          "from=ann@example.com&to=bob@example.net&to=eve@example.org&to=bob@example.net" +
            "&metadata=order:1:2",
          MESSAGE,
        ),
        202,
      );
      assert.deepEqual(messages.map(({ to }: { to: string }) => to), [
        "bob@example.net",
        "eve@example.org",
      ]);
      const [enqueued, ...rest] = await http.opened.store.readStream(messages[0].id);
      assert.deepEqual(rest, []);
      assert(enqueued?.type === "Enqueued");
      const { data } = enqueued;
      assert.equal(data.submission, submission);
      assert.equal(data.mailFrom, "ann@example.com");
      assert.deepEqual(data.metadata, { order: "1:2" });
      assert.equal(data.source.kind, "http");
      assert.equal(data.source.listener, "web");
      assert.equal(data.source.login, "operator");
      assert.match(data.source.peer!, /^127\.0\.0\.1:\d+$/);
      const content = await http.content(messages[0].id);
      assert(content.endsWith(MESSAGE));
      assert.match(content, /^Received: by mail\.example\.com with HTTP\r\n\tid /);
      assert(!content.includes("for <"), "one recipient learns of another");
      const detail = await answered(await http.fetch("GET", `/messages/${messages[0].id}`), 200);
      assert.deepEqual(detail.envelope.metadata, { order: "1:2" });
    });

    it("takes the null reverse-path, and REQUIRETLS", async () => {
      const { messages } = await answered(
        await http.raw("from=&to=bob@example.net&require-tls=true", MESSAGE),
        202,
      );
      const [enqueued] = await http.opened.store.readStream(messages[0].id);
      assert(enqueued?.type === "Enqueued");
      assert.equal(enqueued.data.mailFrom, "");
      assert.equal(enqueued.data.requireTLS, true);
    });

    it("takes a deadline, and refuses one that is over or no time", async () => {
      const expires = new Date(Date.now() + 3_600_000);
      const { messages } = await answered(
        await http.raw(`${ENVELOPE}&expires=${expires.toISOString()}`, MESSAGE),
        202,
      );
      const json = await answered(
        await http.post("/messages", {
          ...LETTER,
          expires: expires.toISOString().replace("Z", "+00:00"),
        }),
        202,
      );
      for (const { id } of [...messages, ...json.messages]) {
        const [enqueued] = await http.opened.store.readStream(id);
        assert(enqueued?.type === "Enqueued");
        assert.equal(enqueued.data.expires, expires.toISOString());
        assert.equal((await http.opened.view.get(id))?.expires, expires.getTime());
      }
      const over = await http.raw(`${ENVELOPE}&expires=2026-01-01T00:00:00Z`, MESSAGE);
      const { errors } = await problem(over, 422);
      assert.deepEqual(errors, [{ pointer: "/expires", detail: "is over already" }]);
      const never = await http.raw(`${ENVELOPE}&expires=tomorrow`, MESSAGE);
      assert.match((await problem(never, 400)).detail, /expires: it takes a time/);
    });

    it("gives a file with LF the line ends of mail", async () => {
      const lf = MESSAGE.replaceAll("\r\n", "\n");
      const { messages } = await answered(await http.raw(ENVELOPE, lf), 202);
      assert((await http.content(messages[0].id)).endsWith(MESSAGE));
    });

    it("refuses what is not a message that can be carried", async () => {
      for (
        const [body, words] of [
          [`${MESSAGE}bare\nLF\r\n`, /bare LF/],
          [MESSAGE.replaceAll("\r\n", "\n") + "bare\rCR\n", /bare CR/],
          [`${MESSAGE}\0\r\n`, /NUL/],
          [`${MESSAGE}${"x".repeat(1_001)}\r\n`, /longer than/],
          ["Received: x\r\n".repeat(51) + "\r\n", /mail loop/],
        ] as const
      ) {
        assert.match((await problem(await http.raw(ENVELOPE, body), 422)).detail, words);
      }
      assert.match((await problem(await http.raw(ENVELOPE, ""), 400)).detail, /empty/);
    });

    it("names the parameter that is wrong", async () => {
      for (
        const [query, parameter] of [
          ["to=b@example.net", "from"],
          ["from=ann@example.com", "to"],
          ["from=ann@example.com&to=", "to"],
          ["from=ann@example.com&to=bob", "to"],
          ["from=ann@example.com&to=bob@example.net%0d%0aDATA", "to"],
          ["from=ann@example.com%3e&to=bob@example.net", "from"],
          ["from=a@example.com&from=b@example.com&to=b@example.net", "from"],
          [`${ENVELOPE}&metadata=x`, "metadata"],
          [`${ENVELOPE}&metadata=a%20b:c`, "metadata"],
          [`${ENVELOPE}&metadata=a:b%0d%0a`, "metadata"],
          [`${ENVELOPE}&require-tls=yes`, "require-tls"],
          [`from=a@example.com${"&to=b@example.net".repeat(1_001)}`, "to"],
        ] as const
      ) {
        const { errors } = await problem(await http.raw(query, MESSAGE), 400);
        assert.equal(errors[0]?.parameter, parameter, query.slice(0, 80));
      }
      await problem(await http.raw(`${ENVELOPE}&cc=x@example.net`, MESSAGE), 400);
    });

    it("refuses a message over its limit, announced or not, and keeps nothing of it", async () => {
      const large = MESSAGE + `${"x".repeat(998)}\r\n`.repeat(2_100);
      await problem(await http.raw(ENVELOPE, large), 413);
      const streamed = new ReadableStream({
        start(controller) {
          for (let at = 0; at < large.length; at += 65_536) {
            controller.enqueue(new TextEncoder().encode(large.slice(at, at + 65_536)));
          }
          controller.close();
        },
      });
      await problem(await http.raw(ENVELOPE, streamed), 413);
      const fits = MESSAGE + `${"x".repeat(998)}\r\n`.repeat(1_000);
      const { messages } = await answered(await http.raw(ENVELOPE, fits), 202);
      assert((await http.content(messages[0].id)).endsWith(fits));
      const bodies = [...Deno.readDirSync(`${http.dataDir}/bodies`)].map(({ name }) => name);
      assert.equal(bodies.length, 1, `left behind: ${bodies}`);
    });

    it("gives up on a client that falls silent", async () => {
      const { hostname, port } = new URL(http.base);
      const socket = connect({ host: hostname, port: Number(port) });
      socket.write(
        `POST /api/v1/messages?${ENVELOPE} HTTP/1.1\r\nHost: x\r\n` +
          `Authorization: Bearer ${http.operator}\r\nContent-Type: message/rfc822\r\n` +
          `Content-Length: 1000\r\n\r\n${MESSAGE}`,
      );
      const answer = await new Promise<string>((resolve) =>
        socket.once("data", (octets) => resolve(octets.toString()))
      );
      socket.destroy();
      assert.match(answer, /^HTTP\/1\.1 408 /);
    });
  });

  describe("JSON", () => {
    it("composes a message that a mail reader reads back", async () => {
      const request = {
        from: { name: 'Änn, "Lee"', address: "ann@exämple.com" },
        to: ["Bob <bob@example.net>", '"Lee, Jo" <jo@example.org>'],
        cc: [{ address: "cc@example.net" }],
        bcc: ["secret@example.net"],
        subject: "Grüße ☺",
        text: "line one\nline two ü\r\n.\r\n",
        html: '<p>hé</p><img src="cid:pic@x">',
        attachments: [
          { filename: 'é"; x=.bin', content: Buffer.from([0, 1, 255]).toString("base64") },
          { content: btoa("png"), contentType: "image/png", cid: "pic@x" },
        ],
        headers: { "Reply-To": "help@example.com", "X-Long": "wört ".repeat(50).trim() },
        metadata: { order: "42" },
      };
      const { messages } = await answered(await http.post("/messages", request), 202);
      assert.deepEqual(messages.map(({ to }: { to: string }) => to), [
        "bob@example.net",
        "jo@example.org",
        "cc@example.net",
        "secret@example.net",
      ]);
      const content = await http.content(messages[0].id);
      assert(!content.includes("secret"), "a bcc recipient stands in the message");
      // deno-lint-ignore no-control-regex -- what is not ASCII is what it looks for
      assert.match(content, /^[\x00-\x7f]*$/);
      const read = await simpleParser(content);
      assert.deepEqual(read.from?.value, [
        { name: 'Änn, "Lee"', address: "ann@exämple.com" },
      ]);
      assert.equal(read.subject, "Grüße ☺");
      assert.equal(read.text?.trimEnd(), "line one\nline two ü\n.");
      assert.match(String(read.html), /hé/);
      assert.equal(read.replyTo?.text, "help@example.com");
      for (const line of content.split("\r\n")) assert(line.length <= 100, line);
      assert.deepEqual(
        read.attachments.map(({ filename, content }) => [filename, [...content]]),
        [[undefined, [...Buffer.from("png")]], ['é"; x=.bin', [0, 1, 255]]],
      );
      const [enqueued] = await http.opened.store.readStream(messages[0].id);
      assert(enqueued?.type === "Enqueued");
      assert.equal(enqueued.data.smtputf8, false);
      assert.equal(enqueued.data.messageId, read.messageId);
      assert.deepEqual(enqueued.data.metadata, { order: "42" });
    });

    it("names every field that is wrong, header injection first of all", async () => {
      const EVIL = "x\r\nBcc: evil@example.org";
      const cases: [Record<string, unknown>, string][] = [
        [{ from: `ann@example.com\r\nBcc: evil@example.org` }, "/from"],
        [{ from: { name: EVIL, address: "ann@example.com" } }, "/from/name"],
        [{ from: { address: EVIL } }, "/from/address"],
        [{ from: { address: "ann@example.com", nick: "x" } }, "/from/nick"],
        [{ from: { name: 7, address: "ann@example.com" } }, "/from"],
        [{ to: [EVIL] }, "/to/0"],
        [{ to: ["bob@example.net", "Bob <bob@example.net>\n"] }, "/to/1"],
        [{ cc: [EVIL] }, "/cc/0"],
        [{ bcc: [EVIL] }, "/bcc/0"],
        [{ subject: EVIL }, "/subject"],
        [{ subject: "x\u2028y" }, "/subject"],
        [{ subject: "\u0000" }, "/subject"],
        [{ subject: "\ud800" }, "/subject"],
        [{ headers: { "X-A": EVIL } }, "/headers/X-A"],
        [{ headers: { "X-A\r\nBcc": "x" } }, "/headers/X-A\r\nBcc"],
        [{ headers: { "Bcc": "x@example.net" } }, "/headers/Bcc"],
        [{ headers: { "content-type": "text/x" } }, "/headers/content-type"],
        [{ headers: { "DKIM-Signature": "x" } }, "/headers/DKIM-Signature"],
        [{ headers: { "a/b~": "x" } }, "/headers/a~1b~0"],
        [{ metadata: { a: EVIL } }, "/metadata/a"],
        [{ metadata: { "a b": "x" } }, "/metadata/a b"],
        [{ attachments: [{ content: "", filename: EVIL }] }, "/attachments/0/filename"],
        [{ attachments: [{ content: "", contentType: EVIL }] }, "/attachments/0/contentType"],
        [
          { attachments: [{ content: "", contentType: "multipart/mixed" }] },
          "/attachments/0/contentType",
        ],
        [{ attachments: [{ content: "", cid: EVIL }] }, "/attachments/0/cid"],
        [{ attachments: [{ content: "a-b=" }] }, "/attachments/0/content"],
        [{ attachments: [{ content: "abc" }] }, "/attachments/0/content"],
        [{ attachments: [{}] }, "/attachments/0/content"],
        [{ attachments: [{ content: "", path: "/etc/passwd" }] }, "/attachments/0/path"],
        [{ text: { path: "/etc/passwd" } }, "/text"],
        [{ text: "a\0b" }, "/text"],
        [{ html: { href: "http://127.0.0.1/" } }, "/html"],
        [{ to: "bob@example.net" }, "/to"],
        [{ to: [] }, "/to"],
        [{ to: ["bob"] }, "/to/0"],
        [{ to: [7] }, "/to/0"],
        [{ from: null }, "/from"],
        [{ text: undefined }, ""],
        [{ envelope: {} }, "/envelope"],
        [{ __proto__: null, constructor: {} }, "/constructor"],
      ];
      const named: unknown[] = [];
      for (const [change] of cases) {
        const response = await http.post("/messages", { ...LETTER, ...change });
        const { errors } = await problem(response, 422);
        named.push([change, [...new Set(errors.map((error) => error.pointer))].join()]);
      }
      assert.deepEqual(named, cases);
    });

    it("refuses what is not JSON, or too much of it", async () => {
      for (const body of ["", "{", "[".repeat(100_000), '"\\'] as const) {
        await problem(await http.post("/messages", body), 400);
      }
      const octets = new Uint8Array([0x22, 0xff, 0x22]);
      const headers = { "content-type": "application/json" };
      const notUtf8 = await http.fetch("POST", "/messages", { headers, body: octets });
      assert.match((await problem(notUtf8, 400)).detail, /UTF-8/);
      const attachments = [{ content: btoa("x".repeat(300_000)) }];
      const { detail } = await problem(
        await http.post("/messages", { ...LETTER, attachments }),
        413,
      );
      assert.match(detail, /262144 octets/);
      await problem(await http.post("/messages?from=x@example.com", LETTER), 400);
    });

    it("takes two types of content and no other", async () => {
      for (const type of ["text/plain", "multipart/form-data; boundary=x", ""]) {
        const response = await http.fetch("POST", "/messages", {
          headers: { "content-type": type },
          body: new TextEncoder().encode(JSON.stringify(LETTER)),
        });
        assert.equal(response.headers.get("accept-post"), "application/json, message/rfc822");
        const { errors } = await problem(response, 415);
        assert.equal(errors[0]?.header, "Content-Type");
      }
    });
  });

  describe("Idempotency-Key", () => {
    const keyed = (key: string) => ({ "idempotency-key": key });

    it("answers a request that is repeated as the first time, also after a restart", async () => {
      const query = `${ENVELOPE}&to=eve@example.org`;
      const first = await answered(await http.raw(query, MESSAGE, keyed("one")), 202);
      const letter = await answered(await http.post("/messages", LETTER, keyed("two")), 202);
      const head = http.opened.store.head();
      await http.close();
      await http.open();
      const again = await http.raw(query, MESSAGE, keyed("one"));
      assert.equal(again.headers.get("idempotency-replayed"), "true");
      assert.deepEqual(await answered(again, 202), first);
      assert.deepEqual(
        await answered(await http.post("/messages", LETTER, keyed("two")), 202),
        letter,
      );
      assert.equal(http.opened.store.head(), head, "something was enqueued");
    });

    it("refuses a key for another request", async () => {
      await answered(await http.raw(ENVELOPE, MESSAGE, keyed("three")), 202);
      for (
        const other of [
          () => http.raw(ENVELOPE, `${MESSAGE}more\r\n`, keyed("three")),
          () => http.raw(`${ENVELOPE}&to=eve@example.org`, MESSAGE, keyed("three")),
          () => http.post("/messages", LETTER, keyed("three")),
        ]
      ) {
        const { errors } = await problem(await other(), 409);
        assert.equal(errors[0]?.header, "Idempotency-Key");
      }
    });

    it("tells accounts apart, and keys that cannot be", async () => {
      const alice = http.token(["submit"], "alice");
      http.accounts = {
        get: (name) => ({ name }) as never,
        gate: {
          checkSender() {},
          checkHeader: () => undefined,
          takeAllowance: () => Promise.resolve(() => {}),
        },
      };
      const ours = await answered(await http.raw(ENVELOPE, MESSAGE, keyed("four")), 202);
      const theirs = await answered(await http.raw(ENVELOPE, MESSAGE, keyed("four"), alice), 202);
      assert.notEqual(ours.submission, theirs.submission);
      const { errors } = await problem(await http.raw(ENVELOPE, MESSAGE, keyed("a b")), 400);
      assert.equal(errors[0]?.header, "Idempotency-Key");
    });

    it("lets a failed request be repeated, and one of two at a time through", async () => {
      http.diskFull = true;
      await problem(await http.raw(ENVELOPE, MESSAGE, keyed("five")), 503);
      http.diskFull = false;
      const both = await Promise.all(
        [1, 2].map(() => http.raw(ENVELOPE, MESSAGE, keyed("five"))),
      );
      const statuses = both.map(({ status }) => status).sort();
      await Promise.all(both.map((response) => response.body?.cancel()));
      const { messages } = await answered(await http.raw(ENVELOPE, MESSAGE, keyed("five")), 202);
      assert(["202,202", "202,409"].includes(statuses.join()), statuses.join());
      const found = http.opened.store.head();
      assert.equal((await http.opened.store.readStream(messages[0].id))[0]?.position, found);
    });

    it("forgets a key after a day", async () => {
      const first = await answered(await http.raw(ENVELOPE, MESSAGE, keyed("six")), 202);
      http.later += 86_400_000;
      const other = await answered(await http.post("/messages", LETTER, keyed("six")), 202);
      assert.notEqual(other.submission, first.submission);
      assert.deepEqual(
        await answered(await http.post("/messages", LETTER, keyed("six")), 202),
        other,
      );
    });
  });

  it("answers 503 when the disk takes nothing, and takes mail again when it does", async () => {
    http.diskFull = true;
    const response = await http.raw(ENVELOPE, MESSAGE);
    assert.equal(response.headers.get("retry-after"), "10");
    await problem(response, 503);
    http.diskFull = false;
    await http.message();
  });

  it("answers 503 when others hold the memory", async () => {
    const small = await HttpHarness.create({ held: 100 });
    try {
      await problem(await small.post("/messages", { ...LETTER, text: "x".repeat(200) }), 503);
      await answered(await small.post("/messages", LETTER), 202);
    } finally {
      await small.remove();
    }
  });
});

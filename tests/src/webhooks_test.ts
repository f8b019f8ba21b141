import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { createServer, type Server, type Socket } from "node:net";
import { systemClock } from "../../src/system.ts";
import { Secret } from "../../src/config/secret.ts";
import { endpointOf, signature, WebhookPoster } from "../../src/webhooks.ts";

const SECRET = "0123456789abcdef0123456789abcdef";
const MESSAGE = { id: "01KG:5", account: null, body: '{"id":"01KG:5","type":"delivered"}' };

describe("the sender of webhooks", () => {
  let server: Server;
  let answer: (socket: Socket, request: string) => void;
  const sockets = new Set<Socket>();
  let requests: string[];
  let port: number;
  beforeEach(async () => {
    requests = [];
    server = createServer((socket) => {
      sockets.add(socket);
      let text = "";
      socket.on("error", () => {});
      socket.on("close", () => sockets.delete(socket));
      socket.on("data", (octets) => {
        text += octets.toString("latin1");
        if (!text.includes("\r\n\r\n") || !text.endsWith("}")) return;
        requests.push(text);
        answer(socket, text);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    port = (server.address() as { port: number }).port;
  });
  afterEach(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  });

  const send = (within = 2_000, signal = new AbortController().signal, at = port) => {
    const config = {
      name: "hook",
      url: `http://127.0.0.1:${at}/in?x=1`,
      secret: new Secret(SECRET),
      events: ["delivered"] as const,
      concurrency: 4,
      parkAfter: 1_000,
    };
    const poster = new WebhookPoster(systemClock, [config], within);
    return poster.send(endpointOf(config), MESSAGE, signal);
  };
  const says = (text: string) => (socket: Socket) => void socket.end(text);

  it("posts JSON that the secret vouches for, with the time", async () => {
    answer = says("HTTP/1.1 204 No Content\r\n\r\n");
    const before = Math.floor(Date.now() / 1_000);
    assert.equal(await send(), 204);
    const [head, body] = requests[0]!.split("\r\n\r\n") as [string, string];
    assert.match(head, /^POST \/in\?x=1 HTTP\/1\.1\r\n/);
    assert.match(head, /\r\ncontent-type: application\/json\r\n/i);
    assert.match(head, /\r\npostledger-id: 01KG:5\r\n/i);
    assert.equal(body, MESSAGE.body);
    const [, t, v1] = /\r\npostledger-signature: t=(\d+),v1=([0-9a-f]{64})/i.exec(head)!;
    assert.ok(Number(t) >= before && Number(t) <= before + 5);
    assert.equal(createHmac("sha256", SECRET).update(`${t}.${body}`).digest("hex"), v1);
  });

  it("signs in a form that stays as it is", () => {
    assert.equal(
      signature(["key"], 1_700_000_000, "{}"),
      `t=1700000000,v1=${createHmac("sha256", "key").update("1700000000.{}").digest("hex")}`,
    );
  });

  it("signs so that receivers who do what the README says believe it, and nobody else", async () => {
    const readme = await Deno.readTextFile(new URL("../../README.md", import.meta.url));
    const lines = readme.split("\n");
    const from = lines.findIndex((line) => line.includes("import { createHmac, timingSafeEqual }"));
    const to = lines.indexOf("    }", from);
    assert.ok(from > 0 && to > from, "the README has the check");
    const script = `import { Buffer } from "node:buffer";\n${lines.slice(from, to + 1).join("\n")}`;
    const { isGenuine } = await import(`data:text/javascript,${encodeURIComponent(script)}`) as {
      isGenuine(secret: string, body: string | Uint8Array, header: string): boolean;
    };
    answer = says("HTTP/1.1 204 No Content\r\n\r\n");
    await send();
    const [head, body] = requests[0]!.split("\r\n\r\n") as [string, string];
    const header = /\r\npostledger-signature: (.*)\r\n/i.exec(head)![1]!;
    assert.equal(isGenuine(SECRET, body, header), true);
    assert.equal(isGenuine(SECRET, new TextEncoder().encode(body), header), true);
    assert.equal(isGenuine(SECRET.toUpperCase(), body, header), false);
    assert.equal(isGenuine(SECRET, `${body} `, header), false);
    const now = Math.floor(Date.now() / 1_000);
    const both = signature(["the new one, not here yet", SECRET], now, body);
    assert.equal(isGenuine(SECRET, body, both), true, "the old secret vouches too");
    assert.equal(
      isGenuine(SECRET, body, signature([SECRET], now - 301, body)),
      false,
      "a recording",
    );
    for (
      const junk of ["", "t=,v1=", `t=${now}`, `t=${now},v1=zz`, `t=${now},v1=${"z".repeat(64)}`]
    ) {
      assert.equal(isGenuine(SECRET, body, junk), false, junk);
    }
  });

  it("does not follow a redirect", async () => {
    answer = says(`HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:${port}/other\r\n\r\n`);
    assert.equal(await send(), 307);
    assert.equal(requests.length, 1);
  });

  it("leaves an endpoint that hangs", async () => {
    answer = () => {};
    await assert.rejects(send(60), /no answer within 0\.06 s/);
  });

  it("leaves an endpoint whose head never ends", async () => {
    answer = (socket) => {
      socket.write("HTTP/1.1 200 OK\r\n");
      const drip = setInterval(() => socket.write("X-More: 1\r\n"), 5);
      socket.on("close", () => clearInterval(drip));
    };
    await assert.rejects(send(80), /no answer/);
  });

  it("does not read the megabytes that an endpoint sends", async () => {
    let written = 0;
    answer = (socket) => {
      socket.write("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n");
      const more = () => {
        while (!socket.destroyed && written < 256 * 2 ** 20) {
          written += 2 ** 20;
          if (!socket.write(new Uint8Array(2 ** 20))) return void socket.once("drain", more);
        }
      };
      more();
    };
    assert.equal(await send(), 200);
    await new Promise((resolve) => setTimeout(resolve, 30));
    assert.ok(written < 64 * 2 ** 20, `${written} octets were taken`);
  });

  it("reads a short answer to its end, so that the connection serves again", async () => {
    let connections = 0;
    server.on("connection", () => connections++);
    answer = (socket) => {
      socket.write("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nwe ");
      setTimeout(() => socket.write("thank"), 5);
    };
    assert.deepEqual([await send(), await send(), await send()], [200, 200, 200]);
    assert.equal(connections, 1);
  });

  it("takes a status for an answer, whatever becomes of the rest", async () => {
    answer = (socket) => {
      socket.write("HTTP/1.1 202 Accepted\r\nContent-Length: 800\r\n\r\nhalf");
      setTimeout(() => socket.destroy(), 5);
    };
    assert.equal(await send(), 202);
    answer = says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk");
    assert.equal(await send(), 200);
    answer = (socket) => void socket.write("HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\nnever");
    const begun = performance.now();
    assert.equal(await send(60), 503);
    assert.ok(performance.now() - begun < 1_500, "a body that never ends is left");
  });

  it("does not take an answer that comes too late", async () => {
    answer = (socket) => void setTimeout(() => socket.end("HTTP/1.1 200 OK\r\n\r\n"), 120);
    await assert.rejects(send(40), /no answer within 0\.04 s/);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(sockets.size, 0, "the connection is closed");
  });

  it("takes nonsense for no answer, and says so without what the URL may keep secret", async () => {
    for (const text of ["220 mail.example.com ESMTP\r\n", ""]) {
      answer = says(text);
      await assert.rejects(send(), (error) => {
        assert.ok(error instanceof Error);
        assert.match(error.message, /^no answer: .*http:\/\/127\.0\.0\.1:\d+ /);
        assert.doesNotMatch(error.message, /x=1/);
        return true;
      });
    }
  });

  it("takes a closed port for no answer", async () => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
    const closed = (other.address() as { port: number }).port;
    await new Promise<void>((resolve) => other.close(() => resolve()));
    await assert.rejects(send(2_000, undefined, closed), /no answer/);
  });

  it("ends when it is told to", async () => {
    const stop = new AbortController();
    answer = () => stop.abort();
    await assert.rejects(send(5_000, stop.signal));
  });
});

/**
 * Direct delivery through microsocks, with and without a login: the receiving Postfix sees the
 * proxy's address and name, and what DNS says was asked from here.
 */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { DnsServer, reply } from "../src/dns/dns_server.ts";
import { dataOf, historyOf } from "./history.ts";
import { type Postfix, startPostfix } from "./postfix.ts";
import { Server } from "./serve.ts";
import { submitWithPython } from "./submit.ts";
import { freePort, until } from "./wait.ts";

/** The address that the proxy dials from. */
const OUTSIDE = "127.0.0.9";
const PASSWORD = "password-of-the-proxy";

/** A microsocks that listens on a port of 127.0.0.1 and dials from OUTSIDE. */
class Microsocks {
  private constructor(readonly port: number, private readonly child: Deno.ChildProcess) {}

  static async start(...args: string[]): Promise<Microsocks> {
    const port = freePort();
    const all = ["-i", "127.0.0.1", "-p", String(port), "-b", OUTSIDE, ...args];
    const child = new Deno.Command("microsocks", {
      args: all,
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    await until("microsocks", 5_000, async () => {
      (await Deno.connect({ hostname: "127.0.0.1", port })).close();
      return true;
    });
    return new Microsocks(port, child);
  }

  async stop(): Promise<void> {
    this.child.kill("SIGTERM");
    await this.child.status;
  }
}

describe("direct delivery through microsocks", () => {
  let dns: DnsServer;
  let postfix: Postfix;
  let open: Microsocks;
  let locked: Microsocks;
  let server: Server;

  before(async () => {
    postfix = await startPostfix({ users: ["open", "locked", "wrong"] });
    open = await Microsocks.start();
    locked = await Microsocks.start("-u", "user", "-P", PASSWORD);
    dns = await DnsServer.start((asked) => {
      const { name, type } = asked;
      if (name === "example.net" && type === "MX") {
        const data = { preference: 10, exchange: "mx.example.net" };
        return reply(asked, [{ type, name, ttl: 60, data }]);
      }
      if (name === "mx.example.net" && type === "A") {
        return reply(asked, [{ type, name, ttl: 60, data: "127.0.0.1" }]);
      }
      return reply(asked);
    });
    const transport = (name: string, port: number, login: string) => `
[[routes]]
from_domain = ["${name}.example"]
transport = "${name}"
[transports.${name}]
type = "socks"
address = "127.0.0.1:${port}"
remote_ips = ["${OUTSIDE}"]
remote_hostname = "${name}.proxy.example"
port = ${postfix.port}
allow_loopback = true
${login}
`;
    server = await Server.prepare({
      routing: `
[dns]
servers = ["${dns.name}"]
${transport("open", open.port, "")}
${transport("locked", locked.port, `username = "user"\npassword = "${PASSWORD}"`)}
${transport("wrong", locked.port, 'username = "user"\npassword = "wrong"')}
`,
      queue: 'retry = ["1h"]\nmax_attempts = 8\n',
    });
    await server.start();
  });
  after(async () => {
    await server?.remove();
    await dns?.stop();
    await open?.stop();
    await locked?.stop();
    await postfix?.stop();
  });

  const send = async (name: string, last: string) => {
    const to = `${name}@example.net`;
    await submitWithPython({
      port: server.smtpPort,
      from: `sender@${name}.example`,
      to,
      subject: name,
    });
    return await historyOf(server, to, last);
  };

  for (const name of ["open", "locked"]) {
    it(`goes through a proxy ${name === "open" ? "without" : "with"} login`, async () => {
      const events = await send(name, "Delivered");
      const tried = dataOf(events, "HostTried");
      assert.equal(tried["proxy"], `127.0.0.1:${name === "open" ? open.port : locked.port}`);
      assert.equal(tried["host"], "mx.example.net");
      assert.equal(tried["address"], "127.0.0.1");
      const { by, hosts } = dataOf(events, "DestinationsResolved");
      assert.deepEqual([by, hosts], ["mx", [{ host: "mx.example.net", preference: 10 }]]);
      const [text] = await postfix.mailbox(name);
      assert.match(
        text!,
        new RegExp(`from ${name}\\.proxy\\.example \\(unknown \\[127\\.0\\.0\\.9\\]`),
      );
      assert.ok(!JSON.stringify(events).includes(PASSWORD), "a secret is in the log");
    });
  }

  it("asks DNS itself", () => {
    const asked = dns.asked.map(({ name, type }) => `${type} ${name}`);
    assert.ok(asked.includes("MX example.net"), asked.join());
    assert.ok(asked.includes("A mx.example.net"), asked.join());
    assert.ok(!asked.includes("AAAA mx.example.net"), "remote_ips has no IPv6 address");
  });

  it("fails for now when the proxy refuses the login", async () => {
    const failed = dataOf(await send("wrong", "Failed"), "Failed");
    assert.equal(failed["permanent"], false);
    assert.match(
      String(failed["reason"]),
      /^transport "wrong": .*proxy 127\.0\.0\.1:\d+ (refuses our user name and password|closed)/,
    );
  });

  it("warned at start of the password in the clear", () => {
    assert.match(server.output, /transports\.locked\.password: the password stands in the file/);
    assert.ok(!server.output.includes(PASSWORD));
  });
});

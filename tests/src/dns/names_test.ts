import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { asciiName, hostName } from "../../../src/dns/names.ts";
import {
  formatServer,
  parseResolvConf,
  parseServer,
  systemServers,
} from "../../../src/dns/servers.ts";

describe("names", () => {
  const good = [
    ["Example.COM.", "example.com"],
    [".", "."],
    ["_25._tcp.mx.example", "_25._tcp.mx.example"],
    ["0/25.2.0.192.in-addr.arpa", "0/25.2.0.192.in-addr.arpa"],
    ["Bücher.example", "xn--bcher-kva.example"],
    ["例え。テスト", "xn--r8jz45g.xn--zckzah"],
    [`${"a".repeat(63)}.example`, `${"a".repeat(63)}.example`],
    ["a.".repeat(126) + "a", "a.".repeat(126) + "a"],
  ] as const;
  for (const [text, name] of good) {
    it(`${text.slice(0, 30)} is ${name.slice(0, 30)}`, () => assert.equal(asciiName(text), name));
  }

  const bad = ["", "..", "a..b", ".a", "a b", "*.a", `${"a".repeat(64)}.b`, "a.".repeat(127) + "a"];
  for (const text of [...bad, "é".repeat(5_000), "xn--é", "a\u0000", "a\\.b", "a@b", "a%2eb"]) {
    it(`${JSON.stringify(text.slice(0, 30))} is none`, () =>
      assert.equal(asciiName(text), undefined));
  }

  it("of hosts are stricter", () => {
    for (const text of ["-a.b", "a-.b", "1.2.3.4", "a.0x7f", "a/b", "."]) {
      assert.equal(hostName(text), undefined, text);
    }
    assert.equal(hostName("MX_1.a-b.example."), "mx_1.a-b.example");
  });
});

describe("servers", () => {
  it("are addresses with or without a port", () => {
    for (const text of ["192.0.2.1:5353", "[2001:db8::1]:53"]) {
      assert.equal(formatServer(parseServer(text)), text);
    }
    assert.equal(formatServer(parseServer("2001:db8::1")), "[2001:db8::1]:53");
    assert.equal(formatServer(parseServer("[2001:db8::1]")), "[2001:db8::1]:53");
    assert.equal(formatServer(parseServer("192.0.2.1")), "192.0.2.1:53");
  });

  it("come from resolv.conf", () => {
    const text = "# comment\nsearch example\nnameserver 192.0.2.1 # one\n;nameserver 192.0.2.9\n" +
      "nameserver\t2001:db8::1\r\nnameserver bad\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
    assert.deepEqual(parseResolvConf(text), ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"]);
    assert.deepEqual(parseResolvConf(""), ["127.0.0.1:53"]);
  });

  it("are this machine where there is no resolv.conf", async () => {
    const folder = await Deno.makeTempDir();
    try {
      const file = `${folder}/resolv.conf`;
      assert.deepEqual(systemServers(file), ["127.0.0.1:53"]);
      await Deno.writeTextFile(file, "nameserver 192.0.2.7\n");
      assert.deepEqual(systemServers(file), ["192.0.2.7:53"]);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
});

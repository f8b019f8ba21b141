import { after, afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { type Hook, startHook, whatIsWrong } from "./hook.ts";

const SECRET = "sixteen or more octets";
const NOW = 1_767_225_600_000;

/** As the README has it; its time is in seconds. */
function signature(secret: string, seconds: number, body: string): string {
  return `t=${seconds},v1=${
    createHmac("sha256", secret).update(`${seconds}.${body}`).digest("hex")
  }`;
}

describe("the webhook endpoint of a crash test", () => {
  let hook: Hook;
  /** Without connections that are kept: `fetch` asks again when one of them breaks. */
  const client = Deno.createHttpClient({ poolMaxIdlePerHost: 0 });
  after(() => client.close());
  beforeEach(() => {
    hook = startHook(new Map([["a", SECRET]]), () => 0.5);
  });
  afterEach(() => hook.close());

  const post = (body: string, headers: Record<string, string> = {}, path = "a") =>
    fetch(`http://127.0.0.1:${hook.port}/${path}`, {
      method: "POST",
      client,
      redirect: "manual",
      headers: {
        "content-type": "application/json",
        "postledger-id": "m:3",
        "postledger-signature": signature(SECRET, Math.floor(Date.now() / 1_000), body),
        ...headers,
      },
      body,
    }).then(async (response) => {
      await response.body?.cancel();
      return response.status;
    });

  it("takes what is signed, and keeps it", async () => {
    assert.equal(await post('{"a":"ü"}'), 204);
    assert.deepEqual(hook.posts, [
      { endpoint: "a", id: "m:3", body: '{"a":"ü"}', life: 0, taken: true },
    ]);
    assert.deepEqual(hook.violations, []);
  });

  it("says what is wrong with a post", async () => {
    await post("{}", { "postledger-signature": signature("another secret", 0, "{}") });
    await post("{}", {}, "b");
    assert.match(hook.violations.join("\n"), /a, m:3: its signature is not that of its body/);
    assert.match(hook.violations.join("\n"), /b, m:3: there is no endpoint of this name/);
  });

  it("checks a signature as a receiver would", () => {
    const signed = { seconds: NOW / 1_000, secret: SECRET, of: "{}" };
    const check = ({ seconds, secret, of } = signed, more: object = {}) =>
      whatIsWrong(
        {
          id: "m:3",
          verb: "POST",
          type: "application/json",
          body: "{}",
          signature: signature(secret, seconds, of),
          ...more,
        },
        SECRET,
        NOW,
      );
    assert.equal(check(), undefined);
    assert.match(check({ ...signed, of: "[]" }) ?? "", /not that of its body/);
    assert.match(check({ ...signed, seconds: NOW / 1_000 - 60 }) ?? "", /is 60 s old/);
    assert.match(check(signed, { signature: "" }) ?? "", /its signature is ""/);
    assert.match(check(signed, { id: "m" }) ?? "", /it has no id/);
    assert.match(check(signed, { verb: "GET" }) ?? "", /GET of/);
  });

  it("refuses, cuts and hangs; what it did not take is not taken", async () => {
    hook.setFaults({ refuse: 1 });
    assert.equal(await post("{}"), 307);
    hook.setFaults({ cut: 1 });
    await assert.rejects(post("{}"));
    hook.setFaults({ hang: 1 });
    const hanging = assert.rejects(post("{}"));
    while (hook.posts.filter(({ body }) => body === "{}").length < 3) {
      await new Promise((done) => setTimeout(done, 1));
    }
    await hook.settle();
    await hanging;
    assert.ok(hook.posts.every(({ taken }) => !taken));
  });

  it("knows what another process posted, also what was still on its way", async () => {
    const conn = await Deno.connect({ hostname: "127.0.0.1", port: hook.port });
    const head = "POST /a HTTP/1.1\r\ncontent-type: application/json\r\npostledger-id: m:3\r\n";
    await conn.write(new TextEncoder().encode(`${head}content-length: 2\r\n\r\n{}`));
    conn.close();
    await hook.settle();
    await post("[]");
    assert.deepEqual(hook.posts.map(({ body, life }) => [body, life]), [["{}", 0], ["[]", 1]]);
  });
});

import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import type { ServerResponse } from "node:http";
import { DnsError } from "../../../src/ports.ts";
import { systemClock } from "../../../src/system.ts";
import { HttpsPolicyFetcher } from "../../../src/tls/mta_sts_fetch.ts";
import { FakeResolver } from "../dns/fake_resolver.ts";
import { HttpsHost, pem, POLICY_CA } from "./policy_host.ts";

const TEXT = "version: STSv1\nmode: testing\nmx: mx.example.test\nmax_age: 86400\n";
const text = (response: ServerResponse, body: string | Uint8Array, type = "text/plain") =>
  response.writeHead(200, { "content-type": type }).end(body);

describe("a policy over HTTPS (RFC 8461, section 3.3)", () => {
  let host: HttpsHost;
  let port: number;
  beforeEach(() => {
    host = new HttpsHost();
  });
  afterEach(async () => await host.stop());

  const A = { "mta-sts.example.test A": { records: ["127.0.0.1"] } };
  const get = async (
    { table = A, ca = POLICY_CA, deadline = 2_000, allow = true, signal }: {
      table?: ConstructorParameters<typeof FakeResolver>[0];
      ca?: string;
      deadline?: number;
      allow?: boolean;
      signal?: AbortSignal;
    } = {},
  ): Promise<string> => {
    const fetcher = new HttpsPolicyFetcher({
      clock: systemClock,
      resolver: new FakeResolver(table),
      ca: () => [ca],
      allowLoopback: () => allow,
    }, { port, deadline });
    const octets = await fetcher.fetch("example.test", signal ?? new AbortController().signal);
    return new TextDecoder().decode(octets);
  };
  const fails = (type: string, reason: RegExp, options: Parameters<typeof get>[0] = {}) =>
    assert.rejects(get(options), (error: Error & { type?: string }) => {
      assert.equal(error.name, "PolicyError");
      assert.match(error.message, reason);
      assert.equal(error.type, type);
      return true;
    });

  it("is had from the well-known place, under the name of the policy host", async () => {
    port = await host.start((_, response) => text(response, TEXT, "Text/Plain; charset=utf-8"));
    assert.equal(await get(), TEXT);
    const [request] = host.requests;
    assert.equal(request?.method, "GET");
    assert.equal(request?.url, "/.well-known/mta-sts.txt");
    assert.equal(request?.host, `mta-sts.example.test:${port}`);
  });

  it("is not believed from a host whose certificate another CA signed", async () => {
    port = await host.start((_, response) => text(response, TEXT));
    await fails("sts-webpki-invalid", /certificate/, { ca: pem("ca.cert.pem") });
    assert.equal(host.requests.length, 0, "nothing was asked of it");
  });

  it("is not believed from a host whose certificate is for another name", async () => {
    port = await host.start((_, response) => text(response, TEXT), "localhost");
    await fails("sts-webpki-invalid", /for localhost, not mta-sts\.example\.test/, {
      ca: pem("ca.cert.pem"),
    });
  });

  it("is not believed for a common name instead of a dNSName", async () => {
    port = await host.start((_, response) => text(response, TEXT), "policy_cn");
    await fails("sts-webpki-invalid", /for no name, not/);
  });

  it("takes TLS 1.2 at least", async () => {
    port = await host.start((_, response) => text(response, TEXT), "policy_host", {
      maxVersion: "TLSv1.2",
    });
    assert.equal(await get(), TEXT);
  });

  it("is not taken from where a redirect leads", async () => {
    port = await host.start((_, response) =>
      response.writeHead(302, { location: "https://elsewhere.test/" }).end()
    );
    await fails("sts-policy-fetch-error", /answered 302 instead of 200; redirects are not/);
    assert.equal(host.requests.length, 1);
  });

  for (const status of [204, 206, 404, 500]) {
    it(`is not there with status ${status}`, async () => {
      port = await host.start((_, response) =>
        response.writeHead(status, { "content-type": "text/plain" }).end()
      );
      await fails("sts-policy-fetch-error", new RegExp(`answered ${status}`));
    });
  }

  for (const type of ["text/html", "application/octet-stream", ""]) {
    it(`is not ${type || "of no type"}`, async () => {
      port = await host.start((_, response) =>
        response.writeHead(200, type ? { "content-type": type } : {}).end(TEXT)
      );
      await fails("sts-policy-invalid", /not text\/plain/);
    });
  }

  it("has no more than 64 KiB, announced or not", async () => {
    const much = "x".repeat(70_000);
    let announced = true;
    port = await host.start((_, response) => {
      response.writeHead(200, {
        "content-type": "text/plain",
        ...(announced ? { "content-length": String(much.length) } : {}),
      });
      response.end(much);
    });
    await fails("sts-policy-invalid", /more than 65536 octets/);
    announced = false;
    await fails("sts-policy-invalid", /more than 65536 octets/);
  });

  it("is not taken when it is cut off", async () => {
    port = await host.start((_, response) => {
      response.writeHead(200, { "content-type": "text/plain", "content-length": "1000" });
      response.write(TEXT, () => response.socket?.destroy());
    });
    await fails("sts-policy-fetch-error", /.+/);
  });

  it("comes in time, headers and all, or not at all", async () => {
    port = await host.start((_, response) => {
      response.writeHead(200, { "content-type": "text/plain" });
      response.write(TEXT);
    });
    await fails("sts-policy-fetch-error", /no answer within 0.05 s/, { deadline: 50 });
  });

  it("is given up when nobody waits for it any more", async () => {
    port = await host.start(() => {});
    const stop = new AbortController();
    const waiting = fails("sts-policy-fetch-error", /canceled/, { signal: stop.signal });
    stop.abort();
    await waiting;
  });

  it("is asked for at addresses that may be dialled alone", async () => {
    port = await host.start((_, response) => text(response, TEXT));
    await fails("sts-policy-fetch-error", /loopback/, { allow: false });
    assert.equal(host.requests.length, 0);
  });

  it("is not there when the policy host has no address, or nobody listens", async () => {
    port = 1;
    await fails("sts-policy-fetch-error", /no IP address/, { table: {} });
    const silent = new DnsError("servfail", "SERVFAIL");
    await fails("sts-policy-fetch-error", /SERVFAIL/, {
      table: { "mta-sts.example.test A": silent, "mta-sts.example.test AAAA": silent },
    });
    await fails("sts-policy-fetch-error", /mta-sts\.example\.test \[127\.0\.0\.1\]:1/);
  });
});

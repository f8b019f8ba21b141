/** Certificates from files: read again when they change, and kept when the new ones are no good. */
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, it } from "@std/testing/bdd";
import { X509Certificate } from "node:crypto";
import { connect } from "node:tls";
import { BadCertificate, CertificateFiles } from "../../../src/smtp/server/certificate.ts";
import { LogLines, ManualClock } from "../../actors/manual_clock.ts";
import { Fixture, TLS } from "./raw_client.ts";

const fixture = (name: string) =>
  Deno.readTextFileSync(new URL(`../../../fixtures/tls/${name}`, import.meta.url));
const OTHER = { cert: fixture("other.cert.pem"), key: fixture("other.key.pem") };
const IN_TIME = Date.parse(new X509Certificate(OTHER.cert).validFrom) + 86_400_000;

describe("CertificateFiles", () => {
  let folder: string;
  let paths: { certFile: string; keyFile: string };
  let clock: ManualClock;
  let log: LogLines;
  before(async () => {
    folder = await Deno.makeTempDir();
    paths = { certFile: `${folder}/cert.pem`, keyFile: `${folder}/key.pem` };
  });
  after(() => Deno.remove(folder, { recursive: true }));
  beforeEach(() => {
    put(TLS.cert, TLS.key);
    clock = new ManualClock(IN_TIME);
    log = new LogLines();
  });
  const put = (cert: string, key: string) => {
    Deno.writeTextFileSync(paths.certFile, cert);
    Deno.writeTextFileSync(paths.keyFile, key);
  };
  const open = () => new CertificateFiles(paths, { clock, log });

  it("serves the certificate of the files, and the new one once they have changed", async () => {
    const source = open();
    const server = await new Fixture({ protocol: "submissions", tls: source }).start();
    const shown = () =>
      new Promise<string>((resolve, reject) => {
        const socket = connect({ port: server.port, host: "127.0.0.1", rejectUnauthorized: false });
        socket.once("error", reject).once("secureConnect", () => {
          resolve(new X509Certificate(socket.getPeerCertificate().raw).subject);
          socket.destroy();
        });
      });
    const first = new X509Certificate(TLS.cert).subject;
    assert.equal(await shown(), first);
    put(OTHER.cert, OTHER.key);
    assert.equal(await shown(), first, "looked at once a second at most");
    await clock.advance(1_000);
    assert.equal(await shown(), "CN=other.example");
    assert.match(log.lines.join(), /info certificate read again .*cert\.pem/);
    await server.stop();
  });

  it("keeps the one from before when the new files are no good, and says so once", async () => {
    const source = open();
    const before = source.context();
    const bad: readonly (readonly [cert: string, key: string, why: RegExp])[] = [
      [OTHER.cert, TLS.key, /the certificate is not that of the key/],
      ["", TLS.key, /cert\.pem: it holds no certificate/],
      ["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", TLS.key, /no certificate/],
      [TLS.cert, "secret?", /key\.pem: it holds no private key/],
      [TLS.cert, OTHER.cert, /key\.pem: it holds no private key/],
    ];
    for (const [cert, key, why] of bad) {
      put(cert, key);
      await clock.advance(1_000);
      const said = log.lines.length;
      assert.equal(source.context(), before);
      assert.match(log.lines.at(-1)!, /^error certificate not read again; the one from before/);
      assert.match(log.lines.at(-1)!, why);
      await clock.advance(1_000);
      source.context();
      assert.equal(log.lines.length, said + 1);
    }
    assert.ok(!log.lines.join().includes("secret?"));
    Deno.removeSync(paths.keyFile);
    await clock.advance(1_000);
    assert.equal(source.context(), before);
    assert.match(log.lines.at(-1)!, /key\.pem cannot be read/);
    put(OTHER.cert, OTHER.key);
    await clock.advance(1_000);
    assert.notEqual(source.context(), before, "and takes the next that is good");
  });

  it("does not take one that has expired, or is for later", async () => {
    const source = open();
    const before = source.context();
    clock.wall = Date.parse("2999-01-01T00:00:00Z");
    put(OTHER.cert, OTHER.key);
    await clock.advance(1_000);
    assert.equal(source.context(), before);
    assert.match(log.lines.join(), /error [^{]*stays in use .*the certificate expired on \d{4}-/);
    clock.wall = 0;
    put(OTHER.cert, `${OTHER.key}\n`);
    await clock.advance(1_000);
    assert.equal(source.context(), before);
    assert.match(log.lines.join(), /error [^{]*stays in use .*is valid only from \d{4}-.* on/);
  });

  it("begins with an expired one, and warns", () => {
    clock.wall = Date.parse("2999-01-01T00:00:00Z");
    assert.ok(open().context());
    assert.match(log.lines.join(), /^warn certificate not in its time .*expired on/);
  });

  it("warns once when the one in use expires", () => {
    const source = open();
    source.context();
    assert.deepEqual(log.lines, []);
    clock.wall = Date.parse("2999-01-01T00:00:00Z");
    source.context();
    source.context();
    assert.equal(log.lines.length, 1);
    assert.match(log.lines[0]!, /^warn certificate not in its time .*expired on/);
  });

  it("does not begin with files that are no good", () => {
    put(OTHER.cert, TLS.key);
    assert.throws(open, BadCertificate);
    Deno.removeSync(paths.certFile);
    assert.throws(open, /cert\.pem cannot be read/);
  });
});

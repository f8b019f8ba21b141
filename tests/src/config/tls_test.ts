import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { join } from "node:path";
import { loadConfig } from "../../../src/config/load.ts";
import { ConfigError } from "../../../src/config/problems.ts";

describe("the section [tls]", () => {
  const ca = Deno.readTextFileSync(new URL("../../../fixtures/tls/ca.cert.pem", import.meta.url));
  let folder: string;
  before(() => {
    folder = Deno.makeTempDirSync({ prefix: "config-" });
    Deno.writeTextFileSync(join(folder, "ca.pem"), `# ours\n${ca}\n${ca}`);
    Deno.writeTextFileSync(join(folder, "empty.pem"), "nothing");
    Deno.writeTextFileSync(
      join(folder, "bad.pem"),
      ca.replace(/\n[^-]{20}/, "\nAAAAAAAAAAAAAAAAAAAA"),
    );
  });
  after(() => Deno.removeSync(folder, { recursive: true }));
  const load = (text: string) => {
    const file = join(folder, "config.toml");
    Deno.writeTextFileSync(file, `hostname = "mail.example.com"\n[tls]\n${text}\n`);
    return loadConfig({ file, env: new Map() }).tls;
  };
  const refused = (text: string, problem: RegExp) =>
    assert.throws(
      () => load(text),
      (error) => error instanceof ConfigError && problem.test(error.message),
    );

  it("reads trust anchors, and whether reports are sent", () => {
    assert.deepEqual(load(""), { reports: true });
    assert.deepEqual(load("reports = false"), { reports: false });
    assert.deepEqual(load('ca_file = "ca.pem"'), { reports: true, ca: [ca.trim(), ca.trim()] });
  });

  it("refuses files that are not there, or hold no certificates", () => {
    refused('ca_file = "none.pem"', /tls\.ca_file: .*none\.pem/);
    refused('ca_file = "empty.pem"', /tls\.ca_file: has no certificates in PEM/);
    refused('ca_file = "bad.pem"', /tls\.ca_file: has a certificate in PEM that cannot be read/);
    refused("reports = 1", /tls\.reports/);
  });
});

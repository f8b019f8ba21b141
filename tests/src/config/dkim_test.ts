/** The DKIM keys of a config: taken, or refused with what is wrong with them. */
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { loadConfig } from "../../../src/config/load.ts";
import { ConfigError } from "../../../src/config/problems.ts";
import type { DkimKeyConfig } from "../../../src/config/types.ts";
import { dkimKeyPem, makeDkimKey } from "../../../src/dkim/keys.ts";

describe("dkim in a config", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await Deno.makeTempDir();
  });
  afterEach(() => Deno.remove(folder, { recursive: true }));

  function load(dkim: string) {
    Deno.writeTextFileSync(`${folder}/c.toml`, `[domains."Example.com"]\ndkim = ${dkim}\n`);
    return loadConfig({ file: `${folder}/c.toml`, env: new Map() });
  }
  function linesOf(dkim: string): readonly string[] {
    try {
      load(dkim);
    } catch (error) {
      if (error instanceof ConfigError) return error.lines;
      throw error;
    }
    throw new Error("the config was taken");
  }
  const write = (name: string, text: string) =>
    Deno.writeTextFileSync(`${folder}/${name}`, text, { mode: 0o600 });
  const pem = (key: KeyObject) => String(key.export({ type: "pkcs8", format: "pem" }));

  it("is taken, with paths beside the config", () => {
    write("a.pem", dkimKeyPem(makeDkimKey("ed25519")));
    const { dkim } = load('[{ selector = "2026A", key_file = "a.pem" }]');
    const [[domain, [one, ...more]]] = [...dkim] as [[string, DkimKeyConfig[]]];
    assert.equal(domain, "example.com");
    assert.equal(one?.selector, "2026a");
    assert.equal(one.keyFile, `${folder}/a.pem`);
    assert.equal(one.key.algorithm, "ed25519");
    assert.deepEqual(more, []);
  });

  it("has each selector once", () => {
    write("a.pem", dkimKeyPem(makeDkimKey("ed25519")));
    const [line, ...more] = linesOf(
      '[{ selector = "a", key_file = "a.pem" }, { selector = "A", key_file = "a.pem" }]',
    );
    assert.match(line!, /dkim\[1\]\.selector: "a" is the selector of another key too/i);
    assert.deepEqual(more, []);
  });

  it("keeps its keys from others", () => {
    write("open.pem", dkimKeyPem(makeDkimKey("ed25519")));
    Deno.chmodSync(`${folder}/open.pem`, 0o644);
    const [line, ...more] = linesOf('[{ selector = "a", key_file = "open.pem" }]');
    assert.match(line!, /open\.pem is open to others \(mode 0644\); chmod 640 or 600 it/);
    assert.deepEqual(more, []);
    Deno.chmodSync(`${folder}/open.pem`, 0o640);
    assert.equal(load('[{ selector = "a", key_file = "open.pem" }]').dkim.size, 1);
  });

  it("warns of RSA keys that are short, and takes them", () => {
    write("short.pem", rsa(1024));
    const { dkim, warnings } = load('[{ selector = "a", key_file = "short.pem" }]');
    assert.equal(dkim.size, 1);
    assert.match(warnings!.join(), /dkim\[0\]\.key_file: .*short\.pem has 1024 bits/);
  });

  const rsa = (modulusLength: number) =>
    pem(generateKeyPairSync("rsa", { modulusLength }).privateKey);
  const ec = () => pem(generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey);
  for (
    const [what, text, words] of [
      ["missing", undefined, /key_file: .*bad\.pem does not exist/],
      ["too short", () => rsa(512), /RSA key of 512 bits; DKIM takes 1024 to 4096/],
      ["no key", () => "secret words", /holds no private key in PEM/],
      ["of another kind", ec, /holds a key of type ec; DKIM takes RSA and Ed25519/],
    ] as const
  ) {
    it(`refuses a key file that is ${what}`, () => {
      if (text) write("bad.pem", text());
      const lines = linesOf('[{ selector = "a", key_file = "bad.pem" }]');
      assert.equal(lines.length, 1);
      assert.match(lines[0]!, words);
      assert.doesNotMatch(lines[0]!, /secret|BEGIN/);
    });
  }
});

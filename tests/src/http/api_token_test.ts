/** The token file: made once, kept, and refused when others may have read it. */
import { afterEach, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { join } from "node:path";
import { BadTokenFile, openToken, TOKEN_FILE, tokenGuard } from "../../../src/http/api_token.ts";

describe("API token", () => {
  let folder: string;
  let file: string;
  beforeEach(async () => {
    folder = await Deno.makeTempDir();
    file = join(folder, TOKEN_FILE);
  });
  afterEach(() => Deno.remove(folder, { recursive: true }));

  it("is made on the first start, for the owner alone, and kept", async () => {
    const token = openToken(folder);
    assert.match(token, /^[\w-]{43}$/);
    assert.equal((await Deno.stat(file)).mode! & 0o777, 0o600);
    assert.equal(await Deno.readTextFile(file), `${token}\n`);
    assert.equal(openToken(folder), token);
  });

  it("is another one in another folder", async () => {
    const other = await Deno.makeTempDir();
    try {
      assert.notEqual(openToken(folder), openToken(other));
    } finally {
      await Deno.remove(other, { recursive: true });
    }
  });

  it("is refused when others may read it, and says what to do", async () => {
    openToken(folder);
    for (const mode of [0o640, 0o604, 0o620, 0o666]) {
      await Deno.chmod(file, mode);
      assert.throws(() => openToken(folder), (error: Error) => {
        assert(error instanceof BadTokenFile);
        return error.message.includes(`mode 0${mode.toString(8)}`) && error.message.includes(file);
      });
    }
  });

  it("is refused when it is short, empty or not a file", async () => {
    for (
      const text of ["", "\n", "short", "spaces in a token of more than thirty-two characters"]
    ) {
      await Deno.writeTextFile(file, text, { mode: 0o600 });
      assert.throws(() => openToken(folder), BadTokenFile);
      await Deno.remove(file);
    }
    await Deno.mkdir(file);
    assert.throws(() => openToken(folder), BadTokenFile);
  });

  it("opens for itself only", () => {
    const guard = tokenGuard("right");
    assert(guard("Bearer right"));
    assert(guard("BEARER  right "));
    for (
      const header of [null, "", "right", "Bearer", "Bearer ", "Bearer wrong", "Bearer right x"]
    ) {
      assert(!guard(header), String(header));
    }
  });
});

/** What is sent of a message: its signatures before its body, and as many octets as SIZE says. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { describe, it } from "@std/testing/bdd";
import { contentSize, openContent } from "../../../src/delivery/content.ts";
import { MemoryBodies } from "../smtp/fakes.ts";

describe("content that is sent", () => {
  const SIGNATURES = ["DKIM-Signature: v=1; b=a\r\n", "DKIM-Signature: v=1; b=b\r\n"];

  async function sent(signatures?: string[]) {
    const bodies = new MemoryBodies();
    const writer = bodies.create();
    await writer.write(Buffer.from("From: a@example.com\r\n\r\nHi\r\n"));
    const { sha256: body, size } = await writer.finish();
    const message = { body, size, ...(signatures ? { signatures } : {}) };
    const reader = await openContent(bodies, message);
    const text = Buffer.concat(await Array.fromAsync(reader.chunks())).toString();
    assert.equal(reader.size, Buffer.byteLength(text));
    assert.equal(contentSize(message), reader.size);
    return text;
  }

  it("has the signatures before the stored message", async () => {
    assert.equal(
      await sent(SIGNATURES),
      `${SIGNATURES.join("")}From: a@example.com\r\n\r\nHi\r\n`,
    );
  });

  it("is the stored message where there are none", async () => {
    assert.equal(await sent(), "From: a@example.com\r\n\r\nHi\r\n");
  });
});

import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import type { EventData } from "../../../events/catalogue.ts";
import { reportTwin } from "../../../src/delivery/report_twin.ts";
import { compose } from "../dsn/given.ts";

const EVERYTHING = new Map([["SMTPUTF8", ""], ["8BITMIME", ""]]);

async function stored(changes: Partial<EventData<"Enqueued">> = {}) {
  const { body, bodies, has8bit, smtputf8 } = await compose({
    message: { smtputf8: true, rcptTo: "d\u00f6rte@example.net" },
  });
  const message: EventData<"Enqueued"> = {
    account: null,
    mailFrom: "",
    rcptTo: "a@example.com",
    size: body.size,
    body: body.sha256,
    messageId: null,
    has8bit,
    smtputf8,
    signatures: ["DKIM-Signature: x\r\n"],
    requireTLS: false,
    dsn: { notify: ["NEVER"] },
    submission: "01S",
    source: { kind: "dsn", of: "01J" },
    due: "2026-03-04T01:00:00.000Z",
    ...changes,
  };
  return { bodies, message };
}

describe("the twin of a report", () => {
  it("goes to a host without SMTPUTF8, unsigned, with a size and an envelope of its own", async () => {
    const { bodies, message } = await stored();
    const twin = await reportTwin(bodies, message, new Map([["8BITMIME", ""]]));
    assert.ok(twin);
    const chunks: Uint8Array[] = [];
    for await (const chunk of twin.body.chunks()) chunks.push(chunk);
    const content = Buffer.concat(chunks);
    assert.equal(twin.body.size, content.length);
    const { size, has8bit, smtputf8, signatures, rcptTo } = twin.message;
    assert.deepEqual(
      { size, has8bit, smtputf8, signatures, rcptTo },
      {
        size: content.length,
        has8bit: false,
        smtputf8: false,
        signatures: undefined,
        rcptTo: "a@example.com",
      },
    );
    assert.ok(content.includes("Final-Recipient: utf-8; d\\x{F6}rte@example.net\r\n"));
  });

  it("is not needed where the host has what the report needs", async () => {
    const { bodies, message } = await stored();
    assert.equal(await reportTwin(bodies, message, EVERYTHING), undefined);
  });

  it("is made of reports of ours alone, to addresses that can do with it", async () => {
    const others: Partial<EventData<"Enqueued">>[] = [
      { source: { kind: "smtp" } },
      { rcptTo: "j\u00f8rgen@example.com" },
      { size: 9 * 1024 * 1024 },
    ];
    for (const changes of others) {
      const { bodies, message } = await stored(changes);
      assert.equal(await reportTwin(bodies, message, new Map()), undefined);
    }
  });
});

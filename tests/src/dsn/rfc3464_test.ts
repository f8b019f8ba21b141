/**
 * The examples of RFC 3464, appendix E, in structure: the same facts give the same fields, in the
 * same groups. What is words or a matter of taste (the text, reasons, dates) differs.
 */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { type Changes, compose, statusOf } from "./given.ts";

async function groups(changes: Changes): Promise<{ types: string[]; fields: string[][] }> {
  const { parts } = await compose(changes);
  return {
    types: parts.map(({ type }) => type),
    fields: statusOf(parts).map((group) =>
      group.filter(([name]) => !/-Date$/.test(name)).map(([name, value]) => `${name}: ${value}`)
    ),
  };
}

const original =
  "From: owner-ietf@cs.example\r\nTo: drums@cs.example\r\nSubject: The 4th\r\n\r\nx\r\n";

describe("DSN: the examples of RFC 3464", () => {
  it("E.1, a simple one", async () => {
    const { types, fields } = await groups({
      message: { rcptTo: "louisl@larry.slip.umd.edu" },
      failure: {
        enhanced: undefined,
        code: 426,
        result: "timeout",
        reason: "426 connection timed out",
        reply: { code: 426, text: "connection timed out" },
        remoteMTA: undefined,
      },
      original,
    });
    assert.deepEqual(types, ["text/plain", "message/delivery-status", "text/rfc822-headers"]);
    assert.deepEqual(fields, [
      ["Reporting-MTA: dns; mail.example.org"],
      [
        "Final-Recipient: rfc822; louisl@larry.slip.umd.edu",
        "Action: failed",
        "Status: 4.0.0",
        "Diagnostic-Code: smtp; 426 connection timed out",
      ],
    ]);
  });

  it("E.2, several recipients", async () => {
    const reply = { code: 550, enhanced: "5.1.1", text: "no such user here" };
    const others = [
      {
        message: {
          rcptTo: "wsnell@sdcc13.ucsd.edu",
          dsn: { orcpt: "rfc822;wsnell@sdcc13.ucsd.edu" },
        },
        failure: { enhanced: "5.1.1", reply, remoteMTA: "sdcc13.ucsd.edu" },
      },
      {
        message: {
          rcptTo: "postmaster@nsc.com",
          dsn: { orcpt: "rfc822;johnh@hpnjld.njd.hp.com" },
        },
        report: { kind: "delayed" as const },
        failure: { enhanced: "4.0.0", code: 426, reply: { code: 426, text: "timed out" } },
      },
    ];
    const { fields } = await groups({
      message: {
        rcptTo: "arathib@vnet.ibm.com",
        dsn: { orcpt: "rfc822;arathib@vnet.ibm.com", envid: "jkP3-12" },
      },
      failure: {
        enhanced: "5.0.0",
        reply: { code: 550, text: "'arathib@vnet.IBM.COM' is not a registered gateway user" },
        remoteMTA: "vnet.ibm.com",
      },
      others,
      original,
    });
    assert.deepEqual(fields, [
      ["Reporting-MTA: dns; mail.example.org", "Original-Envelope-Id: jkP3-12"],
      [
        "Original-Recipient: rfc822; arathib@vnet.ibm.com",
        "Final-Recipient: rfc822; arathib@vnet.ibm.com",
        "Action: failed",
        "Status: 5.0.0",
        "Remote-MTA: dns; vnet.ibm.com",
        "Diagnostic-Code: smtp; 550 'arathib@vnet.IBM.COM' is not a registered gateway user",
      ],
      [
        "Original-Recipient: rfc822; wsnell@sdcc13.ucsd.edu",
        "Final-Recipient: rfc822; wsnell@sdcc13.ucsd.edu",
        "Action: failed",
        "Status: 5.1.1",
        "Remote-MTA: dns; sdcc13.ucsd.edu",
        "Diagnostic-Code: smtp; 550 5.1.1 no such user here",
      ],
      [
        "Original-Recipient: rfc822; johnh@hpnjld.njd.hp.com",
        "Final-Recipient: rfc822; postmaster@nsc.com",
        "Action: delayed",
        "Status: 4.0.0",
        "Remote-MTA: dns; mx.example.net",
        "Diagnostic-Code: smtp; 426 timed out",
      ],
    ]);
  });

  it("E.4, a delay", async () => {
    const until = Date.parse("2026-03-11T00:00:00.000Z");
    const { parts } = await compose({
      message: { rcptTo: "slowpoke@sunflower.example" },
      report: { kind: "delayed", until },
      failure: {
        permanent: false,
        enhanced: "4.4.1",
        code: undefined,
        reply: undefined,
        reason: "no answer",
      },
      original,
    });
    assert.deepEqual(statusOf(parts)[1]?.map(([name]) => name), [
      "Final-Recipient",
      "Action",
      "Status",
      "Remote-MTA",
      "Diagnostic-Code",
      "Last-Attempt-Date",
      "Will-Retry-Until",
    ]);
  });
});

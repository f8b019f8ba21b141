/**
 * The examples of RFC 3464, appendix E, in structure: the same facts give the same fields, in the
 * same groups. Comments in Status are left out, as every value of ours is for programs; what they
 * say stands in Diagnostic-Code, which no report is without. Dates are our own.
 */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { type Changes, compose, statusOf } from "./given.ts";

const original =
  "From: owner-ietf@cs.example\r\nTo: drums@cs.example\r\nSubject: The 4th\r\n\r\nx\r\n";
const ARRIVAL = "Arrival-Date: Wed, 04 Mar 2026 01:00:00 +0000";
const LAST_ATTEMPT = "Last-Attempt-Date: Wed, 04 Mar 2026 05:00:00 +0000";

async function reported(changes: Changes): Promise<{ types: string[]; groups: string[][] }> {
  const { parts } = await compose({ ...changes, original });
  return {
    types: parts.map(({ type }) => type),
    groups: statusOf(parts).map((group) => group.map(([name, value]) => `${name}: ${value}`)),
  };
}

/** A recipient whose ORCPT is its address. */
const to = (rcptTo: string) => ({ rcptTo, dsn: { orcpt: `rfc822;${rcptTo}` } });

describe("DSN: the examples of RFC 3464", () => {
  it("E.1, a simple one", async () => {
    const { types, groups } = await reported({
      message: to("louisl@larry.slip.umd.edu"),
      failure: {
        enhanced: undefined,
        code: 426,
        result: "timeout",
        reason: "426 connection timed out",
        reply: { code: 426, text: "connection timed out" },
        remoteMTA: undefined,
      },
    });
    assert.deepEqual(types, ["text/plain", "message/delivery-status", "text/rfc822-headers"]);
    assert.deepEqual(groups, [
      ["Reporting-MTA: dns; mail.example.org", ARRIVAL],
      [
        "Original-Recipient: rfc822; louisl@larry.slip.umd.edu",
        "Final-Recipient: rfc822; louisl@larry.slip.umd.edu",
        "Action: failed",
        "Status: 4.0.0",
        "Diagnostic-Code: smtp; 426 connection timed out",
        LAST_ATTEMPT,
      ],
    ]);
  });

  it("E.2, several recipients of which one is only delayed", async () => {
    const { groups } = await reported({
      message: to("arathib@vnet.ibm.com"),
      failure: {
        enhanced: undefined,
        reply: { code: 550, text: "'arathib@vnet.IBM.COM' is not a registered gateway user" },
        remoteMTA: "vnet.ibm.com",
      },
      others: [
        {
          message: to("johnh@hpnjld.njd.hp.com"),
          report: { kind: "delayed" },
          failure: {
            permanent: false,
            result: "temperror",
            enhanced: undefined,
            code: undefined,
            reply: undefined,
            reason: "hpnjld.njd.hp.com: host name lookup failure",
            remoteMTA: undefined,
          },
        },
        {
          message: to("wsnell@sdcc13.ucsd.edu"),
          failure: {
            enhanced: undefined,
            reply: { code: 550, text: "user unknown" },
            remoteMTA: "sdcc13.ucsd.edu",
          },
        },
      ],
    });
    assert.deepEqual(groups, [
      ["Reporting-MTA: dns; mail.example.org", ARRIVAL],
      [
        "Original-Recipient: rfc822; arathib@vnet.ibm.com",
        "Final-Recipient: rfc822; arathib@vnet.ibm.com",
        "Action: failed",
        "Status: 5.0.0",
        "Remote-MTA: dns; vnet.ibm.com",
        "Diagnostic-Code: smtp; 550 'arathib@vnet.IBM.COM' is not a registered gateway user",
        LAST_ATTEMPT,
      ],
      [
        "Original-Recipient: rfc822; johnh@hpnjld.njd.hp.com",
        "Final-Recipient: rfc822; johnh@hpnjld.njd.hp.com",
        "Action: delayed",
        "Status: 4.0.0",
        "Diagnostic-Code: x-postledger; hpnjld.njd.hp.com: host name lookup failure",
        LAST_ATTEMPT,
      ],
      [
        "Original-Recipient: rfc822; wsnell@sdcc13.ucsd.edu",
        "Final-Recipient: rfc822; wsnell@sdcc13.ucsd.edu",
        "Action: failed",
        "Status: 5.0.0",
        "Remote-MTA: dns; sdcc13.ucsd.edu",
        "Diagnostic-Code: smtp; 550 user unknown",
        LAST_ATTEMPT,
      ],
    ]);
  });

  it("E.3, an address of a foreign system, which to us can only be the original one", async () => {
    const { groups } = await reported({
      message: { rcptTo: "nair_s@sys30.example", dsn: { orcpt: "unknown;nair_s" } },
      failure: { enhanced: undefined, code: undefined, reply: undefined, reason: "unknown" },
    });
    assert.deepEqual(groups[1], [
      "Original-Recipient: unknown; nair_s",
      "Final-Recipient: rfc822; nair_s@sys30.example",
      "Action: failed",
      "Status: 5.0.0",
      "Remote-MTA: dns; mx.example.net",
      "Diagnostic-Code: x-postledger; unknown",
      LAST_ATTEMPT,
    ]);
  });

  it("E.4, a delay", async () => {
    const { types, groups } = await reported({
      message: { rcptTo: "thomas@de-montfort.ac.uk" },
      report: { kind: "delayed", until: Date.parse("2026-03-11T00:00:00.000Z") },
      failure: {
        permanent: false,
        result: "temperror",
        enhanced: undefined,
        code: undefined,
        reply: undefined,
        reason: "unknown temporary failure",
        remoteMTA: undefined,
      },
    });
    assert.deepEqual(types, ["text/plain", "message/delivery-status", "text/rfc822-headers"]);
    assert.deepEqual(groups, [
      ["Reporting-MTA: dns; mail.example.org", ARRIVAL],
      [
        "Final-Recipient: rfc822; thomas@de-montfort.ac.uk",
        "Action: delayed",
        "Status: 4.0.0",
        "Diagnostic-Code: x-postledger; unknown temporary failure",
        LAST_ATTEMPT,
        "Will-Retry-Until: Wed, 11 Mar 2026 00:00:00 +0000",
      ],
    ]);
  });
});

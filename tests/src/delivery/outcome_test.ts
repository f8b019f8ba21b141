import assert from "node:assert/strict";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import {
  conclude,
  describe as inWords,
  goesOn,
  type HostVerdict,
} from "../../../src/delivery/outcome.ts";
import { ReplyParser } from "../../../src/smtp/reply.ts";
import type { Phase, Verdict } from "../../../src/smtp/verdict.ts";
import { refused } from "../../../src/smtp/verdict.ts";

const reply = (text: string) => {
  const parser = new ReplyParser();
  parser.push(new TextEncoder().encode(`${text}\r\n`));
  return parser.next()!;
};
const from = (verdict: Verdict, host = "mx.example"): HostVerdict => ({
  host,
  address: "192.0.2.1",
  verdict,
  tls: { mode: "none", verifiedBy: "none" },
  dsnOffered: false,
});
const said = (phase: Phase, text: string) => refused(phase, reply(text));
const lost = (phase: Phase): Verdict => ({
  result: "error",
  phase,
  error: "lost",
  enhanced: "4.4.2",
});

describe("what is tried next", () => {
  const cases: [Verdict, string][] = [
    [{ result: "ok", phase: "end", reply: reply("250 ok") }, "no"],
    [said("rcpt", "550 no"), "no"],
    [said("end", "554 no"), "no"],
    [said("mail", "451 later"), "host"],
    [said("end", "451 later"), "host"],
    [said("greeting", "554 no"), "address"],
    [said("ehlo", "421 later"), "address"],
    [lost("connect"), "address"],
    [lost("tls"), "address"],
    [lost("mail"), "address"],
    [lost("rcpt"), "host"],
    [lost("body"), "host"],
    [lost("end"), "no"],
    [{ result: "permerror", phase: "mail", enhanced: "5.6.3", error: "no 8BITMIME" }, "host"],
    [{ result: "permerror", phase: "body", enhanced: "5.6.0", error: "bare LF" }, "no"],
    [said("end", "354 more"), "no"],
    [said("data", "250 ok"), "host"],
    [said("mail", "421 later"), "host"],
    [{ result: "canceled", phase: "rcpt" }, "no"],
  ];
  for (const [verdict, next] of cases) {
    const what = verdict.reply?.lines[0] ?? verdict.error ?? verdict.result;
    it(`after "${what}" at ${verdict.phase}: ${next}`, () => assert.equal(goesOn(verdict), next));
  }
});

describe("the outcome", () => {
  it("is permanent by exhaustion only when every host is out for good", () => {
    const lacking: Verdict = { result: "permerror", phase: "mail", enhanced: "5.6.7", error: "x" };
    const all = conclude([from(lacking), from(lacking, "mx2.example")]);
    assert.ok(all.kind === "failed" && all.permanent && all.remoteMTA === "mx.example");
    const some = conclude([from(lacking), from(lost("connect"), "mx2.example")]);
    assert.ok(some.kind === "failed" && !some.permanent && some.remoteMTA === "mx2.example");
  });

  it("is never permanent for a failure that is not", () => {
    const phases = fc.constantFrom<Phase[]>(
      "connect",
      "greeting",
      "ehlo",
      "tls",
      "mail",
      "rcpt",
      "end",
    );
    const verdict = fc.oneof(
      phases.map(lost),
      phases.map((phase) => said(phase, "450 4.7.1 later")),
      fc.constantFrom(said("greeting", "554 no"), said("ehlo", "550 no"), said("tls", "554 no")),
    );
    fc.assert(fc.property(fc.array(verdict, { minLength: 1 }), (verdicts) => {
      const outcome = conclude(verdicts.map((one) => from(one)));
      assert.ok(outcome.kind === "failed" && !outcome.permanent && outcome.result !== "permerror");
    }));
  });

  it("names host, address and what was said, on one line", () => {
    assert.equal(
      inWords(from(said("end", "554 5.7.1 spam"))),
      "mx.example (192.0.2.1) said 554 5.7.1 spam to the message",
    );
    assert.equal(
      inWords({ ...from(lost("connect"), "192.0.2.1") }),
      "192.0.2.1: lost",
    );
  });

  it("keeps the text of a reply within bounds", () => {
    const long = `550-${"x".repeat(3000)}\r\n550 ${"y".repeat(3000)}`;
    const outcome = conclude([from(said("rcpt", long))]);
    assert.ok(outcome.kind === "failed" && outcome.reason.length < 2200);
  });
});

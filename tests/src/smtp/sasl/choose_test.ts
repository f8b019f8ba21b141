/** Which mechanism is taken, and what is said when none is. */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import { type ChoiceFacts, chooseMechanism } from "../../../../src/smtp/sasl/choose.ts";
import { MECHANISMS } from "../../../../src/smtp/sasl/mechanism.ts";

const VERIFIED = { active: true, verified: true, channelBinding: true };
const UNBOUND = { active: true, verified: true, channelBinding: false };
const UNVERIFIED = { active: true, verified: false, channelBinding: false };
const PLAIN_TEXT = { active: false, verified: false, channelBinding: false };

const choose = (facts: Partial<ChoiceFacts>) =>
  chooseMechanism({ offered: MECHANISMS, tls: VERIFIED, credentials: "password", ...facts });
const taken = (facts: Partial<ChoiceFacts>) => {
  const choice = choose(facts);
  return choice.kind === "chosen" ? choice.mechanism : choice.reason;
};

describe("The mechanism of a login", () => {
  const table: readonly (readonly [string, Partial<ChoiceFacts>, string])[] = [
    ["the most secure of all", {}, "SCRAM-SHA-256-PLUS"],
    ["no binding data", { tls: UNBOUND }, "SCRAM-SHA-256"],
    ["SCRAM needs no verified TLS", { tls: UNVERIFIED }, "SCRAM-SHA-256"],
    ["SCRAM needs no TLS", { tls: PLAIN_TEXT }, "SCRAM-SHA-256"],
    ["binding before hash", { offered: ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-256"] }, "SCRAM-SHA-1-PLUS"],
    [
      "the server's order is no matter",
      { offered: ["PLAIN", "CRAM-MD5", "SCRAM-SHA-1"] },
      "SCRAM-SHA-1",
    ],
    ["names in any case", { offered: ["plain"] }, "PLAIN"],
    ["a token", { credentials: "token" }, "OAUTHBEARER"],
    ["a token, the older way", { credentials: "token", offered: ["XOAUTH2", "PLAIN"] }, "XOAUTH2"],
    ["the configured order", { configured: ["LOGIN", "PLAIN"] }, "LOGIN"],
    ["the next of the list", { configured: ["SCRAM-SHA-1", "PLAIN"], offered: ["PLAIN"] }, "PLAIN"],
    ["insisted", { offered: ["PLAIN"], tls: PLAIN_TEXT, insecurePlain: true }, "PLAIN"],
    [
      "PLAIN in plain text",
      { offered: ["PLAIN"], tls: PLAIN_TEXT },
      "none of the server's login mechanisms can be used: PLAIN needs verified TLS, and the " +
      "connection is in plain text",
    ],
    [
      "unverified TLS",
      { offered: ["LOGIN", "GSSAPI"], tls: UNVERIFIED },
      "none of the server's login mechanisms can be used: LOGIN needs verified TLS, and the " +
      "server's certificate is not verified; GSSAPI is not known here",
    ],
    [
      "every way of not being taken",
      {
        offered: ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1", "XOAUTH2"],
        tls: UNBOUND,
        configured: ["SCRAM-SHA-256-PLUS", "XOAUTH2"],
      },
      "none of the server's login mechanisms can be used: SCRAM-SHA-256-PLUS needs channel " +
      "binding data, and this TLS session has none; SCRAM-SHA-1 is not in the configured list; " +
      "XOAUTH2 needs a token, and a password is configured",
    ],
    [
      "a token and no way to give it",
      { offered: ["SCRAM-SHA-256"], credentials: "token" },
      "none of the server's login mechanisms can be used: SCRAM-SHA-256 needs a password, and a " +
      "token is configured",
    ],
    ["nothing offered", { offered: [] }, "the server offers no login mechanism"],
    [
      "nothing offered yet",
      { offered: [], tls: PLAIN_TEXT },
      "the server offers no login mechanism before TLS",
    ],
  ];
  for (const [what, facts, expected] of table) {
    it(`${what}: ${expected}`, () => assert.equal(taken(facts), expected));
  }

  it("tells the server that it did not offer binding only when it did not and we would", () => {
    const flag = (facts: Partial<ChoiceFacts>) => {
      const choice = choose(facts);
      return choice.kind === "chosen" && choice.bindingNotOffered;
    };
    const offered = ["SCRAM-SHA-256", "PLAIN"];
    assert.equal(flag({ offered }), true);
    assert.equal(flag({ offered, tls: UNBOUND }), false);
    assert.equal(flag({ offered, configured: ["SCRAM-SHA-256"] }), false);
    assert.equal(flag({ offered: ["SCRAM-SHA-256", "SCRAM-SHA-512-PLUS"] }), false);
    assert.equal(flag({}), false);
  });

  it("a secret is never shown to whoever listens, whatever is offered and configured", () => {
    const some = fc.subarray([...MECHANISMS]);
    fc.assert(fc.property(
      some,
      fc.option(some, { nil: undefined }),
      fc.constantFrom(UNVERIFIED, PLAIN_TEXT),
      fc.constantFrom("password" as const, "token" as const),
      (offered, configured, tls, credentials) => {
        const choice = choose({ offered, configured, tls, credentials });
        if (choice.kind === "none") return choice.reason.length > 0;
        assert(offered.includes(choice.mechanism));
        return /^(?:SCRAM-SHA-(?:1|256)|CRAM-MD5)$/.test(choice.mechanism);
      },
    ));
  });

  it("a server's flood of names does not become one of ours", () => {
    const offered = Array.from({ length: 1000 }, (_, n) => `X-${n}`);
    assert.match(taken({ offered }), /; 984 more$/);
    const forged = taken({ offered: ["X\r\n250 ok", "Y".repeat(5000)] });
    assert.match(forged, /: an invalid name is not known here; an invalid name is not known here$/);
  });
});

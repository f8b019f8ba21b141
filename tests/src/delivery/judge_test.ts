/** Judging a host: which sessions may be shared, and that the log has what was found. */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { checkFact } from "../../../events/catalogue.ts";
import { judgeHost } from "../../../src/delivery/judge.ts";
import type { RecordData } from "../../../src/ports.ts";
import { policyKey } from "../../../src/tls/policy.ts";
import { FakeResolver } from "../dns/fake_resolver.ts";
import { certificate } from "../tls/certificates.ts";

type Tlsa = RecordData["TLSA"];

async function judge(records: readonly Tlsa[], found = {}, expanded = "mx.example.org") {
  const resolver = new FakeResolver({
    [`_25._tcp.${expanded} TLSA`]: { records, authentic: true },
  });
  const judged = await judgeHost(
    { clock: { now: () => 0 }, resolver },
    "mx.example.org",
    {
      addresses: ["192.0.2.1"],
      expanded,
      authentic: true,
      hostAuthentic: true,
      dualStack: false,
      ...found,
    },
    {
      destination: {
        kind: "hosts",
        nextHop: "example.com",
        expanded: "example.net",
        dnssec: { nextHop: "secure", expanded: "secure" },
        by: "mx",
        hosts: [{ host: "mx.example.org", preference: 10 }],
      },
      mtaSts: undefined,
      needs: { requireTLS: false, tlsOptional: false },
      port: 25,
    },
    new AbortController().signal,
  );
  checkFact({ type: "TLSAGathered", data: judged.gathered });
  if ("failure" in judged) assert.fail(judged.failure.error);
  return judged;
}

const full = (name: string): Tlsa => ({
  usage: 2,
  selector: 0,
  matching: 0,
  data: certificate(name),
});

describe("a host judged", () => {
  it("shares sessions only under the very same records", async () => {
    const keys = await Promise.all(
      [[full("root")], [full("stranger")], [full("root"), full("stranger")]].map(async (records) =>
        policyKey((await judge(records)).policy)
      ),
    );
    assert.equal(new Set(keys).size, 3);
    const turned = policyKey((await judge([full("stranger"), full("root")])).policy);
    assert.equal(turned, keys[2]);
  });

  it("allows four names under DANE-TA (RFC 7672, section 3.2.2)", async () => {
    const { gathered } = await judge([full("root")], {}, "end.example.info");
    const names = ["end.example.info", "mx.example.org", "example.com", "example.net"];
    assert.deepEqual(gathered.names, names);
  });

  it("keeps unusable records in the log, with the reason", async () => {
    const { gathered } = await judge([full("root"), { ...full("root"), usage: 0 }, {
      usage: 3,
      selector: 1,
      matching: 1,
      data: new Uint8Array(3),
    }]);
    assert.deepEqual(gathered.records.map(({ unusable }) => unusable), [
      undefined,
      "usage 0 is PKIX, which SMTP does not use",
      "3 octets where matching type 1 has 32",
    ]);
    assert.equal(gathered.daneRequired, true);
  });

  it("says that address literals have no TLSA records, and asks for none", async () => {
    const resolver = new FakeResolver({});
    const nothing = { authentic: false, hostAuthentic: false, dualStack: false };
    const judged = await judgeHost(
      { clock: { now: () => 0 }, resolver },
      "192.0.2.1",
      { addresses: ["192.0.2.1"], expanded: "192.0.2.1", ...nothing },
      {
        destination: {
          kind: "hosts",
          nextHop: "[192.0.2.1]",
          expanded: "[192.0.2.1]",
          dnssec: { nextHop: "unchecked", expanded: "unchecked" },
          by: "literal",
          hosts: [{ host: "192.0.2.1", preference: 0 }],
        },
        mtaSts: undefined,
        needs: { requireTLS: false, tlsOptional: false },
        port: 25,
      },
      new AbortController().signal,
    );
    assert.deepEqual(resolver.asked, []);
    assert.equal(judged.gathered.tlsa, "not-asked");
    assert.deepEqual("policy" in judged && judged.policy, { mode: "opportunistic" });
  });
});

import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { StoreUnavailable } from "../../../events/store.ts";
import { DnsError } from "../../../src/ports.ts";
import { MtaStsPolicies } from "../../../src/tls/mta_sts.ts";
import { PassingPolicies } from "../../../src/tls/mta_sts_cache.ts";
import { PolicyError } from "../../../src/tls/mta_sts_policy.ts";
import { LogLines, ManualClock, settle } from "../../actors/manual_clock.ts";
import { FakeResolver } from "../dns/fake_resolver.ts";

const octets = (text: string): Uint8Array => new TextEncoder().encode(text);
const policy = (mode = "enforce", mx = "mx.example.org", maxAge = 604_800) =>
  octets(`version: STSv1\nmode: ${mode}\nmx: ${mx}\nmax_age: ${maxAge}\n`);
const NAME = "_mta-sts.example.org TXT";
const record = (id: string) => ({ records: [[octets(`v=STSv1; id=${id};`)]] });
const HOUR = 3_600_000;
const never = new AbortController().signal;

/** One domain, as it changes. */
class Domain {
  readonly table: Record<string, ConstructorParameters<typeof FakeResolver>[0][string]> = {};
  readonly clock = new ManualClock(Date.UTC(2026, 0, 1));
  readonly log = new LogLines();
  readonly cache = new PassingPolicies(() => this.clock.now());
  answer: Uint8Array | PolicyError | Promise<Uint8Array> = policy();
  fetches = 0;
  policies = this.start();

  /** Another process with the same cache. */
  start(): MtaStsPolicies {
    return this.policies = new MtaStsPolicies({
      clock: this.clock,
      log: this.log,
      resolver: new FakeResolver(this.table),
      cache: this.cache,
      fetcher: {
        fetch: (domain) => {
          assert.match(domain, /^(?:example\.org|d\d+\.test)$/);
          this.fetches++;
          const { answer } = this;
          return answer instanceof PolicyError ? Promise.reject(answer) : Promise.resolve(answer);
        },
      },
    });
  }

  find = (domain = "example.org", signal = never) => this.policies.find(domain, signal);
}

const given = (id = "1"): Domain => {
  const domain = new Domain();
  domain.table[NAME] = record(id);
  return domain;
};
const gone = new PolicyError("sts-policy-fetch-error", "https://mta-sts.example.org answered 404");

describe("finding a policy (RFC 8461, section 3.3)", () => {
  it("fetches it once, and then goes by the cache, over a restart too", async () => {
    const domain = given();
    const found = {
      status: "policy",
      domain: "example.org",
      mode: "enforce",
      id: "1",
      mx: ["mx.example.org"],
      maxAge: 604_800,
    };
    assert.deepEqual(await domain.find(), { ...found, from: "fetched" });
    assert.deepEqual(await domain.find(), { ...found, from: "cache" });
    domain.start();
    assert.deepEqual(await domain.find(), { ...found, from: "cache" });
    assert.equal(domain.fetches, 1);
    assert.equal(domain.policies.results.ok, 0, "counted where it was fetched");
  });

  it("finds none without a record, with several, and with one that is wrong", async () => {
    const domain = new Domain();
    for (
      const records of [[], [[octets("v=STSv1; id=1")], [octets("v=STSv1; id=2")]], [[
        octets("v=STSv1;"),
      ]]]
    ) {
      domain.table[NAME] = { records };
      assert.equal((await domain.find()).status, "none");
    }
    assert.equal(domain.fetches, 0);
  });

  it("finds none for a name that is too long to have a record", async () => {
    const domain = new Domain();
    const found = await domain.find(`${"abcdefg.".repeat(31)}org`);
    assert.equal(found.status, "none");
    assert.match((found as { why: string }).why, /too long/);
  });

  it("does not know when the record has no answer and nothing is cached", async () => {
    const domain = new Domain();
    domain.table[NAME] = new DnsError("servfail", "SERVFAIL from 127.0.0.1");
    const reason = "SERVFAIL from 127.0.0.1";
    assert.deepEqual(await domain.find(), { status: "temporary", domain: "example.org", reason });
  });

  it("goes on without when it cannot be had and nothing is cached", async () => {
    const domain = given();
    domain.answer = gone;
    const found = await domain.find();
    assert.deepEqual(found, {
      status: "error",
      domain: "example.org",
      why: gone.message,
      failure: "sts-policy-fetch-error",
    });
    assert.equal(domain.policies.results["sts-policy-fetch-error"], 1);
  });

  it("does not try a fetch that failed again for five minutes, but for another id", async () => {
    const domain = given();
    domain.answer = gone;
    await domain.find();
    domain.answer = policy();
    assert.equal((await domain.find()).status, "error");
    assert.equal(domain.fetches, 1);
    domain.table[NAME] = record("2");
    assert.equal((await domain.find()).status, "policy");
    domain.table[NAME] = record("1");
    await domain.clock.advance(5 * 60_000);
    assert.equal((await domain.find()).status, "policy");
    assert.equal(domain.fetches, 3);
  });

  it("says what is wrong with one that is not valid", async () => {
    const domain = given();
    domain.answer = octets("<html>");
    const found = await domain.find();
    assert.equal(found.status === "error" && found.failure, "sts-policy-invalid");
  });

  it("fetches once for all who ask at a time; one who leaves disturbs nobody", async () => {
    const domain = given();
    const late = Promise.withResolvers<Uint8Array>();
    domain.answer = late.promise;
    const leaving = new AbortController();
    const [left, stayed] = [domain.find(undefined, leaving.signal), domain.find()];
    leaving.abort();
    assert.equal((await left).status, "temporary");
    late.resolve(policy());
    assert.equal((await stayed).status, "policy");
    assert.equal(domain.fetches, 1);
  });

  it("goes on without none because the queue stops", async () => {
    const domain = given();
    const late = Promise.withResolvers<Uint8Array>();
    domain.answer = late.promise;
    const waiting = domain.find();
    await settle();
    domain.policies.stop();
    late.reject(gone);
    const reason = "fetching the policy was canceled";
    assert.deepEqual(await waiting, { status: "temporary", domain: "example.org", reason });
    assert.equal(domain.policies.results["sts-policy-fetch-error"], 0);
  });

  it("knows no more than so many fetches at a time, and waits for the others", async () => {
    const domain = given();
    const late = Promise.withResolvers<Uint8Array>();
    domain.answer = late.promise;
    const waiting = Array.from({ length: 33 }, (_, n) => {
      domain.table[`_mta-sts.d${n}.test TXT`] = record("1");
      return domain.find(`d${n}.test`);
    });
    await settle();
    late.resolve(policy());
    const found = (await Promise.all(waiting)).map(({ status }) => status);
    assert.equal(found.filter((status) => status === "policy").length, 32);
    assert.equal(found.filter((status) => status === "temporary").length, 1);
  });

  it("fails for the time being when the cache cannot be read", async () => {
    const domain = given();
    domain.cache.get = () => {
      throw new StoreUnavailable("disk gone");
    };
    assert.equal((await domain.find()).status, "temporary");
  });

  it("goes by a policy that the disk does not take, and says so", async () => {
    const domain = given();
    domain.cache.put = () => Promise.reject(new StoreUnavailable("disk full"));
    assert.equal((await domain.find()).status, "policy");
    assert.match(domain.log.lines.join(), /could not be kept.*disk full/);
  });
});

describe("a cached policy (RFC 8461, section 3.3)", () => {
  const cached = async (maxAge = 604_800) => {
    const domain = given();
    domain.answer = policy("enforce", "mx.example.org", maxAge);
    await domain.find();
    return domain;
  };
  const inForce = async (domain: Domain, why: RegExp) => {
    const found = await domain.find();
    assert.ok(found.status === "policy" && found.from === "cache", found.status);
    assert.deepEqual([found.mode, found.mx], ["enforce", ["mx.example.org"]]);
    assert.match(found.why ?? "", why);
    return found;
  };

  it("stays in force when the record is gone, wrong, or has no answer", async () => {
    const domain = await cached();
    domain.table[NAME] = {};
    await inForce(domain, /in force: there is no MTA-STS record/);
    domain.table[NAME] = { records: [[octets("v=STSv1; id=!")]] };
    await inForce(domain, /in force: the id of/);
    domain.table[NAME] = new DnsError("timeout", "no answer");
    await inForce(domain, /in force: the record has no answer: no answer/);
  });

  it("is not replaced by a fetch that fails, however it does", async () => {
    const domain = await cached();
    domain.answer = gone;
    domain.table[NAME] = record("2");
    assert.equal((await inForce(domain, /answered 404/)).failure, "sts-policy-fetch-error");
    domain.answer = octets("version: STSv1\nmode: none\n");
    domain.table[NAME] = record("3");
    assert.equal((await inForce(domain, /no max_age/)).failure, "sts-policy-invalid");
    assert.equal((await inForce(domain, /no max_age/)).id, "1");
  });

  it("is replaced when the id changes, by mode none too", async () => {
    const domain = await cached();
    domain.answer = policy("none");
    domain.table[NAME] = record("2");
    const found = await domain.find();
    assert.ok(found.status === "policy");
    assert.deepEqual([found.mode, found.id, found.from], ["none", "2", "fetched"]);
  });

  it("says so when the id changes without content", async () => {
    const domain = await cached();
    domain.table[NAME] = record("2");
    const found = await domain.find();
    assert.ok(found.status === "policy" && found.from === "fetched");
    assert.equal(found.why, "the id was 1, the policy is the same");
    assert.equal(domain.policies.results.unchanged, 1);
    assert.equal((await domain.find()).status === "policy" && domain.fetches, 2);
  });

  it("expires with its max_age", async () => {
    const domain = await cached(3600);
    domain.table[NAME] = {};
    domain.clock.wall += HOUR - 1;
    await inForce(domain, /./);
    domain.clock.wall += 1;
    assert.equal((await domain.find()).status, "none");
  });

  it("is fetched anew with the same id once it has expired", async () => {
    const domain = await cached(3600);
    domain.clock.wall += HOUR;
    const found = await domain.find();
    assert.ok(found.status === "policy" && found.from === "fetched");
    assert.equal(domain.fetches, 2);
  });
});

describe("refreshing (RFC 8461, sections 3.3 and 10.2)", () => {
  it("fetches what is in use again after a day, before it expires", async () => {
    const domain = given();
    await domain.find();
    assert.equal(await domain.policies.refresh(never), 0);
    await domain.clock.advance(24 * HOUR);
    assert.equal(await domain.policies.refresh(never), 1);
    assert.equal(domain.fetches, 2);
    assert.equal(await domain.policies.refresh(never), 0);
    await domain.clock.advance(6.9 * 24 * HOUR);
    domain.table[NAME] = {};
    assert.equal((await domain.find()).status, "policy", "it lives from the second fetch on");
  });

  it("does so after half of a short life", async () => {
    const domain = given();
    domain.answer = policy("enforce", "mx.example.org", 7200);
    await domain.find();
    await domain.clock.advance(HOUR);
    assert.equal(await domain.policies.refresh(never), 1);
  });

  it("leaves the policy in force when it fails, and is due again", async () => {
    const domain = given();
    await domain.find();
    await domain.clock.advance(24 * HOUR);
    domain.answer = gone;
    assert.equal(await domain.policies.refresh(never), 1);
    assert.equal((await domain.find()).status, "policy");
    await domain.clock.advance(HOUR);
    assert.equal(await domain.policies.refresh(never), 1);
  });

  it("leaves domains without mail, and without a record, to expire", async () => {
    const domain = given();
    domain.answer = policy("enforce", "mx.example.org", 31_557_600);
    await domain.find();
    await domain.clock.advance(24 * HOUR);
    domain.table[NAME] = {};
    assert.equal(await domain.policies.refresh(never), 1);
    assert.equal(domain.fetches, 1);
    await domain.clock.advance(7 * 24 * HOUR);
    domain.table[NAME] = record("1");
    assert.equal(await domain.policies.refresh(never), 0);
  });
});

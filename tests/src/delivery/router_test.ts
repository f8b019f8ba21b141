/** The router: what is asked, when, and what comes of answers that cannot be had. */
import { beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import type { BodyReader, RoutingFacts, TransportChoice } from "../../../actors/ports.ts";
import type { RouteConfig } from "../../../src/config/types.ts";
import { MAX_HEADER, readFields } from "../../../src/delivery/header_fields.ts";
import { ConfiguredRouter } from "../../../src/delivery/router.ts";
import { type Answer, DnsError, type RecordType, type Resolver } from "../../../src/ports.ts";
import { bodyOf, octets } from "../smtp/harness.ts";

const facts = (given: Partial<RoutingFacts> = {}): RoutingFacts => ({
  account: null,
  mailFrom: "a@example.com",
  rcptTo: "b@example.org",
  size: 1000,
  attempt: 1,
  body: "0".repeat(64),
  ...given,
});

const MX: RouteConfig = {
  path: "routes[0]",
  toMx: [{ domain: "big.example", below: true }],
  transport: "big",
};
const LATER: RouteConfig = { ...MX, minimumAttempts: 2 };
const LIST: RouteConfig = {
  path: "routes[1]",
  header: { name: "List-Id", value: "<news.example>" },
  transport: "list",
};
const smarthost = (name: string) => ({
  type: "smtp" as const,
  name,
  host: "relay.example",
  port: 25,
  tls: "none" as const,
  ipFamily: "any" as const,
});

describe("the router", () => {
  let questions: string[];
  let opened: number;
  let warnings: string[];
  let answer: (name: string) => readonly { preference: number; exchange: string }[];
  let message: string;
  beforeEach(() => {
    questions = [];
    opened = 0;
    warnings = [];
    answer = () => [{ preference: 10, exchange: "in.big.example" }];
    message = "Subject: x\r\nLIST-ID:\r\n <News.example>\r\n\r\nList-Id: <other>\r\n";
  });

  const resolver: Resolver = {
    query<T extends RecordType>(name: string, type: T): Promise<Answer<T>> {
      questions.push(`${type} ${name}`);
      try {
        const records = (type === "MX" ? answer(name) : []) as Answer<T>["records"];
        const status = records.length > 0 ? "records" : "nodata";
        return Promise.resolve({ status, records, cnames: [], ttl: 60, authentic: false });
      } catch (error) {
        return Promise.reject(error);
      }
    },
  };
  const router = (...global: RouteConfig[]) =>
    new ConfiguredRouter({
      routes: { accounts: new Map(), domains: new Map(), global },
      transports: new Map([["big", smarthost("big")], ["list", smarthost("list")]]),
    }, {
      resolver,
      random: { next: () => 0.5 },
      bodies: {
        open: (): Promise<BodyReader> => {
          opened++;
          return message === ""
            ? Promise.reject(new Error("the body is gone"))
            : Promise.resolve(bodyOf(octets(message)));
        },
      },
      log: {
        info: () => {},
        warn: (text, fields) => warnings.push(`${text}: ${fields?.reason}`),
        error: () => {},
      },
    });

  it("asks nothing, and awaits nothing, where no route that is reached needs it", () => {
    for (
      const [routes, given] of [
        [[], {}],
        [[{ path: "routes[0]", transport: "big" }, MX], {}],
        [[LATER, { path: "routes[1]", transport: "list" }], { attempt: 2 }],
        [[MX, LIST], { override: { transport: "big", who: "op" } }],
      ] as [RouteConfig[], Partial<RoutingFacts>][]
    ) {
      const choice = router(...routes).choose(facts(given));
      assert(!(choice instanceof Promise));
    }
    assert.deepEqual([questions, opened], [[], 0]);
  });

  it("asks for MX hosts when only they can decide", async () => {
    const asked = router(LATER).choose(facts({ attempt: 3 }));
    assert(asked instanceof Promise);
    const choice = await asked;
    assert.equal(choice.transport, "big");
    assert.deepEqual(choice.because, {
      kind: "route",
      scope: "global",
      index: 0,
      matched: { minimum_attempts: "2", to_mx: "in.big.example" },
    });
    assert.deepEqual(questions, ["MX example.org"]);
  });

  it("passes a route over, and says so, when DNS does not answer", async () => {
    answer = () => {
      throw new DnsError("servfail", "example.org: SERVFAIL");
    };
    const choice = await router(MX, LIST).choose(facts());
    assert.equal(choice.transport, "list");
    assert.match(choice.undecided![0]!, /^routes\[0\]\.to_mx: .*SERVFAIL/);
    assert.match(warnings[0]!, /a route could not be judged.*SERVFAIL/);
  });

  it("takes a domain without MX records for its own host, and a literal for none", async () => {
    answer = () => [];
    const own = { ...MX, toMx: [{ domain: "example.org", below: false }] };
    assert.equal((await router(own).choose(facts())).transport, "big");
    assert.equal(
      (await router(own).choose(facts({ rcptTo: "b@[192.0.2.1]" }))).transport,
      "direct",
    );
  });

  it("reads the header when only that can decide", async () => {
    assert.equal((await router(LIST).choose(facts())).transport, "list");
    message = "Subject: x\r\n\r\nList-Id: <news.example>\r\n";
    assert.equal((await router(LIST).choose(facts())).transport, "direct");
    message = "";
    const choice = await router(LIST).choose(facts());
    assert.deepEqual(choice.undecided, ["routes[1].header: the body is gone"]);
  });

  it("guesses by earlier answers where a message waits in line, and asks nothing for that", async () => {
    const one = router(MX);
    const line = (choice: TransportChoice) => one.destination(choice, facts().rcptTo);
    assert.equal(line(one.expect(facts())), "example.org");
    assert.deepEqual(questions, []);
    await one.choose(facts());
    assert.equal(line(one.expect(facts())), "transport:big");
    assert.equal(questions.length, 1);
  });

  it("has a destination for each domain, and one for each smarthost", () => {
    const one = router();
    const direct: TransportChoice = {
      transport: "direct",
      type: "direct",
      because: { kind: "default" },
    };
    const rows: [string, string][] = [
      ["b@Example.ORG", "example.org"],
      ["b@straße.example", "xn--strae-oqa.example"],
      ["b@[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"],
    ];
    for (const [rcptTo, expected] of rows) assert.equal(one.destination(direct, rcptTo), expected);
    assert.equal(one.destination({ ...direct, type: "socks" }, "b@a.example"), "a.example");
    const relay: TransportChoice = { ...direct, transport: "big", type: "submission" };
    assert.equal(one.destination(relay, "b@a.example"), "transport:big");
  });
});

describe("fields of a header", () => {
  const read = async (text: string, cuts: readonly number[], ...names: string[]) => {
    const whole = octets(text);
    const at = [0, ...[...cuts].sort((a, b) => a - b), whole.length];
    const chunks = at.slice(1).map((end, n) => whole.subarray(at[n], end));
    return await readFields(bodyOf(...chunks), new Set(names));
  };

  it("are found however the message is cut, and none beyond the header", async () => {
    const text = "A: 1\r\nb: 2\r\n\t3 \r\nNope\r\nA : 4\r\n\r\nA: 5\r\n\r\nb: 6\r\n";
    await fc.assert(fc.asyncProperty(
      fc.array(fc.integer({ min: 0, max: text.length }), { maxLength: 6 }),
      async (cuts) => {
        const found = await read(text, cuts, "a", "b");
        assert.deepEqual([...found].sort(), [["a", ["1", "4"]], ["b", ["2 3"]]]);
      },
    ));
  });

  it("are none in a message that has no header", async () => {
    assert.equal((await read("\r\nA: 1\r\n\r\n", [], "a")).size, 0);
    assert.equal((await read("", [], "a")).size, 0);
  });

  it("are looked for in a bounded part of the message", async () => {
    let given = 0;
    const chunk = octets("x: y\r\n".repeat(1_000));
    const reader: BodyReader = {
      size: 1e9,
      async *chunks() {
        for (;;) {
          given += chunk.length;
          yield chunk;
        }
      },
    };
    const found = await readFields(reader, new Set(["x"]));
    assert.equal(found.get("x")!.length, 100);
    assert(given <= MAX_HEADER + chunk.length);
  });
});

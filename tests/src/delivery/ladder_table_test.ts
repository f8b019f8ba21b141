/**
 * The table of direct delivery: every combination of DNSSEC verdict, MX or none, TLSA state,
 * MTA-STS mode and state of the server's TLS, with what is required of the host and what becomes of
 * the message. The rows are the specification, each with its RFC and section; the real delivery
 * code goes through all of them, over a dialer and a resolver in memory.
 */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import type { Finding, Outcome } from "../../../actors/ports.ts";
import { checkFact } from "../../../events/catalogue.ts";
import { deliverDirect } from "../../../src/delivery/direct.ts";
import {
  type Answer,
  type Connection,
  DnsError,
  type RecordData,
  type RecordType,
  type TlsSession,
} from "../../../src/ports.ts";
import { Party } from "../../../src/delivery/party.ts";
import { Sessions } from "../../../src/smtp/sessions.ts";
import { parseCertificate } from "../../../src/tls/certificate.ts";
import type { MtaStsFinding } from "../../../src/tls/requirements.ts";
import { octets, realClock } from "../smtp/harness.ts";
import { certificate } from "../tls/certificates.ts";
import { BODIES, jobOf } from "./job.ts";

const DNSSEC = ["secure", "host insecure", "insecure"] as const;
const ROUTES = ["mx", "implicit"] as const;
const TLSA = ["none", "usable", "unusable", "lookup fails"] as const;
const MTA_STS = ["none", "error", "mode none", "testing", "enforce", "enforce others"] as const;
/** `dane`: the certificate matches the TLSA record; `pkix`: a trusted CA's; `both`; `neither`. */
const SERVERS = ["no STARTTLS", "broken", "dane", "pkix", "both", "neither"] as const;

interface Case {
  readonly dnssec: typeof DNSSEC[number];
  readonly route: typeof ROUTES[number];
  readonly tlsa: typeof TLSA[number];
  readonly mtaSts: typeof MTA_STS[number];
  readonly server: typeof SERVERS[number];
}

type Kind = "dane" | "mta-sts" | "required" | "opportunistic" | "skip" | "fail";
type Pattern<T> = T | readonly T[] | "*";

interface RequirementRow {
  readonly dnssec: Pattern<Case["dnssec"]>;
  readonly tlsa: Pattern<Case["tlsa"]>;
  readonly mtaSts: Pattern<Case["mtaSts"]>;
  readonly kind: Kind;
  readonly rfc: string;
}

const UNENFORCED = ["none", "error", "mode none", "testing"] as const;
const NAMED = [...UNENFORCED, "enforce"] as const;
const NO_DANE = ["host insecure", "insecure"] as const;

/** What is required of the host. Every combination meets exactly one row. */
// deno-fmt-ignore
const REQUIREMENTS: readonly RequirementRow[] = [
  { dnssec: "*", tlsa: "*", mtaSts: "enforce others", kind: "skip", rfc: "RFC 8461, section 4.1" },
  { dnssec: "secure", tlsa: "usable", mtaSts: NAMED, kind: "dane", rfc: "RFC 7672, section 2.2; RFC 8461, section 2" },
  { dnssec: "secure", tlsa: "lookup fails", mtaSts: NAMED, kind: "fail", rfc: "RFC 7672, section 2.1.2" },
  { dnssec: "secure", tlsa: "unusable", mtaSts: "enforce", kind: "mta-sts", rfc: "RFC 7672, section 2.2; RFC 8461, section 4.2" },
  { dnssec: "secure", tlsa: "unusable", mtaSts: UNENFORCED, kind: "required", rfc: "RFC 7672, section 2.2" },
  { dnssec: "secure", tlsa: "none", mtaSts: "enforce", kind: "mta-sts", rfc: "RFC 8461, section 4.2" },
  { dnssec: "secure", tlsa: "none", mtaSts: UNENFORCED, kind: "opportunistic", rfc: "RFC 7672, section 2.2; RFC 7435, section 3" },
  { dnssec: NO_DANE, tlsa: "*", mtaSts: "enforce", kind: "mta-sts", rfc: "RFC 7672, section 2.2.1; RFC 8461, section 4.2" },
  { dnssec: NO_DANE, tlsa: "*", mtaSts: UNENFORCED, kind: "opportunistic", rfc: "RFC 7672, section 2.2.1; RFC 7435, section 3" },
];

type Fate = "verified" | "TLS" | "plain" | "plain after TLS" | "temporary" | "not dialled";

interface VerdictRow {
  readonly kind: Kind;
  readonly server: Pattern<Case["server"]>;
  readonly fate: Fate;
  readonly rfc: string;
}

/** What becomes of the message at a host of which that is required. */
// deno-fmt-ignore
const VERDICTS: readonly VerdictRow[] = [
  { kind: "skip", server: "*", fate: "not dialled", rfc: "RFC 8461, section 5.1" },
  { kind: "fail", server: "*", fate: "not dialled", rfc: "RFC 7672, section 2.1.2" },
  { kind: "dane", server: ["dane", "both"], fate: "verified", rfc: "RFC 7672, section 3.1" },
  { kind: "dane", server: ["no STARTTLS", "broken", "pkix", "neither"], fate: "temporary", rfc: "RFC 7672, section 2.2" },
  { kind: "mta-sts", server: ["pkix", "both"], fate: "verified", rfc: "RFC 8461, section 4.2" },
  { kind: "mta-sts", server: ["no STARTTLS", "broken", "dane", "neither"], fate: "temporary", rfc: "RFC 8461, section 5.1" },
  { kind: "required", server: ["dane", "pkix", "both", "neither"], fate: "TLS", rfc: "RFC 7672, section 2.2" },
  { kind: "required", server: ["no STARTTLS", "broken"], fate: "temporary", rfc: "RFC 7672, section 2.2" },
  { kind: "opportunistic", server: ["dane", "pkix", "both", "neither"], fate: "TLS", rfc: "RFC 7435, section 3" },
  { kind: "opportunistic", server: "no STARTTLS", fate: "plain", rfc: "RFC 7435, section 3; RFC 3207, section 4" },
  { kind: "opportunistic", server: "broken", fate: "plain after TLS", rfc: "RFC 7435, section 3" },
];

const fits = <T>(pattern: Pattern<T>, value: T): boolean =>
  pattern === "*" || pattern === value || (Array.isArray(pattern) && pattern.includes(value));

/** The only element. */
function only<T>(all: readonly T[], what: string): T {
  assert.equal(all.length, 1, `${all.length} rows for ${what}`);
  return all[0]!;
}

const COMBINATIONS: readonly Case[] = DNSSEC.flatMap((dnssec) =>
  ROUTES.flatMap((route) =>
    TLSA.flatMap((tlsa) =>
      MTA_STS.flatMap((mtaSts) =>
        SERVERS.map((server) => ({ dnssec, route, tlsa, mtaSts, server }))
      )
    )
  )
);

describe(`the table of direct delivery: ${COMBINATIONS.length} combinations`, () => {
  for (const row of REQUIREMENTS) {
    const { dnssec, tlsa, mtaSts, kind, rfc } = row;
    it(`DNSSEC ${dnssec}, TLSA ${tlsa}, MTA-STS ${mtaSts}: ${kind} (${rfc})`, async () => {
      const mine = COMBINATIONS.filter((one) =>
        fits(dnssec, one.dnssec) && fits(tlsa, one.tlsa) && fits(mtaSts, one.mtaSts)
      );
      assert.ok(mine.length > 0);
      for (const one of mine) {
        const what = JSON.stringify(one);
        const { fate } = only(
          VERDICTS.filter((row) => row.kind === kind && fits(row.server, one.server)),
          what,
        );
        await check(one, kind, fate, what);
      }
    });
  }

  it("has exactly one row for each combination, and uses every row", () => {
    const used = new Set<unknown>();
    for (const one of COMBINATIONS) {
      const requirement = only(
        REQUIREMENTS.filter(({ dnssec, tlsa, mtaSts }) =>
          fits(dnssec, one.dnssec) && fits(tlsa, one.tlsa) && fits(mtaSts, one.mtaSts)
        ),
        JSON.stringify(one),
      );
      used.add(requirement);
      const { kind } = requirement;
      used.add(only(VERDICTS.filter((r) => r.kind === kind && fits(r.server, one.server)), kind));
    }
    assert.equal(used.size, REQUIREMENTS.length + VERDICTS.length);
  });
});

async function check(one: Case, kind: Kind, fate: Fate, what: string): Promise<void> {
  const { outcome, findings, dialled } = await deliver(one);
  const gathered = findings.flatMap((f) => f.type === "TLSAGathered" ? [f.data] : []);
  const tried = findings.flatMap((f) => f.type === "HostTried" ? [f.data] : []);
  for (const finding of findings) checkFact(finding);
  const host = hostOf(one);
  const fact = only(gathered, what);
  assert.equal(fact.verdict, kind === "skip" || kind === "fail" ? kind : "try", what);
  assert.ok(fact.why.length > 0, what);
  assert.equal(
    fact.daneRequired,
    one.dnssec === "secure" && one.tlsa === "usable" && kind === "dane",
    what,
  );
  const mode = { dane: "verified", "mta-sts": "verified", skip: "none", fail: "none" } as const;
  assert.equal(fact.tlsMode, kind in mode ? mode[kind as keyof typeof mode] : kind, what);
  assert.equal(fact.verifiedBy, kind === "dane" || kind === "mta-sts" ? kind : "none", what);
  const names: Partial<Record<Kind, string[]>> = {
    dane: [...new Set([host, "example.org"])],
    "mta-sts": [host],
  };
  assert.deepEqual(fact.names, names[kind] ?? [], what);

  if (fate === "not dialled") assert.equal(dialled, 0, what);
  if (fate === "temporary" || fate === "not dialled") {
    assert.equal(outcome.kind, "failed", what);
    assert.equal(outcome.kind === "failed" && outcome.permanent, false, what);
    assert.ok(!tried.some(({ fallback }) => fallback), what);
    return;
  }
  if (outcome.kind !== "delivered") assert.fail(`${what}: ${JSON.stringify(outcome)}`);
  const { tls } = outcome;
  const seen: Fate = tls.verifiedBy !== "none"
    ? "verified"
    : tls.facts
    ? "TLS"
    : tried.length === 2 && tried[1]?.fallback
    ? "plain after TLS"
    : "plain";
  assert.equal(seen, fate, what);
  assert.equal(dialled, fate === "plain after TLS" ? 2 : 1, what);
  if (one.mtaSts !== "testing" || !tls.facts) return;
  const trusted = one.server === "pkix" || one.server === "both";
  assert.equal(
    tried.at(-1)?.testing?.ok,
    trusted,
    `${what}: testing finds out, and enforces nothing`,
  );
}

const hostOf = ({ route }: Case): string => route === "mx" ? "mx.example.org" : "example.org";
const HOST = certificate("host");
const OTHER = certificate("other");
const TLSA_RECORD: RecordData["TLSA"] = {
  usage: 3,
  selector: 1,
  matching: 1,
  data: new Uint8Array(createHash("sha256").update(parseCertificate(HOST).spki).digest()),
};

function policy(one: Case): MtaStsFinding {
  const domain = "example.org";
  switch (one.mtaSts) {
    case "none":
      return { status: "none", domain, why: "no record" };
    case "error":
      return { status: "error", domain, why: "the policy host does not answer" };
    default: {
      const mode = one.mtaSts === "testing"
        ? "testing"
        : one.mtaSts === "mode none"
        ? "none"
        : "enforce";
      const mx = one.mtaSts === "enforce others" ? ["*.example.net"] : [hostOf(one)];
      return { status: "policy", domain, mode, id: "1", mx, maxAge: 86_400, from: "fetched" };
    }
  }
}

async function deliver(one: Case): Promise<
  { readonly outcome: Outcome; readonly findings: readonly Finding[]; readonly dialled: number }
> {
  const findings: Finding[] = [];
  let dialled = 0;
  const query = <T extends RecordType>(name: string, type: T): Promise<Answer<T>> => {
    const answer = (records: readonly unknown[], authentic: boolean) => {
      const status = records.length > 0 ? "records" : "nodata";
      const found = { status, records, cnames: [], ttl: 60, authentic };
      return Promise.resolve(found as unknown as Answer<T>);
    };
    if (type === "TLSA") {
      assert.equal(one.dnssec, "secure", "the TLSA question is asked where nothing is proved");
      if (one.tlsa === "lookup fails") return Promise.reject(new DnsError("servfail", "SERVFAIL"));
      const unusable = { ...TLSA_RECORD, usage: 1 };
      const records = { none: [], usable: [TLSA_RECORD, unusable], unusable: [unusable] };
      return answer(records[one.tlsa], true);
    }
    if (type === "MX") {
      const records = one.route === "mx" ? [{ preference: 10, exchange: hostOf(one) }] : [];
      return answer(records, one.dnssec !== "insecure");
    }
    return answer(
      type === "A" && name === hostOf(one) ? ["192.0.2.1"] : [],
      one.dnssec === "secure",
    );
  };
  const [outcome] = await deliverDirect(
    {
      clock: { ...realClock, now: () => Date.UTC(2027, 0, 1) },
      random: { next: () => 0.5 },
      resolver: { query },
      dialer: {
        connect: () => {
          dialled++;
          return Promise.resolve(new MemoryServer(one.server));
        },
      },
      bodies: BODIES,
      sessions: new Sessions(realClock),
      hostname: "us.example",
      mtaSts: { find: () => Promise.resolve(policy(one)) },
    },
    { port: 25, ipFamily: "any", allowLoopback: false },
    [
      new Party(jobOf(), {
        note: (finding) => void findings.push(finding),
        flush: () => Promise.resolve(),
        settle: () => assert.fail("settled before the attempt was over"),
      }),
    ],
    new AbortController().signal,
  );
  return { outcome: outcome!, findings, dialled };
}

/** A server at the other end of a connection in memory; takes every message. */
class MemoryServer implements Connection {
  readonly remote = { address: "192.0.2.1", port: 25 };
  readonly local = { address: "192.0.2.99", port: 1 };
  #replies: string[] = ["220 mx ESMTP\r\n"];
  #secure = false;
  #content = false;
  #closed = false;
  #waiting: ((octets: Uint8Array | null) => void) | undefined;

  constructor(readonly state: Case["server"]) {}

  read(): Promise<Uint8Array | null> {
    const reply = this.#replies.shift();
    if (reply !== undefined) return Promise.resolve(octets(reply));
    if (this.#closed) return Promise.reject(new Error("closed"));
    return new Promise((resolve) => this.#waiting = resolve);
  }

  write(data: Uint8Array): Promise<void> {
    const text = new TextDecoder().decode(data);
    if (this.#content) {
      if (text.endsWith("\r\n.\r\n")) {
        this.#content = false;
        this.#say("250 2.0.0 taken");
      }
      return Promise.resolve();
    }
    const [word = ""] = text.split(/[ :\r]/);
    switch (word) {
      case "EHLO":
        this.#say(
          this.#secure || this.state === "no STARTTLS" ? "250 mx" : "250-mx\r\n250 STARTTLS",
        );
        break;
      case "STARTTLS":
        this.#say("220 go");
        break;
      case "DATA":
        this.#content = true;
        this.#say("354 go");
        break;
      default:
        this.#say("250 ok");
    }
    return Promise.resolve();
  }

  startTls(): Promise<TlsSession> {
    if (this.state === "broken") return Promise.reject(new Error("handshake failure"));
    this.#secure = true;
    const leaf = this.state === "dane" || this.state === "both" ? HOST : OTHER;
    const chainTrusted = this.state === "pkix" || this.state === "both";
    return Promise.resolve({
      facts: { protocol: "TLSv1.3", cipher: "TLS_AES_128_GCM_SHA256" },
      chainTrusted,
      ...(chainTrusted ? {} : { chainError: "self-signed certificate" }),
      chain: [leaf],
    });
  }

  close(): void {
    this.#closed = true;
    this.#waiting?.(null);
  }

  #say(reply: string): void {
    const line = `${reply}\r\n`;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting) waiting(octets(line));
    else this.#replies.push(line);
  }
}

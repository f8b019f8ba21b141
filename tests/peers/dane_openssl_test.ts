/**
 * DANE verification held against OpenSSL's: the same chains, presented by `openssl s_server` and
 * judged by `openssl s_client -dane_tlsa_domain` with SMTP's rule for DANE-EE (RFC 7672, section
 * 3.1.1: no names), and by our own code. Every case must get the same verdict from both.
 */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { type TlsaRecord, unusable, verifyDane } from "../../src/tls/dane.ts";
import { asn1Time, CA_EXTENSIONS, forHost, type Issued, Pki } from "./pki.ts";
import { closeQuietly, freePort, until } from "./wait.ts";

const NAME = "mx.example.org";
const DAY = 86_400_000;

interface Chain {
  readonly leaf: Issued;
  /** What the server sends after its own certificate. */
  readonly others: readonly Issued[];
}

type Records = Readonly<Record<string, readonly TlsaRecord[]>>;

describe("DANE, judged by OpenSSL and by us", () => {
  let pki: Pki;
  const chains = new Map<string, { chain: Chain; records: Records }>();

  before(async () => {
    pki = await Pki.create();
    await build(pki, chains);
  });
  after(() => pki.remove());

  it("comes to the same verdict for every chain and record set", async () => {
    let cases = 0;
    const accepted: string[] = [];
    const disagreements: string[] = [];
    const work = [...chains].map(async ([name, { chain, records }]) => {
      const server = await Server.start(pki, chain);
      try {
        for (const [what, set] of Object.entries(records)) {
          cases++;
          const theirs = await openssl(server.port, set);
          const presented = [chain.leaf, ...chain.others].map(({ der }) => der);
          const ours = verifyDane(presented, set, [NAME], Date.now());
          if (ours.ok) accepted.push(`${name}: ${what}`);
          if (ours.ok === theirs.ok) continue;
          const said = ours.ok ? `accepted by ${ours.by}` : `refused: ${ours.reason}`;
          disagreements.push(`${name}: ${what}: OpenSSL: ${theirs.said}; we: ${said}`);
        }
      } finally {
        await server.stop();
      }
    });
    await Promise.all(work);
    assert.deepEqual(disagreements, []);
    assert.ok(cases >= 120, `${cases} cases`);
    assert.ok(
      accepted.length >= 40 && accepted.length <= cases - 40,
      `${accepted.length} accepted`,
    );
  });
});

/** The chains, each with the record sets that are held against it. */
async function build(
  pki: Pki,
  into: Map<string, { chain: Chain; records: Records }>,
): Promise<void> {
  const ca = (name: string, issuer?: Issued, extensions = CA_EXTENSIONS, dates = {}) =>
    pki.issue({ subject: `/CN=${name}`, extensions, ...(issuer ? { issuer } : {}), ...dates });
  const host = (issuer?: Issued, extensions = forHost(NAME), changes = {}) =>
    pki.issue({ subject: "/CN=host", extensions, ...(issuer ? { issuer } : {}), ...changes });
  const past = { from: asn1Time(Date.now() - 9 * DAY), until: asn1Time(Date.now() - DAY) };
  const future = { from: asn1Time(Date.now() + DAY) };

  const root = await ca("Root");
  const inter = await ca("Issuing", root);
  const stranger = await ca("Stranger");
  const leaf = await host(inter);
  const add = (name: string, leaf: Issued, others: Issued[], records: Records) =>
    into.set(name, { chain: { leaf, others }, records });

  const all = { ...ofLeaf(leaf), ...ofIssuer("issuing CA", inter), ...ofIssuer("root", root) };
  const wrong = { ...ofLeaf(stranger, "a stranger's"), ...ofIssuer("a stranger", stranger) };
  add("whole chain", leaf, [inter, root], { ...all, ...wrong, ...mixed(leaf, inter, stranger) });
  add("without root", leaf, [inter], all);
  add("without intermediate", leaf, [root], all);
  add("leaf alone", leaf, [], all);
  add("out of order", leaf, [root, inter], ofIssuer("root", root));
  add("with duplicates", leaf, [inter, inter, root, leaf], ofIssuer("root", root));
  add("with a stranger", leaf, [stranger, inter, root], {
    ...ofIssuer("root", root),
    ...ofIssuer("a stranger", stranger),
  });

  const expired = await host(inter, forHost(NAME), past);
  add("expired leaf", expired, [inter, root], { ...ofLeaf(expired), ...anchor(root) });
  const early = await host(inter, forHost(NAME), future);
  add("leaf not valid yet", early, [inter, root], { ...ofLeaf(early), ...anchor(root) });
  const expiredInter = await ca("Expired", root, CA_EXTENSIONS, past);
  const under = await host(expiredInter);
  add("expired intermediate", under, [expiredInter, root], {
    ...ofLeaf(under),
    ...anchor(root),
  });
  const expiredRoot = await ca("Expired Root", undefined, CA_EXTENSIONS, past);
  const underRoot = await host(expiredRoot);
  add("expired root", underRoot, [expiredRoot], ofIssuer("root", expiredRoot));

  const foreign = await host(inter, forHost("www.example.com"));
  add("another name", foreign, [inter, root], { ...ofLeaf(foreign), ...anchor(root) });
  const several = await host(inter, forHost("www.example.com", NAME));
  add("one of several names", several, [inter, root], anchor(root));
  const wild = await host(inter, forHost("*.example.org"));
  add("a wildcard", wild, [inter, root], anchor(root));
  const wilder = await host(inter, forHost("*.org"));
  add("a wildcard too high", wilder, [inter, root], anchor(root));
  const partial = await host(inter, forHost("*.mx.example.org"));
  add("a wildcard too low", partial, [inter, root], anchor(root));
  const named = await host(inter, ["basicConstraints=CA:FALSE"], { subject: `/CN=${NAME}` });
  add("a common name alone", named, [inter, root], anchor(root));
  const both = await host(inter, forHost("www.example.com"), { subject: `/CN=${NAME}` });
  add("a common name beside others", both, [inter, root], anchor(root));

  const self = await host(undefined);
  add("self-signed", self, [], ofLeaf(self));
  add("self-signed, a stranger behind", self, [root], {
    ...ofLeaf(self),
    ...anchor(root),
  });

  const noCa = await ca("No CA", root, ["basicConstraints=CA:FALSE"]);
  const underNoCa = await host(noCa);
  add("issuer that is no CA", underNoCa, [noCa, root], {
    ...anchor(root),
    ...ofIssuer("issuer", noCa),
  });
  const noSign = await ca("No Sign", root, ["basicConstraints=CA:TRUE", "keyUsage=cRLSign"]);
  const underNoSign = await host(noSign);
  add("issuer that may not sign", underNoSign, [noSign, root], anchor(root));
  const short = await ca("Short", root, ["basicConstraints=critical,CA:TRUE,pathlen:0"]);
  const below = await ca("Below", short);
  const tooLong = await host(below);
  add("path too long", tooLong, [below, short, root], anchor(root));
  const justRight = await host(short);
  add("path of the length allowed", justRight, [short, root], anchor(root));
  const client = await host(inter, [...forHost(NAME), "extendedKeyUsage=clientAuth"]);
  add("for clients", client, [inter, root], { ...ofLeaf(client), ...anchor(root) });
  const server = await host(inter, [...forHost(NAME), "extendedKeyUsage=serverAuth"]);
  add("for servers", server, [inter, root], anchor(root));
  for (
    const [what, constraint] of [
      ["permitted", "permitted;DNS:example.org"],
      ["not permitted", "permitted;DNS:example.net"],
      ["excluded", "excluded;DNS:example.org"],
      ["not excluded", "excluded;DNS:example.net"],
    ] as const
  ) {
    const extensions = [...CA_EXTENSIONS, `nameConstraints=critical,${constraint}`];
    const constrained = await ca(`Constrained ${what}`, root, extensions);
    const inside = await host(constrained);
    add(`name ${what}`, inside, [constrained, root], anchor(root));
  }
  const critical = await host(inter, [...forHost(NAME), "1.2.3.4=critical,ASN1:NULL"]);
  add("unknown critical extension", critical, [inter, root], {
    ...ofLeaf(critical),
    ...anchor(root),
  });
}

const DIGESTS = ["full", "sha256", "sha512"] as const;

function record(usage: number, selector: number, matching: number, of: Issued): TlsaRecord {
  const selected = selector === 0 ? of.der : of.spki;
  const data = matching === 0
    ? selected
    : new Uint8Array(createHash(DIGESTS[matching]!).update(selected).digest());
  return { usage, selector, matching, data };
}

function ofLeaf(leaf: Issued, whose = "its"): Records {
  const sets: Record<string, TlsaRecord[]> = {};
  for (const selector of [0, 1]) {
    for (const matching of [0, 1, 2]) {
      sets[`3 ${selector} ${matching} of ${whose} certificate`] = [
        record(3, selector, matching, leaf),
      ];
    }
  }
  sets[`2 0 1 of ${whose} certificate`] = [record(2, 0, 1, leaf)];
  sets[`2 1 1 of ${whose} certificate`] = [record(2, 1, 1, leaf)];
  return sets;
}

function ofIssuer(whose: string, issuer: Issued): Records {
  const sets: Record<string, TlsaRecord[]> = {};
  for (const selector of [0, 1]) {
    for (const matching of [0, 1, 2]) {
      sets[`2 ${selector} ${matching} of the ${whose}`] = [record(2, selector, matching, issuer)];
    }
  }
  sets[`3 1 1 of the ${whose}`] = [record(3, 1, 1, issuer)];
  return sets;
}

/** The root, in the record as a digest, and whole. */
const anchor = (root: Issued): Records => ({
  "2 1 1 of the root": [record(2, 1, 1, root)],
  "2 0 0 of the root": [record(2, 0, 0, root)],
});

/** Several records at once: one of them is enough, but for weak digests beside strong ones. */
function mixed(leaf: Issued, inter: Issued, stranger: Issued): Records {
  return {
    "right and wrong": [record(3, 1, 1, stranger), record(3, 1, 1, leaf)],
    "weak right, strong wrong": [record(3, 1, 1, leaf), record(3, 1, 2, stranger)],
    "weak wrong, strong right": [record(3, 1, 1, stranger), record(3, 1, 2, leaf)],
    "weak right, strong wrong for another selector": [
      record(3, 1, 1, leaf),
      record(3, 0, 2, stranger),
    ],
    "weak right, strong wrong for another usage": [
      record(3, 1, 1, leaf),
      record(2, 1, 2, stranger),
    ],
    "full right, strong wrong": [record(3, 1, 0, leaf), record(3, 1, 2, stranger)],
    "anchor weak right, strong wrong": [record(2, 0, 1, inter), record(2, 0, 2, stranger)],
    "wrong leaf, right anchor": [record(3, 1, 1, stranger), record(2, 1, 1, inter)],
    "right leaf, wrong anchor": [record(3, 1, 1, leaf), record(2, 1, 1, stranger)],
  };
}

class Server {
  private constructor(readonly port: number, private readonly child: Deno.ChildProcess) {}

  static async start(pki: Pki, { leaf, others }: Chain): Promise<Server> {
    const port = freePort();
    const file = `${pki.directory}/chain-${port}.pem`;
    await Deno.writeTextFile(file, others.map(({ pem }) => pem).join(""));
    // deno-fmt-ignore
    const child = new Deno.Command("openssl", {
      args: [
        "s_server", "-accept", `127.0.0.1:${port}`, "-quiet", "-cert", leaf.certificate, "-key", leaf.key,
        ...(others.length > 0 ? ["-cert_chain", file] : []),
      ],
      stdin: "piped",
      stdout: "null",
      stderr: "null",
    }).spawn();
    const server = new Server(port, child);
    await until("openssl s_server", 10_000, async () => {
      closeQuietly(await Deno.connect({ hostname: "127.0.0.1", port }));
      return true;
    });
    return server;
  }

  async stop(): Promise<void> {
    closeQuietly({ close: () => void this.child.stdin.close().catch(() => {}) });
    this.child.kill("SIGTERM");
    await this.child.status;
  }
}

async function openssl(
  port: number,
  records: readonly TlsaRecord[],
): Promise<{ readonly ok: boolean; readonly said: string }> {
  assert.ok(records.every((record) => unusable(record) === undefined));
  const rrdata = records.flatMap(({ usage, selector, matching, data }) => {
    const hex = [...data].map((octet) => octet.toString(16).padStart(2, "0")).join("");
    return ["-dane_tlsa_rrdata", `${usage} ${selector} ${matching} ${hex}`];
  });
  const output = await new Deno.Command("openssl", {
    // deno-fmt-ignore
    args: [
      "s_client", "-connect", `127.0.0.1:${port}`, "-servername", NAME, "-dane_tlsa_domain", NAME,
      "-dane_ee_no_namechecks", ...rrdata,
    ],
    stdin: "null",
    signal: AbortSignal.timeout(10_000),
  }).output();
  const text = new TextDecoder().decode(output.stdout);
  const code = /Verify return code: (\d+) \((.*)\)/.exec(text);
  if (!code) throw new Error(`no verdict: ${text}${new TextDecoder().decode(output.stderr)}`);
  return { ok: code[1] === "0", said: `${code[1]} ${code[2]}` };
}

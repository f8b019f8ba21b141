/** DKIM signatures: verified by another implementation (mailauth), and broken by what must break them. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { dkimVerify } from "mailauth";
import { dkimRecord, dkimRecordName, makeDkimKey } from "../../../src/dkim/keys.ts";
import { fieldsOf, RelaxedBodyHash, relaxedField } from "../../../src/dkim/canonical.ts";
import { DkimSigner } from "../../../src/dkim/signer.ts";
import { Intake } from "../../../src/submission/intake.ts";
import { ManualClock } from "../../actors/manual_clock.ts";
import { MemoryBodies } from "../smtp/fakes.ts";

const AT = Date.UTC(2026, 0, 5, 7, 8, 9);
const rsa = { selector: "2026a", keyFile: "/keys/2026a.pem", key: makeDkimKey("rsa") };
const ed = { selector: "2026b", keyFile: "/keys/2026b.pem", key: makeDkimKey("ed25519") };
const DOMAINS = new Map([["example.com", [rsa, ed]], ["xn--bcher-kva.example", [ed]]]);
const RECORDS = new Map(
  [...DOMAINS].flatMap(([domain, keys]) =>
    keys.map(({ selector, key }) => [dkimRecordName(selector, domain), dkimRecord(key)] as const)
  ),
);
const clock = new ManualClock(AT);

const HEADER = "From: Alice <alice@example.com>\r\nTo: b@example.org\r\nSubject:  Hello \r\n" +
  "\t folded\r\nContent-Type: text/plain\r\nDate: Mon, 05 Jan 2026 07:08:09 +0000\r\n";

/** The message as it goes out, taken in in pieces. */
async function taken(message: string | Buffer, cuts: readonly number[] = []): Promise<Buffer> {
  const bodies = new MemoryBodies();
  const trace = { by: "mx.example.com", with: "ESMTP", id: "S1", at: AT };
  const signer = new DkimSigner(clock, DOMAINS);
  const intake = new Intake(bodies, trace, undefined, undefined, signer);
  const octets = Buffer.from(message);
  const at = [...new Set(cuts.map((cut) => cut % octets.length))].sort((a, b) => a - b);
  for (const [n, start] of [0, ...at].entries()) {
    const piece = Buffer.from(octets.subarray(start, at[n] ?? octets.length));
    intake.write(piece);
    await intake.flush();
    piece.fill(0);
  }
  const { body, signatures = [] } = await intake.finish();
  return Buffer.concat([Buffer.from(signatures.join("")), bodies.bodies.get(body.sha256)!]);
}

async function verified(message: Buffer) {
  const { results } = await dkimVerify(message, {
    resolver: (name: string, type: string) => {
      const record = type === "TXT" ? RECORDS.get(name) : undefined;
      if (record !== undefined) return Promise.resolve([[record]]);
      return Promise.reject(Object.assign(new Error("no such name"), { code: "ENOTFOUND" }));
    },
  });
  return results.flatMap(({ signingDomain, selector, status }) =>
    signingDomain ? [`${signingDomain} ${selector} ${status.result}`] : []
  );
}

const BOTH = ["example.com 2026a pass", "example.com 2026b pass"];

describe("DKIM signatures", () => {
  it("of RSA and Ed25519 keys verify together", async () => {
    assert.deepEqual(await verified(await taken(`${HEADER}\r\nHi \t there \r\n\r\n\r\n`)), BOTH);
  });

  it("verify over whatever body, in whatever pieces it came", async () => {
    const line = fc.array(fc.constantFrom("a", " ", "\t", ".", "ü", "--", "  "), { maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(
        fc.array(line, { maxLength: 8 }),
        fc.array(fc.nat(), { maxLength: 6 }),
        async (lines, cuts) => {
          const body = lines.map((words) => `${words.join("")}\r\n`).join("");
          assert.deepEqual(await verified(await taken(`${HEADER}\r\n${body}`, cuts)), BOTH);
        },
      ),
      { numRuns: 25 },
    );
  });

  it("verify without a body, and without an empty line behind the header", async () => {
    assert.deepEqual(await verified(await taken(`${HEADER}\r\n`)), BOTH);
    assert.deepEqual(await verified(await taken(HEADER)), BOTH);
  });

  it("are broken by a change, and by a second field of a kind that counts", async () => {
    const message = (await taken(`${HEADER}\r\nPay 10 to Bob\r\n`)).toString();
    const changes = [
      message.replace("Pay 10", "Pay 99"),
      message.replace("Subject:  Hello", "Subject:  Goodbye"),
      message.replace("From: Alice", "From: Eve <eve@example.com>\r\nFrom: Alice"),
      message.replace("To: b@", "Cc: c@example.org\r\nTo: b@"),
      message.replace("To: b@", "Reply-To: eve@example.org\r\nTo: b@"),
      message.replace("Content-Type: text/plain", "Content-Type: text/html"),
    ];
    for (const changed of changes) {
      assert.notEqual(changed, message);
      for (const result of await verified(Buffer.from(changed))) {
        assert.match(result, / (?:fail|neutral)$/); // neutral: the body is another
      }
    }
  });

  it("bear what relays do to blanks, and fields that they add", async () => {
    const message = (await taken(`${HEADER}\r\nHi there\r\n`)).toString();
    const relayed = "Received: from x by y; Mon, 05 Jan 2026 07:08:10 +0000\r\n" +
      message.replace("Subject:  Hello \r\n\t folded", "Subject: Hello  folded ")
        .replace("Hi there\r\n", "Hi \tthere  \r\n\r\n");
    assert.deepEqual(await verified(Buffer.from(relayed)), BOTH);
  });

  it("stand in lines that are not folded again", async () => {
    const message = (await taken(`${HEADER}\r\nHi\r\n`)).toString();
    const [signature] = message.split(/\r\n(?![ \t])/);
    assert.match(signature!, /^DKIM-Signature: v=1; a=rsa-sha256; c=relaxed\/relaxed;/);
    assert.match(signature!, / t=1767596889;/);
    for (const line of signature!.split("\r\n")) assert.ok(line.length <= 78, line);
  });

  it("name fields that are there once more than they are, and list fields as they are", async () => {
    const list = "List-Id: <l.example.com>\r\nList-Unsubscribe: <https://example.com/u>\r\n" +
      "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n";
    const message = (await taken(`${list}${HEADER}\r\nHi\r\n`)).toString();
    const names = /\th=([^;]+);/.exec(message)![1]!.replace(/\s/g, "").split(":");
    const count = (name: string) => names.filter((one) => one === name).length;
    assert.equal(count("From"), 2);
    assert.equal(count("Subject"), 2);
    assert.equal(count("Cc"), 1);
    assert.equal(count("List-Unsubscribe"), 1);
    assert.equal(count("List-Unsubscribe-Post"), 1);
    assert.equal(count("List-Archive"), 0);
    assert.equal(count("Received"), 0);
  });

  it("follow the domain of the author, in whatever form it is written", async () => {
    const results = await verified(await taken("From: a@bücher.example\r\n\r\nHi\r\n"));
    assert.deepEqual(results, ["xn--bcher-kva.example 2026b pass"]);
  });

  for (
    const [what, header] of [
      ["of a domain without keys", "From: a@example.org\r\n"],
      ["of a subdomain without keys", "From: a@sub.example.com\r\n"],
      ["without an author", "To: a@example.com\r\n"],
      ["with two From fields", "From: a@example.com\r\nFrom: b@example.com\r\n"],
      ["whose author cannot be read", "From: <a@example.com\r\n"],
    ] as const
  ) {
    it(`are not made for a message ${what}`, async () => {
      const message = (await taken(`${header}\r\nHi\r\n`)).toString();
      assert.doesNotMatch(message, /DKIM-Signature/);
    });
  }

  it("of this host's own mail may be those of a domain above", async () => {
    const signer = new DkimSigner(clock, DOMAINS);
    const header = "From: MAILER-DAEMON@mx.example.com\r\nTo: <a@example.com>\r\n";
    const signature = signer.beginOwn(Buffer.from(header))!;
    signature.body(Buffer.from("Sorry\r\n"));
    const fields = await signature.finish();
    const message = Buffer.from(`${fields.join("")}${header}\r\nSorry\r\n`);
    assert.deepEqual(await verified(message), BOTH);
    assert.equal(signer.beginOwn(Buffer.from("From: MAILER-DAEMON@mx.test\r\n")), undefined);
  });

  it("are made with the keys of the moment", async () => {
    const signer = new DkimSigner(clock, new Map());
    const header = Buffer.from("From: a@example.com\r\n");
    assert.equal(signer.begin(header), undefined);
    signer.use(new Map([["example.com", [ed]]]));
    const [field, ...more] = await signer.begin(header)!.finish();
    assert.match(field!, /a=ed25519-sha256;/);
    assert.deepEqual(more, []);
  });

  it("do not grow with a header that repeats a field without end", async () => {
    const message = await taken(`${HEADER}${"Cc: c@example.org\r\n".repeat(1000)}\r\nHi\r\n`);
    assert.ok(message.toString().split(/\r\n(?![ \t])/)[0]!.length < 1500);
  });
});

describe("relaxed canonicalization", () => {
  it("is that of the example in RFC 6376, section 3.4.5", () => {
    const header = "A: X\r\nB : Y\t\r\n\tZ  \r\n";
    assert.deepEqual(fieldsOf(header).map(relaxedField), ["a:X", "b:Y Z"]);
    const hash = new RelaxedBodyHash();
    hash.update(Buffer.from(" C \r\nD \t E\r\n\r\n\r\n"));
    const same = new RelaxedBodyHash();
    same.update(Buffer.from(" C\r\nD E\r\n"));
    assert.equal(hash.digest(), same.digest());
  });

  it("of an empty body is nothing", () => {
    // RFC 6376, section 3.4.4: SHA-256 of no octets.
    const empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    for (const body of ["", "\r\n", "\r\n\r\n", " \t\r\n"]) {
      const hash = new RelaxedBodyHash();
      hash.update(Buffer.from(body));
      assert.equal(hash.digest(), empty);
    }
  });
});

/** Credentials as stored: derivation, one line and back, verification, unknown users. */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import { accounts } from "../../../../src/smtp/sasl/accounts.ts";
import {
  deriveCredentials,
  fakeCredentials,
  parseCredentials,
  serializeCredentials,
  verifyPassword,
} from "../../../../src/smtp/sasl/credentials.ts";
import { SaslError } from "../../../../src/smtp/sasl/error.ts";
import { fromBase64, toBase64 } from "../../../../src/smtp/sasl/octets.ts";
import { CHEAP, SECRET, seeded } from "./login.ts";

const STORED = await deriveCredentials("pencil", seeded("stored"), CHEAP);
const LINE = serializeCredentials(STORED);

describe("Credentials", () => {
  it("hold the keys that RFC 5802's and RFC 7677's examples are signed with", async () => {
    const salts = ["c2NyeXB0IHNhbHQ=", "W22ZaJ0SNY7soEsUEjb6gQ==", "QSXCR+Q6sek8bf92"];
    const keys = await deriveCredentials("pencil", () => fromBase64(salts.shift()!), CHEAP);
    // Computed from password, salt and count of the two examples by another implementation.
    assert.equal(
      toBase64(keys["scram-sha-256"].storedKey),
      "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=",
    );
    assert.equal(
      toBase64(keys["scram-sha-256"].serverKey),
      "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
    );
    assert.equal(toBase64(keys["scram-sha-1"].storedKey), "6dlGYMOdZcOPutkcNY8U2g7vK9Y=");
    assert.equal(toBase64(keys["scram-sha-1"].serverKey), "D+CSWLOshSulAsxiupA+qs2/fTE=");
  });

  it("are one line that says nothing of the password, and read back as they were", () => {
    assert.match(
      LINE,
      /^v1 SCRAM-SHA-256\$4096:\S+ SCRAM-SHA-1\$4096:\S+ \$scrypt\$ln=4,r=1,p=1\$\S+$/,
    );
    assert(!LINE.includes("${"), "nothing that a config would fill in");
    const again = parseCredentials(LINE);
    assert.equal(serializeCredentials(again), LINE);
    assert.deepEqual(again["scram-sha-256"].iterations, 4096);
  });

  it("differ for the same password, salts being new", async () => {
    const other = await deriveCredentials("pencil", seeded("other"), CHEAP);
    assert.notEqual(serializeCredentials(other).split(" ")[1], LINE.split(" ")[1]);
  });

  it("verify the password in any spelling that SASLprep makes equal, and no other", async () => {
    assert.equal(await verifyPassword(parseCredentials(LINE), "pencil"), true);
    assert.equal(await verifyPassword(STORED, "pen\u00ADcil"), true);
    for (const wrong of ["", "penci", "pencil ", "Pencil", "pencil\0", "x".repeat(5000)]) {
      assert.equal(await verifyPassword(STORED, wrong), false, JSON.stringify(wrong));
    }
  });

  it("verify many at once, each right", async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, n) => verifyPassword(STORED, n % 3 ? "pencil" : "wrong")),
    );
    assert.deepEqual(answers, Array.from({ length: 20 }, (_, n) => n % 3 !== 0));
  });

  it("are not made of passwords that SASLprep refuses, nor with useless cost", async () => {
    const refused = (error: unknown) =>
      error instanceof SaslError && error.reason === "credentials";
    await assert.rejects(deriveCredentials("a\u0007", seeded("x"), CHEAP), refused);
    await assert.rejects(deriveCredentials("", seeded("x"), CHEAP), refused);
    for (const iterations of [4095, 600_001]) {
      await assert.rejects(
        deriveCredentials("a", seeded("x"), { ...CHEAP, iterations }),
        RangeError,
      );
    }
  });
});

describe("A stored line that was tampered with", () => {
  const stored = (error: unknown) => error instanceof SaslError && error.reason === "stored";
  const [, sha256 = "", sha1 = "", scrypt = ""] = LINE.split(" ");
  const cases = {
    "nothing": "",
    "another version": LINE.replace("v1", "v2"),
    "a part missing": `v1 ${sha256} ${scrypt}`,
    "a part more": `${LINE} x`,
    "parts in another order": `v1 ${sha1} ${sha256} ${scrypt}`,
    "a line end": `${LINE}\n`,
    "few iterations": LINE.replace("SCRAM-SHA-1$4096", "SCRAM-SHA-1$1"),
    "many iterations": LINE.replace("SCRAM-SHA-1$4096", "SCRAM-SHA-1$99999999"),
    "a short key": LINE.replace(/:[^:$]+ SCRAM-SHA-1/, ":AAAA SCRAM-SHA-1"),
    "a number of another spelling": LINE.replace("ln=4", "ln=04"),
    "memory without end": LINE.replace("ln=4,r=1", "ln=40,r=8"),
    "work without end": LINE.replace("p=1", "p=99"),
    "a short hash": LINE.replace(/\$[^$]+$/, "$AAAA"),
    "a hash with padding": `${LINE}=`,
  };
  for (const [what, line] of Object.entries(cases)) {
    it(`is refused for ${what}`, () => {
      assert.notEqual(line, LINE);
      assert.throws(() => parseCredentials(line), stored);
    });
  }

  it("is refused or read as other credentials, and its text is not repeated", () => {
    const at = fc.nat(LINE.length - 1);
    const secrets = LINE.split(/[ $:]/).filter((part) => part.length > 16);
    assert.equal(secrets.length, 8);
    fc.assert(fc.property(at, fc.string({ maxLength: 2 }), (n, text) => {
      const line = LINE.slice(0, n) + text + LINE.slice(n + 1);
      try {
        return serializeCredentials(parseCredentials(line)) === line;
      } catch (error) {
        return stored(error) && !secrets.some((one) => (error as Error).message.includes(one));
      }
    }));
  });
});

describe("Unknown users", () => {
  it("have credentials of the same form, the same each time, that nothing fits", async () => {
    const fake = fakeCredentials(SECRET, "nobody", CHEAP);
    assert.deepEqual(fakeCredentials(SECRET, "nobody", CHEAP), fake);
    assert.equal(serializeCredentials(fake).length, LINE.length);
    assert.notDeepEqual(fakeCredentials(SECRET, "nobody2", CHEAP), fake);
    assert.notDeepEqual(fakeCredentials(new Uint8Array(32), "nobody", CHEAP), fake);
    assert.equal(await verifyPassword(fake, "pencil"), false);
  });

  it("are told apart by the lookup alone", async () => {
    const book = accounts((name) => name === "user" ? STORED : undefined, SECRET, CHEAP);
    assert.deepEqual(await book.find("user"), { credentials: STORED, known: true });
    assert.deepEqual(await book.find("nobody"), {
      credentials: fakeCredentials(SECRET, "nobody", CHEAP),
      known: false,
    });
  });
});

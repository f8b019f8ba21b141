import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
// @ts-types="@types/dns-packet"
import { type Answer as PacketAnswer, encode } from "dns-packet";
import { checkedCopy, FrameError } from "../../../src/dns/frame.ts";
import { type Question, readResponse } from "../../../src/dns/wire.ts";

const question: Question = { name: "x.example", type: "MX" };
const ID = 4711;

const packet = (answers: PacketAnswer[], authorities: PacketAnswer[] = []): Buffer =>
  encode({
    type: "response",
    id: ID,
    questions: [{ name: "x.example", type: "MX", class: "IN" }],
    answers,
    authorities,
  });

/** Never anything but a response, undefined or FrameError, and never for long. */
function read(message: Uint8Array): ReturnType<typeof readResponse> | FrameError {
  try {
    return readResponse(message, ID, question);
  } catch (error) {
    assert.ok(error instanceof FrameError, `${error}`);
    return error;
  }
}

const label = fc.stringMatching(/^[a-z0-9-]{1,20}$/);
const name = fc.array(label, { minLength: 1, maxLength: 5 }).map((labels) => labels.join("."));
const ttl = fc.nat(100_000);
const octets = (min: number, max: number) =>
  fc.uint8Array({ minLength: min, maxLength: max }).map((data) => Buffer.from(data));
const record: fc.Arbitrary<PacketAnswer> = fc.oneof(
  fc.record({ type: fc.constant("A" as const), name, ttl, data: fc.ipV4() }),
  fc.record({ type: fc.constant("CNAME" as const), name, ttl, data: name }),
  fc.record({
    type: fc.constant("MX" as const),
    name,
    ttl,
    data: fc.record({ preference: fc.nat(65_535), exchange: name }, { noNullPrototype: true }),
  }),
  fc.record({
    type: fc.constant("TXT" as const),
    name,
    ttl,
    data: fc.array(octets(0, 255), { minLength: 1, maxLength: 4 }),
  }),
  fc.record({
    type: fc.constant("TLSA" as const),
    name,
    ttl,
    data: fc.record({
      usage: fc.nat(255),
      selector: fc.nat(255),
      matchingType: fc.nat(255),
      certificate: octets(0, 80),
    }),
  }),
);

describe("DNS messages: what is well formed", () => {
  it("is read as it was written", () => {
    fc.assert(
      fc.property(fc.array(record, { maxLength: 8 }), (records) => {
        const response = read(packet(records));
        assert.ok(response && !(response instanceof Error), `${response}`);
        assert.deepEqual(
          response.answers.map(({ name, type, ttl }) => ({ name, type, ttl })),
          records.map(({ name, type, ...rest }) => ({
            name,
            type,
            ttl: "ttl" in rest && rest.ttl,
          })),
        );
        for (const [n, read] of response.answers.entries()) {
          const written = records[n];
          if (read.type === "MX") {
            assert.deepEqual(read.data, written?.type === "MX" && written.data);
          }
          if (read.type === "A") assert.equal(read.data, written?.type === "A" && written.data);
          if (read.type === "TXT" && written?.type === "TXT") {
            const strings = written.data as Buffer[];
            assert.deepEqual(read.data, strings.map((data) => new Uint8Array(data)));
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  it("reads compressed names, also within record data", () => {
    const message = packet([{ type: "MX", name: "x.example", ttl: 1, data: { exchange: "." } }]);
    // Owner and exchange as pointers to the question's name, the exchange behind a label "mx".
    const header = Buffer.from(message.subarray(0, 12 + 15));
    const fixed = Buffer.from([0, 15, 0, 1, 0, 0, 0, 9, 0, 7, 0, 5]);
    const owner = Buffer.from([0xc0, 12]);
    const exchange = Buffer.from([2, 0x6d, 0x78, 0xc0, 12]);
    const response = read(Buffer.concat([header, owner, fixed, exchange]));
    assert.ok(response && !(response instanceof Error), `${response}`);
    assert.deepEqual(response.answers, [
      { name: "x.example", type: "MX", ttl: 9, data: { preference: 5, exchange: "mx.x.example" } },
    ]);
  });

  it("passes over types and classes that nobody asked for", () => {
    const response = read(packet([
      { type: "NULL", name: "x.example", ttl: 1, data: Buffer.from([1, 2, 3]) },
      { type: "HINFO", name: "x.example", ttl: 1, data: { cpu: "a", os: "b" } },
      { type: "A", name: "x.example", ttl: 1, class: "CH", data: "192.0.2.66" },
      { type: "A", name: "x.example", ttl: 1, flush: true, data: "192.0.2.66" },
      { type: "A", name: "x.example", ttl: 1, data: "192.0.2.1" },
    ]));
    assert.ok(response && !(response instanceof Error), `${response}`);
    assert.deepEqual(response.answers.map((answer) => answer.data), ["192.0.2.1"]);
  });
});

describe("DNS messages: what is not", () => {
  const header = (answers: number) => {
    const message = Buffer.from(packet([]));
    message.writeUInt16BE(answers, 6);
    return message;
  };
  const owner = [0xc0, 12];
  const lying: Record<string, number[]> = {
    "an owner that points at itself": [0xc0, 27, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4],
    "a pointer forwards": [0xc0, 60, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4],
    "a pointer into the header": [0xc0, 2, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4],
    "a pointer into the middle of a label": [0xc0, 15, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4],
    "a label of an unknown kind": [0x80, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4],
    "data longer than the message": [...owner, 0, 1, 0, 1, 0, 0, 0, 0, 255, 255, 1, 2, 3, 4],
    "an A record of five octets": [...owner, 0, 1, 0, 1, 0, 0, 0, 0, 0, 5, 1, 2, 3, 4, 5],
    "an A record of three octets": [...owner, 0, 1, 0, 1, 0, 0, 0, 0, 0, 3, 1, 2, 3],
    "a MX whose name ends too early": [...owner, 0, 15, 0, 1, 0, 0, 0, 0, 0, 5, 0, 1, 0, 0, 0],
    "a TXT whose string is too long": [...owner, 0, 16, 0, 1, 0, 0, 0, 0, 0, 3, 9, 65, 65],
    "an empty TXT": [...owner, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0],
    "a TLSA of two octets": [...owner, 0, 52, 0, 1, 0, 0, 0, 0, 0, 2, 3, 1],
    "an OPT with an owner": [...owner, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0],
    "an OPT option that is too long": [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 4, 0, 15, 0, 9],
    "fewer records than it says": [],
  };
  for (const [what, octets] of Object.entries(lying)) {
    it(`refuses ${what}`, () => {
      const outcome = read(Buffer.concat([header(1), Buffer.from(octets)]));
      assert.ok(outcome instanceof FrameError, JSON.stringify(outcome));
    });
  }

  it("refuses a pointer to what only looks like a label", () => {
    // The TTL of the first record reads as the label "a" and the root.
    const first = [...owner, 0, 1, 0, 1, 1, 0x61, 0, 0, 0, 4, 192, 0, 2, 1];
    const ttlAt = header(2).length + 6;
    const second = [0xc0, ttlAt, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 192, 0, 2, 1];
    const message = Buffer.concat([header(2), Buffer.from(first), Buffer.from(second)]);
    assert.throws(() => checkedCopy(message), /no earlier label/);
  });

  it("refuses names over 255 octets made of pointers", () => {
    const parts = [header(3)];
    let at = parts[0]?.length ?? 0;
    let previous = [0];
    for (let n = 0; n < 3; n++) {
      const labels = Array.from({ length: 2 }, () => [60, ...Array(60).fill(0x61)]).flat();
      const record = [...labels, ...previous, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4];
      previous = [0xc0 | at >> 8, at & 255];
      parts.push(Buffer.from(record));
      at += record.length;
    }
    assert.throws(() => checkedCopy(Buffer.concat(parts)), /name too long \(offset/);
  });

  it("never hangs on a message full of pointers", () => {
    const body: number[] = [];
    for (let n = 0; n < 5_000; n++) {
      body.push(0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0);
    }
    const began = performance.now();
    read(Buffer.concat([header(5_000), Buffer.from(body)]));
    assert.ok(performance.now() - began < 1_000);
  });

  it("survives any octets", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (tail) => {
        read(Buffer.concat([header(1), tail]));
        read(tail);
      }),
      { numRuns: 1_000 },
    );
  });

  it("survives any change to a good message", () => {
    const change = fc.tuple(fc.nat(), fc.nat(255));
    fc.assert(
      fc.property(
        fc.array(record, { minLength: 1, maxLength: 5 }),
        fc.array(change, { minLength: 1, maxLength: 4 }),
        fc.nat(),
        (records, changes, cut) => {
          const message = Buffer.from(packet(records, records));
          for (const [at, octet] of changes) message[12 + at % (message.length - 12)] = octet;
          const outcome = read(message);
          if (outcome && !(outcome instanceof Error)) {
            for (const { type, data } of outcome.answers) {
              if (type === "A") assert.match(data, /^\d+\.\d+\.\d+\.\d+$/);
            }
          }
          read(message.subarray(0, cut % message.length));
        },
      ),
      { numRuns: 1_000 },
    );
  });
});

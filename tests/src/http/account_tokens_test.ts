/** Tokens that are bound to an account: its addresses, its limits, its messages and no others. */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { parseAddressPattern } from "../../../src/accounts/address_pattern.ts";
import { Allowance } from "../../../src/accounts/allowance.ts";
import { AccountGate } from "../../../src/accounts/gate.ts";
import type { AccountConfig } from "../../../src/config/types.ts";
import { systemClock } from "../../../src/system.ts";
import { answered, HttpHarness, MESSAGE, problem } from "./harness.ts";

const LETTER = { from: "ann@example.com", to: ["bob@example.net"], text: "hello" };

const account = (name: string, ...addresses: string[]): AccountConfig => ({
  name,
  addresses: addresses.map((text) => parseAddressPattern(text)!),
  checkHeaderFrom: true,
  nullSender: false,
  limits: { messagesPerHour: 3, messagesPerDay: 10, recipientsPerHour: 4, recipientsPerDay: 20 },
});

describe("tokens of an account", () => {
  let http: HttpHarness;
  let token = "";
  const accounts = new Map([
    ["ann", account("ann", "ann@example.com")],
    ["bob", account("bob", "@example.net")],
  ]);
  before(async () => {
    http = await HttpHarness.create();
    const source = {
      get: (name: string) => accounts.get(name),
      find: (name: string) => accounts.get(name),
    };
    const gate = new AccountGate({
      clock: systemClock,
      log: { info() {}, warn() {}, error() {} },
      accounts: source,
      allowance: new Allowance(systemClock, () => Promise.resolve([])),
      secret: new Uint8Array(32),
    });
    http.accounts = { get: source.get, gate };
    token = http.token(["submit", "read", "operate"], "ann");
  });
  after(() => http.remove());

  it("may use its addresses, in envelope and From, and no others", async () => {
    await answered(await http.post("/messages", LETTER, {}, token), 202);
    const other = { ...LETTER, from: "eve@example.com" };
    assert.match(
      (await problem(await http.post("/messages", other, {}, token), 403)).detail,
      /5\.7\.1/,
    );
    const to = "to=bob@example.net";
    await problem(await http.raw(`from=eve@example.com&${to}`, MESSAGE, {}, token), 403);
    await problem(await http.raw(`from=&${to}`, MESSAGE, {}, token), 403);
    const forged = MESSAGE.replace("ann@", "eve@");
    const { detail } = await problem(
      await http.raw(`from=ann@example.com&${to}`, forged, {}, token),
      403,
    );
    assert.match(detail, /From field/);
    await problem(
      await http.raw(`from=ann@example.com&${to}`, "Subject: nobody\r\n\r\n", {}, token),
      403,
    );
  });

  it("sees and acts on its own messages only", async () => {
    const theirs = await http.message();
    const { messages } = await answered(await http.fetch("GET", "/messages", { token }), 200);
    assert.deepEqual(messages.map(({ account }: { account: string }) => account), ["ann"]);
    for (const path of [`/messages/${theirs}`, `/messages/${theirs}/events`]) {
      await problem(await http.fetch("GET", path, { token }), 404);
    }
    await problem(await http.fetch("GET", "/messages?account=bob", { token }), 403);
    await problem(await http.post(`/messages/${theirs}/drop`, {}, {}, token), 404);
    const named = { act: "drop", filter: { ids: [theirs] } };
    const report = await answered(await http.post("/queue/act", named, {}, token), 200);
    assert.equal(report.done, 0);
    const all = await answered(
      await http.post("/queue/act", { act: "drop", all: true }, {}, token),
      200,
    );
    assert.equal(all.done, 1);
    assert.equal((await http.opened.view.get(theirs))?.state, "queued");
    const foreign = { act: "drop", filter: { account: "bob" } };
    await problem(await http.post("/queue/act", foreign, {}, token), 403);
  });

  it("is held to the account's limits; what was refused does not count", async () => {
    const three = { ...LETTER, to: ["a@example.net", "b@example.net", "c@example.net"] };
    http.diskFull = true;
    for (let n = 0; n < 3; n++) {
      await problem(await http.post("/messages", three, {}, token), 503);
    }
    http.diskFull = false;
    await answered(await http.post("/messages", three, {}, token), 202);
    const response = await http.post("/messages", LETTER, {}, token);
    assert.equal(response.headers.get("retry-after"), "600");
    assert.match((await problem(response, 429)).detail, /limit of 4 recipients per hour/);
  });

  it("can do nothing for an account that is gone", async () => {
    accounts.delete("ann");
    assert.match(
      (await problem(await http.post("/messages", LETTER, {}, token), 403)).detail,
      /no addresses in force/,
    );
  });
});

import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { answered, HttpHarness, type SeenProblem } from "./harness.ts";

describe("the suppression list over HTTP", () => {
  let http: HttpHarness;
  before(async () => {
    http = await HttpHarness.create();
  });
  after(() => http.remove());

  const letter = (to: string[], token?: string) =>
    http.post("/messages", { from: "ann@example.com", to, text: "hi" }, {}, token);
  const add = async (body: Record<string, unknown>, status = 201, token?: string) =>
    await answered(await http.post("/suppressions", body, { "x-operator": "ann" }, token), status);

  it("refuses a message to an address on it, naming each", async () => {
    const entry = await add({ address: "Gone@Example.NET", reason: "asked us", lasts: "1d" });
    assert.deepEqual(
      [entry.address, entry.cause, entry.who, entry.why],
      ["gone@example.net", "manual", "ann (operator)", "asked us"],
    );
    const counts = Date.parse(entry.expires) - Date.parse(entry.since);
    assert.ok(Math.abs(counts - 86_400_000) < 5_000, `it counts for ${counts} ms`);
    const response = await letter(["bob@example.net", "gone@example.net"]);
    const { errors }: SeenProblem = await answered(response, 422);
    assert.equal(errors.length, 1);
    assert.match(
      errors[0]!.detail,
      /^gone@example\.net: the address is on our suppression list .*5\.1\.1/,
    );
    const raw = await http.raw("from=a@example.com&to=gone@example.net", "X: y\r\n\r\nhi\r\n");
    await answered(raw, 422);
    await answered(await letter(["bob@example.net"]), 202);
    http.later = 86_400_001;
    await answered(await letter(["gone@example.net"]), 202);
    http.later = 0;
    await answered(await http.post("/suppressions/lift", { address: "GONE@example.net" }), 200);
    await answered(await letter(["gone@example.net"]), 202);
  });

  it("keeps tokens of an account to the list of that account", async () => {
    const token = http.token(["operate", "read", "submit"], "shop");
    await add({ address: "all@example.net" });
    const own = await add({ address: "own@example.net" }, 201, token);
    assert.equal(own.account, "shop");
    await add({ address: "x@example.net", account: "other" }, 403, token);
    await add({ address: "x@example.net", account: null }, 403, token);
    const { suppressions } = await answered(
      await http.fetch("GET", "/suppressions", { token }),
      200,
    );
    assert.deepEqual(suppressions.map(({ address }: { address: string }) => address), [
      "own@example.net",
    ]);
    await answered(await letter(["own@example.net"]), 202); // that of nobody's account
    await answered(
      await http.post("/suppressions/lift", { address: "all@example.net" }, {}, token),
      404,
    );
  });

  it("gives the list a page at a time", async () => {
    for (const name of ["a", "b", "c"]) await add({ address: `${name}@pages.example` });
    const found: string[] = [];
    for (let next: string | null = ""; next !== null;) {
      const page: { suppressions: { address: string }[]; next: string | null } = await answered(
        await http.fetch(
          "GET",
          `/suppressions?limit=2${next && `&after=${encodeURIComponent(next)}`}`,
        ),
        200,
      );
      assert.ok(page.suppressions.length <= 2);
      found.push(...page.suppressions.map(({ address }) => address));
      next = page.next;
    }
    assert.deepEqual(found.filter((one) => one.endsWith("pages.example")), [
      "a@pages.example",
      "b@pages.example",
      "c@pages.example",
    ]);
  });

  it("refuses what is no address, no duration, no cause", async () => {
    await add({ address: "nobody" }, 422);
    await add({ address: "a@example.net", lasts: "soon" }, 422);
    await add({ address: "a@example.net", cause: "bounce" }, 422);
    await answered(await http.fetch("GET", "/suppressions?limit=0"), 400);
    await answered(await http.fetch("GET", "/suppressions?after=%25E0%25A4%25A"), 400);
  });
});

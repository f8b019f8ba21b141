/** The HTTP listener over real sockets: health, the API and its token, and what it refuses. */
import { after, before, beforeEach, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { connect } from "node:net";
import { Metrics } from "../../../src/http/metrics.ts";
import { tokenGuard } from "../../../src/http/api_token.ts";
import { OPERATOR } from "../../../src/http/tokens.ts";
import { HttpServer, type Readiness } from "../../../src/http/server.ts";
import { type Given, START } from "../../events/given.ts";
import { DELIVERED, givenQueue, HELD, HOSTILE, UNKNOWN } from "../cli/given_queue.ts";

const TOKEN = "a-token-of-more-than-thirty-two-characters";

describe("HTTP", () => {
  let given: Given;
  let server: HttpServer;
  let base: string;
  let readiness: Readiness = { ok: true };
  let queue: Given["view"];
  const errors: string[] = [];

  before(async () => {
    given = await givenQueue();
    const metrics = new Metrics();
    metrics.observe({ store: given.store, queue: given.view });
    queue = given.view;
    const allowed = tokenGuard(TOKEN);
    const nothing = () => Promise.reject(new Error("only looked at here"));
    server = new HttpServer({ address: "127.0.0.1", port: 0 }, {
      queue: new Proxy(given.view, {
        get: (_, name: keyof Given["view"]) => queue[name].bind(queue),
      }),
      store: given.store,
      archive: given.archive,
      now: () => START + 3_600_000,
      readiness: () => readiness,
      metrics: () => metrics.text(),
      authenticate: (authorization) => allowed(authorization) ? OPERATOR : undefined,
      submitter: { newSubmissionId: () => "", submit: nothing },
      bodies: given.bodies,
      clock: given.clock,
      hostname: "mail.example.com",
      listener: "web",
      idempotent: () => undefined,
      act: nothing,
      transports: () => [],
      destinations: () => [],
      admission: { state: { version: 0, rules: [] }, act: nothing },
      newId: () => "",
      log: { info() {}, warn() {}, error: (message) => void errors.push(message) },
    });
    const { address, port } = server.listen();
    base = `http://${address}:${port}`;
  });
  beforeEach(() => {
    readiness = { ok: true };
    queue = given.view;
  });
  after(async () => {
    await server.close();
    await given.end();
  });

  const get = (path: string, headers: Record<string, string> = {}, method = "GET") =>
    fetch(base + path, { headers, method });
  const api = async (path: string) => {
    const response = await get(`/api/v1${path}`, { authorization: `Bearer ${TOKEN}` });
    assert.equal(response.status, 200, await response.clone().text());
    assert.equal(response.headers.get("cache-control"), "no-store");
    return await response.json();
  };
  const problem = async (response: Response, status: number) => {
    assert.equal(response.status, status);
    assert.equal(response.headers.get("content-type"), "application/problem+json");
    const body = await response.json();
    assert.equal(body.status, status);
    assert.equal(typeof body.title, "string");
    return body;
  };
  const refused = async (path: string) =>
    (await problem(await get(`/api/v1${path}`, { authorization: `Bearer ${TOKEN}` }), 400)).detail;

  it("says that it is alive and ready, and why not", async () => {
    assert.deepEqual(await (await get("/healthz")).json(), { status: "ok" });
    assert.deepEqual(await (await get("/readyz")).json(), { status: "ok" });
    readiness = { ok: false, why: "disk full" };
    const response = await get("/readyz");
    assert.equal(response.status, 503);
    assert.deepEqual(await response.json(), { status: "unavailable", why: "disk full" });
    assert.equal((await get("/healthz")).status, 200);
  });

  it("answers HEAD as GET without content", async () => {
    const response = await get("/healthz", {}, "HEAD");
    assert.equal(response.status, 200);
    assert.equal(await response.text(), "");
  });

  it("guards the API, and nothing but the API, with the token", async () => {
    const attempts: (Record<string, string>)[] = [
      {},
      { authorization: "Bearer" },
      { authorization: `Bearer ${TOKEN}x` },
      { authorization: `Bearer ${TOKEN.slice(0, -1)}` },
      { authorization: `Basic ${TOKEN}` },
      { authorization: TOKEN },
      { authorization: `Bearer ${TOKEN} ${TOKEN}` },
    ];
    for (const headers of attempts) {
      for (const path of ["/api/v1/messages", `/api/v1/messages/${HELD}`, "/api/v1/x", "/api/"]) {
        const response = await get(path, headers);
        assert.equal(response.headers.get("www-authenticate"), 'Bearer realm="postledger"');
        await problem(response, 401);
      }
    }
    const lower = await get("/api/v1/messages", { authorization: `bearer ${TOKEN}` });
    assert.equal(lower.status, 200);
    await lower.body?.cancel();
  });

  it("lists messages, filtered and sorted", async () => {
    const ids = async (query: string) =>
      (await api(`/messages${query}`)).messages.map(({ id }: { id: string }) => id);
    assert.deepEqual(await ids(""), [DELIVERED, HOSTILE, HELD]);
    assert.deepEqual(await ids("?pending=true"), [HOSTILE, HELD]);
    assert.deepEqual(await ids("?order=desc"), [HELD, HOSTILE, DELIVERED]);
    assert.deepEqual(await ids("?sort=attempts&order=desc&limit=1"), [DELIVERED]);
    assert.deepEqual(await ids("?state=held"), [HELD]);
    assert.deepEqual(await ids("?from=&to=bounce@example.com"), [HELD]);
    assert.deepEqual(await ids("?to-domain=EXAMPLE.org&older-than=1m"), [HOSTILE]);
    assert.deepEqual(await ids("?account=alice"), [DELIVERED]);
    assert.equal((await api("/messages?total=true&limit=1")).total, 3);
  });

  it("shows a message as JSON", async () => {
    const { messages: [message] } = await api("/messages?state=delivered");
    assert.deepEqual(message, {
      id: DELIVERED,
      state: "delivered",
      submission: "s1",
      account: "alice",
      from: "sender@example.com",
      to: "rcpt@example.net",
      domain: "example.net",
      size: 4096,
      attempts: 2,
      transport: "relay",
      transportOverride: null,
      lastError: null,
      nextAttempt: null,
      created: "2026-01-31T09:30:00.000Z",
      updated: "2026-01-31T09:30:04.000Z",
      finished: "2026-01-31T09:30:04.000Z",
      version: 10,
    });
  });

  it("pages until the end", async () => {
    const seen: string[] = [];
    let next: string | null = "";
    while (next !== null) {
      const page: { messages: { id: string }[]; next: string | null } = await api(
        `/messages?limit=2${next === "" ? "" : `&cursor=${encodeURIComponent(next)}`}`,
      );
      seen.push(...page.messages.map(({ id }) => id));
      next = page.next;
    }
    assert.deepEqual(seen, [DELIVERED, HOSTILE, HELD]);
  });

  it("shows a message with its history, and its events", async () => {
    const { history, envelope, state } = await api(`/messages/${DELIVERED}`);
    assert.equal(state, "delivered");
    assert.equal(envelope.messageId, "<1@example.com>");
    assert.deepEqual(
      history.map((attempt: { outcome: { type: string } }) => attempt.outcome.type),
      [
        "Failed",
        "Delivered",
      ],
    );
    assert.equal(history[0].hosts[0].transcript, undefined);
    const full = await api(`/messages/${DELIVERED}?transcripts=true`);
    assert.equal(full.history[0].hosts[0].transcript.length, 1);
    const { events } = await api(`/messages/${DELIVERED}/events`);
    assert.deepEqual(events, JSON.parse(JSON.stringify(await given.store.readStream(DELIVERED))));
  });

  it("refuses parameters that it cannot read", async () => {
    const refusals: readonly (readonly [string, RegExp])[] = [
      ["?stat=held", /^"stat" is not a parameter; there are from, to/],
      ["?state=gone", /^state: it is not one of/],
      ["?state=held&state=queued", /^state: it is given 2 times/],
      ["?limit=0", /^limit: it takes a whole number from 1 to 1000/],
      ["?limit=1001", /^limit: /],
      ["?limit=1e2", /^limit: /],
      ["?sort=colour", /^sort: it takes one of/],
      ["?order=up", /^order: it takes asc or desc/],
      ["?total=1", /^total: it takes true or false/],
      ["?cursor=%", /^cursor: /],
      ["?cursor=bzk5OTk5OTk5OTk5OTk5", /^cursor: /],
      ["?older-than=-1", /^older-than: /],
      [`?error=${"x".repeat(1001)}`, /^error: it is over 1000 characters long/],
      [`/${HELD}?transcripts=maybe`, /^transcripts: /],
      [`/${HELD}/events?x=1`, /^"x" is not a parameter; it takes none/],
    ];
    for (const [query, words] of refusals) {
      assert.match(await refused(`/messages${query}`), words, query);
    }
  });

  it("answers 404 for what is not there", async () => {
    await problem(await get("/nothing"), 404);
    for (const id of [UNKNOWN, "x", `${HELD}x`, "%00", "..%2f..%2fetc", HELD.toLowerCase()]) {
      const path = `/api/v1/messages/${id}`;
      await problem(await get(path, { authorization: `Bearer ${TOKEN}` }), 404);
    }
  });

  it("answers 405 to other methods, and says which there are", async () => {
    const paths = [
      ["/healthz", "GET, HEAD"],
      ["/metrics", "GET, HEAD"],
      ["/api/v1/messages", "POST, GET, HEAD"],
      [`/api/v1/messages/${HELD}`, "GET, HEAD"],
      [`/api/v1/messages/${HELD}/hold`, "POST"],
    ] as const;
    for (const method of ["PUT", "DELETE", "PATCH", "OPTIONS"]) {
      for (const [path, allow] of paths) {
        const response = await get(path, { authorization: `Bearer ${TOKEN}` }, method);
        assert.equal(response.headers.get("allow"), allow);
        await problem(response, 405);
      }
    }
  });

  it("refuses requests that are too large", async () => {
    await problem(await get(`/healthz?${"x".repeat(62_000)}`), 414);
    await problem(await get("/healthz", { "x-long": "x".repeat(17_000) }), 431);
    const { hostname, port } = new URL(base);
    const socket = connect({ host: hostname, port: Number(port) });
    socket.write("GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    const answer = await new Promise<string>((resolve) =>
      socket.once("data", (octets) => resolve(octets.toString()))
    );
    socket.destroy();
    assert.match(answer, /^HTTP\/1\.1 400 /);
  });

  it("keeps its own faults to its log", async () => {
    queue = {
      ...given.view,
      list: () => Promise.reject(new Error("secret path")),
    } as Given["view"];
    const response = await get("/api/v1/messages", { authorization: `Bearer ${TOKEN}` });
    const { detail } = await problem(response, 500);
    assert(!detail.includes("secret"));
    assert.deepEqual(errors, ["http: request failed"]);
  });

  it("serves metrics without a token", async () => {
    const response = await get("/metrics");
    assert.match(response.headers.get("content-type")!, /^text\/plain; version=0\.0\.4/);
    const text = await response.text();
    assert.match(text, /^postledger_queue_depth\{state="delivered"\} 1$/m);
    assert(!text.includes("example.com"), "an address is in the metrics");
  });
});

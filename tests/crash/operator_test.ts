/** The operator, at a server that says yes to everything and does nothing. */
import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { seeded } from "../load/random.ts";
import { until } from "../peers/wait.ts";
import { Operator } from "./operator.ts";

interface Liar {
  readonly data: string;
  readonly httpPort: number;
  /** Acts that it said it had done, by their reasons. */
  readonly said: readonly string[];
  /** Streams that it says are held, until it has said that they were released. */
  held: string[];
  stop(): Promise<void>;
}

async function startLiar(): Promise<Liar> {
  const data = await Deno.makeTempDir({ prefix: "postledger-liar-" });
  await Deno.writeTextFile(`${data}/api-token`, "token\n");
  const said: string[] = [];
  const answer = async (request: Request): Promise<Response> => {
    const { pathname } = new URL(request.url);
    const { act, reason } = request.method === "POST" ? await request.json() : {};
    if (reason !== undefined) said.push(reason);
    switch (pathname.replace("/api/v1", "")) {
      case "/hold-rules":
        return request.method === "POST"
          ? Response.json({ id: "rule" }, { status: 201 })
          : Response.json({ rules: [] });
      case "/intake":
        return Response.json({ paused: null });
      case "/messages":
        return Response.json({ messages: [{ id: "m" }] });
      case "/queue/act": {
        const results = liar.held.map((id) => ({ id, done: true }));
        if (act === "release") liar.held = [];
        return Response.json({ results, next: null });
      }
      case "/suppressions/lift":
        return Response.json({}, { status: 404 });
      default:
        return Response.json({});
    }
  };
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, answer);
  const liar: Liar = {
    data,
    httpPort: server.addr.port,
    said,
    held: [],
    stop: async () => {
      await server.shutdown();
      await Deno.remove(data, { recursive: true });
    },
  };
  return liar;
}

describe("the operator of a crash test", () => {
  it("notices whatever was answered as done and is not so", async () => {
    const liar = await startLiar();
    let sent = 0;
    const operator = new Operator({
      server: liar,
      random: seeded(7),
      pauses: true,
      within: 1,
      send: () => Promise.resolve(String(++sent)),
      received: () => true,
    });
    try {
      operator.start();
      const expected = [
        /hold rule \(act \d+\) was answered as added, and is gone/,
        /was acknowledged while no mail was taken/,
        /was taken for an address on the list/,
        /suppressed\.\d+@load\.example was answered as suppressed, and is not on the list/,
      ];
      await until("every lie to be found", 5_000, () => {
        const all = operator.violations.join("\n");
        return expected.every((pattern) => pattern.test(all));
      });
    } finally {
      await operator.close();
      await liar.stop();
    }
  });

  it("notices that mail was received while a rule held it", async () => {
    const liar = await startLiar();
    const rules = [{ id: "rule", reason: "" }];
    const answers = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen: () => {} },
      (request) =>
        new URL(request.url).pathname.endsWith("/hold-rules")
          ? Response.json({ id: "rule", rules }, { status: request.method === "POST" ? 201 : 200 })
          : Response.json({ paused: null, messages: [], results: [], next: null }),
    );
    const operator = new Operator({
      server: { data: liar.data, httpPort: answers.addr.port },
      random: seeded(7),
      pauses: false,
      within: 1,
      send: (domain) => Promise.resolve(domain === "ruled.example" ? "1" : undefined),
      received: (id) => id === "1",
    });
    try {
      operator.start();
      await until(
        "it to be found",
        5_000,
        () => operator.violations.some((one) => one === "1 was received while a rule held it"),
      );
    } finally {
      await operator.close();
      await answers.shutdown();
      await liar.stop();
    }
  });

  it("keeps what it asked for with the answers, and rests when nothing is held", async () => {
    const liar = await startLiar();
    liar.held = ["a", "b"];
    const operator = new Operator({
      server: liar,
      random: seeded(7),
      pauses: false,
      send: () => Promise.resolve(undefined),
      received: () => false,
    });
    try {
      await operator.rest();
      assert.deepEqual(
        operator.acts.map(({ kind, answer }) => [
          kind,
          answer && "each" in answer ? [...answer.each] : answer,
        ]),
        [["release", [["a", true], ["b", true]]], ["release", []]],
      );
      assert.deepEqual(liar.said, operator.acts.map(({ reason }) => reason));
    } finally {
      await operator.close();
      await liar.stop();
    }
  });
});

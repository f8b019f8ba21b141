/**
 * The OpenAPI document against the running server: every answer is one that the document has, and
 * every answer that the document has is one that the server gives.
 */
import { after, before, describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import { Ajv2020 } from "ajv/dist/2020.js";
import { MAX_HOLD_RULES } from "../../../actors/admission.ts";
import { Refusal } from "../../../src/submission/refusal.ts";
import { HttpHarness, MESSAGE } from "./harness.ts";

interface Described {
  operationId: string;
  security?: { token: string[] }[];
  parameters?: { name: string; in: string; required?: boolean }[];
  requestBody?: { content: Record<string, { schema: Record<string, unknown> }> };
  responses: Record<string, { $ref?: string; content?: Record<string, { schema: unknown }> }>;
}

interface Document {
  openapi: string;
  paths: Record<string, Record<string, Described>>;
  components: {
    schemas: Record<string, unknown>;
    responses: Record<string, { content: Record<string, { schema: unknown }> }>;
  };
}

interface Call {
  id?: string;
  query?: string;
  body?: BodyInit;
  headers?: Record<string, string>;
  token?: string | null;
}

const JSON_TYPE = { "content-type": "application/json" };
const RAW_TYPE = { "content-type": "message/rfc822" };
const UNKNOWN = "01KGA00000000000000000000Z";
const ENVELOPE = "from=ann@example.com&to=bob@example.net";

describe("OpenAPI", () => {
  let http: HttpHarness;
  let document: Document;
  const seen = new Set<string>();
  const ajv = new Ajv2020({ strict: false, formats: { binary: true } });
  const operations = () =>
    Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, described]) => ({ path, method, described }))
    );

  before(async () => {
    http = await HttpHarness.create({ idle: 30, json: 4_096 });
    document = await (await http.fetch("GET", "/openapi.json")).json();
    ajv.addSchema({ $id: "doc", ...document });
  });
  after(() => http.remove());

  /** Makes a request and holds the answer against the document. */
  async function call(operationId: string, status: number, call: Call = {}) {
    const { path, method, described } = operations().find(({ described }) =>
      described.operationId === operationId
    )!;
    const { id = UNKNOWN, query = "", body, token = http.operator } = call;
    const headers = new Headers(call.headers);
    if (token !== null) headers.set("authorization", `Bearer ${token}`);
    const url = `${http.base}/api/v1${path.replace("{id}", id)}${query && `?${query}`}`;
    const init = { method: method.toUpperCase(), headers, ...(body === undefined ? {} : { body }) };
    const response = await fetch(url, init);
    const text = await response.text();
    assert.equal(response.status, status, `${operationId}: ${text}`);
    return check(described, status, response.headers.get("content-type")!, text);
  }

  /** Holds an answer against the document. */
  function check(described: Described, status: number, type: string, text: string) {
    const { operationId } = described;
    const answer = described.responses[status];
    assert(answer, `${operationId} answers ${status}, which the document does not have`);
    const name = answer.$ref?.split("/").at(-1);
    const { content } = name === undefined ? answer : document.components.responses[name]!;
    const schema = content?.[type]?.schema as Record<string, unknown> | undefined;
    assert(schema, `${operationId} ${status}: ${type}`);
    const ref = schema.$ref as string | undefined;
    const validate = ref ? ajv.getSchema(`doc${ref}`)! : ajv.compile(schema);
    const json = JSON.parse(text);
    assert(validate(json), `${operationId} ${status}: ${ajv.errorsText(validate.errors)}\n${text}`);
    seen.add(`${operationId} ${status}`);
    return json;
  }

  /** Begins to send content, and falls silent. */
  async function silence(path: string, described: Described) {
    const { hostname, port } = new URL(http.base);
    const socket = await Deno.connect({ hostname, port: Number(port) });
    const head = [
      `POST /api/v1${path.replace("{id}", UNKNOWN)} HTTP/1.1`,
      "Host: x",
      `Authorization: Bearer ${http.operator}`,
      "Content-Type: application/json",
      "Content-Length: 1000",
    ].join("\r\n");
    await socket.write(new TextEncoder().encode(`${head}\r\n\r\n{`));
    const octets = new Uint8Array(8_192);
    let text = "";
    while (!text.endsWith("}\n")) {
      const read = await socket.read(octets);
      assert(read !== null, `closed after ${text}`);
      text += new TextDecoder().decode(octets.subarray(0, read));
    }
    socket.close();
    assert.match(text, /^HTTP\/1\.1 408 /);
    check(described, 408, "application/problem+json", text.slice(text.indexOf("\r\n\r\n") + 4));
  }

  /** A request that the operation would obey, whatever `id` is. */
  function sound(operationId: string): Call {
    const reason = JSON.stringify({ reason: "test" });
    switch (operationId) {
      case "submitMessage":
        return { query: ENVELOPE, body: MESSAGE, headers: RAW_TYPE };
      case "transportMessage":
        return { body: JSON.stringify({ transport: "relay" }), headers: JSON_TYPE };
      case "actOnMessages":
        return { body: JSON.stringify({ act: "kick", all: true }), headers: JSON_TYPE };
      case "addHoldRule":
        return {
          body: JSON.stringify({ filter: { toDomain: "example.org" } }),
          headers: JSON_TYPE,
        };
      case "suppress":
      case "liftSuppression":
        return { body: JSON.stringify({ address: "gone@example.net" }), headers: JSON_TYPE };
      default: {
        const takes = operations().find(({ described }) => described.operationId === operationId);
        return takes!.described.requestBody ? { body: reason, headers: JSON_TYPE } : {};
      }
    }
  }

  it("is a document of OpenAPI 3.1 with ids of its own", () => {
    assert.equal(document.openapi, "3.1.0");
    const ids = operations().map(({ described }) => described.operationId);
    assert.equal(new Set(ids).size, ids.length);
    for (const { path, described } of operations()) {
      const named = (described.parameters ?? []).filter((parameter) => parameter.in === "path");
      assert.deepEqual(named.map(({ name }) => `{${name}}`), path.match(/\{\w+\}/g) ?? []);
      for (const { schema } of Object.values(described.requestBody?.content ?? {})) {
        ajv.compile(schema);
      }
    }
  });

  it("answers what the document says where all is well", async () => {
    const { messages } = await call("submitMessage", 202, sound("submitMessage"));
    const id = messages[0].id;
    const letter = {
      from: "ann@example.com",
      to: ["bob@example.net"],
      text: "hello",
      metadata: { order: "1" },
    };
    const content = operations().find(({ described }) => described.operationId === "submitMessage")!
      .described.requestBody!.content;
    assert(ajv.validate(content["application/json"]!.schema, letter), ajv.errorsText());
    await call("submitMessage", 202, { body: JSON.stringify(letter), headers: JSON_TYPE });
    await call("listMessages", 200, { query: "total=true&limit=1" });
    for (const act of ["hold", "release", "kick", "transport"]) {
      await call(`${act}Message`, 200, { id, ...sound(`${act}Message`) });
    }
    await call("actOnMessages", 200, sound("actOnMessages"));
    await call("dropMessage", 200, { id, ...sound("dropMessage") });
    await call("showMessage", 200, { id, query: "transcripts=true" });
    await call("listEvents", 200, { id });
    const rule = await call("addHoldRule", 201, sound("addHoldRule"));
    await call("listHoldRules", 200);
    http.destinations = [
      { key: "busy.example", running: 5, waiting: 100, window: 5 },
      {
        key: "dead.example",
        running: 0,
        waiting: 3,
        window: 1,
        down: { since: new Date(0).toISOString(), until: new Date(1).toISOString(), why: "no" },
      },
    ];
    const list = await call("listDestinations", 200, { query: "limit=1" });
    assert.deepEqual([list.total, list.down, list.destinations[0].destination], [
      2,
      1,
      "dead.example",
    ]);
    http.destinations = undefined;
    await call("removeHoldRule", 200, { id: rule.id, query: "reason=over" });
    await call("pauseIntake", 200, sound("pauseIntake"));
    await call("showIntake", 200);
    await call("resumeIntake", 200, sound("resumeIntake"));
    await call("suppress", 201, sound("suppress"));
    await call("listSuppressions", 200, { query: "limit=1" });
    await call("liftSuppression", 200, sound("liftSuppression"));
    await call("listWebhooks", 200);
    await call("parkWebhook", 200, { id: "hook", ...sound("parkWebhook") });
    await call("parkWebhook", 409, { id: "hook", ...sound("parkWebhook") });
    await call("resumeWebhook", 200, { id: "hook", ...sound("resumeWebhook") });
    await call("resumeWebhook", 409, { id: "hook", ...sound("resumeWebhook") });
    await call("describe", 200);
  });

  it("answers every operation's common problems", async () => {
    const reader = http.token(["read"]);
    const submitter = http.token(["submit"]);
    const bound = http.token(["read", "submit", "operate"], "nobody");
    for (const { described } of operations()) {
      const { operationId, security } = described;
      const request = sound(operationId);
      await call(operationId, 401, { ...request, token: null });
      const other = security?.[0]?.token[0] === "read" ? submitter : reader;
      if (security) await call(operationId, 403, { ...request, token: other });
      await call(operationId, 400, { ...request, query: "colour=red" });
      await call(operationId, 414, { ...request, query: `x=${"x".repeat(62_000)}` });
      await call(operationId, 431, { ...request, headers: { "x-long": "x".repeat(17_000) } });
    }
    await call("listDestinations", 400, { query: "limit=0" });
    for (
      const id of ["listDestinations", "listHoldRules", "showIntake", "pauseIntake", "addHoldRule"]
    ) {
      await call(id, 403, { ...sound(id), token: bound });
    }
    await call("submitMessage", 403, { ...sound("submitMessage"), token: bound });
    await call("listMessages", 403, { query: "account=alice", token: bound });
  });

  it("answers the problems of content", async () => {
    for (const { path, described } of operations()) {
      const { operationId, requestBody } = described;
      if (!requestBody) continue;
      const text = { "content-type": "text/plain" };
      await call(operationId, 415, { ...sound(operationId), headers: text });
      await call(operationId, 422, { body: '{"colour":"red"}', headers: JSON_TYPE });
      await call(operationId, 400, { body: "{", headers: JSON_TYPE });
      const large = " ".repeat(2 * 2 ** 20 + 1);
      await call(operationId, 413, { body: large, headers: JSON_TYPE });
      await silence(path, described);
    }
  });

  it("answers what does not fit the state of things", async () => {
    const id = await http.message();
    for (const { path, described } of operations()) {
      if (!path.includes("{id}")) continue;
      await call(described.operationId, 404, sound(described.operationId));
    }
    await call("releaseMessage", 409, { id, ...sound("releaseMessage") });
    await call("dropMessage", 200, { id, ...sound("dropMessage") });
    for (const act of ["hold", "kick", "drop", "transport"]) {
      await call(`${act}Message`, 409, { id, ...sound(`${act}Message`) });
    }
    await call("liftSuppression", 404, sound("liftSuppression"));
    await call("resumeIntake", 409, sound("resumeIntake"));
    await call("pauseIntake", 200, sound("pauseIntake"));
    await call("pauseIntake", 409, sound("pauseIntake"));
    await call("submitMessage", 503, sound("submitMessage"));
    await call("resumeIntake", 200, sound("resumeIntake"));
    const key = { "idempotency-key": "k", ...RAW_TYPE };
    await call("submitMessage", 202, { ...sound("submitMessage"), headers: key });
    await call("submitMessage", 409, { query: ENVELOPE, body: "X: y\r\n\r\n", headers: key });
    const rule = { filter: { account: "a" }, who: "test", why: "full" };
    for (let n = http.admission.state.rules.length; n < MAX_HOLD_RULES; n++) {
      await http.admission.act({ type: "AddHoldRule", id: `r${n}`, ...rule });
    }
    await call("addHoldRule", 409, sound("addHoldRule"));
  });

  it("answers 429 at the limits of an account", async () => {
    http.accounts = {
      get: () => ({}) as never,
      gate: {
        checkSender() {},
        checkHeader: () => undefined,
        takeAllowance: () => Promise.reject(new Refusal(450, "4.7.1", "enough for an hour")),
      },
    };
    const token = http.token(["submit"], "alice");
    await call("submitMessage", 429, { ...sound("submitMessage"), token });
  });

  it("answers faults of the disk and of its own", async () => {
    const id = await http.message();
    const { StoreUnavailable } = await import("../../../events/store.ts");
    for (
      const [status, fault] of [[503, new StoreUnavailable("disk full")], [
        500,
        new Error("x"),
      ]] as const
    ) {
      http.fault = fault;
      for (const { described } of operations()) {
        if (!(status in described.responses) || described.operationId === "describe") continue;
        await call(described.operationId, status, { id, ...sound(described.operationId) });
      }
      http.fault = undefined;
    }
  });

  it("has no answer that the server was not seen to give", () => {
    const promised = operations().flatMap(({ described }) =>
      Object.keys(described.responses).map((status) => `${described.operationId} ${status}`)
    );
    // It is made without asking anything that could fail, and any token may have it.
    const never = ["describe 403", "describe 500"];
    assert.deepEqual(promised.filter((one) => !seen.has(one)), never);
  });
});

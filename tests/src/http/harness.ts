/**
 * The HTTP listener over a real store, with everything behind it but deliveries: messages stay
 * queued, and acts of operators go through the real supervisor.
 */
import assert from "node:assert/strict";
import { Admission } from "../../../actors/admission.ts";
import { QueueSubmitter } from "../../../actors/submitter.ts";
import { Supervisor } from "../../../actors/supervisor.ts";
import { Suppressions } from "../../../actors/suppression.ts";
import type { WebhookEndpoint } from "../../../actors/webhook_endpoint.ts";
import { Webhooks } from "../../../actors/webhooks.ts";
import { archiveFiles } from "../../../events/archive.ts";
import { type OpenStore, openStore } from "../../../events/open.ts";
import { idempotencyId, idempotencyProjection } from "../../../events/projections/idempotency.ts";
import { suppressionId, suppressionProjection } from "../../../events/projections/suppression.ts";
import { webhooksProjection } from "../../../events/projections/webhooks.ts";
import { StoreUnavailable } from "../../../events/store.ts";
import { AddressFile } from "../../../src/http/address_file.ts";
import { openToken } from "../../../src/http/api_token.ts";
import { type BodyLimits, DEFAULT_BODY_LIMITS } from "../../../src/http/body.ts";
import type { Scope } from "../../../src/http/operation.ts";
import { type HttpPorts, HttpServer } from "../../../src/http/server.ts";
import { authenticator, newToken, readTokens, writeTokens } from "../../../src/http/tokens.ts";
import { systemClock, systemRandom, ulids } from "../../../src/system.ts";
import { direct, policy } from "../../actors/given.ts";

export const MESSAGE = "From: ann@example.com\r\nSubject: hi\r\n\r\nhello\r\n";

export class HttpHarness {
  base = "";
  opened!: OpenStore;
  admission!: Admission;
  webhooks!: Webhooks;
  /** The webhook endpoints that there are. */
  endpoints: readonly WebhookEndpoint[] = [
    {
      name: "hook",
      url: "https://example.com/hook",
      events: ["failed"],
      concurrency: 4,
      parkAfter: 86_400_000,
    },
  ];
  /** While true, nothing can be written. */
  diskFull = false;
  /** Something else that an operation meets. */
  fault: Error | undefined;
  /** Added to the clock, milliseconds. */
  later = 0;
  readonly errors: string[] = [];
  accounts: HttpPorts["accounts"];
  /** What is told instead of the destinations of the supervisor, which delivers nothing. */
  destinations: ReturnType<HttpPorts["destinations"]> | undefined;
  operator = "";
  #server!: HttpServer;
  #supervisor!: Supervisor;
  #addressFile!: AddressFile;

  private constructor(readonly dataDir: string, readonly limits: Partial<BodyLimits>) {}

  static async create(limits: Partial<BodyLimits> = {}): Promise<HttpHarness> {
    const harness = new HttpHarness(
      await Deno.makeTempDir({ prefix: "postledger-http-" }),
      limits,
    );
    await harness.open();
    return harness;
  }

  async open(): Promise<void> {
    const { dataDir } = this;
    const clock = { ...systemClock, now: () => systemClock.now() + this.later };
    const ids = ulids(clock, systemRandom);
    const log = { info() {}, warn() {}, error: (line: string) => void this.errors.push(line) };
    this.opened = await openStore({ dataDir, clock });
    const { view, bodies, row, page } = this.opened;
    const store = new Proxy(this.opened.store, {
      get: (target, name) => {
        if (name === "append" && this.diskFull) {
          return () => Promise.reject(new StoreUnavailable("database or disk is full"));
        }
        const value = Reflect.get(target, name, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
    this.admission = new Admission(store);
    await this.admission.load();
    const nothing = () => Promise.reject(new Error("nothing is delivered here"));
    this.#supervisor = new Supervisor(
      {
        clock,
        random: systemRandom,
        ids,
        log,
        store,
        view,
        router: { choose: () => direct, expect: () => direct, destination: () => "" } as never,
        delivery: { attempt: nothing },
        reporter: { compose: nothing },
        policy: () => policy,
        lifetimes: () => [policy.lifetime],
      },
      { concurrency: 1, policy: () => ({ concurrency: 1 }) },
      () => {},
    );
    const suppressions = new Suppressions({
      clock,
      log,
      store,
      view: {
        list: (limit, after = "") => page(suppressionProjection, after, limit),
        get: (address, account) => row(suppressionProjection, suppressionId(address, account)),
      },
      policy: () => ({ automatic: true }),
    });
    const submitter = new QueueSubmitter({
      clock,
      ids,
      store,
      admission: this.admission,
      suppressions,
    });
    this.webhooks = new Webhooks(this.endpoints, {
      clock,
      random: systemRandom,
      log,
      store,
      row: (endpoint) => row(webhooksProjection, endpoint),
      sender: { send: () => Promise.resolve(200) },
    });
    await this.webhooks.start();
    this.operator = openToken(dataDir);
    const guarded = <T extends object>(port: T): T =>
      new Proxy(port, {
        get: (target, name) => {
          if (this.fault) throw this.fault;
          const value = Reflect.get(target, name, target);
          return typeof value === "function" ? value.bind(target) : value;
        },
      });
    // deno-lint-ignore no-this-alias -- the ports read what the test sets on the way
    const harness = this;
    this.#server = new HttpServer({ address: "127.0.0.1", port: 0 }, {
      queue: guarded(view),
      store: guarded(store),
      archive: guarded(this.opened.archive),
      now: () => clock.now(),
      readiness: () => ({ ok: true }),
      metrics: () => Promise.resolve({ contentType: "text/plain", text: "" }),
      authenticate: authenticator(this.operator, dataDir, (why) => this.errors.push(why)),
      submitter: guarded(submitter),
      bodies,
      clock,
      hostname: "mail.example.com",
      listener: "web",
      idempotent: (account, key) => row(idempotencyProjection, idempotencyId(account, key)),
      act: (stream, command) => this.#supervisor.act(stream, command),
      transports: () => ["direct", "relay"],
      destinations: () => {
        if (this.fault) throw this.fault;
        return this.destinations ?? this.#supervisor.destinations();
      },
      admission: guarded(this.admission),
      suppressions: guarded(suppressions),
      webhooks: guarded(this.webhooks),
      newId: () => ids.next(),
      log,
      get accounts() {
        return harness.accounts;
      },
    }, { ...DEFAULT_BODY_LIMITS, ...this.limits });
    const at = this.#server.listen();
    this.base = `http://${at.address}:${at.port}`;
    this.#addressFile = new AddressFile(dataDir, log);
    this.#addressFile.listening("web", at);
  }

  async close(): Promise<void> {
    this.#addressFile.closed("web");
    await this.#server.close();
    await this.webhooks.stop();
    await this.#supervisor.stop(0);
    await this.opened.close();
  }

  /** A token with these scopes. */
  token(scopes: readonly Scope[], account: string | null = null): string {
    const name = `t${crypto.randomUUID().slice(0, 8)}`;
    const { token, stored } = newToken({ name, account, scopes }, new Date().toISOString());
    writeTokens(this.dataDir, [...readTokens(this.dataDir), stored]);
    return token;
  }

  fetch(method: string, path: string, init: RequestInit & { token?: string } = {}) {
    const { token = this.operator, headers, ...rest } = init;
    return fetch(`${this.base}/api/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, ...headers },
      ...rest,
    });
  }

  /** Posts JSON. */
  post(
    path: string,
    body: unknown,
    headers: Record<string, string> = {},
    token?: string,
  ): Promise<Response> {
    return this.fetch("POST", path, {
      headers: { "content-type": "application/json", ...headers },
      body: typeof body === "string" ? body : JSON.stringify(body),
      ...(token === undefined ? {} : { token }),
    });
  }

  /** Posts a message as it is. */
  raw(
    query: string,
    body: BodyInit,
    headers: Record<string, string> = {},
    token?: string,
  ): Promise<Response> {
    return this.fetch("POST", `/messages?${query}`, {
      headers: { "content-type": "message/rfc822", ...headers },
      body,
      ...(token === undefined ? {} : { token }),
    });
  }

  /** Hands in a message and gives its id. */
  async message(to = "bob@example.net", token?: string): Promise<string> {
    const response = await this.raw(`from=ann@example.com&to=${to}`, MESSAGE, {}, token);
    const { messages } = await answered(response, 202);
    return messages[0].id;
  }

  /**
   * Lets go of what is finished: it is in the archive then.
   * @returns the files, all of them
   */
  async archive(): Promise<string[]> {
    // A checkpoint over it, and the last one, which stays.
    for (let n = 0; n < 2; n++) {
      const stream = "destination example.net 2026-01-31";
      const expectedVersion = await this.opened.store.version(stream);
      const data = { destination: "example.net", since: "2026-01-31T00:00:00.000Z" };
      await this.opened.store.append([
        { stream, expectedVersion, facts: [{ type: "DestinationUp", data }] },
      ]);
      await this.close();
      if (n === 1) this.later += 100 * 86_400_000;
      await this.open();
    }
    await this.opened.retention.run(90 * 86_400_000, new AbortController().signal);
    return (await archiveFiles(this.opened.raw)).map(({ file }) => file);
  }

  /** The stored octets of a message. */
  async content(id: string): Promise<string> {
    const row = await this.opened.view.get(id);
    const reader = await this.opened.bodies.open(row!.body!);
    let text = "";
    const decoder = new TextDecoder();
    for await (const chunk of reader.chunks()) text += decoder.decode(chunk, { stream: true });
    return text;
  }

  async remove(): Promise<void> {
    await this.close();
    await Deno.remove(this.dataDir, { recursive: true });
  }
}

// deno-lint-ignore no-explicit-any -- JSON, which each test knows the shape of
export async function answered(response: Response, status: number): Promise<any> {
  const text = await response.text();
  assert.equal(response.status, status, text);
  return JSON.parse(text);
}

export interface SeenProblem {
  readonly title: string;
  readonly detail: string;
  readonly errors: { pointer?: string; parameter?: string; header?: string; detail: string }[];
}

export async function problem(response: Response, status: number): Promise<SeenProblem> {
  const body = await answered(response, status);
  assert.equal(response.headers.get("content-type"), "application/problem+json");
  assert.equal(body.status, status);
  return body;
}

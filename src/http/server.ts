/**
 * The HTTP listener: health, metrics and the API, on a loopback address.
 *
 *   /healthz      the process answers
 *   /readyz       it takes mail: the store writes, the intake is open, it is not shutting down
 *   /metrics      Prometheus text, without a token: it names no address and no message, and of
 *                 destinations the busiest few
 *   /api/v1/      guarded by tokens (api.ts)
 */
import { Hono } from "hono";
import type { Log } from "../../actors/ports.ts";
import type { SocketAddress } from "../config/types.ts";
import { api, type ApiPorts, authenticated, type Client, methodNotAllowed } from "./api.ts";
import { type BodyLimits, DEFAULT_BODY_LIMITS, hasContent } from "./body.ts";
import { badRequest, notFound, problemResponse, RequestProblem } from "./problem.ts";

/** Whether mail can be taken, and if not, why. */
export type Readiness = { readonly ok: true } | { readonly ok: false; readonly why: string };

export interface HttpPorts extends ApiPorts {
  readonly readiness: () => Readiness;
  /** What /metrics answers, with its content type. */
  readonly metrics: () => Promise<{ readonly contentType: string; readonly text: string }>;
  readonly log: Log;
}

/** Room for a thousand recipients; the system takes little more. */
const MAX_URL = 60 * 1024;
const MAX_HEADERS = 16 * 1024;
/** Milliseconds that requests under way have when the listener closes. */
const CLOSE_WITHIN = 2_000;

type App = Hono<{ Bindings: Client }>;

/** Answers requests; knows nothing of sockets. */
export function httpApp(ports: HttpPorts, limits: BodyLimits = DEFAULT_BODY_LIMITS): App {
  const app: App = new Hono();

  app.use(async (context, next) => {
    checkSize(context.req.raw);
    await next();
  });
  app.use("/api/*", async (context, next) => {
    authenticated(ports.authenticate, context.req.raw);
    await next();
    context.header("cache-control", "no-store");
  });
  app.get("/healthz", (context) => context.json({ status: "ok" }));
  app.get("/readyz", (context) => {
    const readiness = ports.readiness();
    return readiness.ok
      ? context.json({ status: "ok" })
      : context.json({ status: "unavailable", why: readiness.why }, 503);
  });
  app.get("/metrics", async () => {
    const { contentType, text } = await ports.metrics();
    return new Response(text, { headers: { "content-type": contentType } });
  });
  for (const path of ["/healthz", "/readyz", "/metrics"]) {
    app.all(path, ({ req }) => {
      throw methodNotAllowed(req.method, ["GET", "HEAD"]);
    });
  }
  app.route("/api/v1", api(ports, limits));
  app.notFound(() => problemResponse(notFound("there is nothing under this path").problem));
  app.onError((error) => {
    if (error instanceof RequestProblem) return problemResponse(error.problem);
    ports.log.error("http: request failed", { error: error.stack ?? String(error) });
    return problemResponse({
      status: 500,
      title: "Internal error",
      detail: "the log of the server says what went wrong",
    });
  });
  return app;
}

/** @throws RequestProblem for what no path takes */
function checkSize(request: Request): void {
  if (request.url.length > MAX_URL) {
    throw new RequestProblem({ status: 414, title: "URI too long" });
  }
  let octets = 0;
  for (const [name, value] of request.headers) octets += name.length + value.length + 4;
  if (octets > MAX_HEADERS) {
    throw new RequestProblem({ status: 431, title: "Request header fields too large" });
  }
  const { method } = request;
  if ((method === "GET" || method === "HEAD") && hasContent(request)) {
    throw badRequest("the request has content, and GET takes none");
  }
}

/** One HTTP listener. */
export class HttpServer {
  #server: Deno.HttpServer<Deno.NetAddr> | undefined;
  readonly #cut = new AbortController();
  readonly #app: App;

  constructor(private readonly address: SocketAddress, ports: HttpPorts, limits?: BodyLimits) {
    this.#app = httpApp(ports, limits);
  }

  /**
   * Starts to listen; gives the address and the port that it has.
   * @throws Deno.errors.AddrInUse and other errors of the system
   */
  listen(): SocketAddress {
    this.#server = Deno.serve({
      hostname: this.address.address,
      port: this.address.port,
      signal: this.#cut.signal,
      // Where it listens is for the caller to say.
      onListen: () => {},
    }, (request, { remoteAddr: { hostname, port } }) => {
      const peer = `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
      return this.#app.fetch(request, { peer });
    });
    return { address: this.address.address, port: this.#server.addr.port };
  }

  /** Stops listening; requests under way have two seconds. Never throws, may be called twice. */
  async close(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (!server) return;
    const timer = setTimeout(() => this.#cut.abort(), CLOSE_WITHIN);
    try {
      await server.shutdown();
    } finally {
      clearTimeout(timer);
    }
  }
}

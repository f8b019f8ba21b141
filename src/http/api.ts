/**
 * The API: its operations on their paths, behind tokens and scopes.
 *
 *   /messages …              hand in, list, show        submit.ts, messages.ts
 *   /messages/ID/ACT         act on one                 acts.ts
 *   /queue/act               act on many                acts.ts
 *   /destinations            where it goes, what is down  destinations.ts
 *   /hold-rules, /intake …   what new mail meets        admission.ts
 *   /suppressions            who is not written to      suppressions.ts
 *   /webhooks …              who is told                webhooks.ts
 *   /openapi.json            all of it, described       openapi.ts
 */
import { type Context, Hono } from "hono";
import { z } from "zod";
import { StoreUnavailable } from "../../events/store.ts";
import { actOperations, type ActPorts } from "./acts.ts";
import { admissionOperations, type AdmissionPorts } from "./admission.ts";
import { destinationOperations, type DestinationPorts } from "./destinations.ts";
import { type BodyLimits, hasContent, HeldContent } from "./body.ts";
import { readOperations, type ReadPorts } from "./messages.ts";
import { openApi } from "./openapi.ts";
import { type Operation, type Principal, readQuery } from "./operation.ts";
import { badRequest, RequestProblem, unavailable } from "./problem.ts";
import { submitOperation, type SubmitPorts } from "./submit.ts";
import { type SuppressionListPorts, suppressionOperations } from "./suppressions.ts";
import type { Authenticate } from "./tokens.ts";
import { webhookOperations, type WebhookPorts } from "./webhooks.ts";

export interface ApiPorts
  extends
    ReadPorts,
    DestinationPorts,
    Omit<ActPorts, "queue" | "archive" | "now">,
    Omit<AdmissionPorts, "queue" | "now">,
    SubmitPorts,
    SuppressionListPorts,
    WebhookPorts {
  readonly authenticate: Authenticate;
}

/** What the socket says of the client. */
export interface Client {
  readonly peer?: string;
}

export function operations(ports: ApiPorts, limits: BodyLimits): Operation[] {
  const held = new HeldContent(ports.clock, limits);
  const all: Operation[] = [
    submitOperation(ports, held, limits),
    ...readOperations(ports),
    ...actOperations(ports, held),
    ...admissionOperations(ports, held),
    ...destinationOperations(ports),
    ...suppressionOperations(ports, held),
    ...webhookOperations(ports, held),
  ];
  let document: Record<string, unknown> | undefined;
  all.push({
    id: "describe",
    method: "get",
    path: "/openapi.json",
    about: "This document.",
    answer: { status: 200, about: "OpenAPI 3.1.", schema: z.looseObject({ openapi: z.string() }) },
    problems: [],
    handle: () => Promise.resolve({ status: 200, body: document ??= openApi(all) }),
  });
  return all;
}

export function api(ports: ApiPorts, limits: BodyLimits): Hono<{ Bindings: Client }> {
  const app = new Hono<{ Bindings: Client }>();
  const methods = new Map<string, string[]>();
  for (const operation of operations(ports, limits)) {
    const path = operation.path.replace(/\{(\w+)\}/g, ":$1");
    app.on(operation.method.toUpperCase(), path, (context) => run(operation, ports, context));
    const known = methods.get(path) ?? [];
    known.push(
      ...(operation.method === "get" ? ["GET", "HEAD"] : [operation.method.toUpperCase()]),
    );
    methods.set(path, known);
  }
  for (const [path, known] of methods) {
    app.all(path, ({ req }) => {
      throw methodNotAllowed(req.method, known);
    });
  }
  return app;
}

export const methodNotAllowed = (method: string, allowed: readonly string[]): RequestProblem =>
  new RequestProblem({
    status: 405,
    title: "Method not allowed",
    detail: `${method} is not taken here; ${allowed.join(" and ")} are`,
    headers: { allow: allowed.join(", ") },
  });

/** @throws RequestProblem 401 */
export function authenticated(authenticate: Authenticate, request: Request): Principal {
  const principal = authenticate(request.headers.get("authorization"));
  if (principal) return principal;
  throw new RequestProblem({
    status: 401,
    title: "Unauthorized",
    detail: "send Authorization: Bearer with a token: the one in the data folder's file " +
      "api-token, or one that `token add` made",
    headers: { "www-authenticate": 'Bearer realm="postledger"' },
  });
}

async function run(
  operation: Operation,
  { authenticate }: ApiPorts,
  context: Context<{ Bindings: Client }>,
): Promise<Response> {
  const request = context.req.raw;
  const principal = authenticated(authenticate, request);
  if (operation.scope && !principal.scopes.has(operation.scope)) {
    throw new RequestProblem({
      status: 403,
      title: "Forbidden",
      detail: `this takes a token with the scope ${operation.scope}`,
      headers: {
        "www-authenticate":
          `Bearer realm="postledger", error="insufficient_scope", scope="${operation.scope}"`,
      },
    });
  }
  if (hasContent(request) && !operation.content) {
    throw badRequest("the request has content, and this operation takes none");
  }
  const query = readQuery(new URL(request.url).searchParams, operation.parameters ?? []);
  const { peer } = context.env;
  const id = context.req.param("id") ?? "";
  try {
    const { status, body, headers } = await operation.handle({
      request,
      principal,
      id,
      query,
      ...(peer === undefined ? {} : { peer }),
    });
    return new Response(JSON.stringify(body), {
      status,
      headers: { ...headers, "content-type": "application/json" },
    });
  } catch (error) {
    if (error instanceof StoreUnavailable) throw unavailable(error.message);
    throw error;
  }
}

/** The OpenAPI 3.1 document of the API, made from its operations. */
import { z } from "zod";
import { COMMON_PROBLEMS, type Operation, type Parameter, SCOPES } from "./operation.ts";
import { ProblemShape } from "./shapes.ts";

const WORDS: Readonly<Record<number, string>> = {
  400: "The request cannot be read.",
  401: "There is no token, or one that is not known.",
  403: "The token may not do this.",
  404: "There is no such thing.",
  408: "The content did not come in time.",
  409: "It does not fit the state of things.",
  413: "The content is too large.",
  414: "The URI is too long.",
  415: "The content is of a type that is not taken.",
  422: "The content says something that cannot be done; `errors` names each field.",
  429: "The account has reached a limit.",
  431: "The header fields are too large.",
  500: "A fault of the server; its log says which.",
  503: "It cannot be done now; it can be asked again.",
};

/** A value of the output as a JSON Schema (2020-12, as OpenAPI 3.1 has it). */
const output = (schema: z.ZodType) => withoutDialect(z.toJSONSchema(schema, { io: "output" }));
const input = (schema: z.ZodType) =>
  // What a transformation makes of the input is not the client's concern.
  withoutDialect(z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }));

function withoutDialect(schema: object): Record<string, unknown> {
  const { $schema: _, ...rest } = schema as Record<string, unknown>;
  return rest;
}

export function openApi(operations: readonly Operation[]): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const operation of operations) {
    (paths[operation.path] ??= {})[operation.method] = describe(operation);
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "Postledger",
      version: "1",
      description: "Hands mail in, shows what became of it, and acts on what is in the queue.",
    },
    servers: [{ url: "/api/v1" }],
    security: [{ token: [] }],
    paths,
    components: {
      securitySchemes: {
        token: {
          type: "http",
          scheme: "bearer",
          description: `A token with the scope of the operation: ${SCOPES.join(", ")}. ` +
            "The one in the data folder's file api-token has all of them.",
        },
      },
      schemas: { Problem: output(ProblemShape) },
      responses: Object.fromEntries(
        Object.entries(WORDS).map(([status, description]) => [`Problem${status}`, {
          description,
          content: {
            "application/problem+json": { schema: { $ref: "#/components/schemas/Problem" } },
          },
        }]),
      ),
    },
  };
}

function describe(operation: Operation): Record<string, unknown> {
  const { id, about, scope, parameters = [], content, answer, problems } = operation;
  const statuses = [...new Set([...COMMON_PROBLEMS, ...problems])].sort();
  return {
    operationId: id,
    summary: about,
    ...(scope === undefined ? {} : { security: [{ token: [scope] }] }),
    ...(parameters.length === 0 ? {} : { parameters: parameters.map(parameterOf) }),
    ...(content ? { requestBody: { required: true, content: bodies(content) } } : {}),
    responses: {
      [answer.status]: {
        description: answer.about,
        content: { "application/json": { schema: output(answer.schema) } },
      },
      ...Object.fromEntries(
        statuses.map((status) => [status, { $ref: `#/components/responses/Problem${status}` }]),
      ),
    },
  };
}

function parameterOf({ name, in: where, about, schema, required, repeated }: Parameter) {
  return {
    name,
    in: where,
    description: about,
    ...(required ? { required } : {}),
    schema: repeated ? { type: "array", items: schema } : schema,
  };
}

const bodies = (content: NonNullable<Operation["content"]>) =>
  Object.fromEntries(
    Object.entries(content).map(([media, schema]) => [media, {
      schema: typeof schema === "string"
        ? { type: "string", format: "binary", description: schema }
        : input(schema),
    }]),
  );

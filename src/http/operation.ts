/**
 * An operation of the API: what it is called, what it takes and answers, and what it does, in one
 * place. The router, the check of scopes and parameters, and the OpenAPI document come from it.
 */
import type { z } from "zod";
import { badParameter, badRequest } from "./problem.ts";

/**
 * - `submit`: hand in messages
 * - `read`: look at messages and the queue
 * - `operate`: hold, release, drop, …; hold rules; pausing the intake
 */
export const SCOPES = ["submit", "read", "operate"] as const;
export type Scope = (typeof SCOPES)[number];

/** On whose behalf a request is made. */
export interface Principal {
  /** As it stands in events: the name of the token. */
  readonly name: string;
  /** The only account that it acts for; null: all of them. */
  readonly account: string | null;
  readonly scopes: ReadonlySet<Scope>;
}

/** Whether a principal may know of what belongs to an account; null: to none. */
export const mayKnow = (principal: Principal, account: string | null): boolean =>
  principal.account === null || principal.account === account;

export interface Parameter {
  readonly name: string;
  readonly in: "query" | "path" | "header";
  readonly about: string;
  readonly schema: Readonly<Record<string, unknown>>;
  readonly required?: boolean;
  /** Of the query: it may be given several times. */
  readonly repeated?: boolean;
}

export type Query = ReadonlyMap<string, readonly string[]>;

export interface ApiRequest {
  readonly request: Request;
  readonly principal: Principal;
  /** The `{id}` of the path; "" where it has none. */
  readonly id: string;
  readonly query: Query;
  /** Address and port of the client, where known. */
  readonly peer?: string;
}

export interface Answer {
  readonly status: number;
  /** JSON. */
  readonly body: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface Operation {
  readonly id: string;
  readonly method: "get" | "post" | "delete";
  /** Below /api/v1. */
  readonly path: string;
  /** Absent: any token will do. */
  readonly scope?: Scope;
  readonly about: string;
  readonly parameters?: readonly Parameter[];
  /** Content by media type; a string stands for octets, in those words. */
  readonly content?: Readonly<Record<string, z.ZodType | string>>;
  readonly answer: {
    readonly status: number;
    readonly about: string;
    readonly schema: z.ZodType;
  };
  /** Statuses of the problems that it answers with, beside those of every operation. */
  readonly problems: readonly number[];
  handle(request: ApiRequest): Promise<Answer>;
}

/** Problems that every operation may answer with. */
export const COMMON_PROBLEMS = [400, 401, 403, 414, 431, 500] as const;

export const ID_PARAMETER: Parameter = {
  name: "id",
  in: "path",
  about: "id of the message",
  schema: { type: "string" },
  required: true,
};

/**
 * The parameters of the query, each known, and given once unless it may be repeated.
 * @throws RequestProblem 400
 */
export function readQuery(search: URLSearchParams, parameters: readonly Parameter[]): Query {
  const known = parameters.filter((parameter) => parameter.in === "query");
  const query = new Map<string, string[]>();
  for (const [name, value] of search) {
    const parameter = known.find((one) => one.name === name);
    if (!parameter) {
      const names = known.map((one) => one.name).join(", ");
      const takes = names === "" ? "; it takes none" : `; there are ${names}`;
      throw badRequest(`"${name.slice(0, 60)}" is not a parameter${takes}`);
    }
    const values = query.get(name);
    if (values) values.push(value);
    else query.set(name, [value]);
  }
  for (const [name, values] of query) {
    if (values.length > 1 && !known.find((one) => one.name === name)?.repeated) {
      throw badParameter(name, `it is given ${values.length} times`);
    }
  }
  return query;
}

export const valueOf = (query: Query, name: string): string | undefined => query.get(name)?.[0];

/** A parameter that is true or false. */
export function flag(query: Query, name: string): boolean {
  const text = valueOf(query, name) ?? "false";
  if (text !== "true" && text !== "false") throw badParameter(name, "it takes true or false");
  return text === "true";
}

/** A whole number up to `most`, or undefined. */
export function wholeNumber(text: string, most: number): number | undefined {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : NaN;
  return value <= most ? value : undefined;
}

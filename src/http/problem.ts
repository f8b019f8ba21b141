/**
 * Problem documents: what the HTTP listener answers when it cannot do what was asked (RFC 9457).
 */

/** A part of the request that is wrong, and how. One of the three says which. */
export interface FieldProblem {
  /** JSON Pointer (RFC 6901) into the body. */
  readonly pointer?: string;
  /** Name of a parameter in the query. */
  readonly parameter?: string;
  /** Name of a header field. */
  readonly header?: string;
  readonly detail: string;
}

export interface Problem {
  readonly status: number;
  /** What kind of problem it is, in a few words that stay the same. */
  readonly title: string;
  /** What is wrong with this request, and what to do. */
  readonly detail?: string;
  readonly errors?: readonly FieldProblem[];
  readonly headers?: Readonly<Record<string, string>>;
}

/** A request that is answered with a problem. */
export class RequestProblem extends Error {
  override readonly name = "RequestProblem";
  constructor(readonly problem: Problem) {
    super(problem.detail ?? problem.title);
  }
}

/** The `type` is left at its default, about:blank: title and status say it (section 4.2.1). */
export function problemResponse({ status, title, detail, errors, headers }: Problem): Response {
  const body = {
    title,
    status,
    ...(detail === undefined ? {} : { detail }),
    ...(errors === undefined ? {} : { errors }),
  };
  return new Response(JSON.stringify(body) + "\n", {
    status,
    headers: { ...headers, "content-type": "application/problem+json" },
  });
}

const titled = (status: number, title: string) => (detail: string): RequestProblem =>
  new RequestProblem({ status, title, detail });

export const badRequest = titled(400, "Bad request");
export const forbidden = titled(403, "Forbidden");
export const notFound = titled(404, "Not found");
export const conflict = titled(409, "Conflict");
export const contentTooLarge = titled(413, "Content too large");

/** A parameter of the query that cannot be read. */
export const badParameter = (parameter: string, detail: string): RequestProblem =>
  new RequestProblem({
    status: 400,
    title: "Bad request",
    detail: `${parameter}: ${detail}`,
    errors: [{ parameter, detail }],
  });

/** Content that can be read and not be done. */
export const unprocessable = (errors: readonly FieldProblem[]): RequestProblem =>
  new RequestProblem({
    status: 422,
    title: "Unprocessable content",
    detail: errors.map(({ pointer, parameter, header, detail }) => {
      const where = pointer ?? parameter ?? header ?? "";
      return where === "" ? detail : `${where}: ${detail}`;
    }).slice(0, 3).join("; "),
    errors,
  });

/** Nothing is wrong with the request: it can be made again later. */
export const unavailable = (detail: string, seconds = 10): RequestProblem =>
  new RequestProblem({
    status: 503,
    title: "Unavailable",
    detail,
    headers: { "retry-after": String(seconds) },
  });

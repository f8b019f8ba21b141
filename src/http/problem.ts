/**
 * Problem documents: what the HTTP listener answers when it cannot do what was asked (RFC 9457).
 */

export interface Problem {
  readonly status: number;
  /** What kind of problem it is, in a few words that stay the same. */
  readonly title: string;
  /** What is wrong with this request, and what to do. */
  readonly detail?: string;
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
export function problemResponse({ status, title, detail, headers }: Problem): Response {
  const body = { title, status, ...(detail === undefined ? {} : { detail }) };
  return new Response(JSON.stringify(body) + "\n", {
    status,
    headers: { ...headers, "content-type": "application/problem+json" },
  });
}

export const badRequest = (detail: string): RequestProblem =>
  new RequestProblem({ status: 400, title: "Bad request", detail });

export const notFound = (detail: string): RequestProblem =>
  new RequestProblem({ status: 404, title: "Not found", detail });

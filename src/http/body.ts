/**
 * Reads the content of a request within bounds: of its size, of the time between two pieces of it,
 * and of the memory that all requests together may hold at a time.
 */
import type { z } from "zod";
import type { Clock } from "../../actors/ports.ts";
import {
  badRequest,
  contentTooLarge,
  type FieldProblem,
  RequestProblem,
  unavailable,
  unprocessable,
} from "./problem.ts";

export interface BodyLimits {
  /** Octets of a message in `message/rfc822`; streamed, never held. */
  readonly message: number;
  /** Octets of a message in JSON; held in memory. */
  readonly json: number;
  /** Octets of JSON that all requests together hold. */
  readonly held: number;
  /** Milliseconds without an octet from the client. */
  readonly idle: number;
}

export const DEFAULT_BODY_LIMITS: BodyLimits = {
  message: 50 * 2 ** 20,
  json: 16 * 2 ** 20,
  held: 64 * 2 ** 20,
  idle: 60_000,
};

/** Media type of the content, lower case, without parameters; "" when the request names none. */
export const mediaType = (request: Request): string =>
  (request.headers.get("content-type") ?? "").split(";")[0]!.trim().toLowerCase();

/** Whether a request announces content (RFC 9112, section 6.3). */
export const hasContent = ({ headers }: Request): boolean =>
  Number(headers.get("content-length") ?? 0) !== 0 || headers.has("transfer-encoding");

export const unsupportedMedia = (takes: readonly string[]): RequestProblem =>
  new RequestProblem({
    status: 415,
    title: "Unsupported media type",
    detail: `the content type is to be ${takes.join(" or ")}`,
    errors: [{ header: "Content-Type", detail: `it takes ${takes.join(" or ")}` }],
    headers: { "accept-post": takes.join(", ") },
  });

/**
 * The pieces of the content. The next one is asked for when the one before is dealt with, which is
 * the back-pressure.
 * @throws RequestProblem 413 over `most` octets, 408 when the client falls silent
 */
export async function* pieces(
  request: Request,
  clock: Pick<Clock, "timer">,
  most: number,
  idle: number,
): AsyncGenerator<Uint8Array> {
  const tooLarge = () => contentTooLarge(`the content is larger than ${most} octets`);
  if (Number(request.headers.get("content-length") ?? 0) > most) throw tooLarge();
  if (!request.body) return;
  const reader = request.body.getReader();
  let octets = 0;
  try {
    for (;;) {
      const { done, value } = await within(clock, idle, reader.read());
      if (done) return;
      octets += value.length;
      if (octets > most) throw tooLarge();
      yield value;
    }
  } finally {
    // What is left of the content is not wanted, and the client may be gone already.
    reader.cancel().catch(() => {});
  }
}

async function within<T>(
  clock: Pick<Clock, "timer">,
  milliseconds: number,
  reading: Promise<T>,
): Promise<T> {
  let cancel = () => {};
  const silent = new Promise<never>((_, reject) => {
    cancel = clock.timer(milliseconds, () =>
      reject(
        new RequestProblem({
          status: 408,
          title: "Request timeout",
          detail: `nothing came for ${milliseconds / 1_000} seconds`,
          headers: { connection: "close" },
        }),
      ));
  });
  try {
    return await Promise.race([reading, silent]);
  } catch (error) {
    if (error instanceof RequestProblem) throw error;
    throw badRequest("the content broke off");
  } finally {
    cancel();
  }
}

/** Memory that all requests of a listener share for the content they hold. */
export class HeldContent {
  #held = 0;

  constructor(private readonly clock: Pick<Clock, "timer">, private readonly limits: BodyLimits) {}

  /**
   * Reads content whole and hands it to `use`; its memory is accounted for until that is done.
   * @throws RequestProblem 413, 408, and 503 when other requests hold too much
   */
  async with<T>(request: Request, most: number, use: (octets: Uint8Array) => Promise<T>) {
    let own = 0;
    try {
      const parts: Uint8Array[] = [];
      for await (const piece of pieces(request, this.clock, most, this.limits.idle)) {
        if (this.#held + piece.length > this.limits.held) {
          throw unavailable("too much is being taken in at a time; try again in a moment", 1);
        }
        this.#held += piece.length;
        own += piece.length;
        parts.push(piece);
      }
      return await use(joined(parts, own));
    } finally {
      this.#held -= own;
    }
  }
}

function joined(parts: readonly Uint8Array[], size: number): Uint8Array {
  if (parts.length === 1) return parts[0]!;
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

/**
 * JSON that fits a schema.
 * @throws RequestProblem 400 when it is not JSON, 422 naming each field that is off
 */
export function readJson<S extends z.ZodType>(octets: Uint8Array, schema: S): z.output<S> {
  let value: unknown;
  try {
    value = JSON.parse(utf8.decode(octets));
  } catch (error) {
    const why = error instanceof SyntaxError ? "not JSON" : "not UTF-8";
    throw badRequest(`the content is ${why}`);
  }
  const read = schema.safeParse(value);
  if (!read.success) throw unprocessable(fieldProblems(read.error));
  return read.data;
}

/** Enough to mend a request by; a thousand bad recipients need no thousand lines. */
const MAX_PROBLEMS = 20;

export function fieldProblems(error: z.ZodError): FieldProblem[] {
  return error.issues.flatMap((issue): FieldProblem[] => {
    if (issue.code !== "unrecognized_keys") {
      return [{ pointer: pointerOf(issue.path), detail: detailOf(issue) }];
    }
    return issue.keys.map((key) => ({
      pointer: pointerOf([...issue.path, key]),
      detail: "is not a field that it takes",
    }));
  }).slice(0, MAX_PROBLEMS);
}

/** What is wrong with a key is said by the schema of keys. */
const detailOf = (issue: z.core.$ZodIssue): string =>
  issue.code === "invalid_key" ? issue.issues[0]?.message ?? issue.message : issue.message;

/** RFC 6901, section 3; cut where a client has sent a long name. */
function pointerOf(path: readonly PropertyKey[]): string {
  return path.map((step) =>
    `/${String(step).slice(0, 100).replaceAll("~", "~0").replaceAll("/", "~1")}`
  ).join("");
}

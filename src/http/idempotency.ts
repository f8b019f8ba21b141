/**
 * Idempotency keys: a request that is repeated with the key of an earlier one gets the answer of
 * that one and enqueues nothing. The keys stand with the messages in the log, so they outlive a
 * restart; they count per account, for a day.
 */
import { createHash, type Hash } from "node:crypto";
import type { IdempotencyRow } from "../../events/projections/idempotency.ts";
import { badRequest, conflict, RequestProblem } from "./problem.ts";

export const IDEMPOTENCY_HEADER = "idempotency-key";
const DAY = 86_400_000;
const KEY = /^[\x21-\x7e]{1,255}$/;

export interface IdempotencyPorts {
  /** The row of an account and a key. */
  readonly idempotent: (account: string | null, key: string) => IdempotencyRow | undefined;
  readonly now: () => number;
}

/** The key of a request, where it has one. @throws RequestProblem 400 */
export function idempotencyKey(request: Request): string | undefined {
  const key = request.headers.get(IDEMPOTENCY_HEADER);
  if (key === null) return undefined;
  if (KEY.test(key)) return key;
  const detail = "it takes 1 to 255 printable ASCII characters without blanks";
  throw new RequestProblem({
    ...badRequest(`Idempotency-Key: ${detail}`).problem,
    errors: [{ header: "Idempotency-Key", detail }],
  });
}

/** What makes two requests the same: their media type, their query and their octets. */
export function requestHash(media: string, query: URLSearchParams): Hash {
  return createHash("sha256").update(JSON.stringify([media, [...query]])).update("\n");
}

/** Keys of requests that are under way, and of those before. */
export class Idempotency {
  readonly #underWay = new Set<string>();

  constructor(private readonly ports: IdempotencyPorts) {}

  /**
   * Runs `work` with the row of an earlier request of that key, if there is one.
   * @throws RequestProblem 409 while another request with that key is under way
   */
  async run<T>(
    account: string | null,
    key: string | undefined,
    work: (earlier: IdempotencyRow | undefined) => Promise<T>,
  ): Promise<T> {
    if (key === undefined) return await work(undefined);
    const id = JSON.stringify([account, key]);
    if (this.#underWay.has(id)) {
      throw conflict("a request with this Idempotency-Key is under way; repeat it in a moment");
    }
    this.#underWay.add(id);
    try {
      const row = this.ports.idempotent(account, key);
      const young = row && this.ports.now() - row.created < DAY;
      return await work(young ? row : undefined);
    } finally {
      this.#underWay.delete(id);
    }
  }
}

/** @throws RequestProblem 409 when the earlier request was another one */
export function sameRequest(earlier: IdempotencyRow, request: string): void {
  if (earlier.request === request) return;
  throw new RequestProblem({
    status: 409,
    title: "Conflict",
    detail: "this Idempotency-Key was used for another request; take a new key for a new message",
    errors: [{ header: "Idempotency-Key", detail: "was used for another request" }],
  });
}

/** The messages of the earlier request, as they were answered. */
export const messagesOf = (row: IdempotencyRow): { readonly id: string; readonly to: string }[] =>
  row.messages.trimEnd().split("\n").map((line) => {
    const blank = line.indexOf(" ");
    return { id: line.slice(0, blank), to: line.slice(blank + 1) };
  });

/**
 * The way from a command to the running queue: finds its address and the token in the data folder,
 * and speaks to its API.
 */
import { join } from "node:path";
import { lockPath } from "../events/data_folder.ts";
import { ADDRESS_FILE } from "./http/address_file.ts";
import { TOKEN_FILE } from "./http/api_token.ts";

/** The running queue cannot be asked, or refuses; the message is one line that says why. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  /** @param status of the answer; absent when there was none */
  constructor(message: string, readonly status?: number) {
    super(message);
  }
}

/** Milliseconds that an answer may take: a page of acts on a slow disk. */
const ANSWER_WITHIN = 120_000;
const LOOPBACK = /^http:\/\/(?:127\.\d+\.\d+\.\d+|\[::1\]):\d+$/;

export interface ApiClient {
  /** @throws ApiError */
  get<T>(path: string): Promise<T>;
  post<T>(path: string, body: unknown): Promise<T>;
  delete<T>(path: string): Promise<T>;
}

/**
 * @param operator name of who asks, for the log
 * @throws ApiError when no queue runs on the data folder, or it has no HTTP listener
 */
export async function connect(dataDir: string, operator: string | undefined): Promise<ApiClient> {
  const none = `no queue is running on ${dataDir}; start it with "deno task serve"`;
  // An address that a crash left behind may be somebody else's by now: they must not get the token.
  if (!await isHeld(lockPath(dataDir))) throw new ApiError(none);
  const base = (await read(join(dataDir, ADDRESS_FILE)))?.trim();
  if (base === undefined) {
    throw new ApiError(
      `the queue on ${dataDir} has no HTTP listener; give it one: [listen.web] protocol = "http"`,
    );
  }
  if (!LOOPBACK.test(base)) throw new ApiError(`${join(dataDir, ADDRESS_FILE)} holds no address`);
  const token = (await read(join(dataDir, TOKEN_FILE)))?.trim();
  if (token === undefined) throw new ApiError(`${join(dataDir, TOKEN_FILE)} is missing`);

  async function ask<T>(method: string, path: string, body?: unknown): Promise<T> {
    const headers: Record<string, string> = { authorization: `Bearer ${token}` };
    if (operator) headers["x-operator"] = operator;
    if (body !== undefined) headers["content-type"] = "application/json";
    let response: Response;
    try {
      response = await fetch(`${base}/api/v1${path}`, {
        method,
        headers,
        redirect: "error",
        signal: AbortSignal.timeout(ANSWER_WITHIN),
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
    } catch (cause) {
      if (cause instanceof DOMException && cause.name === "TimeoutError") {
        throw new ApiError(`the queue at ${base} does not answer`);
      }
      throw new ApiError(`the queue at ${base} cannot be reached: ${String(cause)}`);
    }
    const answer = await json(response, base!);
    if (response.ok) return answer as T;
    const { title, detail } = answer as { readonly title?: string; readonly detail?: string };
    throw new ApiError(detail ?? title ?? `the answer is ${response.status}`, response.status);
  }
  return {
    get: (path) => ask("GET", path),
    post: (path, body) => ask("POST", path, body),
    delete: (path) => ask("DELETE", path),
  };
}

async function json(response: Response, base: string): Promise<unknown> {
  try {
    return await response.json();
  } catch {
    throw new ApiError(`what answers at ${base} is not a queue`, response.status);
  }
}

async function read(file: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(file);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw new ApiError(`${file} cannot be read: ${error instanceof Error ? error.message : error}`);
  }
}

/** Whether another process holds the lock that a running queue has. */
async function isHeld(path: string): Promise<boolean> {
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path, { read: true });
  } catch {
    return false;
  }
  try {
    return !await file.tryLock(false);
  } finally {
    file.close();
  }
}

/**
 * A webhook endpoint with faults, over real sockets: takes what is posted, checks the signature of
 * each post as a receiver would, and keeps everything for the reckoning.
 *
 * Written on sockets, because it has to do what no HTTP server would: cut a connection in the
 * middle, and know which process a post came from. A process that was killed may have left posts in
 * the socket; `settle` takes them in before the next process is started.
 */
import { Buffer } from "node:buffer";
import { createHmac } from "node:crypto";
import { closeQuietly } from "../peers/wait.ts";

/** How likely each fault is, from 0 to 1, per post. */
export interface HookFaults {
  /** 500, or a redirect, which is not to be followed. */
  readonly refuse?: number;
  /** No answer at all. */
  readonly hang?: number;
  /** The connection is closed instead of an answer; whether it was noted, the sender cannot know. */
  readonly cut?: number;
}

export interface Post {
  readonly endpoint: string;
  readonly id: string;
  readonly body: string;
  /** Of the process that sent it: 0, 1, 2 … */
  readonly life: number;
  /** It was answered 2xx. */
  taken: boolean;
}

export interface Hook {
  readonly port: number;
  /** In the order in which they came. */
  readonly posts: readonly Post[];
  /** What was wrong with posts in themselves, in words. */
  readonly violations: readonly string[];
  setFaults(faults: HookFaults): void;
  /** To be called when the sender has ended: what it posted is in, and what follows is another's. */
  settle(): Promise<void>;
  close(): Promise<void>;
}

/** How far the time of a signature may be from ours, seconds. */
const CLOCK_SKEW = 15;
const END_OF_HEAD = Buffer.from("\r\n\r\n");
/** The sender is not to read what an endpoint has to say. */
const PROSE = "x".repeat(256 * 1024);

/**
 * Starts an endpoint on 127.0.0.1; the path of the URL is its name.
 * @param secrets by name
 */
export function startHook(secrets: ReadonlyMap<string, string>, random: () => number): Hook {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  const posts: Post[] = [];
  const violations: string[] = [];
  const serving = new Map<Deno.TcpConn, Promise<void>>();
  let faults: HookFaults = {};
  let life = 0;
  let letGo = new AbortController();

  const happens = (rate = 0) => rate > 0 && random() < rate;
  const hang = (signal: AbortSignal) =>
    new Promise<void>((done) => signal.addEventListener("abort", () => done(), { once: true }));

  const serve = async (conn: Deno.TcpConn) => {
    const { signal } = letGo;
    const chunk = Buffer.alloc(16_384);
    let input = Buffer.alloc(0);
    while (true) {
      const request = whole(input);
      if (!request) {
        const n = await conn.read(chunk);
        if (n === null) return;
        input = Buffer.concat([input, chunk.subarray(0, n)]);
        continue;
      }
      input = input.subarray(request.octets);
      const { endpoint, id, body } = request;
      const wrong = whatIsWrong(request, secrets.get(endpoint));
      if (wrong) violations.push(`a post to ${endpoint}, ${id}: ${wrong}`);
      const post: Post = { endpoint, id, body, life, taken: false };
      posts.push(post);
      if (happens(faults.hang)) await hang(signal);
      if (signal.aborted || happens(faults.cut)) return;
      if (happens(faults.refuse)) {
        const elsewhere = `http://127.0.0.1:${port}/elsewhere`;
        const head = random() < 0.5 ? "500 No" : `307 There\r\nLocation: ${elsewhere}`;
        await writeAll(conn, `HTTP/1.1 ${head}\r\nContent-Length: 0\r\n\r\n`);
      } else if (random() < 0.01) {
        post.taken = true; // with the head; what follows, nobody reads
        await writeAll(conn, `HTTP/1.1 200 OK\r\nContent-Length: ${PROSE.length}\r\n\r\n${PROSE}`);
      } else {
        await writeAll(conn, "HTTP/1.1 204 Taken\r\n\r\n");
        post.taken = true;
      }
    }
  };

  const accepting = (async () => {
    for await (const conn of listener) {
      conn.setNoDelay(true);
      const served = serve(conn).catch(() => {
        // the sender went away: it sends again what it has no answer to
      }).finally(() => {
        serving.delete(conn);
        closeQuietly(conn);
      });
      serving.set(conn, served);
    }
  })();

  return {
    port,
    posts,
    violations,
    setFaults: (changed) => {
      faults = changed;
    },
    settle: async () => {
      letGo.abort();
      // Connections are accepted in their order: all that were made before this one are known.
      const last = await Deno.connect({ hostname: "127.0.0.1", port });
      const { port: from } = last.localAddr as Deno.NetAddr;
      const isLast = (conn: Deno.TcpConn) => (conn.remoteAddr as Deno.NetAddr).port === from;
      while (![...serving.keys()].some(isLast)) await new Promise((done) => setTimeout(done, 1));
      closeQuietly(last);
      await Promise.all(serving.values());
      letGo = new AbortController();
      life++;
    },
    close: async () => {
      letGo.abort();
      closeQuietly(listener);
      for (const conn of serving.keys()) closeQuietly(conn);
      await Promise.all([accepting, ...serving.values()]);
    },
  };
}

interface Request {
  readonly endpoint: string;
  readonly id: string;
  readonly signature: string;
  readonly type: string;
  readonly verb: string;
  readonly body: string;
  readonly octets: number;
}

/** The first request of the input, once it is there as a whole. */
function whole(input: Buffer): Request | undefined {
  const end = input.indexOf(END_OF_HEAD);
  if (end < 0) return undefined;
  const [first = "", ...lines] = input.toString("latin1", 0, end).split("\r\n");
  const field = (name: string) =>
    lines.find((line) => line.toLowerCase().startsWith(`${name}:`))?.slice(name.length + 1).trim();
  const from = end + END_OF_HEAD.length;
  const octets = from + Number(field("content-length") ?? 0);
  if (input.length < octets) return undefined;
  const [verb = "", path = ""] = first.split(" ");
  return {
    endpoint: path.slice(1),
    id: field("postledger-id") ?? "",
    signature: field("postledger-signature") ?? "",
    type: field("content-type") ?? "",
    verb,
    body: input.toString("utf8", from, octets),
    octets,
  };
}

/** The checks of a receiver, as the README has them: in words what is wrong, if anything. */
export function whatIsWrong(
  { id, signature, type, verb, body }: Omit<Request, "octets" | "endpoint">,
  secret: string | undefined,
  now = Date.now(),
): string | undefined {
  if (secret === undefined) return "there is no endpoint of this name";
  if (verb !== "POST" || !type.startsWith("application/json")) return `${verb} of ${type}`;
  if (!/^\S.*:\d+$/.test(id)) return "it has no id";
  const [, seconds, all] = /^t=(\d+)((?:,v1=[0-9a-f]{64})+)$/.exec(signature) ?? [];
  if (all === undefined) return `its signature is "${signature}"`;
  const right = createHmac("sha256", secret).update(`${seconds}.${body}`).digest("hex");
  if (!all.split(",v1=").includes(right)) return "its signature is not that of its body";
  const age = now / 1_000 - Number(seconds);
  if (Math.abs(age) > CLOCK_SKEW) return `its signature is ${age.toFixed(0)} s old`;
  return undefined;
}

async function writeAll(conn: Deno.TcpConn, text: string): Promise<void> {
  const octets = Buffer.from(text, "latin1");
  for (let at = 0; at < octets.length;) at += await conn.write(octets.subarray(at));
}

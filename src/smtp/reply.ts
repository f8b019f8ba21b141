/**
 * Replies of an SMTP server, parsed as they arrive (RFC 5321, section 4.2).
 *
 * Lenient where servers of the field are careless (a lone LF ends a line, a code without text),
 * strict where a wrong guess would cost mail: the codes of a multi-line reply must agree, and a
 * code outside 200 to 599 is no reply. Bounded everywhere: a peer cannot make it hold more than
 * MAX_REPLY octets.
 */
import { Buffer } from "node:buffer";

/** One reply; a multi-line one is a single reply. */
export interface SmtpReply {
  /** 200 to 599. */
  readonly code: number;
  /** Enhanced status code (RFC 3463), only when its class is that of the code (RFC 2034). */
  readonly enhanced?: string;
  /** Text without codes, lines separated by LF. */
  readonly text: string;
  /** Every line as it came, code included, without its line end. */
  readonly lines: readonly string[];
}

/** Octets of one line; RFC 5321 allows 512, longer ones are seen in the field. */
export const MAX_LINE = 4096;
/** Octets and lines of one reply. */
export const MAX_REPLY = 64 * 1024;
export const MAX_REPLY_LINES = 128;

/** What the server sent is not a reply: `protocol` for nonsense, `flood` for too much of it. */
export class ReplyError extends Error {
  override readonly name = "ReplyError";
  constructor(readonly kind: "protocol" | "flood", message: string) {
    super(message);
  }
}

const LF = 10;
const CR = 13;
const NONE = new Uint8Array(0);
const LINE = /^([2-5]\d\d)(?:([ -])(.*))?$/s;
const ENHANCED = /^([245])\.(?:0|[1-9]\d{0,2})\.(?:0|[1-9]\d{0,2})(?= |$)/;
// deno-lint-ignore no-control-regex -- control characters are what it looks for
const CONTROL = /[\x00-\x08\x0b-\x1f\x7f]/g;
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Takes octets in whatever pieces they come, and gives replies. Unusable once it has thrown. */
export class ReplyParser {
  #rest: Uint8Array = NONE;
  /** How far `#rest` was searched for a line end without finding one. */
  #searched = 0;
  #lines: string[] = [];
  #octets = 0;

  push(octets: Uint8Array): void {
    if (this.#rest.length === 0) {
      this.#rest = octets;
      return;
    }
    const joined = new Uint8Array(this.#rest.length + octets.length);
    joined.set(this.#rest);
    joined.set(octets, this.#rest.length);
    this.#rest = joined;
  }

  /** Whether octets wait that no reply has taken yet. */
  get pending(): boolean {
    return this.#rest.length > 0 || this.#lines.length > 0;
  }

  /**
   * The next reply, or undefined when more octets are needed.
   * @throws ReplyError
   */
  next(): SmtpReply | undefined {
    for (;;) {
      const end = this.#rest.indexOf(LF, this.#searched);
      const length = end < 0 ? this.#rest.length : end;
      if (length > MAX_LINE) {
        throw new ReplyError("flood", `a reply line is longer than ${MAX_LINE} octets`);
      }
      if (end < 0) {
        this.#searched = length;
        return undefined;
      }
      const line = decode(this.#rest.subarray(0, this.#rest[end - 1] === CR ? end - 1 : end));
      this.#rest = end + 1 === this.#rest.length ? NONE : this.#rest.subarray(end + 1);
      this.#searched = 0;
      this.#octets += end + 1;
      if (this.#take(line)) {
        const reply = compose(this.#lines);
        this.#lines = [];
        this.#octets = 0;
        return reply;
      }
    }
  }

  /** Adds a line to the reply; true when it was its last. */
  #take(line: string): boolean {
    const match = LINE.exec(line);
    if (!match) {
      throw new ReplyError("protocol", `not an SMTP reply: ${JSON.stringify(line.slice(0, 100))}`);
    }
    const first = this.#lines[0];
    if (first !== undefined && !first.startsWith(match[1]!)) {
      const codes = `${first.slice(0, 3)} and ${match[1]}`;
      throw new ReplyError("protocol", `the lines of a reply carry different codes, ${codes}`);
    }
    this.#lines.push(line);
    if (match[2] !== "-") return true;
    if (this.#lines.length >= MAX_REPLY_LINES || this.#octets > MAX_REPLY) {
      throw new ReplyError(
        "flood",
        `a reply is longer than ${MAX_REPLY_LINES} lines or ${MAX_REPLY} octets`,
      );
    }
    return false;
  }
}

/** Text as UTF-8, and as Latin-1 where it is not: no octet is lost, controls are made visible. */
function decode(octets: Uint8Array): string {
  let text: string;
  try {
    text = utf8.decode(octets);
  } catch {
    text = Buffer.from(octets.buffer, octets.byteOffset, octets.byteLength).toString("latin1");
  }
  return text.replace(CONTROL, "?");
}

function compose(lines: readonly string[]): SmtpReply {
  const code = Number(lines[0]!.slice(0, 3));
  const texts = lines.map((line) => line.slice(4));
  const enhanced = ENHANCED.exec(texts[0]!)?.[0];
  if (enhanced === undefined || enhanced[0] !== lines[0]![0]) {
    return { code, text: texts.join("\n"), lines };
  }
  const bare = texts.map((text) =>
    text === enhanced || text.startsWith(`${enhanced} `) ? text.slice(enhanced.length + 1) : text
  );
  return { code, enhanced, text: bare.join("\n"), lines };
}

/** A reply on one line, as people quote it: `550 5.1.1 No such user`. */
export function quoteReply(reply: {
  readonly code: number;
  readonly enhanced?: string;
  readonly text: string;
}): string {
  const parts = [String(reply.code), reply.enhanced, reply.text.replace(/\s*\n\s*/g, " ")];
  return parts.filter(Boolean).join(" ");
}

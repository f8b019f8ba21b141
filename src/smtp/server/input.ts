/**
 * Input: the octets that a client has sent and that are not used yet, to be taken as command
 * lines or as plain octets. Holds what it is given; how much that is, the connection limits.
 *
 * A command line ends with CRLF and nothing else. A bare LF ends the session: two programs that
 * disagree where a command ends can be made to disagree on what it is.
 */
import { Buffer } from "node:buffer";

/** What is wrong with a line; `bare LF` and `flood` leave nothing to go on with. */
export type LineFault = "too long" | "bare CR" | "bare LF" | "control" | "not UTF-8" | "flood";
export type InputLine = { readonly text: string } | { readonly fault: LineFault };

const LF = 10;
const CR = 13;
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export class Input {
  #chunks: Buffer[] = [];
  #current: Buffer = Buffer.alloc(0);
  #octets = 0;
  /** Octets of an overlong line that were thrown away; -1 when there is no such line. */
  #skipped = -1;
  /** The last octet that was thrown away. */
  #lastSkipped = 0;

  constructor(
    readonly limits: { readonly commandLine: number; readonly garbage: number },
  ) {}

  /** Octets held. */
  get octets(): number {
    return this.#octets;
  }

  push(chunk: Buffer): void {
    this.#octets += chunk.length;
    if (this.#current.length === 0) this.#current = chunk;
    else this.#chunks.push(chunk);
  }

  clear(): void {
    this.#chunks = [];
    this.#current = Buffer.alloc(0);
    this.#octets = 0;
    this.#skipped = -1;
  }

  /** Up to `max` octets, at least one; undefined when there are none. */
  take(max = Infinity): Buffer | undefined {
    const { length } = this.#current;
    if (length === 0) return undefined;
    const taken = length <= max ? this.#current : this.#current.subarray(0, max);
    this.#drop(taken.length);
    return taken;
  }

  /** Puts back what was taken and not used. */
  unread(octets: Buffer): void {
    if (octets.length === 0) return;
    if (this.#current.length > 0) this.#chunks.unshift(this.#current);
    this.#current = octets;
    this.#octets += octets.length;
  }

  /**
   * The next command line, without its CRLF; undefined when it is not whole yet.
   * @param longest octets that it may have, CRLF included
   */
  line(longest = this.limits.commandLine): InputLine | undefined {
    for (;;) {
      const lf = this.#current.indexOf(LF);
      if (this.#skipped >= 0) {
        const fault = this.#skip(lf);
        if (fault) return { fault };
        if (this.#current.length === 0) return undefined;
        continue;
      }
      const length = lf < 0 ? this.#current.length : lf + 1;
      if (length > longest) {
        this.#skipped = 0;
        continue;
      }
      if (lf >= 0) {
        const line = this.#current.subarray(0, lf + 1);
        this.#drop(lf + 1);
        return readLine(line);
      }
      const next = this.#chunks.shift();
      if (!next) return undefined;
      this.#current = Buffer.concat([this.#current, next]);
    }
  }

  /** Throws an overlong line away, as far as it is here. */
  #skip(lf: number): LineFault | undefined {
    const end = lf < 0 ? this.#current.length : lf + 1;
    const beforeLF = lf > 0 ? this.#current[lf - 1] : this.#lastSkipped;
    this.#lastSkipped = this.#current[end - 1] ?? this.#lastSkipped;
    this.#skipped += end;
    this.#drop(end);
    if (this.#skipped > this.limits.garbage) return "flood";
    if (lf < 0) return undefined;
    this.#skipped = -1;
    return beforeLF === CR ? "too long" : "bare LF";
  }

  #drop(octets: number): void {
    this.#octets -= octets;
    this.#current = octets < this.#current.length
      ? this.#current.subarray(octets)
      : this.#chunks.shift() ?? Buffer.alloc(0);
  }
}

function readLine(line: Buffer): InputLine {
  if (line[line.length - 2] !== CR) return { fault: "bare LF" };
  let bits = 0;
  for (let i = 0; i < line.length - 2; i++) {
    const octet = line[i]!;
    bits |= octet;
    if (octet === CR) return { fault: "bare CR" };
    if ((octet < 32 && octet !== 9) || octet === 127) return { fault: "control" };
  }
  if ((bits & 0x80) === 0) return { text: line.toString("latin1", 0, line.length - 2) };
  try {
    return { text: UTF8.decode(line.subarray(0, line.length - 2)) };
  } catch {
    return { fault: "not UTF-8" };
  }
}

/**
 * The load generator: parallel SMTP clients that open a new connection for each message.
 *
 * It is made to cost little, because it shares the machine with what it measures: buffers are
 * built once per client, the id is patched in place, commands are pipelined where the server
 * offers it (RFC 2920), and QUIT goes out together with the end of data.
 *
 * Every message has an id of its own, in the header `X-Load-Id` and as the (beginning of the) local
 * part of its recipients, and is sent once only: an id that was acknowledged must arrive, an id
 * that was not may or may not.
 */
import { Buffer } from "node:buffer";
import { closeQuietly, sleep } from "../peers/wait.ts";

export interface LoadOptions {
  readonly port: number;
  /** Parallel clients. */
  readonly clients: number;
  /** Messages to send; without it, `signal` or `seconds` ends the load. */
  readonly count?: number;
  /** No message is begun after this many seconds. */
  readonly seconds?: number;
  readonly signal?: AbortSignal;
  /** Gives the number of the next id; loads that run at once share one. By default 1, 2, 3 … */
  readonly ids?: () => number;
  /** Octets per message, header included; at least 512. */
  readonly size?: number;
  /** Messages per second over all clients, at most. */
  readonly rate?: number;
  /** Domain of the recipients. */
  readonly domain?: string;
  /** Whom it is from and to, with parameters; one recipient at `domain` by default. */
  readonly envelope?: (id: string) => Envelope;
}

/** Paths with their parameters, as they follow `MAIL FROM:` and `RCPT TO:`. */
export interface Envelope {
  readonly from: string;
  readonly to: readonly string[];
}

export interface LoadResult {
  /** Ids that were answered 250 after the end of data. */
  readonly acknowledged: readonly string[];
  /** Ids whose data were sent and never answered: the outcome is unknown. */
  readonly unknown: readonly string[];
  /** How often each reply other than the expected one was given, by code. */
  readonly refused: ReadonlyMap<number, number>;
  /** Connections that failed or broke before the data were sent. */
  readonly broken: number;
  /** `performance.now()` at the first connect and at the last reply. */
  readonly began: number;
  readonly ended: number;
  /** Milliseconds from connect to acknowledgement of each acknowledged message, in order. */
  readonly took: readonly number[];
}

const ID_DIGITS = 10;
const CRLF = "\r\n";
/** After a refused or broken connection a client waits this long: the server is restarting. */
const PAUSE = 25;
/** A server that says nothing for so long is given up for this message, in milliseconds. */
const REPLY_TIMEOUT = 30_000;

/** Numbers from 1 on. */
export function counter(): () => number {
  let last = 0;
  return () => ++last;
}

const loadId = (n: number): string => String(n).padStart(ID_DIGITS, "0");

const oneRecipient = (id: string, domain = "load.example"): Envelope => ({
  from: "<sender@load.example>",
  to: [`<${id}@${domain}>`],
});

/** Ends one message: the expected reply did not come. */
class Refused extends Error {
  constructor(readonly code: number) {
    super(`reply ${code}`);
  }
}

/** Runs the load to its end. Never throws for what the server does. */
export async function generate(options: LoadOptions): Promise<LoadResult> {
  const { port, clients, count = Infinity, seconds = Infinity, rate } = options;
  const acknowledged: string[] = [];
  const unknown: string[] = [];
  const took: number[] = [];
  const refused = new Map<number, number>();
  let broken = 0;
  const ids = options.ids ?? counter();
  let begun = 0;
  const began = performance.now();
  const until = began + seconds * 1000;
  let ended = began;

  const client = async () => {
    const message = template(options.size ?? 4_096);
    while (begun < count && !options.signal?.aborted && performance.now() < until) {
      const place = begun++;
      const id = loadId(ids());
      if (rate !== undefined) {
        const due = began + (place / rate) * 1000;
        const wait = due - performance.now();
        if (wait > 1) await sleep(wait);
        if (options.signal?.aborted) return;
      }
      const session = new Session(port);
      try {
        const start = performance.now();
        const envelope = options.envelope?.(id) ?? oneRecipient(id, options.domain);
        await session.send(id, message, envelope);
        ended = performance.now();
        took.push(ended - start);
        acknowledged.push(id);
        session.close();
      } catch (error) {
        session.close();
        if (error instanceof Refused) {
          refused.set(error.code, (refused.get(error.code) ?? 0) + 1);
        } else if (session.dataSent) {
          unknown.push(id);
        } else {
          broken++;
        }
        await sleep(PAUSE);
      }
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  return { acknowledged, unknown, refused, broken, began, ended, took };
}

interface Template {
  readonly octets: Buffer;
  /** Where the digits of the id stand. */
  readonly idAt: number;
}

/** A message of `size` octets with its end-of-data and QUIT. */
function template(size: number): Template {
  const header = [
    "From: Load <sender@load.example>",
    "To: Load <recipient@load.example>",
    "Subject: load",
    "Date: Thu, 01 Jan 2026 00:00:00 +0000",
    `Message-ID: <${"0".repeat(ID_DIGITS)}@load.example>`,
    `X-Load-Id: ${"0".repeat(ID_DIGITS)}`,
    "MIME-Version: 1.0",
    "Content-Type: text/plain; charset=us-ascii",
    "",
    "",
  ].join(CRLF);
  const line = "The quick brown fox jumps over the lazy dog, and does it again and again.\r\n";
  const filler = line.repeat(Math.ceil(Math.max(0, size - header.length) / line.length));
  const body = filler.slice(0, Math.max(0, size - header.length - 2)) + CRLF;
  const octets = Buffer.from(`${header}${body}.\r\nQUIT\r\n`, "latin1");
  return { octets, idAt: header.indexOf("X-Load-Id: ") + "X-Load-Id: ".length };
}

/** One connection that carries one message. */
class Session {
  /** Whether the end of data may have reached the server. */
  dataSent = false;
  private conn: Deno.TcpConn | undefined;
  private readonly chunk = Buffer.alloc(2_048);
  private text = "";

  constructor(private readonly port: number) {}

  /** Sends a message; resolves when it is acknowledged. @throws Refused, or what the socket threw */
  async send(id: string, message: Template, { from, to }: Envelope): Promise<void> {
    this.conn = await Deno.connect({ hostname: "127.0.0.1", port: this.port });
    this.conn.setNoDelay(true);
    await this.expect(220);
    await this.write("EHLO load.example\r\n");
    const extensions = await this.expect(250);
    const envelope = [`MAIL FROM:${from}\r\n`, ...to.map((path) => `RCPT TO:${path}\r\n`)];
    const data = "DATA\r\n";
    if (/^250[ -]PIPELINING\r?$/im.test(extensions)) {
      await this.write(envelope.join("") + data);
      for (const _ of envelope) await this.expect(250);
      await this.expect(354);
    } else {
      for (const command of envelope) {
        await this.write(command);
        await this.expect(250);
      }
      await this.write(data);
      await this.expect(354);
    }
    message.octets.write(id, message.idAt, "latin1");
    this.dataSent = true;
    await this.writeAll(message.octets);
    await this.expect(250);
  }

  close(): void {
    if (this.conn) closeQuietly(this.conn);
  }

  private write(text: string): Promise<void> {
    return this.writeAll(Buffer.from(text, "latin1"));
  }

  private async writeAll(octets: Uint8Array): Promise<void> {
    for (let at = 0; at < octets.length;) at += await this.conn!.write(octets.subarray(at));
  }

  /** The next whole reply. @throws Refused when its code is another */
  private async expect(code: number): Promise<string> {
    const reply = await this.reply();
    const got = Number(reply.slice(0, 3));
    if (got !== code) throw new Refused(got);
    return reply;
  }

  private async reply(): Promise<string> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      let from = 0;
      while (true) {
        const eol = this.text.indexOf(CRLF, from);
        if (eol >= 0) {
          const last = this.text.charAt(from + 3) !== "-";
          from = eol + 2;
          if (!last) continue;
          const reply = this.text.slice(0, from);
          this.text = this.text.slice(from);
          return reply;
        }
        timer ??= setTimeout(() => this.close(), REPLY_TIMEOUT);
        const n = await this.conn!.read(this.chunk);
        if (n === null) throw new Error("the server ended the connection");
        this.text += this.chunk.toString("latin1", 0, n);
      }
    } finally {
      clearTimeout(timer);
    }
  }
}

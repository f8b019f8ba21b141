/**
 * A receiving SMTP server for the demo, on loopback, with a temper: what it says to RCPT is up to
 * its owner, everything else it takes. Enough of RFC 5321 for one well-behaved client, no more.
 */

/** The reply to RCPT TO, by recipient and how often it was asked for that one: "250 2.1.5 Ok". */
export type Temper = (recipient: string, times: number) => string;

export class Receiver {
  /** Recipients of the messages taken, in order. */
  readonly received: string[] = [];
  readonly #asked = new Map<string, number>();
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #open = new Set<Deno.TcpConn>();

  constructor(readonly name: string, private readonly temper: Temper) {
    void this.#accept();
  }

  get port(): number {
    return this.#listener.addr.port;
  }

  close(): void {
    this.#listener.close();
    for (const connection of this.#open) closeQuietly(connection);
  }

  async #accept(): Promise<void> {
    try {
      for await (const connection of this.#listener) {
        this.#open.add(connection);
        this.#serve(connection).catch(() => {}) // the client hung up: its affair
          .finally(() => {
            this.#open.delete(connection);
            closeQuietly(connection);
          });
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.BadResource)) throw error; // closed while accepting
    }
  }

  async #serve(connection: Deno.TcpConn): Promise<void> {
    const encoder = new TextEncoder();
    const say = async (...lines: string[]) => {
      const octets = encoder.encode(lines.map((line) => `${line}\r\n`).join(""));
      for (let at = 0; at < octets.length;) at += await connection.write(octets.subarray(at));
    };
    let recipients: string[] = [];
    let inContent = false;
    await say(`220 ${this.name} ESMTP`);
    for await (const line of lines(connection.readable)) {
      if (inContent) {
        if (line !== ".") continue;
        inContent = false;
        this.received.push(...recipients);
        await say("250 2.0.0 Ok: taken");
        continue;
      }
      const [verb = ""] = line.toUpperCase().split(/[ :]/, 1);
      if (verb === "EHLO") {
        await say(`250-${this.name}`, "250-PIPELINING", "250-8BITMIME", "250 ENHANCEDSTATUSCODES");
      } else if (verb === "MAIL") {
        recipients = [];
        await say("250 2.1.0 Ok");
      } else if (verb === "RCPT") {
        const recipient = /<([^>]*)>/.exec(line)?.[1] ?? "";
        const times = (this.#asked.get(recipient) ?? 0) + 1;
        this.#asked.set(recipient, times);
        const reply = this.temper(recipient, times);
        if (reply.startsWith("2")) recipients.push(recipient);
        await say(reply);
      } else if (verb === "DATA") {
        inContent = recipients.length > 0;
        await say(inContent ? "354 go on" : "554 5.5.1 no valid recipients");
      } else if (verb === "QUIT") {
        return await say("221 2.0.0 bye");
      } else if (verb === "RSET" || verb === "NOOP") {
        recipients = [];
        await say("250 2.0.0 Ok");
      } else {
        await say("502 5.5.1 not here");
      }
    }
  }
}

/** The end of a stream closes its connection by itself. */
function closeQuietly(connection: Deno.TcpConn): void {
  try {
    connection.close();
  } catch (error) {
    if (!(error instanceof Deno.errors.BadResource)) throw error;
  }
}

async function* lines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + text).split("\r\n");
    rest = parts.pop()!;
    yield* parts;
  }
}

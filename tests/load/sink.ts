/**
 * A receiving SMTP server for load and crash tests: as cheap as it can be, so that what is
 * measured is the queue in front of it, and with faults on demand.
 *
 * It is not a model of strictness: it takes any envelope but what it is told to refuse, and knows a
 * message by its header `X-Load-Id`, and one without it (a report) by its Message-ID. A message
 * counts as received, for each recipient, once its last octet is in, whatever becomes of the reply,
 * for that is what a receiving server that loses its connection would hold.
 */
import { Buffer } from "node:buffer";
import { closeQuietly } from "../peers/wait.ts";

/** How likely each fault is, from 0 to 1, per message. */
export interface SinkFaults {
  /** The connection is closed instead of a greeting. */
  readonly turnAway?: number;
  /** RCPT is answered 451. */
  readonly refuse?: number;
  /** The end of data is answered 452, and the message thrown away. */
  readonly refuseData?: number;
  /** The connection is closed in the middle of the message. */
  readonly hangUpBefore?: number;
  /** The message is taken, and the connection closed instead of a reply. */
  readonly hangUpAfter?: number;
}

export interface SinkOptions {
  /** 0, the default, takes any free port. */
  readonly port?: number;
  readonly faults?: SinkFaults;
  /** Milliseconds before the reply to the end of data. */
  readonly delay?: number;
  readonly random?: () => number;
  /** Recipients at this domain are answered 550: there are no such users. */
  readonly nobodyAt?: string;
  /** Called for each message received, with its id. */
  readonly onMessage?: (id: string) => void;
}

export interface Sink {
  readonly port: number;
  /**
   * How often each was received: by the local part of the recipient, which begins with the load id
   * of the message; a report by its Message-ID.
   */
  readonly received: ReadonlyMap<string, number>;
  /** Messages received, repetitions included. */
  total(): number;
  /** Connections accepted. */
  connections(): number;
  /** `performance.now()` of the last receipt. */
  lastAt(): number;
  /** Changes the faults of messages to come. */
  setFaults(faults: SinkFaults): void;
  close(): Promise<void>;
}

const encode = (text: string) => new TextEncoder().encode(text);
const GREETING = encode("220 sink.example ESMTP\r\n");
const EXTENSIONS =
  "250-sink.example\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n" +
  "250 ENHANCEDSTATUSCODES\r\n";
const OK = "250 2.0.0 OK\r\n";
const GO_AHEAD = "354 Go ahead\r\n";
const BYE = "221 2.0.0 Bye\r\n";
const REFUSED = "451 4.7.1 Try again later\r\n";
const REFUSED_DATA = "452 4.3.1 No room\r\n";
const NOBODY = "550 5.1.1 No such user\r\n";
const NO_RCPT = "554 5.5.1 No valid recipients\r\n";
const UNKNOWN = "500 5.5.2 What?\r\n";

const END_OF_DATA = Buffer.from("\r\n.\r\n");
const LOAD_ID = Buffer.from("\r\nX-Load-Id: ");
const MESSAGE_ID = Buffer.from("\r\nMessage-ID: ");
const END_OF_HEADER = Buffer.from("\r\n\r\n");
/** The id is looked for in the first octets of the message: trace headers come before it. */
const HEAD_SIZE = 4_096;

/** The value of a field that follows another, which that of trace always does. */
function field(header: Buffer, name: Buffer): string | undefined {
  const at = header.indexOf(name);
  const end = at < 0 ? -1 : header.indexOf(0x0d, at + name.length);
  return end < 0 ? undefined : header.toString("latin1", at + name.length, end);
}

/** Starts a sink on 127.0.0.1. */
export function startSink(options: SinkOptions = {}): Sink {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: options.port ?? 0 });
  const random = options.random ?? Math.random;
  let faults = options.faults ?? {};
  const received = new Map<string, number>();
  const open = new Set<Deno.TcpConn>();
  let total = 0;
  let connections = 0;
  let lastAt = 0;

  const happens = (rate: number | undefined) => rate !== undefined && rate > 0 && random() < rate;

  const take = (head: Buffer, recipients: readonly string[]) => {
    const end = head.indexOf(END_OF_HEADER);
    const header = end < 0 ? head : head.subarray(0, end + 2);
    const loadId = field(header, LOAD_ID);
    const id = loadId ?? field(header, MESSAGE_ID) ?? "";
    total++;
    lastAt = performance.now();
    const each = loadId === undefined ? [id] : recipients.map((to) =>
      // Content that came to somebody else's recipient is nobody's message.
      to.startsWith(loadId) ? to : `${loadId} to ${to}`
    );
    for (const key of each) received.set(key, (received.get(key) ?? 0) + 1);
    options.onMessage?.(id);
  };

  const serve = async (conn: Deno.TcpConn) => {
    const chunk = Buffer.alloc(65_536);
    let pending: Buffer = Buffer.alloc(0);
    let head: Buffer | undefined; // set while in data
    let recipients: string[] = [];
    let lost = false; // this message's connection breaks in the middle
    if (happens(faults.turnAway)) return;
    await conn.write(GREETING);
    while (true) {
      const n = await conn.read(chunk);
      if (n === null) return;
      let input = pending.length === 0
        ? chunk.subarray(0, n)
        : Buffer.concat([pending, chunk.subarray(0, n)]);
      let replies = "";
      while (input.length > 0) {
        if (head !== undefined) {
          const empty = head.length === 0 && input.subarray(0, 3).equals(END_OF_DATA.subarray(2));
          const end = empty ? -2 : input.indexOf(END_OF_DATA);
          if (head.length < HEAD_SIZE) {
            const upTo = end === -1 ? input.length - 4 : end + 2;
            head = Buffer.concat([head, input.subarray(0, Math.max(0, upTo))]);
          }
          if (lost) return;
          if (end === -1) {
            input = Buffer.from(input.subarray(Math.max(0, input.length - 4)));
            break;
          }
          input = input.subarray(end + END_OF_DATA.length);
          if (happens(faults.refuseData)) {
            replies += REFUSED_DATA;
          } else {
            take(head, recipients);
            if (options.delay) await new Promise((done) => setTimeout(done, options.delay));
            if (happens(faults.hangUpAfter)) return;
            replies += OK;
          }
          head = undefined;
          recipients = [];
          continue;
        }
        const eol = input.indexOf("\r\n");
        if (eol < 0) break;
        const line = input.toString("latin1", 0, eol);
        const verb = line.slice(0, 4).toUpperCase();
        input = input.subarray(eol + 2);
        switch (verb) {
          case "EHLO":
            replies += EXTENSIONS;
            break;
          case "MAIL":
          case "RSET":
            recipients = [];
            replies += OK;
            break;
          case "RCPT": {
            const [, local = "", domain] = /<([^@>]*)@?([^>]*)>/.exec(line) ?? [];
            if (options.nobodyAt !== undefined && domain === options.nobodyAt) {
              replies += NOBODY;
            } else if (happens(faults.refuse)) {
              replies += REFUSED;
            } else {
              recipients.push(local);
              replies += OK;
            }
            break;
          }
          case "DATA":
            if (recipients.length === 0) {
              replies += NO_RCPT;
              break;
            }
            replies += GO_AHEAD;
            head = Buffer.alloc(0);
            lost = happens(faults.hangUpBefore);
            break;
          case "HELO":
          case "NOOP":
            replies += OK;
            break;
          case "QUIT":
            await conn.write(encode(replies + BYE));
            return;
          default:
            replies += UNKNOWN;
        }
      }
      pending = Buffer.from(input);
      if (replies !== "") await conn.write(encode(replies));
    }
  };

  const accepting = (async () => {
    for await (const conn of listener) {
      connections++;
      open.add(conn);
      conn.setNoDelay(true);
      serve(conn).catch(() => {
        // the peer went away: nothing that a sink minds
      }).finally(() => {
        open.delete(conn);
        closeQuietly(conn);
      });
    }
  })();

  return {
    port: (listener.addr as Deno.NetAddr).port,
    received,
    total: () => total,
    connections: () => connections,
    lastAt: () => lastAt,
    setFaults: (changed) => {
      faults = changed;
    },
    close: async () => {
      closeQuietly(listener);
      for (const conn of open) closeQuietly(conn);
      await accepting;
    },
  };
}

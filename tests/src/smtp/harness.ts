/** Ports for the tests of the SMTP client: the real clock, bodies from memory, messages to send. */
import type { BodyReader, Clock } from "../../../actors/ports.ts";
import type { Transaction } from "../../../src/smtp/client.ts";

export const realClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  timer: (ms, run) => {
    const id = setTimeout(run, ms);
    return () => clearTimeout(id);
  },
};

export const octets = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text);

/** A body in the given chunks. */
export function bodyOf(...chunks: Uint8Array[]): BodyReader {
  return {
    size: chunks.reduce((sum, chunk) => sum + chunk.length, 0),
    async *chunks() {
      yield* chunks;
    },
  };
}

export const MESSAGE = "Subject: a secret subject\r\n\r\nThe body nobody else may read.\r\n";

export function transaction(changes: Partial<Transaction> = {}): Transaction {
  return {
    mailFrom: "alice@example.com",
    recipients: [{ rcptTo: "bob@example.org", dsn: {} }],
    size: MESSAGE.length,
    has8bit: false,
    smtputf8: false,
    requireTLS: false,
    body: () => Promise.resolve(bodyOf(octets(MESSAGE))),
    ...changes,
  };
}

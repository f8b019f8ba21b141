/** What the tests of the events room share: a clock, facts, and a store in a folder of its own. */
import type { FactOf } from "../../events/catalogue.ts";
import type { LogClock } from "../../events/log.ts";
import { type OpenOptions, type OpenStore, openStore } from "../../events/open.ts";
import { createHash } from "node:crypto";
import type { StagedBody } from "../../events/store.ts";

export const START = Date.parse("2026-01-31T09:30:00.000Z");

/** Time that stands still until it is moved, with timers that then run. */
export class ManualClock implements LogClock {
  #now = START;
  #timers: { at: number; run: () => void }[] = [];

  now(): number {
    return this.#now;
  }
  monotonic(): number {
    return this.#now;
  }
  timer(ms: number, run: () => void): () => void {
    const timer = { at: this.#now + ms, run };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }
  get pending(): number {
    return this.#timers.length;
  }
  /** Moves on and lets what it set off come to rest. */
  async advance(ms: number): Promise<void> {
    this.#now += ms;
    const due = this.#timers.filter(({ at }) => at <= this.#now);
    this.#timers = this.#timers.filter(({ at }) => at > this.#now);
    for (const { run } of due) run();
    for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
  }
}

export const sha256 = (octets: Uint8Array): string =>
  createHash("sha256").update(octets).digest("hex");

export const smallBody = (text: string): StagedBody => {
  const inline = new TextEncoder().encode(text);
  return { sha256: sha256(inline), size: inline.length, inline };
};

export const NO_BODY = "0".repeat(64);

export const enqueued = (
  data: Partial<FactOf<"Enqueued">["data"]> = {},
): FactOf<"Enqueued"> => ({
  type: "Enqueued",
  data: {
    account: null,
    mailFrom: "sender@example.com",
    rcptTo: "rcpt@example.net",
    size: 100,
    body: NO_BODY,
    messageId: "<1@example.com>",
    has8bit: false,
    smtputf8: false,
    requireTLS: false,
    dsn: {},
    submission: "s1",
    source: { kind: "smtp" },
    due: "2026-01-31T09:30:00.000Z",
    ...data,
  },
});

export const started = (attempt: number): FactOf<"AttemptStarted"> => ({
  type: "AttemptStarted",
  data: { attempt, next: "2026-01-31T09:37:30.000Z" },
});

export const delivered: FactOf<"Delivered"> = {
  type: "Delivered",
  data: {
    host: "mx.example.net",
    address: "192.0.2.1",
    reply: { code: 250, enhanced: "2.0.0", text: "ok" },
    tls: { mode: "none", verifiedBy: "none" },
    queued: 10,
  },
};

export const failed = (permanent: boolean, reason = "no"): FactOf<"Failed"> => ({
  type: "Failed",
  data: {
    permanent,
    result: permanent ? "permerror" : "temperror",
    reason,
    ...(permanent ? {} : { next: "2026-01-31T09:40:00.000Z" }),
  },
});

export const cancelled: FactOf<"Cancelled"> = {
  type: "Cancelled",
  data: { who: "operator", why: "test" },
};

export interface Given extends OpenStore {
  readonly dataDir: string;
  readonly clock: ManualClock;
  /** Closes it and opens the same folder again. */
  reopen(options?: Partial<OpenOptions>): Promise<Given>;
  /** Closes it and removes the folder. */
  end(): Promise<void>;
}

export async function givenStore(options: Partial<OpenOptions> = {}): Promise<Given> {
  const dataDir = options.dataDir ?? await Deno.makeTempDir({ prefix: "postledger-events-" });
  const clock = (options.clock as ManualClock | undefined) ?? new ManualClock();
  const open = await openStore({ ...options, dataDir, clock });
  return {
    ...open,
    dataDir,
    clock,
    reopen: async (changed = {}) => {
      await open.close();
      return await givenStore({ ...options, dataDir, clock, ...changed });
    },
    end: async () => {
      await open.close();
      await Deno.remove(dataDir, { recursive: true });
    },
  };
}

/** Everything an async iterable yields, as one. */
export async function octetsOf(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  return new Uint8Array(await new Blob(await Array.fromAsync(chunks) as BlobPart[]).arrayBuffer());
}

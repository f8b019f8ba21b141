/**
 * Deliberate bugs, one per promise that the queue makes, put between the real parts: what the
 * simulation has to find, or it is worth nothing.
 */
import { ADMISSION_STREAM } from "../../actors/admission.ts";
import type { DeliveryJob, EventStore, Finding, Findings } from "../../actors/ports.ts";
import type { Fact, StoredEvent } from "../../events/catalogue.ts";
import { sha256 } from "../../events/chain.ts";
import type { StorageEngine, Transaction } from "../../events/engine.ts";
import type { RetentionPorts } from "../../events/retention.ts";
import type { StagedBody, StreamAppend } from "../../events/store.ts";
import type { Process } from "./process.ts";
import type { Sabotage } from "./program.ts";

type Append = EventStore["append"];

/** A store whose `append` is another one's. */
function withAppend(store: EventStore, append: Append): EventStore {
  return {
    append,
    readStream: (stream) => store.readStream(stream),
    version: (stream) => store.version(stream),
    readAll: (after, limit) => store.readAll(after, limit),
    dayTime: () => store.dayTime(),
    head: () => store.head(),
    subscribe: (listener) => store.subscribe(listener),
    health: () => store.health(),
  };
}

const begins = (appends: readonly StreamAppend[], type: Fact["type"]): boolean =>
  appends[0]?.facts[0]?.type === type;

/** Tells the caller that events are stored while they are on their way to the disk. */
function tooEarly(type: Fact["type"]): Sabotage {
  const store = (real: EventStore, process: Process): EventStore =>
    withAppend(real, (appends, bodies) => {
      const stored = real.append(appends, bodies);
      if (!begins(appends, type)) return stored;
      stored.catch(() => {});
      return Promise.resolve(imagined(appends, process));
    });
  return { store };
}

function imagined(appends: readonly StreamAppend[], process: Process): StoredEvent[] {
  return appends.flatMap(({ stream, expectedVersion, facts }) =>
    facts.map((fact, i) => ({
      ...fact,
      stream,
      version: expectedVersion + i + 1,
      position: 0,
      schema: 1,
      time: new Date(process.now()).toISOString(),
      prev: "",
      hash: "",
    }))
  );
}

/** Drops some facts on their way into the log, and tells the caller that all is well. */
function forgetting(drop: (fact: Fact) => boolean): Sabotage {
  const store = (real: EventStore, process: Process): EventStore =>
    withAppend(real, async (appends, bodies?: readonly StagedBody[]) => {
      const kept = appends.map((append) => ({
        ...append,
        facts: append.facts.filter((fact) => !drop(fact)),
      }));
      if (kept.some(({ facts }, i) => facts.length < appends[i]!.facts.length)) {
        const left = kept.filter(({ facts }) => facts.length > 0);
        if (left.length > 0) await real.append(left, bodies);
        return imagined(appends, process);
      }
      return await real.append(appends, bodies);
    });
  return { store };
}

/** Begins messages that are to be held as any other, and holds them only then. */
const holdsTooLate: Sabotage = {
  store: (real) =>
    withAppend(real, async (appends, bodies?: readonly StagedBody[]) => {
      const held = appends.filter(({ facts: [first, second] }) =>
        first?.type === "Enqueued" && second?.type === "Held"
      );
      if (held.length === 0) return await real.append(appends, bodies);
      const stored = await real.append(
        appends.map((append) => held.includes(append) ? upTo(1, append) : append),
        bodies,
      );
      await real.append(held.map(({ stream, facts: [, ...facts] }) => ({
        stream,
        expectedVersion: 1,
        facts,
      }))).catch(() => {});
      return stored;
    }),
};

const upTo = (length: number, append: StreamAppend): StreamAppend => ({
  ...append,
  facts: append.facts.slice(0, length),
});

/** Findings of the second of two attempts: nobody writes them down. */
const UNSEEN: Findings = {
  note: (_: Finding) => {},
  flush: () => Promise.resolve(),
  settle: () => Promise.resolve(),
};

/** An engine that changes what it is given to commit. */
function changing(change: (transaction: Transaction) => Transaction): Sabotage {
  const engine = (real: StorageEngine): StorageEngine =>
    new Proxy(real, {
      get(target, name) {
        if (name === "commit") return (given: Transaction) => target.commit(change(given));
        const member: unknown = Reflect.get(target, name);
        return typeof member === "function" ? member.bind(target) : member;
      },
    });
  return { engine };
}

/** Retention with some of what it asks of others done in another way. */
function retaining<K extends "log" | "view" | "files">(
  port: K,
  change: (real: RetentionPorts[K]) => Partial<RetentionPorts[K]>,
): Sabotage {
  const otherwise = (real: RetentionPorts): RetentionPorts[K] => {
    const changed = change(real[port]);
    return new Proxy(real[port], {
      get(target, name) {
        const member: unknown = Reflect.get(name in changed ? changed : target, name);
        return typeof member === "function" ? member.bind(target) : member;
      },
    });
  };
  return { retention: (real) => ({ ...real, [port]: otherwise(real) }) };
}

async function* without(line: number, lines: AsyncIterable<string>): AsyncGenerator<string> {
  let n = 0;
  for await (const each of lines) if (++n !== line) yield each;
}

export const BUGS = {
  "acknowledges before the commit": tooEarly("Enqueued"),
  "dials before AttemptStarted is on disk": tooEarly("AttemptStarted"),
  "forgets to record that it was delivered": forgetting(({ type }) => type === "Delivered"),
  "forgets to record that it failed": forgetting(({ type }) => type === "Failed"),
  "forgets to note that it reported": forgetting(({ type }) => type === "DSNSent"),
  "makes two attempts at once": {
    delivery: (real) => ({
      attempt: (
        jobs: readonly DeliveryJob[],
        findings: readonly Findings[],
        signal: AbortSignal,
      ) => {
        real.attempt(jobs, jobs.map(() => UNSEEN), signal).catch(() => {});
        return real.attempt(jobs, findings, signal);
      },
    }),
  },
  "leaves attempts open after a crash": {
    view: (real) =>
      new Proxy(real, {
        get(target, name) {
          if (name === "attempting") return () => Promise.resolve([]);
          const member: unknown = Reflect.get(target, name);
          return typeof member === "function" ? member.bind(target) : member;
        },
      }),
  },
  "lets a view fall behind its log": changing((transaction) => ({
    ...transaction,
    rows: transaction.rows.slice(0, 1),
  })),
  "writes other events than it hashed": changing((transaction) => ({
    ...transaction,
    events: transaction.events.map((event) =>
      event.type === "Failed" ? { ...event, data: event.data.replace("false", "true") } : event
    ),
  })),
  "keeps bodies that nobody needs": changing((transaction) => ({
    ...transaction,
    bodies: transaction.bodies.filter(({ uses }) => uses > 0),
  })),
  "gives bodies up too early": changing((transaction) => ({
    ...transaction,
    bodies: transaction.bodies.map((body) => ({ ...body, uses: Math.min(body.uses, 1) })),
  })),
  "calls it delivered whatever the host said": {
    delivery: (real) => ({
      attempt: async (
        jobs: readonly DeliveryJob[],
        findings: readonly Findings[],
        signal: AbortSignal,
      ) => {
        const outcomes = await real.attempt(jobs, findings, signal);
        return outcomes.map((outcome) => {
          if (outcome.kind === "delivered" || outcome.permanent) return outcome;
          return {
            kind: "delivered" as const,
            host: "nobody",
            address: "192.0.2.1",
            reply: { code: 250, text: "fine" },
            tls: { mode: "none" as const, verifiedBy: "none" as const },
            dsnOffered: false,
          };
        });
      },
    }),
  },
  "calls an endpoint told whatever it answered": {
    hooks: (real) => ({
      send: (endpoint, message, signal) =>
        real.send(endpoint, message, signal).then(() => 200, () => 200),
    }),
  },
  "prunes what no event says is archived": retaining("log", (real) => ({
    append: (appends) =>
      begins(appends, "StreamsArchived") ? Promise.resolve([]) : real.append(appends),
  })),
  "archives what still has a report to make": retaining("view", (real) => ({
    finished: async (after, limit) =>
      (await real.finished(after, limit)).map((one) => ({
        ...one,
        finished: one.finished === Infinity ? one.created : one.finished,
      })),
  })),
  "loses an event on the way into the archive": retaining("files", (real) => ({
    write: (name, lines) => real.write(name, without(3, lines)),
  })),
  "records a file of the archive before it is on disk": retaining("files", (real) => ({
    write: async (name, lines) => {
      const all = await Array.fromAsync(lines);
      const text = all.join("");
      real.write(name, ReadableStream.from(all)).catch(() => {});
      return { sha256: sha256(text), octets: new TextEncoder().encode(text).length };
    },
  })),
  "sweeps files of the archive that count": retaining("files", (real) => ({
    sweep: () => real.sweep(() => false),
  })),
  "says that it pruned, and did not": retaining("log", () => ({
    prune: () => Promise.resolve(0),
  })),
  "keeps the rows of what it pruned": {
    ...changing((transaction) => ({
      ...transaction,
      ...(transaction.prune ? { rows: [], counts: [] } : {}),
    })),
    retention: (real) => real,
  },
  "forgets at a restart what operators ruled": {
    store: (real) => ({
      ...withAppend(real, (appends, bodies) => real.append(appends, bodies)),
      readStream: (stream) =>
        stream === ADMISSION_STREAM ? Promise.resolve([]) : real.readStream(stream),
    }),
  },
  "does not hear of a pause": {
    store: (real) => ({
      ...withAppend(real, (appends, bodies) => real.append(appends, bodies)),
      subscribe: (listener) =>
        real.subscribe((events) => listener(events.filter(({ type }) => type !== "IntakePaused"))),
    }),
  },
  "holds new mail a moment too late": holdsTooLate,
  "calls a drain over while it tries messages": {
    view: (real) =>
      new Proxy(real, {
        get(target, name) {
          if (name === "depth") return async () => ({ ...await target.depth(), attempting: 0 });
          const member: unknown = Reflect.get(target, name);
          return typeof member === "function" ? member.bind(target) : member;
        },
      }),
  },
  "never ends a suppression": {
    list: (real) => ({
      list: (limit, after) => real.list(limit, after),
      get: (address, account) => {
        const row = real.get(address, account);
        return row && { ...row, expires: null };
      },
    }),
  },
  "forgets which users a server does not know": forgetting(({ type, data }) =>
    type === "AddressSuppressed" && data.cause === "bounce"
  ),
} as const satisfies Readonly<Record<string, Sabotage>>;

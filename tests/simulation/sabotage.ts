/**
 * Deliberate bugs, one per promise that the queue makes, put between the real parts: what the
 * simulation has to find, or it is worth nothing.
 */
import type { DeliveryJob, EventStore, Finding, Findings } from "../../actors/ports.ts";
import type { Fact, StoredEvent } from "../../events/catalogue.ts";
import type { StorageEngine, Transaction } from "../../events/engine.ts";
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
} as const satisfies Readonly<Record<string, Sabotage>>;

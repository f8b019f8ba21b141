/**
 * A batch of appends on its way into one transaction: checked facts go in, and out come the events
 * with their versions, positions and hashes, the appends that are refused, and the folded rows.
 * Decides, and changes nothing.
 */
import {
  CATALOGUE,
  checkFact,
  type Fact,
  isEventType,
  type StoredEvent,
  UnreadableEvent,
} from "./catalogue.ts";
import { canonicalJson, eventHash, GENESIS, wellFormed } from "./chain.ts";
import type { RawEvent, StreamHead } from "./engine.ts";
import { fold, type Folded, type ReadRows } from "./fold.ts";
import type { Projection, Row } from "./projection.ts";
import { type StagedBody, type StreamAppend, WrongVersion } from "./store.ts";

interface CheckedFact {
  readonly fact: Fact;
  /** Canonical JSON of the fact's data. */
  readonly data: string;
}

/** An append that waits for its transaction. */
export interface Waiting {
  readonly appends: readonly {
    readonly stream: string;
    readonly expectedVersion: number;
    readonly facts: readonly CheckedFact[];
  }[];
  readonly bodies: readonly StagedBody[];
  /** What it adds to its transaction. */
  readonly events: number;
  readonly bytes: number;
  resolve(events: StoredEvent[]): void;
  reject(error: Error): void;
}

/** Checks an append and turns its data into text. @throws UnreadableEvent naming what is off */
export function checked(
  appends: readonly StreamAppend[],
  bodies: readonly StagedBody[],
): Omit<Waiting, "resolve" | "reject"> {
  let events = 0;
  let bytes = bodies.reduce((sum, body) => sum + (body.inline?.length ?? 0), 0);
  const withText = appends.map(({ stream, expectedVersion, facts }) => ({
    stream,
    expectedVersion,
    facts: facts.map((fact) => {
      const one = checkedFact(fact);
      events += 1;
      bytes += one.data.length;
      return one;
    }),
  }));
  return { appends: withText, bodies, events, bytes };
}

function checkedFact(fact: Fact): CheckedFact {
  if (!isEventType(fact.type)) {
    throw new UnreadableEvent(`event type "${(fact as Fact).type}" is not in the catalogue`);
  }
  const known = checkFact(fact);
  try {
    return { fact: known, data: canonicalJson(known.data) };
  } catch {
    // Text from outside that was cut inside a character; everything else zod has refused.
    const mended = { type: known.type, data: wellFormed(known.data) } as Fact;
    return { fact: mended, data: canonicalJson(mended.data) };
  }
}

export interface Prepared {
  readonly accepted: readonly { readonly waiting: Waiting; readonly events: StoredEvent[] }[];
  readonly refused: readonly (readonly [Waiting, WrongVersion])[];
  readonly raw: readonly RawEvent[];
  /** The streams that were written, as the batch leaves them. */
  readonly heads: ReadonlyMap<string, StreamHead>;
  readonly folded: Folded;
}

/** The log as the batch finds it. */
export interface Before {
  readonly position: number;
  readonly time: string;
  readonly projections: readonly Projection<Row>[];
  head(stream: string): StreamHead | undefined | Promise<StreamHead | undefined>;
  readonly rows: ReadRows;
}

export async function prepare(batch: readonly Waiting[], log: Before): Promise<Prepared> {
  const heads = new Map<string, StreamHead>();
  const accepted: { waiting: Waiting; events: StoredEvent[] }[] = [];
  const refused: (readonly [Waiting, WrongVersion])[] = [];
  const raw: RawEvent[] = [];
  for (const waiting of batch) {
    // Heads as this append alone leaves them: they count for the others only if all of it goes in.
    const own = new Map<string, StreamHead>();
    const ownRaw: RawEvent[] = [];
    const events: StoredEvent[] = [];
    let wrong: WrongVersion | undefined;
    for (const { stream, expectedVersion, facts } of waiting.appends) {
      let head = own.get(stream) ?? heads.get(stream) ?? await log.head(stream) ?? NO_STREAM;
      if (head.version !== expectedVersion) {
        wrong = new WrongVersion(stream, expectedVersion, head.version);
        break;
      }
      for (const { fact, data } of facts) {
        const unhashed = {
          position: log.position + raw.length + ownRaw.length + 1,
          stream,
          version: head.version + 1,
          type: fact.type,
          schema: CATALOGUE[fact.type].schema,
          time: log.time,
          data,
          prev: head.hash,
        };
        const hash = eventHash(unhashed);
        ownRaw.push({ ...unhashed, hash });
        events.push({ ...unhashed, hash, ...fact });
        head = { version: unhashed.version, hash };
      }
      own.set(stream, head);
    }
    if (wrong) {
      refused.push([waiting, wrong]);
      continue;
    }
    raw.push(...ownRaw);
    for (const [stream, head] of own) heads.set(stream, head);
    accepted.push({ waiting, events });
  }
  const all = accepted.flatMap(({ events }) => events);
  return { accepted, refused, raw, heads, folded: await fold(log.projections, all, log.rows) };
}

const NO_STREAM: StreamHead = { version: 0, hash: GENESIS };

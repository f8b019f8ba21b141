/**
 * One running message: loads its stream, makes one attempt, appends the outcome, and is gone.
 *
 *   1. fold the stream; a stream that no fold accepts is quarantined (Held, with the reason)
 *   2. append AttemptStarted and TransportChosen; only then may anything be dialled
 *   3. hand the job to the delivery port, appending findings as they come
 *   4. append the outcome, together with the report to the sender if one is due
 *
 * A fault of our own code anywhere on the way is recorded as a temporary failure with its stack,
 * and after FAULTS_BEFORE_HOLD in a row the message is held. Nothing it does reaches its
 * neighbours: `runAttempt` throws nothing but StoreUnavailable, before anything was dialled.
 */
import type { EventData, Fact, StoredEvent } from "../events/catalogue.ts";
import { BodyMissing, StoreUnavailable, type StreamAppend, WrongVersion } from "../events/store.ts";
import {
  CommandRefused,
  decide,
  decideNotice,
  decideReport,
  evolve,
  fold,
  INTERRUPTED,
  type Message,
  type ReportDecision,
} from "./message.ts";
import type {
  Clock,
  ComposedReport,
  Delivery,
  EventStore,
  Finding,
  Findings,
  Ids,
  Log,
  Outcome,
  Random,
  Reporter,
  Router,
} from "./ports.ts";
import { describe } from "./fault.ts";
import type { RetryPolicy } from "./retry.ts";
import { endsOnAbort, pause } from "./waiting.ts";

export interface MessagePorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly ids: Ids;
  readonly log: Log;
  readonly store: EventStore;
  readonly router: Router;
  readonly delivery: Delivery;
  readonly reporter: Reporter;
  readonly policy: () => RetryPolicy;
}

/** What became of an attempt. */
export interface Attempted {
  /**
   * The message as it is afterwards, also when it was not to be tried now (not queued, not due);
   * absent when it was quarantined, or somebody else ended the attempt.
   */
  readonly message?: Message;
  /** The delivery came to an outcome of its own: no fault of ours, no crash. */
  readonly concluded?: true;
}

/** Waits between tries to record an outcome that the store does not take, milliseconds. */
const RECORD_AGAIN = [250, 1_000, 2_000, 5_000] as const;

/** Other writers that may come between reading a stream and writing to it. */
const BEGIN_AGAIN = 5;

/**
 * Makes one attempt for a message that is queued and due.
 * @param known the stream's events where the caller has them all, to save reading them
 * @param signal aborts the attempt; it is then recorded as canceled
 * @param gone aborts the recording of an outcome that the store does not take: the process ends
 * @throws StoreUnavailable when its start, or its quarantine, could not be recorded; whether the log
 *   has it all the same is not known
 */
export async function runAttempt(
  ports: MessagePorts,
  stream: string,
  known: readonly StoredEvent[] | undefined,
  signal: AbortSignal,
  gone: AbortSignal,
): Promise<Attempted> {
  const actor = new MessageActor(ports, stream, gone);
  let events = known;
  for (let again = 0;; again++) {
    try {
      if (!(await actor.begin(events, signal))) return { message: actor.state };
      break;
    } catch (cause) {
      if (cause instanceof StoreUnavailable) throw cause;
      if (!(cause instanceof WrongVersion) || again === BEGIN_AGAIN) {
        await quarantine(ports, stream, cause);
        return {};
      }
      events = undefined; // an operator's act, or a report of the delay, came between: read anew
    }
  }
  try {
    await actor.attempt(signal);
  } catch (cause) {
    try {
      if (lostTheMessage(cause)) return {};
      await actor.fault(cause);
      return { message: actor.state };
    } catch (second) {
      if (!lostTheMessage(second)) await quarantine(ports, stream, second);
      return {};
    }
  } finally {
    actor.ended = true;
  }
  return { message: actor.state, concluded: true };
}

/**
 * Gives up on a message, or tells its sender of the delay, while it waits for a destination that
 * is down. Does nothing when the message is not waiting any more.
 * @throws StoreUnavailable when its stream cannot be read
 */
export async function losePatienceWith(
  ports: MessagePorts,
  stream: string,
  act: "expire" | "tellOfDelay",
  why: string,
  gone: AbortSignal,
): Promise<void> {
  const actor = new MessageActor(ports, stream, gone);
  try {
    await actor.load();
    await actor[act](why);
  } catch (cause) {
    if (cause instanceof StoreUnavailable) throw cause;
    // An attempt or an operator was first, or its fold refuses: not a matter of patience.
    if (lostTheMessage(cause) || cause instanceof CommandRefused) return;
    ports.log.error("patience not recorded", { stream, ...describe(cause) });
  }
}

/**
 * Holds a message whose events no fold accepts, whatever state it seems to be in, so that it is
 * seen by the operator and tried by nobody.
 * @throws StoreUnavailable when that could not be recorded
 */
export async function quarantine(
  ports: Pick<MessagePorts, "store" | "log">,
  stream: string,
  cause: unknown,
): Promise<void> {
  const { message, stack } = describe(cause);
  ports.log.error("message quarantined", { stream, reason: message });
  const held: Fact = {
    type: "Held",
    data: { who: "supervisor", why: `quarantined: ${message}`, stack },
  };
  try {
    const expectedVersion = await ports.store.version(stream);
    await ports.store.append([{ stream, expectedVersion, facts: [held] }]);
  } catch (failed) {
    ports.log.error("quarantine not recorded", { stream, reason: describe(failed).message });
    if (failed instanceof StoreUnavailable) throw failed; // met again when the store is well
  }
}

/** Thrown to unwind when the process ends before an outcome could be recorded. */
const GONE = Symbol("the process is ending");

/** The process ends, or another writer has ended the attempt: there is nothing left to record. */
const lostTheMessage = (cause: unknown): boolean => cause === GONE || cause instanceof WrongVersion;

class MessageActor implements Findings {
  /** Set when the attempt is over: a delivery that goes on regardless can record nothing. */
  ended = false;
  #state: Message | undefined;
  #transport: EventData<"TransportChosen"> | undefined;
  #noted: Finding[] = [];

  constructor(
    readonly ports: MessagePorts,
    readonly stream: string,
    readonly gone: AbortSignal,
  ) {}

  get state(): Message {
    if (!this.#state) throw new Error(`stream ${this.stream} has no events`);
    return this.#state;
  }

  async load(): Promise<void> {
    this.#state = fold(await this.ports.store.readStream(this.stream));
  }

  /** Loads and starts; false when the message is not queued, or not due (any more). */
  async begin(known: readonly StoredEvent[] | undefined, signal: AbortSignal): Promise<boolean> {
    const { store, router, clock, random, policy } = this.ports;
    this.#state = fold(known ?? await store.readStream(this.stream));
    const state = this.state;
    if (state.status !== "queued" || state.due > clock.now()) return false;
    const chosen = router.choose({
      account: state.enqueued.account,
      mailFrom: state.enqueued.mailFrom,
      rcptTo: state.enqueued.rcptTo,
      size: state.enqueued.size,
      body: state.enqueued.body,
      attempt: state.attempts + 1,
      ...(state.override ? { override: state.override } : {}),
    }, signal);
    const transport = chosen instanceof Promise ? await chosen : chosen;
    const facts = decide({
      type: "StartAttempt",
      now: clock.now(),
      transport,
      policy: policy(),
      random: random.next(),
    }, state);
    this.#transport = transport;
    await this.#append(facts);
    return true;
  }

  async attempt(signal: AbortSignal): Promise<void> {
    const { delivery, clock, policy } = this.ports;
    const { enqueued: message, attempts: attempt, tried } = this.state;
    const transport = this.#transport!;
    const job = { stream: this.stream, attempt, message, transport, tried };
    const outcome = await endsOnAbort(clock, signal, delivery.attempt(job, this, signal))
      .catch(unreadable);
    const findings = this.#noted;
    this.#noted = [];
    const now = clock.now();
    const command = { type: "Conclude", now, findings, outcome, policy: policy() } as const;
    await this.#conclude(decide(command, this.state), now, command.policy);
  }

  note(finding: Finding): void {
    this.#noted.push(finding);
  }

  async flush(): Promise<void> {
    if (this.#noted.length === 0 || this.ended) return;
    const findings = this.#noted;
    this.#noted = [];
    const facts = decide({ type: "NoteFindings", findings }, this.state);
    await this.#record(() => this.#append(facts));
  }

  async fault(cause: unknown): Promise<void> {
    const { message, stack } = describe(cause);
    await this.flush().catch(() => {}); // what was found explains more; if it is the fault, it goes
    this.#noted = [];
    if (cause instanceof BodyMissing) {
      this.ports.log.error("content lost, message held", { stream: this.stream, reason: message });
      return await this.#record(() =>
        this.#append(decide({ type: "LoseBody", reason: cause.message }, this.state))
      );
    }
    this.ports.log.error("attempt ended in a fault of our own code", {
      stream: this.stream,
      reason: message,
      stack,
    });
    await this.#record(() =>
      this.#append(decide({ type: "Fault", reason: message, stack }, this.state))
    );
  }

  /** Gives up on a message that has waited for its whole lifetime. */
  async expire(why: string): Promise<void> {
    const { clock, policy } = this.ports;
    const now = clock.now();
    await this.#conclude(decide({ type: "Expire", now, why }, this.state), now, policy());
  }

  /** Tells the sender that a message waits for a destination that is down. */
  async tellOfDelay(why: string): Promise<void> {
    const { clock, policy } = this.ports;
    const { status, delayReported, arrived, lastFailure } = this.state;
    if (status !== "queued" || delayReported) return;
    const report = decideNotice("delayed", this.state, arrived + policy().lifetime);
    const reason = `its destination is down: ${why}`;
    const failure = lastFailure ?? { permanent: false, result: "timeout", reason };
    await this.#report([], failure, report, clock.now());
  }

  /** Appends the outcome, with a report to the sender in the same transaction if one is due. */
  async #conclude(facts: Fact[], now: number, policy: RetryPolicy): Promise<void> {
    const failure = facts.find((fact) => fact.type === "Failed");
    const report = failure && decideReport(this.state, failure.data, policy);
    if (!failure || !report) return await this.#record(() => this.#append(facts));
    await this.#report(facts, failure.data, report, now);
  }

  async #report(
    facts: readonly Fact[],
    failure: EventData<"Failed">,
    report: ReportDecision,
    now: number,
  ): Promise<void> {
    if ("notSent" in report) {
      const { kind, notSent } = report;
      const all: Fact[] = [...facts, { type: "DSNSent", data: { kind, notSent } }];
      return await this.#record(() => this.#append(all));
    }
    const { clock, reporter } = this.ports;
    await this.#record(async () => {
      const composed = await reporter.compose({
        kind: report.kind,
        stream: this.stream,
        message: this.state.enqueued,
        arrived: new Date(this.state.arrived).toISOString(),
        at: this.state.attemptStarted ?? now,
        attempt: this.state.attempts,
        failure,
        ...(report.until === undefined ? {} : { until: report.until }),
      });
      const dsn = this.#reportStream(composed, clock.now());
      const sent: Fact = { type: "DSNSent", data: { kind: report.kind, dsn: dsn.stream } };
      try {
        await this.#append([...facts, sent], dsn, composed);
      } catch (cause) {
        await composed.discard();
        throw cause;
      }
    });
  }

  /** The report as a message of its own, from the null reverse-path (RFC 3464, section 2). */
  #reportStream(composed: ComposedReport, now: number): StreamAppend {
    const { enqueued } = this.state;
    const enqueuedReport = decide({
      type: "Enqueue",
      data: {
        account: enqueued.account,
        mailFrom: "",
        rcptTo: enqueued.mailFrom,
        size: composed.body.size,
        body: composed.body.sha256,
        messageId: composed.messageId,
        has8bit: composed.has8bit,
        smtputf8: composed.smtputf8,
        requireTLS: false,
        dsn: { notify: ["NEVER"] },
        submission: this.ports.ids.next(),
        source: { kind: "dsn", of: this.stream },
        due: new Date(now).toISOString(),
      },
    }, undefined);
    return { stream: this.ports.ids.next(), expectedVersion: 0, facts: enqueuedReport };
  }

  async #append(facts: Fact[], other?: StreamAppend, composed?: ComposedReport): Promise<void> {
    const { stream } = this;
    const own = { stream, expectedVersion: this.state.version, facts };
    const stored = await this.ports.store.append(
      other ? [own, other] : [own],
      composed ? [composed.body] : undefined,
    );
    for (const event of stored) {
      if (event.stream === stream) this.#state = evolve(this.#state, event);
    }
  }

  /**
   * A store that failed may have written all the same. Nobody else writes to a message that is
   * being attempted, so a stream that has grown has what we tried to append.
   */
  async #recordedAfterAll(): Promise<boolean> {
    const { store } = this.ports;
    if (await store.version(this.stream) === this.state.version) return false;
    this.#state = fold(await store.readStream(this.stream));
    return true;
  }

  /**
   * Records what has happened already. A store that does not take it is asked again until it
   * does: the outcome of a delivery is not given up for a full disk.
   */
  async #record(append: () => Promise<void>): Promise<void> {
    for (let again = 0;; again++) {
      try {
        if (again > 0 && await this.#recordedAfterAll()) return;
        return await append();
      } catch (cause) {
        if (!(cause instanceof StoreUnavailable)) throw cause;
        const wait = RECORD_AGAIN[Math.min(again, RECORD_AGAIN.length - 1)]!;
        this.ports.log.warn("outcome not recorded, trying again", {
          stream: this.stream,
          reason: cause.message,
        });
        await pause(this.ports.clock, wait, this.gone);
        if (this.gone.aborted) throw GONE;
      }
    }
  }
}

/** A disk that does not give the content for now is no fault of the code: it is tried again. */
function unreadable(cause: unknown): Outcome {
  if (!(cause instanceof StoreUnavailable)) throw cause;
  const { message: reason } = cause;
  return { kind: "failed", permanent: false, result: "error", reason, enhanced: "4.3.0" };
}

/** Ends an attempt that nobody runs: a crash, or a failing disk, left it open (invariant 4). */
export async function finishInterrupted(
  ports: Pick<MessagePorts, "store" | "log" | "clock">,
  stream: string,
): Promise<void> {
  const { store, clock } = ports;
  try {
    const state = fold(await store.readStream(stream));
    if (state?.status !== "attempting") return; // it ended meanwhile
    const facts = decide({ type: "Interrupt", now: clock.now() }, state);
    await store.append([{ stream, expectedVersion: state.version, facts }]);
    ports.log.info(INTERRUPTED, { stream, attempt: state.attempts });
  } catch (cause) {
    if (cause instanceof StoreUnavailable) throw cause;
    if (cause instanceof WrongVersion) return; // its actor ended it after all
    await quarantine(ports, stream, cause);
  }
}

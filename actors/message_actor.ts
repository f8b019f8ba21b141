/**
 * One running message: loads its stream, records what an attempt finds and comes to, and is gone.
 * What an attempt is, step by step, is in attempts.ts.
 */
import type { EventData, Fact, StoredEvent } from "../events/catalogue.ts";
import { BodyMissing, StoreUnavailable, type StreamAppend, WrongVersion } from "../events/store.ts";
import {
  ageOf,
  CommandRefused,
  decide,
  evolve,
  fold,
  INTERRUPTED,
  isOverdue,
  type Message,
} from "./message.ts";
import type {
  Clock,
  ComposedReport,
  Delivery,
  DeliveryJob,
  EventStore,
  Finding,
  Findings,
  Ids,
  Log,
  Outcome,
  QueueView,
  Random,
  RecipientReport,
  Reporter,
  Router,
} from "./ports.ts";
import { describe } from "./fault.ts";
import { quarantine } from "./quarantine.ts";
import {
  decideDelay,
  decideReport,
  noted,
  postponed,
  recipientOf,
  type ReportDecision,
  reportStream,
  waitingFor,
  whatHappened,
} from "./reports.ts";
import { delayNoticeAge, type RetryPolicies, type RetryPolicy } from "./retry.ts";
import { pause } from "./waiting.ts";

export interface MessagePorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly ids: Ids;
  readonly log: Log;
  readonly store: EventStore;
  readonly view: QueueView;
  readonly router: Router;
  readonly delivery: Delivery;
  readonly reporter: Reporter;
  readonly policy: RetryPolicies;
}

/** Waits between tries to record an outcome that the store does not take, milliseconds. */
const RECORD_AGAIN = [250, 1_000, 2_000, 5_000] as const;

/** Other writers that may come between reading a stream and writing to it. */
const ACT_AGAIN = 3;

/**
 * Gives up on a message that waits, or tells its sender of the delay. Does nothing when the message
 * is not waiting any more, or has not waited for long enough.
 * @param why what it waits for, where that is known
 * @returns the message afterwards; undefined when it was left alone
 * @throws StoreUnavailable when its stream cannot be read
 */
export async function losePatienceWith(
  ports: MessagePorts,
  stream: string,
  act: "expire" | "missDeadline" | "tellOfDelay",
  why: string | undefined,
  gone: AbortSignal,
): Promise<Message | undefined> {
  for (let again = 0;; again++) {
    const actor = new MessageActor(ports, stream, gone);
    let loaded = false;
    try {
      await actor.load();
      loaded = true;
      await actor[act](why);
      return actor.state;
    } catch (cause) {
      if (cause instanceof StoreUnavailable) throw cause;
      if (!loaded) {
        await quarantine(ports, stream, cause); // somebody has to see it
        return undefined;
      }
      if (cause instanceof WrongVersion && again < ACT_AGAIN) continue;
      // An attempt or an operator was first, or its fold refuses: not a matter of patience.
      if (lostTheMessage(cause) || cause instanceof CommandRefused) return undefined;
      ports.log.error("patience not recorded", { stream, ...describe(cause) });
      return undefined;
    }
  }
}

/** Thrown to unwind when the process ends before an outcome is recorded, or the message has left. */
const GONE = Symbol("the process is ending, or the message has left the store");

/** The process ends, or another has ended the attempt, or the message: nothing is left to record. */
export const lostTheMessage = (cause: unknown): boolean =>
  cause === GONE || cause instanceof WrongVersion;

export class MessageActor implements Findings {
  /** Set when the attempt is over: a delivery that goes on regardless can record nothing. */
  ended = false;
  #state: Message | undefined;
  #transport: EventData<"TransportChosen"> | undefined;
  #noted: Finding[] = [];
  #conclusion: Promise<void> | undefined;

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

  /**
   * Loads and starts; false when the message is not queued or not due (any more), or its deadline
   * has passed, which is then recorded.
   */
  async begin(
    known: readonly StoredEvent[] | undefined,
    signal: AbortSignal,
    waited: EventData<"AttemptStarted">["waited"],
  ): Promise<boolean> {
    const { store, router, clock, random } = this.ports;
    this.#state = fold(known ?? await store.readStream(this.stream));
    // It came to its end while it waited in line, and is in the archive.
    if (!this.#state) throw GONE;
    const state = this.#state;
    if (state.status !== "queued" || state.due > clock.now()) return false;
    if (isOverdue(state, clock.now())) {
      await this.missDeadline();
      return false;
    }
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
    this.#transport = transport;
    const facts = decide({
      type: "StartAttempt",
      now: clock.now(),
      transport,
      policy: this.#policy(),
      random: random.next(),
      ...(waited ? { waited } : {}),
    }, state);
    await this.#append(facts);
    return true;
  }

  /** What the delivery has to know, once the attempt has begun. */
  get job(): DeliveryJob {
    const { enqueued: message, attempts: attempt, tried } = this.state;
    return { stream: this.stream, attempt, message, transport: this.#transport!, tried };
  }

  /** Records how the attempt ended; the first outcome counts. */
  conclude(outcome: Outcome): Promise<void> {
    return this.#conclusion ??= this.#recordOutcome(outcome);
  }

  /** Whether an outcome is recorded, or being recorded. */
  get settled(): Promise<void> | undefined {
    return this.#conclusion;
  }

  async settle(outcome: Outcome): Promise<void> {
    if (this.ended) return;
    await this.conclude(outcome).catch(() => {}); // the attempt meets it when it ends
  }

  async #recordOutcome(outcome: Outcome): Promise<void> {
    const findings = this.#noted;
    this.#noted = [];
    const now = this.ports.clock.now();
    const policy = this.#policy();
    const command = { type: "Conclude", now, findings, outcome, policy } as const;
    const dsnOffered = outcome.kind === "delivered" && outcome.dsnOffered;
    const how = { policy: command.policy, dsnOffered };
    await this.#conclude(decide(command, this.state), now, how);
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
  async expire(why?: string): Promise<void> {
    const now = this.ports.clock.now();
    const policy = this.#policy();
    if (ageOf(this.state, now) < policy.lifetime) return;
    const command = { type: "Expire", now, ...(why === undefined ? {} : { why }) } as const;
    const how = { policy, dsnOffered: false };
    await this.#conclude(decide(command, this.state), now, how);
  }

  /** Gives up on a message whose deadline has passed. */
  async missDeadline(why?: string): Promise<void> {
    const now = this.ports.clock.now();
    if (!isOverdue(this.state, now)) return;
    const command = { type: "MissDeadline", ...(why === undefined ? {} : { why }) } as const;
    const how = { policy: this.#policy(), dsnOffered: false };
    await this.#conclude(decide(command, this.state), now, how);
  }

  /** Tells the sender that a message waits for a destination that is down. */
  async tellOfDelay(why = "nothing is known of why"): Promise<void> {
    const { clock } = this.ports;
    const { status, delayReported, reportDue, lastFailure } = this.state;
    const policy = this.#policy();
    const now = clock.now();
    const age = ageOf(this.state, now);
    if (status !== "queued" || delayReported || reportDue !== undefined) return;
    if (age < delayNoticeAge(policy)) return;
    const report = decideDelay(this.state, now - age + policy.lifetime);
    const reason = `its destination is down: ${why}`;
    const later = postponed([], this.state, report, now, reason);
    if (later) return await this.#record(() => this.#append(later));
    const failure = lastFailure ?? waitingFor(reason);
    await this.#report([], { type: "Failed", data: failure }, report, reason);
  }

  /** The policy in force for it: at the destination of its attempt, or where it would go. */
  #policy(): RetryPolicy {
    const { router, policy } = this.ports;
    const { account, rcptTo, mailFrom, size } = this.state.enqueued;
    const transport = this.#transport ??
      router.expect({
        account,
        mailFrom,
        rcptTo,
        size,
        attempt: this.state.attempts + 1,
        ...(this.state.override ? { override: this.state.override } : {}),
      });
    return policy({ account, destination: router.destination(transport, rcptTo) });
  }

  /** Appends the outcome, with a report to the sender in the same transaction if one is due. */
  async #conclude(
    facts: Fact[],
    now: number,
    how: { readonly policy: RetryPolicy; readonly dsnOffered: boolean },
  ): Promise<void> {
    const conclusion = facts.find(({ type }) => type === "Failed" || type === "Delivered")!;
    const decision = decideReport(this.state, conclusion, how);
    const later = decision && postponed(facts, this.state, decision, now);
    if (!decision || later) return await this.#record(() => this.#append(later ?? facts));
    await this.#report(facts, conclusion, decision);
  }

  async #report(
    facts: readonly Fact[],
    conclusion: Fact,
    decision: ReportDecision,
    why?: string,
  ): Promise<void> {
    if ("notSent" in decision) {
      const { kind, notSent } = decision;
      const all: Fact[] = [...facts, { type: "DSNSent", data: { kind, notSent } }];
      return await this.#record(() => this.#append(all));
    }
    const { clock, ids } = this.ports;
    const { kind } = decision;
    const about: RecipientReport = {
      ...recipientOf(this.stream, this.state),
      ...whatHappened(conclusion, decision),
    };
    await this.#record(async () => {
      const composed = await this.#compose(about);
      // What happened is true all the same; the report stays due.
      if (!composed) return await this.#append(noted(facts, decision, clock.now(), why));
      const dsn = reportStream(about, composed, ids, clock.now());
      const sent: Fact = { type: "DSNSent", data: { kind, dsn: dsn.stream } };
      try {
        await this.#append([...facts, sent], dsn, composed);
      } catch (cause) {
        await composed.discard();
        throw cause;
      }
    });
  }

  /** Undefined when that ended in a fault of our own code. @throws StoreUnavailable */
  async #compose(about: RecipientReport): Promise<ComposedReport | undefined> {
    const { reporter, log } = this.ports;
    try {
      return await reporter.compose([about]);
    } catch (cause) {
      if (cause instanceof StoreUnavailable) throw cause;
      const { message: reason, stack } = describe(cause);
      log.error("the report to the sender is not made", { stream: this.stream, reason, stack });
      return undefined;
    }
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

/** Ends an attempt that nobody runs: a crash, or a failing disk, left it open (invariant 4). */
export async function finishInterrupted(
  ports: Pick<MessagePorts, "store" | "view" | "log" | "clock">,
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

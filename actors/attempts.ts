/**
 * An attempt, step by step, for one message or for several recipients of one submission that go to
 * the same destination together.
 *
 *   1. each stream is folded; one that no fold accepts is quarantined (Held, with the reason)
 *   2. AttemptStarted and TransportChosen are appended to each; only then may anything be dialled
 *   3. those that go over the same transport are handed to the delivery port, which appends what it
 *      finds as it comes
 *   4. each outcome is appended, together with the report to the sender if one is due
 *
 * A fault of our own code anywhere on the way is recorded as a temporary failure with its stack,
 * and after FAULTS_BEFORE_HOLD in a row the message is held. A message whose attempt met one goes
 * alone from then on, so that it takes no neighbour along again. Nothing is thrown.
 */
import type { EventData, StoredEvent } from "../events/catalogue.ts";
import { StoreUnavailable, WrongVersion } from "../events/store.ts";
import type { Message } from "./message.ts";
import { lostTheMessage, MessageActor, type MessagePorts } from "./message_actor.ts";
import { quarantine } from "./quarantine.ts";
import type { Outcome } from "./ports.ts";
import { endsOnAbort } from "./waiting.ts";

/** A message that is to be tried. */
export interface Candidate {
  readonly stream: string;
  /** All events of the stream where they are at hand, to save reading them. */
  readonly events?: readonly StoredEvent[];
  /** Its destination was down while it was due. */
  readonly waited?: EventData<"AttemptStarted">["waited"];
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
  /**
   * The start, or the quarantine, could not be recorded, and so nothing was dialled; whether the
   * log has it all the same is not known.
   */
  readonly unrecorded?: true;
}

/** Other writers that may come between reading a stream and writing to it. */
const BEGIN_AGAIN = 5;

interface Run {
  readonly actor: MessageActor;
  readonly ready: boolean;
  attempted: Attempted;
}

/**
 * Makes one attempt for messages that are queued and due.
 * @param signal aborts the attempt; it is then recorded as canceled
 * @param gone aborts the recording of an outcome that the store does not take: the process ends
 * @returns what became of each, in their order
 */
export async function runAttempts(
  ports: MessagePorts,
  candidates: readonly Candidate[],
  signal: AbortSignal,
  gone: AbortSignal,
): Promise<Attempted[]> {
  const runs = await Promise.all(
    candidates.map((candidate) => begin(ports, candidate, signal, gone)),
  );
  const transactions = Map.groupBy(runs.filter(({ ready }) => ready), transaction);
  await Promise.all([...transactions.values()].map((each) => attempt(ports, each, signal)));
  return runs.map(({ attempted }) => attempted);
}

/** Messages with the same one go together: all that MAIL and the way to the host depend on. */
function transaction({ actor: { stream, state, job } }: Run): string {
  const { transport: { transport: name, type }, message } = job;
  const { submission, body, rcptTo, dsn: { ret, envid } } = message;
  if (state.faults > 0) return stream;
  return JSON.stringify([submission, body, name, type, ret, envid, isAscii(rcptTo)]);
}

/** One address that is not would ask SMTPUTF8 of the host for all of them (RFC 6531, 3.1). */
// deno-lint-ignore no-control-regex -- all of ASCII is meant
const isAscii = (address: string): boolean => /^[\x00-\x7f]*$/.test(address);

async function begin(
  ports: MessagePorts,
  { stream, events, waited }: Candidate,
  signal: AbortSignal,
  gone: AbortSignal,
): Promise<Run> {
  const actor = new MessageActor(ports, stream, gone);
  const ended = (attempted: Attempted): Run => ({ actor, ready: false, attempted });
  let known = events;
  for (let again = 0;; again++) {
    try {
      const ready = await actor.begin(known, signal, waited);
      return { actor, ready, attempted: { message: actor.state } };
    } catch (cause) {
      if (cause instanceof StoreUnavailable) return ended({ unrecorded: true });
      // An operator's act, or a report of the delay, came between: read anew.
      if (cause instanceof WrongVersion && again < BEGIN_AGAIN) known = undefined;
      else if (lostTheMessage(cause) && !(cause instanceof WrongVersion)) return ended({});
      else return ended(await setAside(ports, stream, cause));
    }
  }
}

async function setAside(ports: MessagePorts, stream: string, cause: unknown): Promise<Attempted> {
  try {
    await quarantine(ports, stream, cause);
    return {};
  } catch {
    return { unrecorded: true };
  }
}

async function attempt(
  ports: MessagePorts,
  runs: readonly Run[],
  signal: AbortSignal,
): Promise<void> {
  const { clock, delivery } = ports;
  const actors = runs.map(({ actor }) => actor);
  try {
    const delivering = delivery.attempt(actors.map(({ job }) => job), actors, signal);
    const outcomes = await endsOnAbort(clock, signal, delivering).catch((cause) => {
      const unread = unreadable(cause);
      return actors.map(() => unread);
    });
    await Promise.all(runs.map((run, n) => conclude(ports, run, outcomes[n]!)));
  } catch (cause) {
    await Promise.all(runs.map((run) => fault(ports, run, cause)));
  }
}

/** A disk that does not give the content for now is no fault of the code: it is tried again. */
function unreadable(cause: unknown): Outcome {
  if (!(cause instanceof StoreUnavailable)) throw cause;
  const { message: reason } = cause;
  return { kind: "failed", permanent: false, result: "error", reason, enhanced: "4.3.0" };
}

/** Never rejects. */
async function conclude(ports: MessagePorts, run: Run, outcome: Outcome): Promise<void> {
  const { actor } = run;
  try {
    await actor.conclude(outcome);
    run.attempted = { message: actor.state, concluded: true };
    actor.ended = true;
  } catch (cause) {
    await recordFault(ports, run, cause);
  }
}

/** Records a fault, unless the outcome is certain already. Never rejects. */
async function fault(ports: MessagePorts, run: Run, cause: unknown): Promise<void> {
  const { actor } = run;
  try {
    if (actor.settled) {
      await actor.settled;
      run.attempted = { message: actor.state, concluded: true };
      actor.ended = true;
    } else await recordFault(ports, run, cause);
  } catch (second) {
    await recordFault(ports, run, second);
  }
}

async function recordFault(ports: MessagePorts, run: Run, cause: unknown): Promise<void> {
  const { actor } = run;
  run.attempted = {};
  try {
    if (lostTheMessage(cause)) return;
    await actor.fault(cause);
    run.attempted = { message: actor.state };
  } catch (second) {
    if (!lostTheMessage(second)) run.attempted = await setAside(ports, actor.stream, second);
  } finally {
    actor.ended = true;
  }
}

/**
 * What new mail meets, in books of the checker's own: hold rules, pauses, the suppression list.
 *
 *   - what is in force is what is durable: a submission that begins when a rule is durable is held
 *     in the append that enqueues it, and one that no rule holds is not
 *   - what a rule held is attempted only when somebody has released it
 *   - a submission that begins while a pause is durable is not taken; one that began before it may
 *     be, since its content was on its way
 *   - the door says "paused", and refuses a suppressed recipient, exactly while that is in force
 *   - a drain that says it is over leaves nothing behind that was due or being tried when it asked
 *
 * A submission begins when its content is whole: that is when the program decides what it meets.
 * What the list refuses begins with the session or the request.
 */
import { IntakeIsPaused } from "../../actors/admission.ts";
import type { Submission, Submitter } from "../../actors/ports.ts";
import type { EventData, StoredEvent } from "../../events/catalogue.ts";
import { Violation } from "./invariants.ts";
import { SuppressionBooks } from "./suppression_books.ts";
import type { World } from "./world.ts";

type Rule = EventData<"HoldRuleAdded">;

interface Begun {
  /** Ids of the rules that hold each recipient. */
  readonly heldBy: ReadonlyMap<string, readonly string[]>;
  readonly paused: boolean;
}

/** A message of the transaction that is looked at. */
interface Taken {
  readonly begun: Begun;
  readonly enqueued: EventData<"Enqueued">;
  held: string | undefined;
}

/** Who was due or being tried when a drain asked. */
interface DrainAsked {
  readonly streams: readonly string[];
  /** Monotonic. */
  readonly since: number;
  /** Between the clocks. */
  readonly offset: number;
}

export class NewMailBooks {
  readonly list: SuppressionBooks;
  readonly #rules = new Map<string, Rule>();
  #paused = false;
  readonly #begun = new Map<string, Begun>();
  readonly #taken = new Map<string, Taken>();
  /** Streams that a rule holds. */
  readonly #held = new Set<string>();
  /** Monotonic times of the last act of an operator on a message. */
  readonly #touched = new Map<string, number>();

  constructor(readonly world: World) {
    this.list = new SuppressionBooks(world);
  }

  get paused(): boolean {
    return this.#paused;
  }

  get rules(): readonly string[] {
    return [...this.#rules.keys()];
  }

  /** An event of operators about new mail has become durable. */
  act(event: StoredEvent): void {
    switch (event.type) {
      case "HoldRuleAdded":
        this.#rules.set(event.data.id, event.data);
        return;
      case "HoldRuleRemoved":
        if (this.#rules.delete(event.data.id)) return;
        throw new Violation(`a hold rule was removed that is not there: ${event.data.id}`);
      case "IntakePaused":
      case "IntakeResumed": {
        const paused = event.type === "IntakePaused";
        if (this.#paused === paused) throw new Violation(`${event.type}, and it was so before`);
        this.#paused = paused;
        return;
      }
      case "AddressSuppressed":
      case "SuppressionLifted":
        return this.list.act(event);
    }
  }

  /** An event of a message has become durable. */
  message(event: StoredEvent): void {
    const { stream } = event;
    switch (event.type) {
      case "Enqueued": {
        const { source, submission } = event.data;
        const begun = this.#begun.get(submission);
        if (source.kind === "dsn" || !begun) return;
        this.#taken.set(stream, { begun, enqueued: event.data, held: undefined });
        return;
      }
      case "Held": {
        const taken = this.#taken.get(stream);
        if (!taken || event.version !== 2) return;
        taken.held = /^hold rule (\S+): /.exec(event.data.why)?.[1];
        this.#held.add(stream);
        return;
      }
      case "AttemptStarted":
        if (!this.#held.has(stream)) return;
        throw new Violation(`${stream} is held by a rule, and was attempted`);
      case "Released":
        this.#held.delete(stream);
        break;
      case "Failed":
        return this.list.failed(event);
    }
    if ("who" in event.data) this.#touched.set(stream, this.world.time.monotonic());
  }

  /** All events of a transaction have been looked at, and these streams leave with it. */
  settle(pruned: readonly string[] = []): void {
    for (const [stream, { begun, enqueued, held }] of this.#taken) {
      const { rcptTo } = enqueued;
      if (begun.paused) throw new Violation(`${stream} was taken while the intake was paused`);
      const rules = begun.heldBy.get(rcptTo) ?? [];
      if (held === undefined ? rules.length > 0 : !rules.includes(held)) {
        throw new Violation(
          `${stream} to ${rcptTo} is held by ${held}, and to be by ${rules.join(" or ") || "none"}`,
        );
      }
      this.list.taken(stream, enqueued);
    }
    this.#taken.clear();
    this.list.settle(pruned);
  }

  end(): void {
    this.list.end();
  }

  /** The door of the program, watched. */
  watched(real: Submitter, healthy: () => boolean): Submitter {
    const { world, list } = this;
    const asked = (says: boolean) => {
      // What a commit came to that failed is not known to the program before it is well again.
      if (says === this.#paused || !healthy()) return;
      world.violated(new Violation(`the door is ${says ? "" : "not "}paused, against the log`));
    };
    return {
      newSubmissionId: () => {
        const id = real.newSubmissionId();
        list.begins(id);
        return id;
      },
      get paused() {
        const says = real.paused === true;
        asked(says);
        return says;
      },
      suppressed: (rcptTo, account) => {
        const entry = real.suppressed?.(rcptTo, account);
        world.watch(() => list.asked(rcptTo, account, entry));
        return entry;
      },
      submit: async (submission) => {
        this.#begins(submission);
        const paused = this.#paused;
        try {
          return await real.submit(submission);
        } catch (cause) {
          if (cause instanceof IntakeIsPaused && !paused) {
            world.violated(
              new Violation(`${submission.id} was turned away, and nothing is paused`),
            );
          }
          throw cause;
        }
      },
    };
  }

  /** A drain asks whether anything is left to be done. */
  drainAsks(): DrainAsked {
    const now = this.world.time.now();
    const streams = [...this.world.invariants.streams.values()].filter(({ row, broken }) =>
      !broken && (row.state === "attempting" || (row.state === "queued" && row.due! <= now))
    );
    return {
      streams: streams.map(({ stream }) => stream),
      since: this.world.time.monotonic(),
      offset: now - this.world.time.monotonic(),
    };
  }

  /** It was told that nothing is; nobody has acted on those messages in the meantime. */
  drained({ streams, since, offset }: DrainAsked): void {
    const { invariants, time } = this.world;
    if (Math.abs(time.now() - time.monotonic() - offset) > 2) return; // somebody set the clock
    for (const stream of streams) {
      const { row, broken } = invariants.streams.get(stream)!;
      const touched = (this.#touched.get(stream) ?? -1) >= since;
      if (broken || touched || row.state !== "attempting") continue;
      throw new Violation(`the drain is over, and ${stream} is being tried`);
    }
  }

  #begins({ id, account, mailFrom, recipients }: Submission): void {
    const rules = [...this.#rules.values()];
    const heldBy = recipients.map(({ rcptTo }) =>
      [
        rcptTo,
        rules.filter(({ filter }) => matches(filter, account, mailFrom, rcptTo))
          .map((rule) => rule.id),
      ] as const
    );
    this.#begun.set(id, { heldBy: new Map(heldBy), paused: this.#paused });
  }
}

function matches(
  { from, to, toDomain, account }: Rule["filter"],
  owner: string | null,
  mailFrom: string,
  rcptTo: string,
): boolean {
  const small = rcptTo.toLowerCase();
  if (account !== undefined && account !== owner) return false;
  if (from !== undefined && from.toLowerCase() !== mailFrom.toLowerCase()) return false;
  if (to !== undefined && to.toLowerCase() !== small) return false;
  return toDomain === undefined || small.endsWith(`@${toDomain.toLowerCase()}`);
}

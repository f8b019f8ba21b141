/**
 * Faults of our own code, put in by a world: messages whose actor throws whatever it does
 * (poison), and a queue view that throws what it never should (glitches). The first must end held
 * without touching their neighbours; the second must cost a restart of the supervisor and no more.
 */
import type { ComposedReport, Delivery, QueueView, Reporter } from "../../actors/ports.ts";
import type { Dice } from "./random.ts";

/** In a sender's or recipient's address: the actor of the message throws. */
export const POISON = "poison";

export class Mishaps {
  readonly dice: Dice;
  /** How often asking the queue view throws. */
  #glitches: number;
  /** How often a message is poison. */
  readonly poison: number;

  constructor(dice: Dice) {
    this.dice = dice;
    this.#glitches = dice.chance(0.1) ? dice.pick([0.001, 0.02]) : 0;
    this.poison = dice.chance(0.1) ? 0.3 : 0;
  }

  get glitchy(): boolean {
    return this.#glitches > 0;
  }

  end(): void {
    this.#glitches = 0;
  }

  delivery(real: Delivery): Delivery {
    return {
      attempt: (jobs, findings, signal) => {
        if (jobs.some(({ message }) => message.rcptTo.includes(POISON))) {
          throw new TypeError("poison in the recipient");
        }
        return real.attempt(jobs, findings, signal);
      },
    };
  }

  reporter(real: Reporter): Reporter {
    return {
      compose: (report): Promise<ComposedReport> => {
        if (report[0].message.mailFrom.includes(POISON)) {
          throw new TypeError("poison in the sender");
        }
        return real.compose(report);
      },
    };
  }

  view(real: QueueView): QueueView {
    const glitch = <T>(answer: Promise<T>): Promise<T> => {
      if (this.#glitches === 0 || !this.dice.chance(this.#glitches)) return answer;
      return answer.then(() => {
        throw new TypeError("a glitch of the queue view");
      });
    };
    return {
      get: (stream) => glitch(real.get(stream)),
      due: (now, limit, after) => glitch(real.due(now, limit, after)),
      nextDue: (after) => glitch(real.nextDue(after)),
      waiting: (by, upTo, limit, after) => glitch(real.waiting(by, upTo, limit, after)),
      nextWaiting: (by, after) => glitch(real.nextWaiting(by, after)),
      attempting: (limit) => glitch(real.attempting(limit)),
      reports: (limit) => glitch(real.reports(limit)),
      reportsOf: (submission, about, limit) => glitch(real.reportsOf(submission, about, limit)),
      list: (filter, page) => glitch(real.list(filter, page)),
      count: (filter) => glitch(real.count(filter)),
      depth: () => glitch(real.depth()),
    };
  }
}

/**
 * The destination that is down now and then: once the log says that it is, the messages for it
 * wait, and are not each spent on it. What a process knew of it ends with that process.
 */
import type { Book } from "./books.ts";
import { domainOf, type LogEvent } from "./log.ts";
import { LAME, LAME_TRANSPORT } from "./mail.ts";

/** Attempts that may have been under way when it went down: the widest its window can be. */
const UNDER_WAY = 20;

interface Outage {
  readonly at: number;
  readonly until: number;
  attempts: number;
}

export interface OutageFindings {
  readonly down: number;
  readonly up: number;
  readonly violations: readonly string[];
}

export class Outages {
  #down = 0;
  #up = 0;
  #now: Outage | undefined;
  readonly #violations: string[] = [];

  /**
   * @param books has read the same event before
   * @param lives when each process was started, epoch milliseconds
   */
  constructor(
    private readonly books: ReadonlyMap<string, Book>,
    private readonly lives: readonly number[],
  ) {}

  readonly read = ({ stream, type, time, data }: LogEvent): void => {
    const at = Date.parse(time);
    if (data.destination === `transport:${LAME_TRANSPORT}`) {
      if (type === "DestinationDown") {
        this.#down++;
        this.#now = { at, until: Date.parse(String(data.until)), attempts: 0 };
      } else if (type === "DestinationUp") {
        this.#up++;
        this.#now = undefined;
      }
      return;
    }
    const outage = this.#now;
    if (type !== "AttemptStarted" || !outage) return;
    if (domainOf(this.books.get(stream)?.to) !== LAME) return;
    const over = at >= outage.until ||
      this.lives.some((began) => began > outage.at && began <= at);
    if (over) return;
    outage.attempts++;
    if (outage.attempts === UNDER_WAY + 1) {
      const since = new Date(outage.at).toISOString();
      this.#violations.push(
        `more than ${UNDER_WAY} attempts at ${LAME}, which was down since ${since}`,
      );
    }
  };

  findings(): OutageFindings {
    return { down: this.#down, up: this.#up, violations: this.#violations };
  }
}

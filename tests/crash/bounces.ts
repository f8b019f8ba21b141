/**
 * What bounces feed: every recipient whom the sink does not know is on the suppression list, put
 * there once, by the message that failed.
 */
import type { Book } from "./books.ts";
import { domainOf, type LogEvent } from "./log.ts";
import { NOBODY } from "./mail.ts";

export class Bounces {
  /** How often an address was put on the list for a message, by its stream. */
  readonly #byMessage = new Map<string, number>();

  readonly read = ({ type, data }: LogEvent): void => {
    if (type !== "AddressSuppressed" || data.cause !== "bounce") return;
    const message = String(data.message);
    this.#byMessage.set(message, (this.#byMessage.get(message) ?? 0) + 1);
  };

  findings(books: ReadonlyMap<string, Book>): {
    readonly bounced: number;
    readonly violations: readonly string[];
  } {
    const violations: string[] = [];
    let bounced = 0;
    for (const [id, { stream, to, gaveUp }] of books) {
      const times = this.#byMessage.get(stream) ?? 0;
      const wanted = gaveUp && domainOf(to) === NOBODY ? 1 : 0;
      bounced += wanted;
      if (times !== wanted) {
        violations.push(`${to} was put on the suppression list ${times} times by ${id}`);
      }
    }
    return { bounced, violations };
  }
}

/**
 * Acts of operators, held against the log: what was answered 2xx is in the log, once, with who and
 * why, and nothing that was answered as not done. Of an act without an answer, or with 503, either
 * is right.
 */
import type { Book } from "./books.ts";
import type { LogEvent } from "./log.ts";

/** What an act writes to the log. */
export const WRITES = {
  hold: "Held",
  release: "Released",
  kick: "Rescheduled",
  "add rule": "HoldRuleAdded",
  "remove rule": "HoldRuleRemoved",
  pause: "IntakePaused",
  resume: "IntakeResumed",
  suppress: "AddressSuppressed",
  lift: "SuppressionLifted",
} as const;
export type Kind = keyof typeof WRITES;

/** An act that was asked for. Its reason is its own, so that the log can be searched for it. */
export interface Act {
  readonly kind: Kind;
  readonly reason: string;
  /** What was answered, once something was. */
  answer?: Answer;
}

export type Answer =
  /** 2xx for one message, or for something that is no message (`stream` is not looked at). */
  | { readonly done: true; readonly stream?: string }
  /** 2xx for a filter: what became of each message. */
  | { readonly each: ReadonlyMap<string, boolean> }
  /** It did not fit (4xx), or there was nobody to ask; in words. */
  | { readonly refused: string };

/** The operator, as the log names the one who acts with this name and the folder's own token. */
export const OPERATOR = "crash";

/** What the log has of the acts, by their reasons. */
export class ActBooks {
  readonly byReason = new Map<string, LogEvent[]>();

  readonly read = (event: LogEvent): void => {
    const { who, why } = event.data;
    if (typeof who !== "string" || !who.startsWith(`${OPERATOR} (`)) return;
    const known = this.byReason.get(String(why));
    if (known) known.push(event);
    else this.byReason.set(String(why), [event]);
  };
}

export interface ActFindings {
  /** Acts that were answered as done; with a filter, for each message. */
  readonly acts: number;
  /** Acts without an answer, or with 503, and as many of them as are in the log. */
  readonly unanswered: number;
  readonly unansweredAndDone: number;
  /** Messages that were held as they came in, by a rule. */
  readonly heldByRule: number;
  readonly violations: readonly string[];
}

/**
 * @param ruled mail that was sent and acknowledged while a rule was in force which holds it: the
 * reason of the rule, by load id
 */
export function compareActs(
  acts: readonly Act[],
  { byReason }: Pick<ActBooks, "byReason">,
  ruled: ReadonlyMap<string, string>,
  books: ReadonlyMap<string, Book>,
): ActFindings {
  const violations: string[] = [];
  let done = 0;
  let unanswered = 0;
  let unansweredAndDone = 0;
  for (const { kind, reason, answer } of acts) {
    const what = `${kind} (${reason})`;
    const events = byReason.get(reason) ?? [];
    const streams = new Set<string>();
    for (const { type, stream } of events) {
      if (type !== WRITES[kind]) violations.push(`${what} is a ${type} in the log`);
      if (streams.has(stream)) violations.push(`${what} is in the log twice, on ${stream}`);
      streams.add(stream);
    }
    if (answer === undefined) {
      unanswered++;
      if (events.length > 0) unansweredAndDone++;
    } else if ("each" in answer) {
      for (const [stream, was] of answer.each) {
        if (was) done++;
        if (was === streams.has(stream)) continue;
        violations.push(
          was
            ? `${what} was answered as done on ${stream}, and is not in the log`
            : `${what} was answered as not done on ${stream}, and is in the log`,
        );
      }
      for (const stream of streams) {
        if (!answer.each.has(stream)) violations.push(`${what} was not to act on ${stream}`);
      }
    } else if ("done" in answer) {
      done++;
      const { stream } = answer;
      if (events.length !== 1 || (stream !== undefined && !streams.has(stream))) {
        violations.push(`${what} was answered as done, and is in the log ${events.length} times`);
      }
    } else if (events.length > 0) {
      violations.push(`${what} was refused (${answer.refused}), and is in the log`);
    }
  }
  for (const [id, reason] of ruled) {
    const held = books.get(id)?.heldAtOnce;
    if (!held?.startsWith(`${OPERATOR} (`) || !held.includes("): hold rule ")) {
      violations.push(`${id} came in while a rule held it (${reason}), and was not held`);
    }
  }
  return {
    acts: done,
    unanswered,
    unansweredAndDone,
    heldByRule: ruled.size,
    violations,
  };
}

/**
 * The filter of messages as people write it, on a command line or in a query: names of the options
 * and parameters, what they take, and the QueueFilter that follows.
 */
import { QUEUE_STATES, type QueueFilter, type QueueState } from "../../events/projections/queue.ts";
import { parseDuration } from "../config/scalars.ts";

/** Names of the criteria, each with the placeholder and the words that `--help` shows. */
export const FILTER_OPTIONS = {
  "from": ["ADDRESS", "messages of this sender"],
  "to": ["ADDRESS", "messages to this recipient"],
  "to-domain": ["DOMAIN", "messages to recipients at this domain"],
  "account": ["NAME", "messages of this account"],
  "state": ["STATE", `messages in this state: ${QUEUE_STATES.join(", ")}`],
  "error": ["TEXT", "messages whose last error contains this, whatever the case"],
  "older-than": ["DURATION", 'messages that came in longer ago than, say, "2h"'],
} as const;
export type FilterOption = keyof typeof FILTER_OPTIONS;

/** A criterion that cannot be read. */
export class BadFilter extends Error {
  override readonly name = "BadFilter";
  constructor(readonly option: FilterOption, message: string) {
    super(message);
  }
}

/** Ends of the text that a criterion may have; nothing that is stored is longer. */
const MAX_CRITERION = 1000;

const isState = (text: string): text is QueueState =>
  (QUEUE_STATES as readonly string[]).includes(text);

/**
 * @param now epoch milliseconds that `older-than` counts from
 * @throws BadFilter
 */
export function readFilter(
  criteria: Readonly<Partial<Record<FilterOption, string>>>,
  now: number,
): QueueFilter {
  for (const [option, value] of Object.entries(criteria)) {
    if (value.length > MAX_CRITERION) {
      throw new BadFilter(option as FilterOption, `is over ${MAX_CRITERION} characters long`);
    }
  }
  const { from, to, account, state, error } = criteria;
  const toDomain = criteria["to-domain"];
  const olderThan = criteria["older-than"];
  if (state !== undefined && !isState(state)) {
    throw new BadFilter("state", `is not one of ${QUEUE_STATES.join(", ")}`);
  }
  const age = olderThan === undefined ? undefined : parseDuration(olderThan);
  if (olderThan !== undefined && age === undefined) {
    throw new BadFilter("older-than", 'is not a duration like "90s", "7m30s" or "2d"');
  }
  return {
    // <> is how the null reverse-path is written everywhere else.
    ...(from === undefined ? {} : { from: from === "<>" ? "" : from }),
    ...(to === undefined ? {} : { to }),
    ...(toDomain === undefined ? {} : { toDomain: toDomain.toLowerCase() }),
    ...(account === undefined ? {} : { account }),
    ...(state === undefined ? {} : { state }),
    ...(error === undefined ? {} : { error }),
    ...(age === undefined ? {} : { before: now - age }),
  };
}

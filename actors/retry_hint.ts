/**
 * What a reply says about when to come back: "try again in 300 seconds". Pure.
 *
 * No standard says how a server asks for a wait, so the texts are those that servers are known to
 * send (the examples in the tests). Only words that ask for a wait count: "sent 300 messages in 60
 * seconds" says what was too much, and is none. An absolute time is not read: it is in a time zone
 * that nobody names.
 */

/** A server that asks for more than this is not taken at its word, milliseconds. */
export const LONGEST_HINT = 24 * 3_600_000;

/** Characters of a reply that are looked at. */
const MOST = 2_000;

const UNITS: readonly (readonly [RegExp, number])[] = [
  [/^s(?:ec(?:ond)?s?)?$/, 1_000],
  [/^m(?:in(?:ute)?s?)?$/, 60_000],
  [/^h(?:(?:ou)?rs?)?$/, 3_600_000],
  [/^d(?:ays?)?$/, 86_400_000],
];

const AMOUNT = String.raw`(?:(\d{1,2}):(\d{2}):(\d{2})|(\d{1,6}|an?|one|a few) ?` +
  String.raw`(seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)\b)`;
/** What stands between the words and the time, at most. */
const FILLER =
  String.raw`(?: (?:again|later|back|sending|delivery|mail|email|your|the|this|message|` +
  String.raw`connection|please|at least|about|approximately|around|another|next|of|it))*`;

/** Words that ask for a wait, before the time. */
const ASKS: readonly RegExp[] = [
  `(?:re-?tr(?:y|ies|ying)|try|come|resend|reconnect|re-?attempt|re-?send|call)${FILLER}` +
  ` ?(?:in|after|within|for)?:? ?(?:at least |about |around |another |the next )?${AMOUNT}`,
  `(?:wait|delay(?:ed)?|defer(?:red)?|grey-?list(?:ed|ing)?|throttled?|block(?:ed)?|back off)` +
  `${FILLER} ?(?:in|for|until|by)?:? ?(?:at least |about |around |another |the next )?${AMOUNT}`,
  `(?:will (?:expire|be lifted|end)|passes|expires|elapses) (?:in|after) ?${AMOUNT}`,
  `(?:retry-?after|delay|wait)[ =:]+${AMOUNT}`,
].map((pattern) => new RegExp(pattern, "i"));

/** Words that ask for a wait, after the time: `300 seconds left`, `in 5 minutes, please try`. */
const ASKS_AFTER: readonly RegExp[] = [
  `${AMOUNT} (?:left|remaining|to go)\\b`,
  `(?:in|after|for) ${AMOUNT}[,;.]? (?:please )?(?:re-?)?try`,
].map((pattern) => new RegExp(pattern, "i"));

/** A bare number of seconds after a keyword: `retry=300`, `retry-after: 300`. */
const BARE = /\bretry(?:[ -]?after)?[=:] ?(\d{1,6})\b(?! ?(?:[smhd]|min|sec|hour|day))/i;

/**
 * How long a temporary refusal asks us to wait, in milliseconds; undefined where it does not.
 * At most LONGEST_HINT.
 */
export function retryHint(text: string): number | undefined {
  const words = text.slice(0, MOST).replace(/[\s()[\]"']+/g, " ");
  for (const pattern of [...ASKS, ...ASKS_AFTER]) {
    const match = pattern.exec(words);
    const wait = match && milliseconds(match);
    if (wait) return Math.min(wait, LONGEST_HINT);
  }
  const bare = BARE.exec(words)?.[1];
  return bare === undefined || Number(bare) === 0
    ? undefined
    : Math.min(Number(bare) * 1_000, LONGEST_HINT);
}

function milliseconds([, hours, minutes, seconds, amount, unit]: RegExpExecArray): number {
  if (hours !== undefined) {
    return ((Number(hours) * 60 + Number(minutes)) * 60 + Number(seconds)) * 1_000;
  }
  const count = /^\d/.test(amount!) ? Number(amount) : /few/i.test(amount!) ? 3 : 1;
  const factor = UNITS.find(([name]) => name.test(unit!.toLowerCase()))?.[1] ?? 0;
  return count * factor;
}

import { describe, it } from "@std/testing/bdd";
import assert from "node:assert/strict";
import fc from "fast-check";
import { LONGEST_HINT, retryHint } from "../../actors/retry_hint.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

/** What servers say, in the words of the programs that say it. */
const ASKS: readonly (readonly [string, number])[] = [
  ["Greylisted, please try again in 300 seconds", 300 * SECOND],
  ["Greylisting in action, please come back in 00:04:59", 299 * SECOND],
  ["You have been greylisted. Try again in 5 minutes", 5 * MINUTE],
  ["Greylisted, see http://postgrey.schweikert.ch/help/example.org.html: retry in 60 s", MINUTE],
  ["<bob@example.org>: Recipient address rejected: Greylisted for 5 minutes", 5 * MINUTE],
  ["Recipient address rejected: Greylisted for 300 seconds (see the help)", 300 * SECOND],
  ["Temporarily rejected. Retry after 15 minutes", 15 * MINUTE],
  ["Try again later, retry after 900s", 900 * SECOND],
  ["Please try again in 1 hour", HOUR],
  ["Please try again in an hour.", HOUR],
  ["Come back in a few minutes", 3 * MINUTE],
  ["Resources temporarily unavailable. Please try again in 10 mins", 10 * MINUTE],
  ["Too many connections, please wait 30 secs", 30 * SECOND],
  ["Throttled for 120 seconds", 120 * SECOND],
  ["delay=300s", 300 * SECOND],
  ["retry=600", 600 * SECOND],
  ["rate limit exceeded; retry-after: 45", 45 * SECOND],
  ["This block will expire in 2 hours", 2 * HOUR],
  ["greylisted, 240 seconds left", 240 * SECOND],
  ["rate limited; after 10 minutes, please retry", 10 * MINUTE],
  ["Deferred for at least 20 minutes", 20 * MINUTE],
  ["please try again in 99 days", LONGEST_HINT],
];

/** No wait is asked for, or none that can be read. */
const SILENT: readonly string[] = [
  "Greylisted, please try again later",
  "Requested action aborted: local error in processing",
  "You have sent 300 messages in 60 seconds",
  "Too many recipients received this hour",
  "mailbox full, quota 50 m",
  "try again",
  "Please try again at 14:30",
  "TSS04 Messages from 192.0.2.1 temporarily deferred due to unexpected volume - 4.16.55.1",
  "try again in 0 seconds",
  "server busy, 3 attempts left today",
  "",
];

describe("a hint of when to come back", () => {
  for (const [text, wait] of ASKS) {
    it(`is read from: ${text}`, () => assert.equal(retryHint(text), wait));
  }
  for (const text of SILENT) {
    it(`is not seen in: ${text || "nothing"}`, () => assert.equal(retryHint(text), undefined));
  }
  it("is read over the lines of a reply", () => {
    assert.equal(retryHint("Greylisted\nplease retry in\n7 minutes"), 7 * MINUTE);
  });
  it("is within its bounds, whatever a server says, and soon found", () => {
    const words = fc.constantFrom(
      "try",
      "again",
      "in",
      "retry",
      "wait",
      "5",
      "minutes",
      "for",
      " ",
    );
    const text = fc.oneof(fc.string(), fc.array(words, { maxLength: 400 }).map((w) => w.join(" ")));
    fc.assert(fc.property(text, (said) => {
      const hint = retryHint(said);
      assert.ok(hint === undefined || (hint > 0 && hint <= LONGEST_HINT));
    }));
    const begun = performance.now();
    retryHint("try again later back ".repeat(5_000));
    assert.ok(performance.now() - begun < 200);
  });
});

/** Moments as they are typed. */
import { parseDuration } from "../config/scalars.ts";
import { UsageError } from "./command.ts";

const DATE_TIME =
  /^\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:[Zz]|[+-]\d\d:\d\d))?$/;

/**
 * A moment as RFC 3339 in UTC with milliseconds: from RFC 3339, from a date (its beginning in
 * UTC), or from a duration, which is that long ago.
 * @throws UsageError naming the option
 */
export function moment(option: string, text: string, now: number): string {
  const ago = parseDuration(text);
  if (ago !== undefined) return new Date(now - ago).toISOString();
  const at = DATE_TIME.test(text) ? Date.parse(text.toUpperCase().replace(" ", "T")) : NaN;
  if (Number.isNaN(at)) {
    throw new UsageError(
      `${option}: "${text}" is not a time like 2026-01-31T09:30:00Z, 2026-01-31, or 2h (ago)`,
    );
  }
  return new Date(at).toISOString();
}

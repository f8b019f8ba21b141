/**
 * SASLprep (RFC 4013): user names and passwords in the one form in which both sides compare
 * them. Tables and algorithm are those of the package; here stand the bounds and the errors.
 */
import { saslprep } from "@mongodb-js/saslprep";
import { SaslError } from "./error.ts";
import { utf8 } from "./octets.ts";

/** Octets in UTF-8 that a prepared user name or password has at most. */
export const MAX_CREDENTIAL = 1024;

/**
 * - `stored`: code points that Unicode 3.2 does not assign are refused (RFC 3454, section 7)
 * - `query`: they are left as they are
 */
export type Preparation = "stored" | "query";

/**
 * The prepared text; never empty.
 * @param what how an error names it: "the user name", "the password"
 * @throws SaslError `credentials`, without the text itself
 */
export function prepared(text: string, what: string, preparation: Preparation = "stored"): string {
  const refuse = (why: string) => new SaslError("credentials", `${what} ${why}`);
  const tooLong = () => refuse(`is longer than ${MAX_CREDENTIAL} octets`);
  // In code units, never more than its octets: bounds the work.
  if (text.length > MAX_CREDENTIAL) throw tooLong();
  // Nothing in printable ASCII is mapped or refused, and the tables need not be asked.
  if (/^[ -~]+$/.test(text)) return text;
  // Only soft hyphens and the like: the package would fail on the empty string that is left.
  if (/^[\u00AD\u034F\u1806\u180B-\u180D\u200C\u200D\u2060\uFE00-\uFE0F\uFEFF]*$/.test(text)) {
    throw refuse("is empty");
  }
  let result: string;
  try {
    result = saslprep(text, { allowUnassigned: preparation === "query" });
  } catch {
    throw refuse(
      "has characters that SASLprep (RFC 4013) does not allow: control characters, mixed " +
        "writing directions, or characters newer than Unicode 3.2",
    );
  }
  if (utf8(result).length > MAX_CREDENTIAL) throw tooLong();
  return result;
}

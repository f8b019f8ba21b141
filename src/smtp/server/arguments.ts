/** Reads the arguments of commands that need more than a look (RFC 5321, section 4.1.2). */
import { Refusal } from "../../submission/refusal.ts";
import { BadAddress, isAddressLiteral, isAscii, type ParsedPath } from "../address.ts";

export interface PathArgument<M> {
  readonly mailbox: M;
  /** The path holds nothing but ASCII. */
  readonly ascii: boolean;
  /** What follows the path. */
  readonly parameters: string;
}

/**
 * Splits `FROM:<path> parameters` or `TO:<path> parameters`. No space is allowed behind the
 * colon (RFC 5321, section 3.3).
 * @throws Refusal
 */
export function readPath<M>(
  rest: string,
  keyword: "FROM" | "TO",
  parse: (text: string) => ParsedPath<M>,
): PathArgument<M> {
  if (rest.slice(0, keyword.length + 1).toUpperCase() !== `${keyword}:`) {
    const command = keyword === "FROM" ? "MAIL" : "RCPT";
    throw new Refusal(501, "5.5.4", `the syntax is ${command} ${keyword}:<address>`);
  }
  const text = rest.slice(keyword.length + 1);
  try {
    const { mailbox, end } = parse(text);
    if (end < text.length && text[end] !== " ") {
      throw new BadAddress("something follows the closing bracket");
    }
    return { mailbox, ascii: isAscii(text.slice(0, end)), parameters: text.slice(end).trim() };
  } catch (error) {
    if (!(error instanceof BadAddress)) throw error;
    // RFC 3463, section 3.2: X.1.7 is about the sender's mailbox, X.1.3 about the recipient's.
    throw new Refusal(501, keyword === "FROM" ? "5.1.7" : "5.1.3", error.message);
  }
}

/**
 * Checks the client's name. A name is no credential, and containers give themselves odd ones with
 * underscores: whatever may stand in a Received field is taken.
 * @throws Refusal
 */
export function checkClientName(verb: "EHLO" | "HELO", name: string): void {
  if (name.length <= 255 && (/^[A-Za-z0-9._-]+$/.test(name) || isAddressLiteral(name))) return;
  throw new Refusal(501, "5.5.4", `${verb} takes a domain or an address literal`);
}

/** @throws Refusal when there is an argument */
export function checkNoArgument(rest: string): void {
  if (rest !== "") throw new Refusal(501, "5.5.4", "the command takes no argument");
}

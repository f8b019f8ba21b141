/**
 * The command line of sendmail(1), as Postfix understands it: options that mean something here,
 * options that are taken and mean nothing (so that programs written for sendmail go on working),
 * and everything else, which is refused.
 */
import type { EventData } from "../../../events/catalogue.ts";

type Dsn = EventData<"Enqueued">["dsn"];

/** Asked for in the wrong way: EX_USAGE. */
export class BadUsage extends Error {
  override readonly name = "BadUsage";
}

export interface SendOptions {
  /**
   * What is asked for.
   * - `deliver`: take a message from standard input
   * - `smtp`: speak SMTP on standard input and output (-bs)
   * - `queue`: list the queue (-bp, mailq)
   * - `aliases`: build the alias table (-bi, newaliases)
   */
  readonly mode: "deliver" | "smtp" | "queue" | "aliases";
  /** A line with a dot alone is content (-i). */
  readonly ignoreDots: boolean;
  /** Recipients are taken from the header (-t). */
  readonly fromHeader: boolean;
  /** Envelope sender as given (-f, -r); "" or "<>" is the null one. */
  readonly sender?: string;
  /** Full name of the sender (-F). */
  readonly fullName?: string;
  readonly dsn: Pick<Dsn, "notify" | "ret" | "envid">;
  readonly verbose: boolean;
  /** Config file (-C). */
  readonly config?: string;
  readonly recipients: readonly string[];
}

/** Options with a value. */
const WITH_VALUE = "ABCFLNORVXbefhopr";
/** Options whose value, if any, stands in the same word. */
const VALUE_ATTACHED = "dq";
const ALONE = "GIUimntv";

/** @throws BadUsage */
export function readOptions(args: readonly string[], calledAs = "sendmail"): SendOptions {
  const found: { -readonly [K in keyof SendOptions]: SendOptions[K] } = {
    mode: calledAs === "mailq" ? "queue" : calledAs === "newaliases" ? "aliases" : "deliver",
    ignoreDots: false,
    fromHeader: false,
    dsn: {},
    verbose: false,
    recipients: [],
  };
  for (const [letter, value] of letters(args)) {
    switch (letter) {
      case "":
        found.recipients = [...found.recipients, value];
        break;
      case "i":
        found.ignoreDots = true;
        break;
      case "t":
        found.fromHeader = true;
        break;
      case "v":
        found.verbose = true;
        break;
      case "f":
      case "r":
        found.sender = value;
        break;
      case "F":
        found.fullName = value;
        break;
      case "C":
        found.config = value;
        break;
      case "N":
        found.dsn = { ...found.dsn, notify: notifyOf(value) };
        break;
      case "R":
        found.dsn = { ...found.dsn, ret: retOf(value) };
        break;
      case "V":
        if (!/^[ -~]{1,100}$/.test(value)) throw new BadUsage("-V: it is not a printable id");
        found.dsn = { ...found.dsn, envid: value };
        break;
      case "B":
        if (!/^(?:7bit|8bitmime)$/i.test(value)) {
          throw new BadUsage(`-B: it takes 7BIT or 8BITMIME`);
        }
        break; // what the message is, is seen in the message
      case "o":
        if (value === "i") found.ignoreDots = true;
        break;
      case "I":
        found.mode = "aliases";
        break;
      case "b":
        found.mode = modeOf(value);
        break;
      case "q":
        throw new BadUsage(`-q: the queue runs by itself; "deno task queue kick" tries at once`);
    }
  }
  return found;
}

/** Each option with its value, and each argument behind the letter "". */
function* letters(args: readonly string[]): Generator<[string, string]> {
  for (let n = 0; n < args.length; n++) {
    const word = args[n]!;
    if (word === "--") {
      for (const rest of args.slice(n + 1)) yield ["", rest];
      return;
    }
    if (!word.startsWith("-") || word === "-") {
      yield ["", word];
      continue;
    }
    for (let at = 1; at < word.length; at++) {
      const letter = word[at]!;
      if (ALONE.includes(letter)) yield [letter, ""];
      else if (VALUE_ATTACHED.includes(letter)) {
        yield [letter, word.slice(at + 1)];
        break;
      } else if (WITH_VALUE.includes(letter)) {
        const attached = word.slice(at + 1);
        const value = attached === "" ? args[++n] : attached;
        if (value === undefined) throw new BadUsage(`-${letter} takes a value`);
        yield [letter, value];
        break;
      } else throw new BadUsage(`-${letter} is not an option of sendmail`);
    }
  }
}

function modeOf(value: string): SendOptions["mode"] {
  switch (value) {
    case "m":
      return "deliver";
    case "s":
      return "smtp";
    case "p":
      return "queue";
    case "i":
      return "aliases";
  }
  throw new BadUsage(`-b${value} is not a mode of this program; the daemon is "deno task serve"`);
}

/** RFC 3461, section 4.1. */
function notifyOf(value: string): NonNullable<Dsn["notify"]> {
  const words = [...new Set(value.toUpperCase().split(",").map((word) => word.trim()))];
  const known = ["NEVER", "SUCCESS", "FAILURE", "DELAY"] as const;
  const notify = known.filter((word) => words.includes(word));
  if (notify.length !== words.length || (notify.length > 1 && notify[0] === "NEVER")) {
    throw new BadUsage("-N: it takes never, or some of success, failure and delay with commas");
  }
  return notify;
}

function retOf(value: string): NonNullable<Dsn["ret"]> {
  const ret = value.toUpperCase();
  if (ret !== "FULL" && ret !== "HDRS") throw new BadUsage("-R: it takes full or hdrs");
  return ret;
}

/**
 * The transcript of a transaction with several recipients, as the log of each has it: without the
 * RCPT commands of the others and the replies to them. Whom else a message went to is nothing that
 * its log tells, and a hundred logs of a hundred recipients would be a page each.
 *
 * Replies come in the order of the commands, pipelined or not (RFC 2920, section 3.2), which is
 * all that is needed to tell which reply answers what.
 */
import type { EventData } from "../../events/catalogue.ts";

type Lines = NonNullable<EventData<"HostTried">["transcript"]>;

/** A reply ends with the line that has no hyphen behind its code (RFC 5321, section 4.2.1). */
const ENDS_REPLY = /^\d{3}(?!-)/;

/**
 * @param lines the whole transcript, greeting included where the session was new
 * @param nth place of the recipient among the RCPT commands, from 0
 */
export function transcriptOf(lines: Lines, nth: number): Lines {
  const kept: Lines = [];
  /** Commands without a reply so far: whether their replies are kept. */
  const open: boolean[] = [];
  let recipients = 0;
  for (const line of lines) {
    if (line.who === "C") {
      const keep = !/^RCPT TO:/i.test(line.line) || recipients++ === nth;
      if (isCommand(line.line)) open.push(keep);
      if (keep) kept.push(line);
    } else {
      if (open[0] ?? true) kept.push(line);
      if (ENDS_REPLY.test(line.line)) open.shift();
    }
  }
  return kept;
}

/** The client also notes what is no command: how many octets of content it sent. */
const isCommand = (line: string): boolean => /^[A-Z]{4,8}(?: |$)/.test(line);

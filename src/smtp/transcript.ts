/**
 * The transcript of an SMTP dialogue: commands and replies with times, for the log.
 *
 * Message content never gets in (the client notes only how many octets it sent), secrets of AUTH
 * are left out, and it is bounded, whatever a server says.
 */
import type { Clock } from "../../actors/ports.ts";
import type { EventData } from "../../events/catalogue.ts";

type Lines = NonNullable<EventData<"HostTried">["transcript"]>;
type Line = Lines[number];

/** Characters of one line, and lines and characters in all. */
export const MAX_TRANSCRIPT_LINE = 1024;
export const MAX_TRANSCRIPT_LINES = 400;
export const MAX_TRANSCRIPT = 32 * 1024;

export class Transcript {
  readonly #clock: Clock;
  readonly #begun: number;
  #lines: Line[] = [];
  #size = 0;
  #full = false;

  /** @param begun monotonic milliseconds at which the connection was begun */
  constructor(clock: Clock, begun: number) {
    this.#clock = clock;
    this.#begun = begun;
  }

  /** Notes a command. Of AUTH only the mechanism is kept (RFC 4954, initial responses). */
  client(command: string): void {
    const auth = /^AUTH (\S+) ./i.exec(command);
    this.#note("C", auth ? `AUTH ${auth[1]} [secret]` : command);
  }

  /** Notes a reply, line by line. */
  server(lines: readonly string[]): void {
    for (const line of lines) this.#note("S", line);
  }

  /** What was noted since the last call, and an empty transcript again. */
  take(): Line[] {
    const lines = this.#lines;
    this.#lines = [];
    this.#size = 0;
    this.#full = false;
    return lines;
  }

  #note(who: Line["who"], text: string): void {
    if (this.#full) return;
    const line = text.length > MAX_TRANSCRIPT_LINE
      ? `${text.slice(0, MAX_TRANSCRIPT_LINE - 1)}…`
      : text;
    const at = Math.max(0, Math.round(this.#clock.monotonic() - this.#begun));
    this.#size += line.length;
    if (this.#lines.length >= MAX_TRANSCRIPT_LINES - 1 || this.#size > MAX_TRANSCRIPT) {
      this.#full = true;
      this.#lines.push({ at, who, line: "… left out" });
      return;
    }
    this.#lines.push({ at, who, line });
  }
}

/**
 * A client that submits one message over SMTP: a patient one, or one that gives up, hangs up or
 * breaks the rules in the middle. It knows what it was told.
 */
import type { VirtualTime } from "./clock.ts";
import { MINUTE } from "./clock.ts";
import type { ClientEnd, VirtualSocket } from "./door.ts";
import type { Dice } from "./random.ts";

export interface Letter {
  readonly mailFrom: string;
  readonly recipients: readonly string[];
  readonly content: Uint8Array;
  readonly has8bit: boolean;
}

export interface ClientObserver {
  /** The process hands the last 250 to its system: from now on the client may know. */
  acknowledged(submission: string, recipients: readonly string[]): void;
  /** The client was not told that its message was taken. */
  turnedAway(why: string): void;
}

/** What a client does instead of going on, and at which of its steps. */
const VICES = { none: 12, reset: 2, hangUp: 1, silence: 1, bareLineFeed: 1, garbage: 1 } as const;
const SUPPRESSED = /^550 5\.1\.1 the address is on our suppression list/;
const GIVES_UP_AFTER = 10 * MINUTE;

export class MailClient implements ClientEnd {
  readonly #vice: keyof typeof VICES;
  readonly #viceAt: number;
  readonly #pipelining: boolean;
  #socket: VirtualSocket | undefined;
  #text = "";
  #step = 0;
  #over = false;
  readonly #commands: readonly string[];
  /** Replies that have come. */
  #replies = 0;
  readonly #refused = new Set<string>();
  /** Replies that are still to come to the commands sent. */
  #pending = 1;

  constructor(
    readonly letter: Letter,
    readonly time: VirtualTime,
    readonly dice: Dice,
    readonly observer: ClientObserver,
  ) {
    this.#vice = dice.weighted(VICES);
    this.#viceAt = dice.int(0, letter.recipients.length + 4);
    this.#pipelining = dice.chance(0.5);
    this.#commands = [
      "EHLO client.example",
      `MAIL FROM:<${letter.mailFrom}>${letter.has8bit ? " BODY=8BITMIME" : ""}`,
      ...letter.recipients.map((rcptTo) => `RCPT TO:<${rcptTo}>`),
      "DATA",
    ];
    time.after(GIVES_UP_AFTER, () => this.#giveUp("no reply for too long"));
  }

  begin(connect: (client: ClientEnd) => VirtualSocket): void {
    this.#socket = connect(this);
  }

  handedOver(text: string): void {
    const [, submission] = /^250 2\.0\.0 Ok: queued as (\S+)/m.exec(text) ?? [];
    if (submission !== undefined) this.observer.acknowledged(submission, this.#taken());
  }

  octets(text: string): void {
    this.#text += text;
    for (;;) {
      const reply = /^(?:\d{3}-[^\n]*\n)*(\d{3}) [^\n]*\n/.exec(this.#text);
      if (!reply) return;
      this.#text = this.#text.slice(reply[0].length);
      this.#reply(Number(reply[1]), reply[0]);
    }
  }

  gone(): void {
    this.#giveUp("the server has gone");
  }

  #reply(code: number, text: string): void {
    if (this.#over) return;
    const command = this.#commands[this.#replies++ - 1] ?? "";
    this.#pending--;
    // It goes on with the recipients that are not on the list; DATA says when there are none.
    const suppressed = command.startsWith("RCPT") && SUPPRESSED.test(text);
    if (suppressed) this.#refused.add(command);
    else if (code >= 400) return this.#giveUp(text.trimEnd());
    if (code === 354) return this.#send(this.letter.content, 1);
    if (text.includes("queued as")) {
      this.#over = true;
      this.#write("QUIT\r\n");
      return this.#socket?.hangUp();
    }
    if (this.#pending > 0) return;
    const from = this.#step;
    // After EHLO the rest may go at once.
    const to = this.#pipelining && from > 0 ? this.#commands.length : from + 1;
    this.#step = to;
    const group = this.#commands.slice(from, to);
    this.#send(new TextEncoder().encode(group.map((line) => `${line}\r\n`).join("")), group.length);
  }

  #taken(): string[] {
    return this.letter.recipients.filter((rcptTo) => !this.#refused.has(`RCPT TO:<${rcptTo}>`));
  }

  #send(octets: Uint8Array, replies: number): void {
    this.#pending = replies;
    if (this.#vice !== "none" && this.#step > this.#viceAt) return this.#misbehave(octets);
    const cut = this.dice.int(0, octets.length);
    this.#socket?.arrive(octets.subarray(0, cut));
    this.time.after(this.dice.between(0, 50), () => {
      if (!this.#over) this.#socket?.arrive(octets.subarray(cut));
    });
  }

  #misbehave(octets: Uint8Array): void {
    this.#socket?.arrive(octets.subarray(0, this.dice.int(0, octets.length)));
    switch (this.#vice) {
      case "reset":
        this.#socket?.reset();
        return this.#giveUp("lost interest");
      case "hangUp":
        this.#socket?.hangUp();
        return this.#giveUp("hung up");
      case "bareLineFeed":
        return this.#write("RCPT TO:<smuggled@mx.example>\nDATA\n.\n");
      case "garbage":
        return this.#write("\0\r\r\n\xff FOO BAR\r\n".repeat(20));
      case "silence":
      case "none":
        return;
    }
  }

  #write(text: string): void {
    this.#socket?.arrive(Uint8Array.from(text, (char) => char.charCodeAt(0)));
  }

  #giveUp(why: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#socket?.reset();
    this.observer.turnedAway(why);
  }
}

/** The content as it goes over the wire: dots doubled at line starts, and the final one. */
export function asData(content: string): Uint8Array {
  return new TextEncoder().encode(`${content.replaceAll(/^\./gm, "..")}.\r\n`);
}

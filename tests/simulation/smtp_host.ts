/**
 * A receiving mail server of the virtual network: speaks SMTP (RFC 5321) on the wire, and is as
 * good or as bad as its mood. It also watches the client: what breaks the protocol is reported.
 */
import { Buffer } from "node:buffer";
import type { VirtualTime } from "./clock.ts";
import { HOUR, MINUTE } from "./clock.ts";
import type { Host, HostEnd, Peer } from "./network.ts";
import type { Dice } from "./random.ts";

/** How a host is for a while. */
export type Mood =
  | "well"
  | "sick" // most sessions meet a fault
  | "greylisting"
  | "refusing" // every recipient is refused for good
  | "busy" // every greeting is a 421
  | "down" // connections are refused
  | "unreachable"
  | "silent"; // connections hang

/** What hosts say of users that they do not know, and of nothing else. */
export const UNKNOWN_USER = "no such user";
/** How the addresses begin at which nobody ever is. */
export const NOBODY = "nobody";

/** Where in a session a fault strikes. */
const STAGES = ["greeting", "ehlo", "starttls", "mail", "rcpt", "data", "final", "quit"] as const;
type Stage = (typeof STAGES)[number];

const FAULTS = {
  temporary: 4,
  permanent: 1,
  slow: 2,
  hang: 2,
  nonsense: 1,
  flood: 0.2,
  reset: 3,
  close: 2,
  cut: 1, // half a reply, then a reset
  drip: 0.3, // one octet a second
} as const;
type Fault = keyof typeof FAULTS;

interface SessionFault {
  readonly stage: Stage;
  readonly fault: Fault;
  /** At `final`: whether the message was taken before the fault struck. */
  readonly taken: boolean;
}

/** A message that a host has taken responsibility for, or says it has. */
export interface Receipt {
  readonly host: string;
  readonly mailFrom: string;
  readonly rcptTo: string;
  readonly content: string;
  /** Monotonic milliseconds. */
  readonly at: number;
  /** The address of the host that it came to. */
  readonly address: string;
  /** Incarnation of the process that sent it. */
  readonly incarnation: number;
  /** Its code has read the whole of our 250. */
  acknowledged: boolean;
}

export interface HostObserver {
  received(receipt: Receipt): void;
  /** A recipient was refused for good: there is no such user. */
  refused(host: string, rcptTo: string): void;
  misbehaved(host: string, what: string): void;
  /** A command came in, or a reply went out. */
  dialogue(host: string, line: string): void;
}

export interface Capabilities {
  readonly ehlo: boolean;
  readonly pipelining: boolean;
  readonly eightBitMime: boolean;
  readonly dsn: boolean;
  readonly starttls: boolean;
  /** Recipients of one transaction that it takes. */
  readonly recipients: number;
  /** Answers DATA with 354 though every recipient was refused (RFC 2920, section 3.1 warns). */
  readonly lax: boolean;
}

export class SmtpHost implements Host {
  mood: Mood = "well";
  /** When a sender and recipient were first greylisted, monotonic. */
  readonly greylist = new Map<string, number>();

  constructor(
    readonly name: string,
    readonly can: Capabilities,
    readonly time: VirtualTime,
    readonly dice: Dice,
    readonly observer: HostObserver,
  ) {}

  reachable(): "open" | "refused" | "unreachable" | "silent" {
    if (this.mood === "down") return "refused";
    if (this.mood === "unreachable" || this.mood === "silent") return this.mood;
    return "open";
  }

  handshake(): boolean {
    return this.mood !== "sick" || this.dice.chance(0.7);
  }

  accept(end: HostEnd): Peer {
    return new SmtpSession(this, end, this.#plan());
  }

  #plan(): SessionFault | undefined {
    if (!this.dice.chance(this.mood === "sick" ? 0.8 : 0.005)) return undefined;
    return {
      stage: this.dice.chance(0.4) ? "final" : this.dice.pick(STAGES),
      fault: this.dice.weighted(FAULTS),
      taken: this.dice.chance(0.5),
    };
  }
}

class SmtpSession implements Peer {
  #buffer = "";
  #busy = true;
  #over = false;
  #inData = false;
  #mailFrom: string | undefined;
  #rcptTo: string[] = [];
  #messages = 0;

  constructor(
    readonly host: SmtpHost,
    readonly end: HostEnd,
    readonly plan: SessionFault | undefined,
  ) {
    const busy = host.mood === "busy";
    this.#answer("greeting", busy ? "421 4.3.2 too busy" : `220 ${host.name} ESMTP`, () => {
      if (busy) this.#finish();
    });
  }

  octets(octets: Uint8Array): void {
    if (this.#over) return;
    this.#buffer += latin1(octets);
    this.#pump();
  }

  gone(): void {
    this.#over = true;
  }

  #pump(): void {
    if (this.#busy || this.#over) return;
    if (this.#inData) {
      const stop = this.#buffer.startsWith(".\r\n") ? -2 : this.#buffer.indexOf("\r\n.\r\n");
      if (stop === -1) return;
      const content = this.#buffer.slice(0, stop + 2).replaceAll(/^\./gm, "");
      this.#buffer = this.#buffer.slice(stop + 5);
      this.#inData = false;
      this.#message(content);
      return;
    }
    const stop = this.#buffer.indexOf("\r\n");
    if (stop === -1) return;
    const line = this.#buffer.slice(0, stop);
    this.#buffer = this.#buffer.slice(stop + 2);
    this.host.observer.dialogue(this.host.name, `< ${line}`);
    this.#command(line);
  }

  #command(line: string): void {
    const verb = line.split(" ", 1)[0]!.toUpperCase();
    this.#checkPipelining(verb);
    switch (verb) {
      case "EHLO":
        if (!this.host.can.ehlo) return this.#answer("ehlo", "502 5.5.1 what?");
        return this.#answer("ehlo", this.#extensions());
      case "HELO":
        return this.#answer("ehlo", `250 ${this.host.name}`);
      case "STARTTLS":
        return this.#answer("starttls", "220 2.0.0 go ahead");
      case "MAIL":
        this.#checkParameters(line);
        return this.#answer("mail", "250 2.1.0 fine", () => {
          this.#mailFrom = path(line);
          this.#rcptTo = [];
        });
      case "RCPT":
        this.#checkParameters(line);
        return this.#recipient(path(line));
      case "DATA":
        if (this.#rcptTo.length === 0 && !this.host.can.lax) {
          return this.#answer("data", "503 5.5.1 no recipients");
        }
        return this.#answer("data", "354 go on", () => {
          this.#inData = true;
        });
      case "RSET":
        this.#mailFrom = undefined;
        this.#rcptTo = [];
        return this.#answer("quit", "250 2.0.0 reset");
      case "NOOP":
        return this.#answer("quit", "250 2.0.0 fine");
      case "QUIT":
        return this.#answer("quit", "221 2.0.0 bye", () => this.#finish());
      default:
        this.host.observer.misbehaved(this.host.name, `unknown command: ${line.slice(0, 80)}`);
        return this.#answer("quit", "500 5.5.2 what?");
    }
  }

  #recipient(rcptTo: string): void {
    const { mood, greylist, time } = this.host;
    if (this.#mailFrom === undefined) return this.#answer("rcpt", "503 5.5.1 MAIL first");
    if (this.#rcptTo.length >= this.host.can.recipients) {
      return this.#answer("rcpt", "452 4.5.3 too many recipients");
    }
    if (mood === "refusing" || rcptTo.toLowerCase().startsWith(NOBODY)) {
      this.host.observer.refused(this.host.name, rcptTo);
      return this.#answer("rcpt", `550 5.1.1 ${UNKNOWN_USER}`);
    }
    if (mood === "greylisting") {
      const key = `${this.#mailFrom} ${rcptTo}`;
      const since = greylist.get(key) ?? time.monotonic();
      greylist.set(key, since);
      if (time.monotonic() - since < 5 * MINUTE) {
        return this.#answer("rcpt", "451 4.7.1 greylisted, try again in 10 minutes");
      }
    }
    this.#answer("rcpt", "250 2.1.5 fine", () => this.#rcptTo.push(rcptTo));
  }

  #message(content: string): void {
    const { host, plan } = this;
    const fault = plan?.stage === "final" ? plan : undefined;
    if (this.#rcptTo.length === 0) {
      if (content !== "") this.host.observer.misbehaved(host.name, "content for no recipient");
      return this.#answer("final", "554 5.5.1 no valid recipients");
    }
    const refused = fault?.fault === "temporary" || fault?.fault === "permanent";
    const receipts: Receipt[] = [];
    if (!fault || fault.fault === "slow" || fault.fault === "drip" || (!refused && fault.taken)) {
      for (const rcptTo of this.#rcptTo) {
        const receipt: Receipt = {
          host: host.name,
          address: this.end.remote.address,
          mailFrom: this.#mailFrom ?? "",
          rcptTo,
          content,
          at: host.time.monotonic(),
          incarnation: this.end.process.incarnation,
          acknowledged: false,
        };
        receipts.push(receipt);
        host.observer.received(receipt);
      }
    }
    this.#mailFrom = undefined;
    this.#rcptTo = [];
    this.#answer("final", "250 2.0.0 taken", () => this.#tire(), () => {
      for (const receipt of receipts) receipt.acknowledged = true;
    });
  }

  /** Some hosts do not wait long for the next message, and not all of them say so. */
  #tire(): void {
    const { dice, time } = this.host;
    if (!dice.chance(0.1)) return;
    const messages = ++this.#messages;
    time.after(dice.between(0, 8_000), () => {
      if (this.#over || this.#busy || this.#mailFrom !== undefined) return;
      if (messages !== this.#messages) return;
      if (dice.chance(0.5)) this.#say("421 4.4.2 idle for too long\r\n");
      if (dice.chance(0.5)) return this.#break();
      this.#finish();
    });
  }

  /** Replies after some time, or does what the plan of the session says instead. */
  #answer(stage: Stage, reply: string, then?: () => void, seen?: () => void): void {
    const { host, plan } = this;
    this.#busy = true;
    const fault = plan?.stage === stage ? plan.fault : undefined;
    const wait = fault === "slow"
      ? host.dice.between(5_000, 11 * MINUTE)
      : host.dice.between(0, 40);
    host.time.after(wait, () => {
      if (this.#over) return;
      const proceed = () => {
        then?.();
        this.#busy = false;
        this.#pump();
      };
      if (fault === "drip") return this.#drip(`${reply}\r\n`, proceed, seen);
      if (fault && fault !== "slow") return this.#misbehave(fault, reply);
      this.#say(`${reply}\r\n`, seen);
      proceed();
    });
  }

  #misbehave(fault: Exclude<Fault, "slow" | "drip">, reply: string): void {
    const { dice } = this.host;
    switch (fault) {
      case "temporary":
        this.#say(dice.chance(0.5) ? "451 4.3.0 not now\r\n" : "421 4.3.2 closing\r\n");
        if (dice.chance(0.5)) return this.#finish();
        this.#busy = false;
        return this.#pump();
      case "permanent":
        this.#say("554 5.7.1 never\r\n");
        this.#busy = false;
        return this.#pump();
      case "hang":
        return;
      case "nonsense":
        this.#say(
          dice.pick(["\0\xff\xfe\r\n", "hello\r\n", "99 bottles\r\n", "250\r250\n", "\r\n"]),
        );
        this.#busy = false;
        return this.#pump();
      case "flood":
        return this.#flood(40);
      case "cut":
        this.#say(reply.slice(0, dice.int(1, reply.length)));
        return this.#break();
      case "reset":
        return this.#break();
      case "close":
        return this.#finish();
    }
  }

  #flood(times: number): void {
    if (this.#over) return;
    if (times === 0) return this.#finish();
    this.#say(`250-${"all work and no play ".repeat(4)}\r\n`.repeat(500));
    this.host.time.after(10, () => this.#flood(times - 1));
  }

  #drip(reply: string, proceed: () => void, seen?: () => void): void {
    if (this.#over) return;
    this.#say(reply[0]!, reply.length === 1 ? seen : undefined);
    if (reply.length === 1) return proceed();
    this.host.time.after(1_000, () => this.#drip(reply.slice(1), proceed, seen));
  }

  #say(text: string, seen?: () => void): void {
    this.host.observer.dialogue(this.host.name, `> ${text.slice(0, 40).trimEnd()}`);
    this.end.send(Buffer.from(text, "latin1"), seen);
  }

  #finish(): void {
    this.end.end();
    this.#over = true;
  }

  #break(): void {
    this.end.reset();
    this.#over = true;
  }

  #extensions(): string {
    const { name, can } = this.host;
    const lines = [name, "SIZE 10000000", "ENHANCEDSTATUSCODES"];
    if (can.pipelining) lines.push("PIPELINING");
    if (can.eightBitMime) lines.push("8BITMIME");
    if (can.dsn) lines.push("DSN");
    if (can.starttls) lines.push("STARTTLS");
    return lines.map((line, i) => `250${i < lines.length - 1 ? "-" : " "}${line}`).join("\r\n");
  }

  /** RFC 5321, section 4.1.1.11: no parameter of an extension that was not announced. */
  #checkParameters(line: string): void {
    const { ehlo, eightBitMime, dsn } = this.host.can;
    const announced: Readonly<Record<string, boolean>> = {
      SIZE: ehlo,
      BODY: eightBitMime,
      RET: dsn,
      ENVID: dsn,
      NOTIFY: dsn,
      ORCPT: dsn,
    };
    for (const parameter of line.split(" ").slice(2)) {
      const keyword = parameter.split("=", 1)[0]!.toUpperCase();
      if (!announced[keyword]) {
        this.host.observer.misbehaved(this.host.name, `${keyword} was not announced: ${line}`);
      }
    }
  }

  /** RFC 2920: no pipelining unless announced, and nothing behind the last command of a group. */
  #checkPipelining(verb: string): void {
    if (this.#buffer === "" || this.#buffer.startsWith("QUIT")) return;
    const { pipelining, ehlo } = this.host.can;
    if (pipelining && ehlo && !["EHLO", "HELO", "DATA", "STARTTLS", "QUIT"].includes(verb)) return;
    this.host.observer.misbehaved(this.host.name, `octets behind ${verb}, not waiting for a reply`);
  }
}

/** The mailbox between angle brackets. */
const path = (line: string): string => /<([^>]*)>/.exec(line)?.[1] ?? "";

export function latin1(octets: Uint8Array): string {
  return Buffer.from(octets.buffer, octets.byteOffset, octets.byteLength).toString("latin1");
}

/** How long moods last. */
export const MOOD_LASTS = { from: 10 * MINUTE, to: 12 * HOUR } as const;
export const MOODS: Readonly<Record<Mood, number>> = {
  well: 10,
  sick: 8,
  greylisting: 3,
  refusing: 1,
  busy: 2,
  down: 2,
  unreachable: 1,
  silent: 2,
};

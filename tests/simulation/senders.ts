/**
 * The senders of the virtual world: they submit messages (over SMTP or as HTTP does), remember what was acknowledged, and try
 * again (as a new message) when they were turned away.
 */
import { IntakeIsPaused } from "../../actors/admission.ts";
import { StoreUnavailable } from "../../events/store.ts";
import type { Submission } from "../../actors/ports.ts";
import { HOUR, MINUTE } from "./clock.ts";
import { ACCOUNT } from "./desk.ts";
import { RECIPIENT_DOMAINS } from "./landscape.ts";
import { POISON } from "./mishaps.ts";
import { asData, MailClient } from "./mail_client.ts";
import type { Program } from "./program.ts";
import type { Dice } from "./random.ts";
import type { World } from "./world.ts";

const WITH_BODY_FILE = 300_000;

export class Senders {
  readonly dice: Dice;
  #sent = 0;

  constructor(readonly world: World) {
    this.dice = world.dice.fork("senders");
    if (this.dice.chance(CROWDED)) this.#crowd();
    const messages = this.dice.int(1, 12);
    const burst = this.dice.chance(0.3);
    for (let n = 0; n < messages; n++) {
      const at = burst ? this.dice.between(0, MINUTE) : this.dice.between(0, 0.8 * world.window);
      world.time.after(at, () => this.#send(3));
    }
  }

  /** More mail for one domain than its line holds. */
  #crowd(): void {
    const domain = this.dice.pick(RECIPIENT_DOMAINS);
    const crowds = this.dice.int(2, 4);
    for (let n = 0; n < crowds; n++) {
      const at = this.dice.between(0, 2 * MINUTE);
      this.world.time.after(at, () => this.#send(3, { domain, recipients: 80 }));
    }
  }

  /** One more message, in a moment. */
  soon(): void {
    this.world.time.after(this.dice.between(0, 2_000), () => this.#send(1));
  }

  #send(tries: number, crowd?: Crowd): void {
    const program = this.world.program;
    const again = (why: string) => {
      this.world.note(`turned away: ${why}`);
      if (tries === 0) return;
      this.world.time.after(this.dice.between(1, 600_000), () => this.#send(tries - 1, crowd));
    };
    if (!program) return again("nobody listens");
    if (this.dice.chance(0.5)) this.#overSmtp(program, again, crowd);
    else this.#overThePort(program, again, crowd);
  }

  /** Through the SMTP session of the server. */
  #overSmtp(program: Program, again: (why: string) => void, crowd?: Crowd): void {
    const n = ++this.#sent;
    const has8bit = this.dice.chance(0.1);
    const letter = {
      mailFrom: this.#mailFrom(n),
      recipients: this.#recipients(n, crowd).map(({ rcptTo }) => rcptTo),
      content: asData(this.#content(n, has8bit)),
      has8bit,
    };
    const client = new MailClient(letter, this.world.time, this.dice, {
      acknowledged: (submission, recipients) => {
        this.world.note(`acknowledged submission ${submission}`);
        this.world.watch(() => this.world.invariants.acknowledgedAs(submission, recipients));
      },
      turnedAway: again,
    });
    client.begin((end) => program.door.connect(end));
  }

  /** Through the submitter, as the HTTP listener does. */
  #overThePort(program: Program, again: (why: string) => void, crowd?: Crowd): void {
    const died = () => again("the process died");
    program.process.onDeath(died);
    this.#submit(program, crowd).then((streams) => {
      if (!program.process.alive) return;
      program.process.forget(died);
      this.world.watch(() => this.world.invariants.acknowledged(streams));
      this.world.note(`acknowledged ${streams.join(" ")}`);
    }, (cause) => {
      program.process.forget(died);
      const expected = cause instanceof StoreUnavailable || cause instanceof IntakeIsPaused;
      if (!expected) return this.world.violated(cause);
      again(cause.message);
    });
  }

  async #submit(program: Program, crowd?: Crowd): Promise<string[]> {
    const n = ++this.#sent;
    const { bodies, submitter } = program;
    const { staffed } = this.world.desk;
    const has8bit = this.dice.chance(0.1);
    const account = staffed && this.dice.chance(0.3) ? ACCOUNT : null;
    if (submitter.paused) throw new IntakeIsPaused("no new mail is taken for now");
    const recipients = this.#recipients(n, crowd).filter(({ rcptTo }) =>
      !submitter.suppressed?.(rcptTo, account)
    );
    if (recipients.length === 0) return [];
    const content = new TextEncoder().encode(this.#content(n, has8bit));
    const draft = bodies.create();
    const id = submitter.newSubmissionId();
    try {
      for (let at = 0; at < content.length; at += 65_536) {
        await draft.write(content.subarray(at, at + 65_536));
      }
      const body = await draft.finish();
      const taken = await submitter.submit({
        id,
        account,
        mailFrom: this.#mailFrom(n),
        recipients,
        body,
        messageId: `<${n}@sender.example>`,
        has8bit,
        smtputf8: this.dice.chance(0.02),
        requireTLS: this.dice.chance(0.02),
        source: { kind: "http", peer: "127.0.0.1:40000" },
        ...(this.dice.chance(0.1) ? { due: program.process.now() + 20 * MINUTE } : {}),
        ...(this.dice.chance(0.1)
          ? { expires: program.process.now() + this.dice.pick([MINUTE, 30 * MINUTE, 5 * HOUR]) }
          : {}),
      });
      return taken.map(({ stream }) => stream);
    } catch (cause) {
      await draft.discard();
      throw cause;
    }
  }

  #mailFrom(n: number): string {
    if (this.dice.chance(0.1)) return "";
    return `${this.#tag("s")}${n}@${this.dice.pick(SENDER_DOMAINS)}`;
  }

  /** A prefix, and with it whether the message is poison. */
  #tag(prefix: string): string {
    return this.dice.chance(this.world.mishaps.poison) ? `${POISON}-${prefix}` : prefix;
  }

  #recipients(n: number, crowd?: Crowd): Submission["recipients"] {
    const { dice } = this;
    const recipients = crowd?.recipients ??
      (dice.chance(0.6) ? 1 : dice.chance(0.03) ? dice.int(101, 120) : dice.int(2, 6));
    const domain = crowd?.domain ?? (dice.chance(0.5) ? dice.pick(RECIPIENT_DOMAINS) : undefined);
    // MAIL has it, so it is the same for all.
    const ret = dice.chance(0.1) ? { ret: dice.pick(["FULL", "HDRS"] as const) } : {};
    const regulars = new Set<string>();
    return Array.from({ length: recipients }, (_, k) => ({
      rcptTo: this.#regular(regulars) ??
        `${this.#tag("r")}${n}.${k}@${domain ?? dice.pick(RECIPIENT_DOMAINS)}`,
      dsn: {
        ...(dice.chance(0.2) ? { notify: [...dice.pick(NOTIFY)] } : {}),
        ...ret,
        ...(dice.chance(0.1) ? { envid: `e${n}`, orcpt: `rfc822;o${n}+@example.net` } : {}),
      },
    }));
  }

  /** Sometimes somebody who is written to by others as well, but once in a message. */
  #regular(others: Set<string>): string | undefined {
    const { desk } = this.world;
    const address = desk.staffed && this.dice.chance(0.5) ? desk.regular() : undefined;
    if (address === undefined || others.has(address.toLowerCase())) return undefined;
    others.add(address.toLowerCase());
    return address;
  }

  #content(n: number, has8bit: boolean): string {
    const lines = [
      `Message-ID: <${n}@sender.example>`,
      `From: s${n}@sender.example`,
      `Subject: number ${n}`,
      "",
      ".",
      "..two dots",
      has8bit ? "t\u00e9xt" : "text",
    ];
    const size = this.dice.chance(0.01) ? WITH_BODY_FILE : this.dice.int(0, 2_000);
    for (let length = 0; length < size; length += 72) lines.push("x".repeat(70));
    return lines.map((line) => `${line}\r\n`).join("");
  }
}

interface Crowd {
  readonly domain: string;
  readonly recipients: number;
}

const NOTIFY = [["NEVER"], ["DELAY"], ["SUCCESS"], ["SUCCESS", "FAILURE", "DELAY"]] as const;

/** How many worlds are crowded. */
const CROWDED = 0.02;

/** Where reports go: one that takes them, one that may not. */
const SENDER_DOMAINS = ["sender.example", "sender.example", "mx.example"] as const;

/**
 * Operators at the door of the virtual world: they add and remove hold rules, pause the intake,
 * drain the queue before maintenance, put addresses on the suppression list and lift them. In some
 * worlds there are none, and nothing of it runs.
 */
import {
  ADMISSION_STREAM,
  type AdmissionCommand,
  type HoldFilter,
} from "../../actors/admission.ts";
import { CommandRefused } from "../../actors/message.ts";
import type { SuppressionPolicy } from "../../actors/suppression.ts";
import { StoreUnavailable } from "../../events/store.ts";
import { DAY, HOUR, MINUTE } from "./clock.ts";
import { RECIPIENT_DOMAINS } from "./landscape.ts";
import type { Dice } from "./random.ts";
import type { Reception } from "./reception.ts";
import { NOBODY } from "./smtp_host.ts";
import type { World } from "./world.ts";

/** How many worlds have them. */
const STAFFED = 0.15;

const ACTS = {
  addRule: 4,
  removeRule: 3,
  pause: 2,
  drain: 2,
  resume: 4,
  suppress: 5,
  lift: 4,
} as const;

/** Milliseconds between two looks of somebody who waits for a drain. */
const LOOK = 5_000;
const WHO = { who: "operator", why: "simulated" };
const AGAIN = MINUTE;

/** How the addresses begin that are written to again and again. */
const REGULARS = ["regular", "regular.customer", "subscriber", NOBODY, NOBODY] as const;

export class Desk {
  readonly dice: Dice;
  /** Whether there is anybody. */
  readonly staffed: boolean;
  readonly policy: SuppressionPolicy;
  /** The intake is open again, at the end of the world. */
  settled: boolean;
  readonly #regulars: readonly string[];
  readonly #eager: boolean;
  #on = true;
  #rules = 0;

  /** @param submit has somebody send a message soon */
  constructor(readonly world: World, readonly submit: () => void) {
    this.dice = world.dice.fork("desk");
    this.staffed = this.dice.chance(STAFFED);
    this.settled = !this.staffed;
    const lasts = this.dice.pick([undefined, HOUR, DAY]);
    this.policy = {
      automatic: this.staffed && this.dice.chance(0.8),
      ...(lasts === undefined ? {} : { lasts }),
    };
    this.#regulars = REGULARS.map((name, n) => `${name}${n}@${this.dice.pick(RECIPIENT_DOMAINS)}`);
    this.#eager = this.staffed && this.dice.chance(0.3);
    if (!this.staffed) return;
    const acts = this.dice.int(2, 16);
    for (let n = 0; n < acts; n++) {
      world.time.after(this.dice.between(0, world.window), () => this.#act());
    }
  }

  /** An address that others are sent mail at, too. */
  regular(): string {
    const address = this.dice.pick(this.#regulars);
    const at = address.indexOf("@");
    return this.dice.chance(0.3) ? address.slice(0, at).toUpperCase() + address.slice(at) : address;
  }

  /** Something has just become durable: in some worlds somebody acts at once. */
  meddle(): void {
    if (!this.#on || !this.#eager || !this.dice.chance(0.03)) return;
    this.world.time.after(this.dice.between(0, 40), () => this.#act());
  }

  /** The end of the day: the intake is opened, no rule is left, and then what follows. */
  open(then: () => void): void {
    this.#on = false;
    const { newMail: { paused, rules }, program } = this.world;
    if (!this.staffed || (!paused && rules.length === 0 && program)) {
      then();
      this.settled = true;
      return;
    }
    if (paused) this.#command({ type: "ResumeIntake", ...WHO });
    for (const id of rules) this.#command({ type: "RemoveHoldRule", id, ...WHO });
    this.world.time.after(AGAIN, () => this.open(then));
  }

  get #reception(): Reception | undefined {
    return this.world.program?.reception;
  }

  #act(): void {
    const { world: { newMail }, dice } = this;
    if (!this.#reception || !this.#on) return;
    if (dice.chance(0.5)) this.submit();
    switch (dice.weighted(ACTS)) {
      case "addRule": {
        const id = `rule${++this.#rules}`;
        return this.#command({ type: "AddHoldRule", id, filter: this.#filter(), ...WHO });
      }
      case "removeRule": {
        const id = newMail.rules.length > 0 ? dice.pick(newMail.rules) : "rule0";
        return this.#command({ type: "RemoveHoldRule", id, ...WHO });
      }
      case "pause":
        return this.#command({ type: "PauseIntake", ...WHO });
      case "drain":
        return this.#drain();
      case "resume":
        return this.#command({ type: "ResumeIntake", ...WHO });
      case "suppress":
        return this.#suppress();
      case "lift":
        return this.#lift();
    }
  }

  #filter(): HoldFilter {
    const { dice } = this;
    const filter = {
      ...(dice.chance(0.2) ? { from: "" } : {}),
      ...(dice.chance(0.3) ? { to: this.regular() } : {}),
      ...(dice.chance(0.2) ? { account: ACCOUNT } : {}),
    };
    const domain = dice.pick(RECIPIENT_DOMAINS);
    const toDomain = dice.chance(0.2) ? domain.toUpperCase() : domain;
    return Object.keys(filter).length > 0 && dice.chance(0.8) ? filter : { ...filter, toDomain };
  }

  #command(command: AdmissionCommand): void {
    const reception = this.#reception;
    if (!reception) return;
    this.world.note(`operator: ${command.type} ${"id" in command ? command.id : ""}`);
    this.#done(command.type, reception.admission.act(command));
  }

  #suppress(): void {
    const { dice } = this;
    const address = this.regular();
    this.world.note(`operator: suppress ${address}`);
    const row = this.#reception!.suppressions.add({
      ...WHO,
      address,
      cause: dice.pick(["manual", "complaint"]),
      ...(dice.chance(0.2) ? { account: ACCOUNT } : {}),
      ...(dice.chance(0.6) ? { lasts: dice.pick([MINUTE, HOUR, DAY]) } : {}),
    });
    const checked = row.then((row) => {
      if (row.address === address.toLowerCase()) return;
      throw new Error(`${address} was to be suppressed, and ${row.address} is`);
    });
    this.#done("suppress", checked);
  }

  #lift(): void {
    const { dice, world: { newMail: { list } } } = this;
    const known = list.addresses;
    const { address, account } = known.length > 0 && dice.chance(0.9)
      ? dice.pick(known)
      : { address: this.regular(), account: null };
    this.world.note(`operator: lift ${address}`);
    const whose = account === null ? {} : { account };
    this.#done("lift", this.#reception!.suppressions.lift({ ...WHO, address, ...whose }));
  }

  /** Takes no new mail, waits until nothing is due, perhaps restarts the service, and goes on. */
  #drain(): void {
    const { dice, world } = this;
    this.#command({ type: "PauseIntake", ...WHO });
    const reception = this.#reception!;
    const look = (left: number) => {
      if (this.#reception !== reception) return;
      const asked = world.newMail.drainAsks();
      reception.intake().then(({ paused, idle }) => {
        if (idle) world.watch(() => world.newMail.drained(asked));
        if (!paused) return;
        if (left > 0 && !idle) return void world.time.after(LOOK, () => look(left - 1));
        world.note(`operator: the drain is ${idle ? "over" : "given up"}`);
        if (dice.chance(0.5)) world.restart();
        const resume: AdmissionCommand = { type: "ResumeIntake", ...WHO };
        world.time.after(dice.between(0, HOUR), () => this.#on && this.#command(resume));
      }, (cause) => this.#refused("drain", cause));
    };
    const looks = dice.int(1, 40);
    world.time.after(dice.between(0, LOOK), () => look(looks));
  }

  #done(what: string, act: Promise<unknown>): void {
    act.then(
      () => this.world.note(`operator: ${what}: done`),
      (cause) => this.#refused(what, cause),
    );
  }

  #refused(what: string, cause: unknown): void {
    if (!(cause instanceof CommandRefused || cause instanceof StoreUnavailable)) {
      return this.world.violated(cause);
    }
    this.world.note(`operator: ${what}: ${cause.message}`);
  }
}

/** Some mail is of an account. */
export const ACCOUNT = "shop";

/** Streams on which their acts stand. */
export const isAct = (stream: string): boolean =>
  stream === ADMISSION_STREAM || stream.startsWith("suppression ");

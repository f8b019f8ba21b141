/**
 * The operators of the virtual world: they hold, release, reschedule, redirect and cancel messages
 * at any moment, reload the configuration, restart the service, and set the clock.
 */
import { type Command, CommandRefused } from "../../actors/message.ts";
import { StoreUnavailable, UnreadableStream } from "../../events/store.ts";
import { DAY, HOUR, MINUTE } from "./clock.ts";
import type { Dice } from "./random.ts";
import type { World } from "./world.ts";

const ACTS = {
  hold: 4,
  release: 6,
  reschedule: 4,
  redirect: 2,
  cancel: 1,
  reload: 2,
  restart: 1,
  setClock: 1,
} as const;

export class Operators {
  readonly dice: Dice;
  #meddling: boolean;

  constructor(readonly world: World) {
    this.dice = world.dice.fork("operators");
    this.#meddling = this.dice.chance(0.2);
    const acts = this.dice.chance(0.4) ? 0 : this.dice.int(1, 25);
    for (let n = 0; n < acts; n++) {
      world.time.after(this.dice.between(0, world.window), () => this.#act());
    }
  }

  /** Something has just happened to messages: in some worlds somebody interferes at once. */
  meddle(): void {
    if (!this.#meddling || !this.dice.chance(0.1)) return;
    this.world.time.after(this.dice.between(0, 40), () => this.#act());
  }

  /** The end of the day: what was held is looked at again. */
  releaseAll(): void {
    this.#meddling = false;
    for (const { stream, row } of this.world.invariants.streams.values()) {
      if (row.state !== "held" || this.dice.chance(0.3)) continue;
      this.#command(stream, { type: "Release", ...WHO, now: this.world.time.now() });
    }
  }

  #act(): void {
    const { world, dice } = this;
    const act = dice.weighted(ACTS);
    switch (act) {
      case "reload":
        return world.reload();
      case "restart":
        return world.restart();
      case "setClock": {
        const jump = Math.round(dice.between(-1, 1) * dice.pick([500, MINUTE, HOUR, DAY]));
        world.note(`the clock jumps by ${jump} ms`);
        return world.time.jump(jump);
      }
    }
    const streams = [...world.invariants.streams.keys()];
    if (streams.length === 0) return;
    // Mostly what is still in the queue: that is where a moment can be a bad one.
    const waiting = [...world.invariants.unfinished];
    const stream = waiting.length > 0 && dice.chance(0.8) ? dice.pick(waiting) : dice.pick(streams);
    const now = world.time.now();
    switch (act) {
      case "hold":
        return this.#command(stream, { type: "Hold", ...WHO });
      case "release":
        return this.#command(stream, { type: "Release", ...WHO, now });
      case "reschedule": {
        const due = Math.round(now + dice.between(-HOUR, 12 * HOUR));
        return this.#command(stream, { type: "Reschedule", ...WHO, due });
      }
      case "redirect": {
        const transport = dice.pick(["relay", "direct", "gone", null]);
        return this.#command(stream, { type: "AssignTransport", ...WHO, transport });
      }
      case "cancel":
        return this.#command(stream, { type: "Cancel", ...WHO });
    }
  }

  #command(stream: string, command: Command): void {
    const { world } = this;
    const program = world.program;
    if (!program) return;
    world.note(`operator: ${command.type} ${stream}`);
    program.supervisor().act(stream, command).then(() => {
      world.note(`operator: ${command.type} ${stream}: done`);
    }, (cause) => {
      const { broken } = world.invariants.streams.get(stream)!;
      const expected = cause instanceof CommandRefused || cause instanceof StoreUnavailable ||
        (broken && cause instanceof UnreadableStream);
      if (!expected) return world.violated(cause);
      world.note(`operator: ${command.type} ${stream}: ${cause.message}`);
    });
  }
}

const WHO = { who: "operator", why: "simulated" };

/**
 * What goes wrong in the virtual world, and when: moods of hosts and of the disk, outages and
 * changes of the DNS, and kills of the process at a boundary of its effects.
 */
import { HOUR, MINUTE } from "./clock.ts";
import type { DiskMood } from "./disk.ts";
import type { Outage } from "./dns.ts";
import type { Landscape } from "./landscape.ts";
import type { Process } from "./process.ts";
import type { Dice } from "./random.ts";
import { type Mood, MOODS, SmtpHost } from "./smtp_host.ts";
import type { World } from "./world.ts";

const DISK_MOODS: Readonly<Record<DiskMood, number>> = {
  well: 0,
  slow: 1,
  flaky: 3,
  full: 1,
  failing: 1,
};
const OUTAGES: Readonly<Record<Outage, number>> = { none: 3, servfail: 1, timeout: 1 };
/** Moods that a host may keep when all faults are over. */
const LASTING: readonly Mood[] = ["well", "well", "well", "refusing", "down", "silent"];

/** A world that dies more often than this learns nothing new. */
const MOST_KILLS = 200;

export class Faults {
  readonly dice: Dice;
  /** Moments at which a kill made a difference, so far. */
  boundaries = 0;
  /** Those of them at which a file of the archive was being made, or what it has pruned. */
  readonly archiving: number[] = [];
  #on = true;
  #kills = 0;
  /** Boundaries until the next kill. */
  #untilKill: number;
  /** Boundaries between kills, about; Infinity for none. */
  readonly #killEvery: number;

  constructor(readonly world: World, readonly landscape: Landscape) {
    this.dice = world.dice.fork("faults");
    this.#killEvery = this.dice.pick([Infinity, 60, 300, 300, 1_500, 6_000]);
    this.#untilKill = this.#nextKill();
    for (const host of landscape.hosts) this.#host(host);
    if (this.dice.chance(0.5)) this.#disk();
    if (this.dice.chance(0.5)) this.#dns();
  }

  /** A moment at which a kill can be told from a kill a moment before. */
  boundary(process: Process, where: string): void {
    this.boundaries++;
    if (this.world.archives.busy) this.archiving.push(this.boundaries);
    const { killAt } = this.world;
    if (killAt !== undefined ? this.boundaries !== killAt : !this.#killsNow()) return;
    this.world.note(`KILLED ${where}`);
    process.die();
  }

  #killsNow(): boolean {
    if (!this.#on || this.#kills > MOST_KILLS || --this.#untilKill > 0) return false;
    this.#kills++;
    this.#untilKill = this.#nextKill();
    return true;
  }

  /** From now on everything works, but for hosts that are as they are. */
  end(): void {
    this.#on = false;
    this.world.disk.mood = "well";
    for (const host of this.landscape.hosts) host.mood = this.dice.pick(LASTING);
    for (const domain of this.landscape.domains) this.world.dns.outage(domain, "none");
    this.landscape.repair(this.world.dns);
  }

  /** Whether a stream has become unreadable to the program that starts now. */
  breaks(): boolean {
    return this.#on && this.dice.chance(0.01);
  }

  /** Whether the program that starts now finds projections of another version. */
  rebuild(): boolean {
    return this.#on && this.dice.chance(0.05);
  }

  #nextKill(): number {
    if (this.#killEvery === Infinity) return Infinity;
    // Some kills hit the recovery from the one before.
    if (this.dice.chance(0.3)) return this.dice.int(1, 40);
    return Math.ceil(-Math.log(1 - this.dice.next()) * this.#killEvery);
  }

  #host(host: SmtpHost): void {
    if (!this.#on) return;
    host.mood = this.dice.weighted(MOODS);
    this.world.note(`${host.name} is ${host.mood}`);
    this.#later(10 * MINUTE, 12 * HOUR, () => this.#host(host));
  }

  #disk(): void {
    if (!this.#on) return;
    const { disk } = this.world;
    disk.mood = disk.mood === "well" ? this.dice.weighted(DISK_MOODS) : "well";
    this.world.note(`the disk is ${disk.mood}`);
    if (disk.mood === "well") this.#later(MINUTE, 6 * HOUR, () => this.#disk());
    else this.#later(100, 20 * MINUTE, () => this.#disk());
  }

  #dns(): void {
    if (!this.#on) return;
    const domain = this.dice.pick(this.landscape.domains);
    if (this.dice.chance(0.3)) {
      this.landscape.change(this.world.dns, domain, this.dice);
      this.world.note(`the zone of ${domain} changes`);
    } else {
      const outage = this.dice.weighted(OUTAGES);
      this.world.dns.outage(domain, outage);
      this.world.note(`DNS of ${domain}: outage ${outage}`);
    }
    this.#later(MINUTE, 6 * HOUR, () => this.#dns());
  }

  /** Waits as long as anything may take, but short enough for short windows. */
  #later(from: number, to: number, run: () => void): void {
    const most = Math.max(from, Math.min(to, this.world.window / 2));
    this.world.time.after(this.dice.between(from, most), run);
  }
}

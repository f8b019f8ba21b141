/**
 * Chance, from one seed.
 *
 * Every part of the world forks dice of its own by name, so that a change in how often one part
 * rolls does not change what happens to the others.
 */
import { xoroshiro128plus } from "pure-rand/generator/xoroshiro128plus";
import type { Random } from "../../actors/ports.ts";

/** FNV-1a with a final avalanche: neighbouring seeds and names give unrelated generators. */
function mix(seed: number, name: string): number {
  let hash = 0x811c9dc5;
  for (const char of `${seed}/${name}`) {
    hash = Math.imul(hash ^ char.charCodeAt(0), 0x01000193) >>> 0;
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) | 0;
}

export class Dice implements Random {
  readonly #seed: number;
  readonly #generator: ReturnType<typeof xoroshiro128plus>;

  constructor(seed: number, name = "world") {
    this.#seed = mix(seed, name);
    this.#generator = xoroshiro128plus(this.#seed);
    for (let i = 0; i < 4; i++) this.#generator.next(); // the first values still show the seed
  }

  fork(name: string): Dice {
    return new Dice(this.#seed, name);
  }

  /** Uniform in [0, 1). */
  next(): number {
    return (this.#generator.next() >>> 0) / 2 ** 32;
  }

  /** A whole number from `from` to `to`, both included. */
  int(from: number, to: number): number {
    return from + Math.floor(this.next() * (to - from + 1));
  }

  /** Uniform between two numbers. */
  between(from: number, to: number): number {
    return from + this.next() * (to - from);
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(from: readonly T[]): T {
    if (from.length === 0) throw new Error("nothing to pick from");
    return from[this.int(0, from.length - 1)] as T;
  }

  /** One of the keys, as often as its weight says. */
  weighted<K extends string>(weights: Readonly<Record<K, number>>): K {
    const entries = Object.entries(weights) as [K, number][];
    let left = this.next() * entries.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [key, weight] of entries) {
      left -= weight;
      if (left < 0) return key;
    }
    throw new Error("no weight is above zero");
  }
}

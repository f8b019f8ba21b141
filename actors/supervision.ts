/**
 * Supervision of the parts of a process, as a tree: a branch starts its parts in order, restarts
 * one that fails, alone or with the parts after it (which may lean on it), and fails itself when
 * that happens too often. What the top does about that is its owner's affair; ending the process
 * and leaving the rest to the service manager is the usual answer.
 *
 * The shape of the tree that runs is in src/tree.ts. Messages are supervised in supervisor.ts.
 */
import { describe } from "./fault.ts";
import type { Clock, Log } from "./ports.ts";
import { pause } from "./waiting.ts";

/** Something that runs until it is stopped, or fails. */
export interface Part {
  readonly name: string;
  /**
   * Resolves when it runs. From then on it may call `failed` when it cannot go on; it is stopped
   * then, and started again. Rejects when it cannot start.
   */
  start(failed: (cause: unknown) => void): Promise<void>;
  /** Ends it; also called after it failed. Bounds its own time. */
  stop(): Promise<void>;
}

export interface BranchShape {
  readonly name: string;
  /** What is restarted when a part fails: that part, or that part and all those after it. */
  readonly restart: "alone" | "with those after it";
  /** More failures than this within this many milliseconds are too many. */
  readonly atMost: number;
  readonly within: number;
  readonly parts: readonly Part[];
}

/** A branch gave up: its parts failed too often. */
export class Escalation extends Error {
  override readonly name = "Escalation";
}

/** Between a failure and the restart, so that a part that fails at once does not spin; ms. */
const BREATH = 200;

export class Branch implements Part {
  readonly name: string;
  readonly #shape: BranchShape;
  readonly #ports: { readonly clock: Clock; readonly log: Log };
  #failed: (cause: unknown) => void = () => {};
  /** Monotonic times of the latest failures. */
  #failures: number[] = [];
  /** Which start of a part is current: an older one that fails late is not heard. */
  readonly #generation = new Map<Part, number>();
  #work: Promise<void> = Promise.resolve();
  #stopping = new AbortController();

  constructor(shape: BranchShape, ports: { readonly clock: Clock; readonly log: Log }) {
    this.name = shape.name;
    this.#shape = shape;
    this.#ports = ports;
  }

  /** Starts all parts in order; if one cannot start, those before it are stopped again. */
  start(failed: (cause: unknown) => void): Promise<void> {
    this.#failed = failed;
    this.#failures = [];
    this.#stopping = new AbortController();
    const started = this.#startParts();
    // What fails, or is to stop, meanwhile waits for that: no part is started twice.
    this.#work = started.catch(() => {});
    return started;
  }

  async #startParts(): Promise<void> {
    const started: Part[] = [];
    try {
      for (const part of this.#shape.parts) {
        if (this.#stopping.signal.aborted) return;
        started.unshift(part);
        await this.#startPart(part);
      }
    } catch (cause) {
      this.#stopping.abort();
      for (const part of started) await this.#stopPart(part);
      throw cause;
    }
  }

  /** Stops all parts, the last first. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#work;
    for (const part of this.#shape.parts.toReversed()) await this.#stopPart(part);
  }

  #startPart(part: Part): Promise<void> {
    const generation = (this.#generation.get(part) ?? 0) + 1;
    this.#generation.set(part, generation);
    return part.start((cause) => {
      if (this.#generation.get(part) !== generation || this.#stopping.signal.aborted) return;
      this.#generation.set(part, generation + 1); // once per start
      this.#work = this.#work.then(() => this.#restart(part, cause));
    });
  }

  async #stopPart(part: Part): Promise<void> {
    this.#generation.set(part, (this.#generation.get(part) ?? 0) + 1);
    try {
      await part.stop();
    } catch (cause) {
      this.#ports.log.error("a part failed to stop", { part: part.name, ...describe(cause) });
    }
  }

  async #restart(part: Part, cause: unknown): Promise<void> {
    const { clock, log } = this.#ports;
    const { parts, restart } = this.#shape;
    const index = parts.indexOf(part);
    const affected = restart === "alone" ? [part] : parts.slice(index);
    for (let reason = cause; !this.#stopping.signal.aborted;) {
      const { message, stack } = describe(reason);
      for (const each of affected.toReversed()) await this.#stopPart(each);
      if (this.#tooMany()) return this.#giveUp(part, message);
      log.error("a part failed and is restarted", {
        part: part.name,
        with: affected.slice(1).map(({ name }) => name),
        reason: message,
        stack,
      });
      await pause(clock, BREATH, this.#stopping.signal);
      if (this.#stopping.signal.aborted) return;
      try {
        for (const each of affected) await this.#startPart(each);
        return;
      } catch (again) {
        reason = again;
      }
    }
  }

  #tooMany(): boolean {
    const { atMost, within } = this.#shape;
    const now = this.#ports.clock.monotonic();
    this.#failures = this.#failures.filter((at) => now - at < within);
    this.#failures.push(now);
    return this.#failures.length > atMost;
  }

  #giveUp(part: Part, reason: string): void {
    const { name, atMost, within } = this.#shape;
    this.#stopping.abort();
    this.#failed(
      new Escalation(
        `${name}: more than ${atMost} failures within ${
          within / 1_000
        } s, the last of ${part.name}: ${reason}`,
      ),
    );
  }
}

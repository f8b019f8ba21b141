/**
 * The queue in this process instead of one of its own, wired as `serve` wires it but for the clock,
 * which a test can put forward: to the next day, or past a wait that nobody can sit out.
 */
import { loadConfig } from "../../src/config/load.ts";
import { Queue } from "../../src/main.ts";
import { systemRandom } from "../../src/system.ts";
import type { JumpingClock } from "./jumping_clock.ts";
import type { Server } from "./serve.ts";

export interface QueueHere {
  /** What it logged. */
  readonly said: readonly string[];
  stop(): Promise<void>;
}

/** Runs the queue that `server` was prepared for; `server` itself is not to be started. */
export async function startHere(
  { config: file, data: dataDir }: Pick<Server, "config" | "data">,
  clock: JumpingClock,
): Promise<QueueHere> {
  const said: string[] = [];
  const note = (message: string, fields: Readonly<Record<string, unknown>> = {}) => {
    said.push(`${message} ${JSON.stringify(fields)}`);
  };
  const log = { info: note, warn: note, error: note };
  const config = loadConfig({ file, dataDir, env: new Map() });
  const queue = await Queue.open(config, { clock, random: systemRandom, log });
  await queue.start((cause) => note(String(cause)));
  return { said, stop: () => queue.stop() };
}

/**
 * SIGKILL at random moments under load, over and over: in the middle of work, and in the middle of
 * starting up again.
 */
import { sleep } from "../peers/wait.ts";
import type { Findings } from "./books.ts";
import { beginTrial } from "./trial.ts";

/** How many of the kills come during start-up. */
const EARLY_SHARE = 0.2;
/** Milliseconds after spawning, and after the greeting, within which a kill comes. */
const EARLY_WITHIN = 500;
const LATE_WITHIN = 900;

export interface Kills {
  readonly kills: number;
  readonly random: () => number;
  /** Called after each kill with its number. */
  readonly onKill?: (n: number) => void;
}

/** @throws Error when the server does not come back after a kill */
export async function killOverAndOver({ kills, random, onKill }: Kills): Promise<Findings> {
  const trial = await beginTrial(random);
  try {
    await trial.server.start();
    trial.startLoad();
    for (let n = 1; n <= kills; n++) {
      if (random() < EARLY_SHARE) {
        await sleep(random() * EARLY_WITHIN);
      } else {
        await trial.server.ready();
        await sleep(random() * LATE_WITHIN);
      }
      if (!trial.server.running) {
        throw new Error(`the server ended by itself:\n${trial.server.output.slice(-4_000)}`);
      }
      await trial.server.kill();
      onKill?.(n);
      await trial.server.spawn();
    }
    await trial.server.ready();
    await trial.stopLoad();
    return await trial.reckon();
  } finally {
    await trial.close();
  }
}

/**
 * SIGKILL at random moments under load, over and over: in the middle of work, and in the middle of
 * starting up again.
 *
 * What a kill can show depends on what is under way at that moment. A steady load runs all the
 * time, and most kills fall into a short burst on top of it, as much as 20 clients get through, so
 * that there is hardly a moment without a commit, a reply and an attempt in flight.
 *
 * SIGKILL ends the process and leaves the system's page cache alone: it shows that nothing is
 * acknowledged before it is committed, not that a commit survives a power cut. For that there are
 * the failing fsync (disk.ts) and the simulated disk.
 */
import { sleep } from "../peers/wait.ts";
import { beginTrial } from "./trial.ts";
import { shows, type Verdict } from "./verdict.ts";

/** How many of the kills come during start-up. */
const EARLY_SHARE = 0.2;
/** Milliseconds after spawning within which an early kill comes. */
const EARLY_WITHIN = 500;
/** Milliseconds after the greeting within which the burst begins, and then the kill comes. */
const CALM_WITHIN = 200;
const BURST_WITHIN = 120;
const BURST_CLIENTS = 20;
/**
 * Messages before the first kill: events enough for some checkpoints, so that there is something to
 * archive while the server is killed.
 */
const FIRST = 1_000;
const FIRST_CLIENTS = 8;
/**
 * One in so many kills comes late, when positions of webhooks have been noted: once something is
 * written to the archive, or after so many milliseconds, and a little later still.
 */
const LATE_EVERY = 10;
const LATE = 2_000;
const LATER = 1_000;
/** After so many kills, everything that is in play must have been met. */
const TELLING = 30;

const isLate = (n: number): boolean => n % LATE_EVERY === LATE_EVERY / 2;

export interface Kills {
  readonly kills: number;
  readonly random: () => number;
  /** Called after each kill with its number. */
  readonly onKill?: (n: number) => void;
}

/** @throws Error when the server does not come back after a kill */
export async function killOverAndOver({ kills, random, onKill }: Kills): Promise<Verdict> {
  const trial = await beginTrial({ random, rough: true });
  const { server } = trial;
  try {
    await trial.spawn();
    await server.ready();
    await trial.load({ clients: FIRST_CLIENTS, count: FIRST }).done;
    const stopSteady = trial.load().stop;
    for (let n = 1; n <= kills; n++) {
      let stopBurst: () => Promise<void> = () => Promise.resolve();
      if (!isLate(n) && random() < EARLY_SHARE) {
        await sleep(random() * EARLY_WITHIN);
      } else {
        await server.ready();
        if (isLate(n)) {
          await trial.archiving(LATE);
          await sleep(random() * LATER);
        } else {
          await sleep(random() * CALM_WITHIN);
        }
        stopBurst = trial.load({ clients: BURST_CLIENTS }).stop;
        await sleep(random() * BURST_WITHIN);
      }
      if (!server.running) {
        throw new Error(`the server ended by itself:\n${server.output.slice(-4_000)}`);
      }
      await trial.kill();
      await stopBurst();
      onKill?.(n);
      await trial.spawn(n === kills ? "last" : isLate(n + 1) ? "long" : undefined);
    }
    await server.ready();
    await stopSteady();
    const verdict = await trial.reckon();
    return kills < TELLING ? verdict : shows(verdict);
  } finally {
    await trial.close();
  }
}

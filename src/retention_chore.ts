/** The part of the tree that moves what is finished into the archive, now and then. */
import type { Clock, Log } from "../actors/ports.ts";
import type { Part } from "../actors/supervision.ts";
import type { Archived, Retention } from "../events/retention.ts";
import { Chore } from "./chore.ts";

/** Milliseconds from a start to the first look at what is to be archived, and between two. */
const FIRST_LOOK = 30_000;
const LOOK = 600_000;

/**
 * @param keep milliseconds for which what is finished stays in the store, as configured now
 * @param told the position behind which webhooks still have to be told
 */
export function retentionChore(
  retention: Pick<Retention, "run">,
  keep: () => number,
  told: () => number,
  { clock, log }: { readonly clock: Pick<Clock, "timer">; readonly log: Log },
): Part {
  return new Chore(clock, {
    name: "retention",
    first: () => Math.min(FIRST_LOOK, keep()),
    run: async (signal) => {
      await archive(() => retention.run(keep(), signal, told), log, signal);
      return Math.min(LOOK, keep());
    },
  });
}

/** A disk without room for the archive is no reason to stop anything: it is tried again. */
async function archive(
  run: () => Promise<Archived>,
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  try {
    const { streams, events, files } = await run();
    if (streams > 0) log.info("finished messages archived", { streams, events, files });
  } catch (cause) {
    if (signal.aborted) return;
    log.error("finished messages could not be archived; it is tried again", {
      reason: cause instanceof Error ? cause.message : String(cause),
    });
  }
}

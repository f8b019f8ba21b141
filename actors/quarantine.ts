/**
 * Quarantine: a message whose history cannot be followed (an event that this version does not know,
 * or that no fold accepts) is held, with the reason, until somebody has looked at it.
 */
import type { Fact } from "../events/catalogue.ts";
import { FINAL_STATES } from "../events/projections/queue.ts";
import { StoreUnavailable, WrongVersion } from "../events/store.ts";
import { describe } from "./fault.ts";
import type { EventStore, Log, QueueView } from "./ports.ts";

export interface QuarantinePorts {
  readonly store: EventStore;
  readonly view: Pick<QueueView, "get">;
  readonly log: Log;
}

/**
 * Holds a message whose events no fold accepts, so that it is seen by the operator and tried by
 * nobody. What its row says is all that can be known of it: one that is held, or has ended, is left.
 * @throws StoreUnavailable when that could not be recorded
 */
export async function quarantine(
  { store, view, log }: QuarantinePorts,
  stream: string,
  cause: unknown,
): Promise<void> {
  const { message, stack } = describe(cause);
  const held: Fact = {
    type: "Held",
    data: { who: "supervisor", why: `quarantined: ${message}`, stack },
  };
  try {
    // In this order: whoever holds it after the row was read makes the version another.
    const expectedVersion = await store.version(stream);
    const state = (await view.get(stream))?.state;
    if (state === "held" || FINAL_STATES.some((one) => one === state)) return;
    log.error("message quarantined", { stream, reason: message });
    await store.append([{ stream, expectedVersion, facts: [held] }]);
  } catch (failed) {
    if (failed instanceof WrongVersion) return;
    log.error("quarantine not recorded", { stream, reason: describe(failed).message });
    if (failed instanceof StoreUnavailable) throw failed; // met again when the store is well
  }
}

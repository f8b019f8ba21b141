/** What new mail meets (hold rules, pauses, the suppression list), wired as src/main.ts does it. */
import { Admission } from "../../actors/admission.ts";
import type { EventStore, Log, QueueView } from "../../actors/ports.ts";
import type { Part } from "../../actors/supervision.ts";
import { Suppressions } from "../../actors/suppression.ts";
import type { SuppressionView } from "../../events/projections/suppression.ts";
import { intakeState } from "../../src/http/admission.ts";
import type { IntakeState } from "../../src/http/shapes.ts";
import type { Process } from "./process.ts";
import { VirtualSuppressionView } from "./suppression_view.ts";
import type { World } from "./world.ts";

export interface Reception {
  readonly admission: Admission;
  readonly suppressions: Suppressions;
  readonly part: Part;
  /** As the API shows it. */
  intake(): Promise<IntakeState>;
}

interface Ports {
  readonly store: EventStore;
  readonly queue: QueueView;
  readonly log: Log;
  readonly list?: ((view: SuppressionView) => SuppressionView) | undefined;
}

export async function reception(
  process: Process,
  { disk, desk }: World,
  { store, queue, log, list }: Ports,
): Promise<Reception> {
  const admission = new Admission(store);
  const view = new VirtualSuppressionView(disk);
  const suppressions = new Suppressions({
    clock: process,
    log,
    store,
    view: list?.(view) ?? view,
    policy: () => desk.policy,
  });
  await admission.load();
  return {
    admission,
    suppressions,
    part: {
      name: "suppression",
      start: () => Promise.resolve(suppressions.start()),
      stop: () => suppressions.stop(),
    },
    intake: () => intakeState({ queue, admission, now: () => process.now() }),
  };
}

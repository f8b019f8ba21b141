/** What becomes of errors in a session: a reply for the client, a line for the operator. */
import { IntakeIsPaused } from "../../../actors/admission.ts";
import { StoreUnavailable } from "../../../events/store.ts";
import { Refusal } from "../../submission/refusal.ts";
import type { Listener } from "./listener.ts";

/** Says what becomes of an error while a message was taken in. */
export function refusalFor(listener: Listener, error: unknown): Refusal {
  if (error instanceof Refusal) return error;
  if (error instanceof StoreUnavailable) {
    return new Refusal(452, "4.3.1", "the message cannot be stored now; try again later");
  }
  if (error instanceof IntakeIsPaused) return paused();
  noteFault(listener, error);
  return new Refusal(451, "4.3.0", "internal error; try again later");
}

export function noteFault({ log, name }: Listener, error: unknown): void {
  const why = error instanceof Error ? error.stack ?? error.message : String(error);
  log.error("a fault in an SMTP session", { listener: name, why });
}

/** An operator has new mail turned away. */
export function paused(): Refusal {
  return new Refusal(450, "4.3.2", "no new mail is taken for now; try again later");
}

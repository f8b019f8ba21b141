/** What a sender is told whose recipient is on the suppression list (actors/suppression.ts). */
import type { SuppressionRow } from "../../events/projections/suppression.ts";
import { Refusal } from "./refusal.ts";

const CAUSES: Readonly<Record<SuppressionRow["cause"], string>> = {
  bounce: "its server said that there is no such user",
  complaint: "its owner complained",
  manual: "an operator put it there",
};

/** RFC 3463, section 3.2: 5.1.1, the mailbox does not exist, or is not to be written to. */
export function suppressed({ cause, since }: Pick<SuppressionRow, "cause" | "since">): Refusal {
  const day = new Date(since).toISOString().slice(0, 10);
  const text = `the address is on our suppression list since ${day}: ${CAUSES[cause]}`;
  return new Refusal(550, "5.1.1", text);
}

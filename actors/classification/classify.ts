/**
 * Classification of failures: a few classes that views, metrics, reports and the suppression list
 * can act on, from enhanced codes first and the words of the reply second. Pure; the table is
 * data (table.ts).
 */
import type { EventData } from "../../events/catalogue.ts";
import { EXACT, type FailureClass, STATUS, TEXT } from "./table.ts";

/** What is looked at; a reply of a server where there was one. */
export type Classifiable = Pick<
  EventData<"Failed">,
  "result" | "reason" | "enhanced" | "reply" | "stack"
>;

/** Octets of a text that are looked at: what says why comes early. */
const MOST = 1_000;

export function classify(failure: Classifiable): FailureClass {
  if (failure.stack !== undefined) return "other"; // a fault of our own
  const { result, reply } = failure;
  const status = /^[245]\.(\d{1,3}\.\d{1,3})$/.exec(reply?.enhanced ?? failure.enhanced ?? "")?.[1];
  if (!reply) return unanswered(failure, status);
  const text = reply.text.slice(0, MOST).toLowerCase().replace(/\s+/g, " ");
  const exact = firstMatch(EXACT, text);
  if (exact) return exact;
  const byStatus = status === undefined ? undefined : STATUS[status];
  if (byStatus) return byStatus;
  const byText = firstMatch(TEXT, text);
  if (byText) return byText;
  if (reply.code === 421) return "rate-limited";
  if (reply.code === 552) return "mailbox-full";
  if (reply.code === 535 || reply.code === 530) return "login";
  if (status?.startsWith("7.")) return "policy";
  if (result === "permerror" && (reply.code === 550 || reply.code === 551)) {
    return status?.startsWith("1.") || status?.startsWith("2.") ? "unknown-user" : "other";
  }
  return "other";
}

/** No server said so: it is what we found ourselves. */
function unanswered(
  { result, reason }: Classifiable,
  status: string | undefined,
): FailureClass {
  if (result === "canceled") return "other";
  const byStatus = status === undefined ? undefined : STATUS[status];
  if (byStatus) return byStatus;
  if (result === "timeout") return "network";
  if (/\b(?:tls|certificate|handshake|starttls)\b/i.test(reason)) return "tls";
  return result === "error" && status === undefined ? "network" : "other";
}

function firstMatch(
  patterns: readonly (readonly [RegExp, FailureClass])[],
  text: string,
): FailureClass | undefined {
  return patterns.find(([pattern]) => pattern.test(text))?.[1];
}

/** What an attempt says about its destination, apart from its message. */
import type { Experience } from "./destination.ts";
import { plainReason } from "./message.ts";
import type { Attempted } from "./attempts.ts";

/** The host turned us away, and not this message: closing (421), congested, not accepting. */
const BUSY = { codes: [421], statuses: ["4.3.2", "4.4.5"] } as const;

interface Said {
  readonly experience: Experience;
  /** What the attempt met, in words. */
  readonly why: string;
}

/** Of several messages that went together, the one that says most of the destination. */
const TELLING: readonly Experience[] = ["busy", "delivered", "answered", "unreachable", "unknown"];

/** What an attempt for one message or several says. */
export function experienceOf(attempted: readonly Attempted[]): Said {
  const said = attempted.map(experienceOfOne);
  for (const experience of TELLING) {
    const one = said.find((each) => each.experience === experience);
    if (one) return one;
  }
  return { experience: "unknown", why: "" };
}

function experienceOfOne(
  { message, concluded }: Attempted,
): Said {
  if (!message || !concluded) return { experience: "unknown", why: "" };
  if (message.status === "delivered") return { experience: "delivered", why: "" };
  const { lastFailure } = message;
  if (!lastFailure) return { experience: "unknown", why: "" };
  const { code, enhanced = "", result, reason } = lastFailure;
  const why = plainReason(reason);
  if (code !== undefined) {
    const busy = BUSY.codes.some((each) => each === code) ||
      BUSY.statuses.some((each) => each === enhanced);
    return { experience: busy ? "busy" : "answered", why };
  }
  // 4.4.x is the network's and the names' (RFC 3463, section 3.5); others are our own affairs.
  const network = enhanced === "" || enhanced.startsWith("4.4.") || enhanced === "4.7.5";
  const unreachable = network && result !== "canceled" && result !== "permerror";
  return { experience: unreachable ? "unreachable" : "unknown", why };
}

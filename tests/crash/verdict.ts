/** What a scenario came to: numbers and violations, by what was looked at. */
import type { ActFindings } from "./acts.ts";
import type { Findings } from "./books.ts";
import type { OutageFindings } from "./outages.ts";
import type { ReportFindings } from "./reports.ts";
import type { ToldFindings } from "./told.ts";

interface Section {
  /** What must not be, in words. */
  readonly violations: readonly string[];
}

export interface Verdict {
  readonly mail: Findings;
  readonly reports: ReportFindings;
  readonly suppression: Section & { readonly bounced: number };
  readonly destinations: OutageFindings;
  readonly webhooks: ToldFindings;
  readonly operators: ActFindings;
  readonly retention: Section & { readonly events: number; readonly archived: number };
  /** The server itself, what the webhook endpoint and the operator met. */
  readonly others: Section;
}

/** A verdict with more violations. */
export const withViolations = (verdict: Verdict, violations: readonly string[]): Verdict => ({
  ...verdict,
  others: { violations: [...verdict.others.violations, ...violations] },
});

/** With so many events there are checkpoints behind which streams may leave the store. */
export const ARCHIVED_FROM = 3 * 4_096;

/** A run that did not come to what it is there to show has shown nothing. */
export function shows(verdict: Verdict): Verdict {
  const { mail, reports, suppression, destinations, webhooks, operators, retention } = verdict;
  const exercised: Readonly<Record<string, number>> = {
    "attempts cut": mail.cutAttempts,
    reports: reports.reports,
    bounces: suppression.bounced,
    "outages of a destination": destinations.down,
    "webhooks told again": webhooks.toldAgain,
    "webhooks not taken": webhooks.notTaken,
    "acts of an operator": operators.acts,
    "acts without an answer": operators.unanswered,
    "messages held by a rule": operators.heldByRule,
    ...(retention.events < ARCHIVED_FROM ? {} : { "archive files": retention.archived }),
  };
  const missing = Object.entries(exercised).filter(([, n]) => n === 0);
  return withViolations(
    verdict,
    missing.map(([what]) => `there were no ${what}: nothing is shown`),
  );
}

/** Prints a verdict; true when nothing is wrong. */
export function print(scenario: string, verdict: Verdict, seconds: number): boolean {
  const all: string[] = [];
  console.log(`${scenario}, ${seconds.toFixed(0)} s:`);
  for (const [name, section] of Object.entries(verdict)) {
    const { violations, ...numbers } = section as Section & Record<string, unknown>;
    all.push(...violations);
    const line = Object.entries(numbers).map(([what, n]) => `${what} ${n}`).join(", ");
    if (line !== "") console.log(`  ${name}: ${line}`);
  }
  for (const violation of all.slice(0, 20)) console.log(`  VIOLATION ${violation}`);
  if (all.length > 20) console.log(`  … and ${all.length - 20} more`);
  return all.length === 0;
}

/**
 * A message of an attempt, and how far it has come. Several recipients of one submission go
 * through an attempt together: each until a host has taken or refused it for good, so that the
 * next host is asked for the others alone.
 */
import type { DeliveryJob, Finding, Findings, Outcome } from "../../actors/ports.ts";
import { conclude, goesOn, type HostVerdict } from "./outcome.ts";

export class Party {
  /** What each host and address said, in order. */
  readonly tried: HostVerdict[] = [];

  constructor(readonly job: DeliveryJob, readonly findings: Findings) {}

  note(finding: Finding): void {
    this.findings.note(finding);
  }

  /** Whether no other host is asked in this attempt. */
  get through(): boolean {
    const last = this.tried.at(-1);
    return last !== undefined && goesOn(last.verdict) === "no";
  }

  /** The outcome, once a host or an address was tried. */
  get outcome(): Outcome {
    return conclude(this.tried);
  }
}

/**
 * What was found is on disk, and with it that some were delivered: a crash while others go on must
 * not make a second delivery of them. Called before dialling again.
 */
export async function onDisk(all: readonly Party[]): Promise<void> {
  await Promise.all(all.map((party) => {
    const outcome = party.through ? party.outcome : undefined;
    return outcome?.kind === "delivered" ? party.findings.settle(outcome) : party.findings.flush();
  }));
}

/** The same finding for all of them; what a TLS report counts stands with the first alone. */
export function noteAll(all: readonly Party[], finding: Finding): void {
  const [first, ...others] = all;
  first?.note(finding);
  if (others.length === 0) return;
  const uncounted = withoutReport(finding);
  for (const party of others) party.note(uncounted);
}

function withoutReport(finding: Finding): Finding {
  if (finding.type === "DestinationsResolved") return finding;
  const { tlsReport: _, ...data } = finding.data;
  return { type: finding.type, data } as Finding;
}

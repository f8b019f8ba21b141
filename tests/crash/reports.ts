/**
 * Reports to senders: every message that was given up, or delivered where that was to be said, is
 * reported on once, in a report that the log has and that names it; nothing else is.
 *
 * That a report reaches the sink exactly once, unless cut attempts explain more, is compared like
 * that of any message (books.ts).
 */
import type { Book, Books } from "./books.ts";

export interface ReportFindings {
  readonly reports: number;
  /** Still to be made: their time had not come when the server was stopped. */
  readonly reportsDue: number;
  readonly violations: readonly string[];
}

/** How long after its time a report may still be missing, milliseconds. */
const GRACE = 3_000;

/** @param stopped when the server was told to end, epoch milliseconds */
export function checkReports({ byId, byStream }: Books, stopped: number): ReportFindings {
  const violations: string[] = [];
  const named = new Set<string>();
  let reportsDue = 0;
  for (const [id, book] of byId) {
    const sent = book.reports.filter((dsn) => dsn !== undefined);
    for (const dsn of sent) {
      named.add(dsn);
      const report = byStream.get(dsn);
      if (report?.reportOn === undefined) {
        violations.push(`${id} was reported on in ${dsn}, which is no report in the log`);
      } else if (report.to !== book.from) {
        violations.push(`the report on ${id} goes to ${report.to}, not to ${book.from}`);
      }
    }
    const wanted = isReportedOn(book) ? 1 : 0;
    if (sent.length > wanted) {
      violations.push(`${id} was reported on ${sent.length} times, and ${wanted} is right`);
    } else if (sent.length < wanted) {
      if (book.reportDue === undefined) violations.push(`${id} was never reported on`);
      else if (Date.parse(book.reportDue) > stopped - GRACE) reportsDue++;
      else violations.push(`the report on ${id} was due at ${book.reportDue} and not made`);
    }
  }
  const reports = [...byStream.values()].filter(({ reportOn }) => reportOn !== undefined);
  for (const { stream } of reports) {
    if (!named.has(stream)) violations.push(`the report ${stream} is on nothing in the log`);
  }
  return { reports: reports.length, reportsDue, violations };
}

/** Whether the sender is owed a report, from what was asked for and what became of it. */
function isReportedOn({ from, notify, gaveUp, delivered, reportOn }: Book): boolean {
  if (from === "" || reportOn !== undefined) return false;
  if (gaveUp) return notify === undefined || notify.includes("FAILURE");
  return delivered && notify?.includes("SUCCESS") === true;
}

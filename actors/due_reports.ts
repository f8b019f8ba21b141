/**
 * Sends the reports that are due: one for all recipients of a submission that have ended and whose
 * reports wait, and one for all that are delayed.
 *
 * What is due is read out of the queue projection, at the start and whenever a window ends, so
 * that nothing is held in memory which a crash could lose. The report and the notes of it on the
 * streams of its recipients are one append.
 */
import type { Fact, StoredEvent } from "../events/catalogue.ts";
import { StoreUnavailable, type StreamAppend, WrongVersion } from "../events/store.ts";
import { describe } from "./fault.ts";
import { fold } from "./message.ts";
import type {
  Clock,
  EventStore,
  Ids,
  Log,
  QueueRow,
  QueueView,
  RecipientReport,
  Reporter,
} from "./ports.ts";
import { quarantine } from "./quarantine.ts";
import { dueReport, reportStream } from "./reports.ts";
import { LONGEST_SLEEP, Rounds } from "./rounds.ts";

export interface DueReportsPorts {
  readonly clock: Clock;
  readonly ids: Ids;
  readonly log: Log;
  readonly store: EventStore;
  readonly view: QueueView;
  readonly reporter: Reporter;
}

/** Rows read at once. */
const PAGE = 100;
/** Recipients of one report; it shows each with what the server said. */
export const MAX_RECIPIENTS = 100;
/** What ended in a fault of our own code is tried again after this long, milliseconds. */
const AFTER_FAULT = 3_600_000;

/** What the report on a message is about that waits for one. */
const aboutOf = ({ finished }: QueueRow): "delay" | "end" => finished === null ? "delay" : "end";

interface Due {
  readonly stream: string;
  readonly version: number;
  readonly report: RecipientReport;
}

export class DueReports {
  readonly #ports: DueReportsPorts;
  readonly #rounds: Rounds;
  /** Streams that are passed over, each until a monotonic time. */
  readonly #passed = new Map<string, number>();
  /** Streams of the page before whose report was sent: they must not come again. */
  #sent = new Set<string>();

  /** @param failed is told what ended the reading; it goes on when it is opened again */
  constructor(ports: DueReportsPorts, failed: (cause: unknown) => void) {
    this.#ports = ports;
    this.#rounds = new Rounds(ports.clock, () => this.#sendAll(), failed);
  }

  open(): void {
    this.#sent.clear();
    this.#rounds.open();
  }

  close(): void {
    this.#rounds.close();
  }

  /** Looks for reports that become due with these events. */
  committed(events: readonly StoredEvent[]): void {
    for (const { type, data } of events) {
      if (type === "DSNPostponed") this.#rounds.wake(Date.parse(data.due));
      if (type !== "Failed" && type !== "Delivered") continue;
      if (data.reportDue !== undefined) this.#rounds.wake(Date.parse(data.reportDue));
    }
  }

  async #sendAll(): Promise<void> {
    while (this.#rounds.isOpen && await this.#sendPage());
  }

  /** Sends what is due of the first page; false when nothing was. */
  async #sendPage(): Promise<boolean> {
    const { clock, view } = this.#ports;
    this.#forgetPassed();
    const all = await view.reports(PAGE + this.#passed.size);
    const now = clock.now();
    const rows = all.filter(({ stream }) => !this.#passed.has(stream));
    const again = this.#sent;
    this.#sent = new Set();
    const due = rows.filter((row) => row.report_due! <= now);
    for (const { stream } of due) {
      if (again.has(stream)) this.#passOver(stream, new Error("it was sent, and is due again"));
    }
    const fresh = due.filter(({ stream }) => !again.has(stream));
    for (const about of ["end", "delay"] as const) {
      const these = fresh.filter((row) => aboutOf(row) === about);
      for (const submission of new Set(these.map((row) => row.submission))) {
        if (!this.#rounds.isOpen) return false;
        await this.#sendOf(submission, about);
      }
    }
    const next = rows[due.length]?.report_due;
    if (next) this.#rounds.wake(next);
    else if (this.#passed.size > 0) this.#rounds.wake(now + LONGEST_SLEEP);
    return due.length > 0;
  }

  #forgetPassed(): void {
    const now = this.#ports.clock.monotonic();
    for (const [stream, until] of this.#passed) if (until <= now) this.#passed.delete(stream);
  }

  async #sendOf(submission: string, about: "delay" | "end"): Promise<void> {
    const { view } = this.#ports;
    const rows = await view.reportsOf(submission, about, MAX_RECIPIENTS + this.#passed.size);
    const group: Due[] = [];
    const waiting = rows.filter(({ stream }) => !this.#passed.has(stream));
    for (const row of waiting.slice(0, MAX_RECIPIENTS)) {
      const due = await this.#load(row, about);
      if (due) group.push(due);
    }
    if (await this.#send(group) || group.length < 2) return;
    // One of them may be what it failed for: the others are not to wait with it.
    for (const due of group) {
      this.#passed.delete(due.stream);
      await this.#send([due]);
    }
  }

  async #load(row: QueueRow, about: "delay" | "end"): Promise<Due | undefined> {
    const { store, view } = this.#ports;
    const { stream } = row;
    try {
      const state = fold(await store.readStream(stream));
      if (state?.reportDue !== undefined) {
        const report = dueReport(stream, state);
        const delayed = report.kind === "delayed";
        if (delayed === (about === "delay")) return { stream, version: state.version, report };
      }
    } catch (cause) {
      if (cause instanceof StoreUnavailable) throw cause;
      this.#passOver(stream, cause);
      await quarantine(this.#ports, stream, cause); // one that has ended stays as it is
      return undefined;
    }
    // What is delayed lives on: another event may have come since the row was read.
    if ((await view.get(stream))?.version !== row.version) return undefined;
    this.#passOver(stream, new Error("its row says that a report is due, and its events do not"));
    return undefined;
  }

  #passOver(stream: string, cause: unknown): void {
    const { clock, log } = this.#ports;
    this.#passed.set(stream, clock.monotonic() + AFTER_FAULT);
    log.error("the report to the sender is not made; it stays due", {
      stream,
      reason: describe(cause).message,
    });
  }

  /** Sends one report for all of them; false when that ended in a fault of our own code. */
  async #send(group: readonly Due[]): Promise<boolean> {
    const [first, ...others] = group.map(({ report }) => report);
    if (!first) return true;
    const { reporter, store, ids, clock } = this.#ports;
    try {
      const composed = await reporter.compose([first, ...others]);
      const dsn = reportStream(first, composed, ids, clock.now());
      const notes = group.map(({ stream, version, report: { kind } }): StreamAppend => {
        const sent: Fact = { type: "DSNSent", data: { kind, dsn: dsn.stream } };
        return { stream, expectedVersion: version, facts: [sent] };
      });
      try {
        await store.append([...notes, dsn], [composed.body]);
      } catch (cause) {
        await composed.discard();
        throw cause;
      }
      for (const { stream } of group) this.#sent.add(stream);
      return true;
    } catch (cause) {
      if (cause instanceof StoreUnavailable) throw cause;
      if (cause instanceof WrongVersion) return true; // looked at anew with the next page
      for (const { stream } of group) this.#passOver(stream, cause);
      return false;
    }
  }
}

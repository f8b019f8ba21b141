/** The queue view over the virtual disk: the queries of QueueView, answered by plain scans. */
import type {
  QueueFilter,
  QueueRow,
  QueueState,
  QueueView,
  WaitLimit,
} from "../../events/projections/queue.ts";
import { QUEUE_STATES, queueProjection } from "../../events/projections/queue.ts";
import { StoreUnavailable } from "../../events/store.ts";
import type { Disk } from "./disk.ts";
import type { Process } from "./process.ts";

export class VirtualQueueView implements QueueView {
  constructor(readonly disk: Disk, readonly process: Process) {}

  get(stream: string): Promise<QueueRow | undefined> {
    return this.#ask(() => this.#rows().find((row) => row.stream === stream));
  }

  due(
    now: number,
    limit: number,
    after?: { readonly due: number; readonly stream: string },
  ): Promise<QueueRow[]> {
    return this.#ask(() =>
      this.#rows()
        .filter((row) => row.state === "queued" && row.due! <= now)
        .filter((row) =>
          !after || row.due! > after.due || (row.due === after.due && row.stream > after.stream)
        )
        .sort((a, b) => a.due! - b.due! || compare(a.stream, b.stream))
        .slice(0, limit)
    );
  }

  nextDue(after: number): Promise<number | undefined> {
    return this.#ask(() => {
      let next: number | undefined;
      for (const { state, due } of this.#rows()) {
        if (state === "queued" && due! > after && due! < (next ?? Infinity)) next = due!;
      }
      return next;
    });
  }

  waiting(
    by: WaitLimit,
    upTo: number,
    limit: number,
    after?: { readonly at: number; readonly stream: string },
  ): Promise<QueueRow[]> {
    return this.#ask(() =>
      this.#rows()
        .filter((row) => row.state === "queued" && row[by] !== null && row[by] <= upTo)
        .filter((row) =>
          !after || row[by]! > after.at || (row[by] === after.at && row.stream > after.stream)
        )
        .sort((a, b) => a[by]! - b[by]! || compare(a.stream, b.stream))
        .slice(0, limit)
    );
  }

  nextWaiting(by: WaitLimit, after: number): Promise<number | undefined> {
    return this.#ask(() => {
      let next: number | undefined;
      for (const row of this.#rows()) {
        const at = row[by];
        if (row.state !== "queued" || at === null || at <= after) continue;
        next = Math.min(next ?? at, at);
      }
      return next;
    });
  }

  attempting(limit: number): Promise<QueueRow[]> {
    return this.#ask(() =>
      this.#rows().filter((row) => row.state === "attempting").slice(0, limit)
    );
  }

  reports(limit: number): Promise<QueueRow[]> {
    return this.#ask(() =>
      this.#rows()
        .filter((row) => row.report_due !== null)
        .sort((a, b) => a.report_due! - b.report_due! || compare(a.stream, b.stream))
        .slice(0, limit)
    );
  }

  reportsOf(submission: string, about: "delay" | "end", limit: number): Promise<QueueRow[]> {
    return this.#ask(() =>
      this.#rows()
        .filter((row) => row.report_due !== null && row.submission === submission)
        .filter((row) => (row.finished === null) === (about === "delay"))
        .sort((a, b) => compare(a.stream, b.stream))
        .slice(0, limit)
    );
  }

  list(filter: QueueFilter, page: Parameters<QueueView["list"]>[1]): Promise<QueueRow[]> {
    const { sort = "created", descending = false, limit, offset = 0 } = page;
    return this.#ask(() =>
      this.#rows()
        .filter((row) => matches(row, filter))
        .sort((a, b) => (compare(a[sort] ?? "", b[sort] ?? "")) * (descending ? -1 : 1))
        .slice(offset, offset + limit)
    );
  }

  count(filter: QueueFilter): Promise<number> {
    return this.#ask(() => this.#rows().filter((row) => matches(row, filter)).length);
  }

  depth(): Promise<Record<QueueState, number>> {
    return this.#ask(() => {
      const { counts } = this.disk.table(queueProjection.name);
      const depth = QUEUE_STATES.map((state) => [state, counts.get(state) ?? 0]);
      return Object.fromEntries(depth) as Record<QueueState, number>;
    });
  }

  #rows(): QueueRow[] {
    return [...this.disk.table(queueProjection.name).rows.values()] as QueueRow[];
  }

  #ask<T>(answer: () => T): Promise<T> {
    return this.process.call("asking the queue view", this.disk.readTime(), () => {
      const error = this.disk.readError();
      if (error) throw new StoreUnavailable(error.message);
      return answer();
    });
  }
}

const compare = (a: string | number, b: string | number): number => a < b ? -1 : a > b ? 1 : 0;

function matches(row: QueueRow, filter: QueueFilter): boolean {
  const { ids, from, to, toDomain, account, state, error, before, after } = filter;
  return (!ids || ids.includes(row.stream)) &&
    (from === undefined || row.sender === from) &&
    (to === undefined || row.recipient === to) &&
    (toDomain === undefined || row.domain === toDomain.toLowerCase()) &&
    (account === undefined || row.account === account) &&
    (state === undefined || row.state === state) &&
    (error === undefined ||
      (row.last_error ?? "").toLowerCase().includes(error.toLowerCase())) &&
    (before === undefined || row.created < before) &&
    (after === undefined || row.stream > after);
}

/**
 * The embedded engine with its commits on a thread of their own (commit_thread.ts).
 *
 * A commit waits for the disk, and through a synchronous handle the whole process would wait with
 * it: connections that nobody reads, timers that ring late, seconds of it on a disk under load.
 * Here the log gathers its next batch meanwhile, so that batches grow with the time a commit takes.
 *
 * Everything but `commit` goes to the handle of this thread: WAL lets it read beside the other,
 * and it sees a transaction from the moment it is durable. It writes only where no commit can be
 * under way: at start, and to recover.
 */
import type { Answer, Request } from "./commit_thread.ts";
import type { Committed, StorageEngine, Transaction } from "./engine.ts";
import type { Projection, Row } from "./projection.ts";
import { type SqliteEngine, written } from "./sqlite_engine.ts";
import type { TableShape } from "./sqlite_projections.ts";

export class ThreadedEngine implements StorageEngine {
  readonly #inner: SqliteEngine;
  readonly #path: string;
  readonly #tables = new Map<string, TableShape>();
  /** Started by the first commit, and by the first after a failure. */
  #thread: CommitThread | undefined;

  /** @param inner open for writing on the database at `path`; closed with this engine */
  constructor(inner: SqliteEngine, path: string) {
    this.#inner = inner;
    this.#path = path;
  }

  async commit(transaction: Transaction): Promise<Committed> {
    if (!this.#thread) {
      this.#thread = new CommitThread();
      await this.#thread.ask({ ask: "open", path: this.#path, tables: [...this.#tables.values()] });
    }
    return await this.#thread.ask({
      ask: "commit",
      transaction: written(transaction),
    }) as Committed;
  }

  async recover(): Promise<void> {
    await this.#endThread();
    this.#inner.recover();
  }

  head() {
    return this.#inner.head();
  }

  streamHead(stream: string) {
    return this.#inner.streamHead(stream);
  }

  readStream(stream: string) {
    return this.#inner.readStream(stream);
  }

  readAll(after: number, limit: number) {
    return this.#inner.readAll(after, limit);
  }

  rows(projection: string, keys: readonly string[]) {
    return this.#inner.rows(projection, keys);
  }

  body(sha256: string) {
    return this.#inner.body(sha256);
  }

  checkpoints(after: number, limit: number) {
    return this.#inner.checkpoints(after, limit);
  }

  lastCheckpoint() {
    return this.#inner.lastCheckpoint();
  }

  prepare(projection: Projection<Row>) {
    const { name, columns } = projection;
    this.#tables.set(name, { name, columns });
    return this.#inner.prepare(projection);
  }

  rebuild(...step: Parameters<SqliteEngine["rebuild"]>) {
    this.#inner.rebuild(...step);
  }

  async close(): Promise<void> {
    await this.#endThread();
    this.#inner.close();
  }

  async #endThread(): Promise<void> {
    const thread = this.#thread;
    this.#thread = undefined;
    await thread?.end();
  }
}

interface Waiter {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** The thread, seen from outside: answers come in the order of the requests. */
class CommitThread {
  readonly #worker = new Worker(import.meta.resolve("./commit_thread.ts"), {
    type: "module",
    name: "commit",
  });
  readonly #waiters: Waiter[] = [];
  #dead: Error | undefined;

  constructor() {
    this.#worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      const waiter = this.#waiters.shift();
      if (data.done) waiter?.resolve(data.value);
      else waiter?.reject(new Error(data.why));
    };
    this.#worker.onerror = (event) => {
      event.preventDefault(); // it ends the thread, not the process
      this.#die(new Error(`the commit thread ended: ${event.message}`));
    };
    this.#worker.onmessageerror = () => this.#die(new Error("the commit thread said nonsense"));
  }

  ask(request: Request): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#dead) return reject(this.#dead);
      this.#worker.postMessage(request);
      this.#waiters.push({ resolve, reject });
    });
  }

  /** Closes its handle and ends it. Never throws. */
  async end(): Promise<void> {
    try {
      await this.ask({ ask: "close" });
    } catch {
      // A thread that is dead has closed its handle with it.
    }
    this.#worker.terminate();
  }

  #die(error: Error): void {
    this.#dead = error;
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
  }
}

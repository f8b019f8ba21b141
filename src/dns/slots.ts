/**
 * A bound on how many things happen at once: here, open sockets. Who comes late waits in line.
 */
export class Slots {
  #free: number;
  readonly #line = new Set<() => void>();

  constructor(limit: number) {
    this.#free = limit;
  }

  /**
   * Runs `work` when a slot is free, and frees it afterwards.
   * @throws the signal's reason when it aborts while waiting
   */
  async run<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    await this.#take(signal);
    try {
      return await work();
    } finally {
      const [next] = this.#line;
      if (next) next(); // the slot passes on without being free in between
      else this.#free++;
    }
  }

  #take(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#free > 0) {
      this.#free--;
      return Promise.resolve();
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const leave = () => {
      this.#line.delete(enter);
      reject(signal.reason);
    };
    const enter = () => {
      this.#line.delete(enter);
      signal.removeEventListener("abort", leave);
      resolve();
    };
    this.#line.add(enter);
    signal.addEventListener("abort", leave);
    return promise;
  }
}

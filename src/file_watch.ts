/**
 * FileWatch: whether files have changed since they were last looked at, by what the file system
 * says of them. They are looked at when somebody asks, and no more often than they have to be.
 */
import type { Clock } from "../actors/ports.ts";

export class FileWatch {
  #seen: string;
  #lookedAt: number;

  /** @param interval milliseconds between two looks at least */
  constructor(
    private readonly files: readonly string[],
    private readonly clock: Clock,
    private readonly interval: number,
  ) {
    this.#seen = this.#look();
    this.#lookedAt = clock.monotonic();
  }

  /** True once after each change, of a file that is gone or came too. */
  changed(): boolean {
    const now = this.clock.monotonic();
    if (now - this.#lookedAt < this.interval) return false;
    this.#lookedAt = now;
    const found = this.#look();
    if (found === this.#seen) return false;
    this.#seen = found;
    return true;
  }

  #look(): string {
    return this.files.map((file) => {
      try {
        const { mtime, ctime, size, ino } = Deno.statSync(file);
        return `${mtime?.getTime()} ${ctime?.getTime()} ${size} ${ino}`;
      } catch (error) {
        return error instanceof Error ? error.name : String(error);
      }
    }).join("\n");
  }
}

/**
 * A database beside the one that is examined: what a million streams add up to is kept there and
 * not in memory. It holds the projections folded anew, and the streams that are broken.
 */
import { DatabaseSync } from "node:sqlite";
import type { Projection, Row } from "../projection.ts";
import { bringInStep } from "../rebuild.ts";
import { SqliteEngine } from "../sqlite_engine.ts";

export class Scratch {
  readonly #broken: DatabaseSync;

  private constructor(readonly dir: string) {
    this.#broken = new DatabaseSync(`${dir}/broken.db`);
    this.#broken.exec(`PRAGMA synchronous = OFF;
      CREATE TABLE broken (stream TEXT PRIMARY KEY) STRICT, WITHOUT ROWID`);
  }

  static async make(): Promise<Scratch> {
    return new Scratch(await Deno.makeTempDir({ prefix: "postledger-doctor-" }));
  }

  get database(): string {
    return `${this.dir}/rebuilt.db`;
  }

  addBroken(stream: string): void {
    this.#broken.prepare("INSERT OR IGNORE INTO broken VALUES (?)").run(stream);
  }

  isBroken(stream: string): boolean {
    return this.#broken.prepare("SELECT 1 FROM broken WHERE stream = ?").get(stream) !== undefined;
  }

  get anyBroken(): boolean {
    return this.#broken.prepare("SELECT 1 FROM broken LIMIT 1").get() !== undefined;
  }

  /** Folds the log into fresh tables, with the code that a start does it with. */
  async rebuild(log: SqliteEngine, projections: readonly Projection<Row>[]): Promise<void> {
    const engine = new SqliteEngine(this.database);
    try {
      for (const projection of projections) {
        await bringInStep({
          prepare: () => engine.prepare({ ...projection, indexes: {} }),
          readAll: (after, limit) => log.readAll(after, limit),
          rows: (name, keys) => engine.rows(name, keys),
          rebuild: (_, step) => engine.rebuild(projection, step),
        }, projection);
      }
    } finally {
      engine.close();
    }
  }

  async remove(): Promise<void> {
    this.#broken.close();
    await Deno.remove(this.dir, { recursive: true });
  }
}

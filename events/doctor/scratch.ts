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
  #rebuilt: SqliteEngine | undefined;

  private constructor(readonly dir: string) {
    this.#broken = new DatabaseSync(`${dir}/broken.db`);
    this.#broken.exec(`PRAGMA synchronous = OFF;
      CREATE TABLE broken (stream TEXT PRIMARY KEY) STRICT, WITHOUT ROWID`);
  }

  static async make(): Promise<Scratch> {
    return new Scratch(await Deno.makeTempDir({ prefix: "postledger-doctor-" }));
  }

  /** The projections as `rebuild` made them. */
  get rebuilt(): DatabaseSync {
    if (!this.#rebuilt) throw new TypeError("nothing was rebuilt yet");
    return this.#rebuilt.db;
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
    const engine = this.#rebuilt = new SqliteEngine(`${this.dir}/rebuilt.db`);
    for (const projection of projections) {
      await bringInStep({
        prepare: () => engine.prepare({ ...projection, indexes: {} }),
        readAll: (after, limit) => log.readAll(after, limit),
        rows: (name, keys) => engine.rows(name, keys),
        rebuild: (_, step) => engine.rebuild(projection, step),
      }, projection);
    }
  }

  async remove(): Promise<void> {
    this.#broken.close();
    this.#rebuilt?.close();
    await Deno.remove(this.dir, { recursive: true });
  }
}

/** The log as an engine has it, for verifying, exporting and archiving. */
import type { RawLog, StorageEngine } from "./engine.ts";

type Engine = Pick<
  StorageEngine,
  "head" | "lastCheckpoint" | "readAll" | "readStream" | "checkpoints"
>;

/** Promises that reject where the engine throws. */
export const rawLog = (engine: Engine): RawLog => ({
  newest: async () => {
    const checkpoint = (await engine.lastCheckpoint())?.number ?? 0;
    return { checkpoint, position: await engine.head() };
  },
  events: async (after, limit) => await engine.readAll(after, limit),
  stream: async (stream) => await engine.readStream(stream),
  checkpoints: async (after, limit) => await engine.checkpoints(after, limit),
});

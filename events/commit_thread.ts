/**
 * The thread that commits, started by threaded_engine.ts: it has a handle of its own on the
 * database, does what it is asked, one thing after another, and answers in the same order.
 */
import { SqliteEngine, type Written } from "./sqlite_engine.ts";
import type { TableShape } from "./sqlite_projections.ts";

export type Request =
  | { readonly ask: "open"; readonly path: string; readonly tables: readonly TableShape[] }
  | { readonly ask: "commit"; readonly transaction: Written }
  | { readonly ask: "close" };

export type Answer =
  | { readonly done: true; readonly value: unknown }
  | { readonly done: false; readonly why: string };

/** The part of a worker's global scope that is used here. */
interface Thread {
  onmessage: ((event: MessageEvent<Request>) => void) | null;
  postMessage(answer: Answer): void;
}

const thread = globalThis as unknown as Thread;
let engine: SqliteEngine | undefined;

function obey(request: Request): unknown {
  switch (request.ask) {
    case "open":
      engine = new SqliteEngine(request.path);
      for (const table of request.tables) engine.use(table);
      return undefined;
    case "commit":
      if (!engine) throw new Error("the database is not open");
      return engine.write(request.transaction);
    case "close":
      engine?.close();
      engine = undefined;
      return undefined;
  }
}

thread.onmessage = ({ data }) => {
  try {
    thread.postMessage({ done: true, value: obey(data) });
  } catch (error) {
    thread.postMessage({ done: false, why: error instanceof Error ? error.message : `${error}` });
  }
};

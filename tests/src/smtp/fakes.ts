/** In-memory ports for the listener: they keep what they are given, and fail when told to. */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import type { BodyStore, Clock, Log, Submission, Submitter } from "../../../actors/ports.ts";
import {
  BodyMissing,
  type BodyReader,
  type BodyWriter,
  type StagedBody,
} from "../../../events/store.ts";

export const realClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  timer(ms, run) {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  },
};

export class MemoryBodies implements BodyStore {
  readonly bodies = new Map<string, Buffer>();
  /** Bodies begun, and neither finished nor discarded. */
  unfinished = 0;
  created = 0;
  discarded = 0;
  /** The largest chunk that a writer was given. */
  largestWrite = 0;
  /** Thrown by `write`, when set. */
  failWith: Error | undefined;
  /** When false, bodies are hashed and counted, and not kept. */
  keep = true;
  /** Awaited in every write. */
  beforeWrite: () => Promise<void> = () => Promise.resolve();

  create(): BodyWriter {
    this.created++;
    this.unfinished++;
    const hash = createHash("sha256");
    const chunks: Buffer[] = [];
    let size = 0;
    let over = false;
    const end = () => {
      if (!over) this.unfinished--;
      over = true;
    };
    return {
      write: async (chunk) => {
        await this.beforeWrite();
        if (this.failWith) throw this.failWith;
        this.largestWrite = Math.max(this.largestWrite, chunk.length);
        hash.update(chunk);
        size += chunk.length;
        if (this.keep) chunks.push(Buffer.from(chunk));
      },
      finish: () => {
        end();
        const sha256 = hash.digest("hex");
        if (this.keep) this.bodies.set(sha256, Buffer.concat(chunks));
        return Promise.resolve<StagedBody>({ sha256, size });
      },
      discard: () => {
        end();
        this.discarded++;
        return Promise.resolve();
      },
    };
  }

  open(sha256: string): Promise<BodyReader> {
    const body = this.bodies.get(sha256);
    if (!body) return Promise.reject(new BodyMissing(sha256));
    return Promise.resolve({
      size: body.length,
      async *chunks() {
        for (let at = 0; at < body.length; at += 65536) yield body.subarray(at, at + 65536);
      },
    });
  }
}

export class MemorySubmitter implements Submitter {
  readonly submissions: Submission[] = [];
  #next = 1;
  failWith: Error | undefined;
  beforeSubmit: () => Promise<void> = () => Promise.resolve();

  newSubmissionId(): string {
    return `S${this.#next++}`;
  }

  async submit(submission: Submission) {
    await this.beforeSubmit();
    if (this.failWith) throw this.failWith;
    this.submissions.push(submission);
    return submission.recipients.map(({ rcptTo }, i) => ({
      stream: `${submission.id}-${i}`,
      rcptTo,
    }));
  }
}

export class MemoryLog implements Log {
  readonly lines: { readonly level: string; readonly message: string }[] = [];
  info(message: string) {
    this.lines.push({ level: "info", message });
  }
  warn(message: string, fields?: Record<string, unknown>) {
    this.lines.push({ level: "warn", message: `${message} ${JSON.stringify(fields ?? {})}` });
  }
  error(message: string, fields?: Record<string, unknown>) {
    this.lines.push({ level: "error", message: `${message} ${JSON.stringify(fields ?? {})}` });
  }
}

/** A body store in memory, for the tests of what reads and writes bodies. */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import type { BodyReader, BodyStore, BodyWriter } from "../../../actors/ports.ts";
import { BodyMissing, type StagedBody, StoreUnavailable } from "../../../events/store.ts";

export class MemoryBodies implements BodyStore {
  readonly kept = new Map<string, Buffer>();
  /** Writers that were neither finished nor discarded. */
  unfinished = 0;
  discarded = 0;
  /** Octets handed out to readers. */
  read = 0;
  failsAfter = Infinity;

  put(text: string | Uint8Array): string {
    const octets = typeof text === "string" ? Buffer.from(text) : Buffer.from(text);
    const sha256 = createHash("sha256").update(octets).digest("hex");
    this.kept.set(sha256, octets);
    return sha256;
  }

  create(): BodyWriter {
    const chunks: Uint8Array[] = [];
    let size = 0;
    this.unfinished++;
    return {
      write: (chunk) => {
        size += chunk.length;
        if (size > this.failsAfter) return Promise.reject(new StoreUnavailable("disk full"));
        chunks.push(chunk.slice());
        return Promise.resolve();
      },
      finish: (): Promise<StagedBody> => {
        this.unfinished--;
        const octets = Buffer.concat(chunks);
        return Promise.resolve({ sha256: this.put(octets), size: octets.length, inline: octets });
      },
      discard: () => {
        this.discarded++;
        return Promise.resolve();
      },
    };
  }

  open(sha256: string): Promise<BodyReader> {
    const octets = this.kept.get(sha256);
    if (!octets) return Promise.reject(new BodyMissing(sha256));
    const count = (n: number) => this.read += n;
    return Promise.resolve({
      size: octets.length,
      async *chunks() {
        for (let at = 0; at < octets.length; at += 10_000) {
          const chunk = octets.subarray(at, at + 10_000);
          count(chunk.length);
          yield await Promise.resolve(chunk);
        }
      },
    });
  }
}

/**
 * The BodyStore: message content beside the log.
 *
 * Up to 256 KiB a body stays in memory until its append, which puts it into the database in the
 * same transaction. A larger one goes to a file as it comes in. Whether a body is needed is the
 * engine's count of the rows that name it; a file is removed after the commit that made it
 * needless, but never while the same content is staged and waits for its own append.
 */
import { createHash } from "node:crypto";
import { messageOf } from "./decode.ts";
import type { BodyFile, BodyFiles, OpenBodyFile, StorageEngine } from "./engine.ts";
import {
  BodyDamaged,
  BodyMissing,
  type BodyReader,
  type BodyStore,
  type BodyWriter,
  type StagedBody,
  StoreUnavailable,
} from "./store.ts";

export const INLINE_LIMIT = 256 * 1024;
const CHUNK = 64 * 1024;

export class Bodies implements BodyStore {
  /** How many writers have finished a file of this content that no append has taken yet. */
  readonly #staged = new Map<string, number>();
  readonly #writers = new WeakMap<StagedBody, Writer>();
  /** Files that are being removed: a name is given anew only when that is over. */
  readonly #removing = new Map<string, Promise<void>>();

  constructor(
    private readonly engine: Pick<StorageEngine, "body">,
    private readonly files: BodyFiles,
  ) {}

  create(): BodyWriter {
    return new Writer(this.files, {
      staging: async (sha256) => {
        this.#staged.set(sha256, (this.#staged.get(sha256) ?? 0) + 1);
        await this.#removing.get(sha256);
      },
      staged: (body, writer) => this.#writers.set(body, writer),
      unstaged: (sha256) => this.#unstage(sha256),
      abandoned: (sha256) => this.#removeUnlessNeeded(sha256),
    });
  }

  async open(sha256: string): Promise<BodyReader> {
    const stored = await unavailableAs("read", () => this.engine.body(sha256));
    if (!stored) throw new BodyMissing(sha256);
    const { octets } = stored;
    if (octets) {
      if (createHash("sha256").update(octets).digest("hex") !== sha256) {
        throw new BodyDamaged(sha256);
      }
      return { size: octets.length, chunks: () => slices(octets) };
    }
    const file = await unavailableAs("read", () => this.files.open(sha256));
    if (!file) throw new BodyMissing(sha256);
    file.close();
    if (file.size !== stored.size) throw new BodyDamaged(sha256);
    return { size: file.size, chunks: () => this.#chunks(sha256) };
  }

  /** The log has these now. */
  taken(bodies: readonly StagedBody[]): void {
    for (const body of bodies) this.#writers.get(body)?.taken();
  }

  /** The log needs these files no more. */
  freed(sha256: readonly string[]): void {
    for (const one of sha256) void this.#removeUnlessNeeded(one);
  }

  /** Resolves when no removal is under way. */
  async settled(): Promise<void> {
    while (this.#removing.size > 0) await Promise.all(this.#removing.values());
  }

  /** At start, before anything is staged: removes files that the log does not know. */
  async sweep(): Promise<number> {
    let swept = 0;
    for await (const sha256 of this.files.sweep()) {
      if (await this.engine.body(sha256)) continue;
      await this.files.remove(sha256);
      swept += 1;
    }
    return swept;
  }

  #unstage(sha256: string): void {
    const left = (this.#staged.get(sha256) ?? 0) - 1;
    if (left > 0) this.#staged.set(sha256, left);
    else this.#staged.delete(sha256);
  }

  /** One removal at a time per file: what is asked meanwhile is decided anew. */
  async #removeUnlessNeeded(sha256: string): Promise<void> {
    const removal = (this.#removing.get(sha256) ?? Promise.resolve())
      .then(() => this.#remove(sha256))
      .catch(() => {
        // Not knowing, or not being able to: the sweep at the next start decides.
      })
      .finally(() => {
        if (this.#removing.get(sha256) === removal) this.#removing.delete(sha256);
      });
    this.#removing.set(sha256, removal);
    await removal;
  }

  async #remove(sha256: string): Promise<void> {
    const needed = await this.engine.body(sha256);
    if (needed || this.#staged.has(sha256)) return;
    await this.files.remove(sha256);
  }

  async *#chunks(sha256: string): AsyncIterable<Uint8Array> {
    const file: OpenBodyFile | undefined = await this.files.open(sha256);
    if (!file) throw new BodyMissing(sha256);
    const hash = createHash("sha256");
    try {
      for (;;) {
        const buffer = new Uint8Array(CHUNK);
        const n = await unavailableAs("read", () => file.read(buffer));
        if (n === null) break;
        hash.update(buffer.subarray(0, n));
        yield buffer.subarray(0, n);
      }
      // Whoever sends it has not ended the message yet, and does not.
      if (hash.digest("hex") !== sha256) throw new BodyDamaged(sha256);
    } finally {
      file.close();
    }
  }
}

/** What a writer tells the store. */
interface Staging {
  /** Called before the name is given. */
  staging(sha256: string): Promise<void>;
  staged(body: StagedBody, writer: Writer): void;
  unstaged(sha256: string): void;
  /** Nobody appended it. */
  abandoned(sha256: string): Promise<void>;
}

class Writer implements BodyWriter {
  readonly #hash = createHash("sha256");
  #chunks: Uint8Array[] = [];
  #size = 0;
  #file: BodyFile | undefined;
  /** Set while a file of ours is protected. */
  #protects: string | undefined;
  #over = false;

  constructor(private readonly files: BodyFiles, private readonly staging: Staging) {}

  async write(chunk: Uint8Array): Promise<void> {
    if (this.#over) throw new StoreUnavailable("this body has been finished or discarded");
    this.#hash.update(chunk);
    this.#size += chunk.length;
    try {
      if (this.#file) return await this.#file.write(chunk);
      this.#chunks.push(chunk.slice());
      if (this.#size <= INLINE_LIMIT) return;
      this.#file = await this.files.create();
      for (const waiting of this.#chunks.splice(0)) await this.#file.write(waiting);
    } catch (cause) {
      await this.discard();
      throw unavailable("write", cause);
    }
  }

  async finish(): Promise<StagedBody> {
    if (this.#over) throw new StoreUnavailable("this body has been finished or discarded");
    this.#over = true;
    const sha256 = this.#hash.digest("hex");
    if (!this.#file) return { sha256, size: this.#size, inline: join(this.#chunks, this.#size) };
    this.#protects = sha256;
    try {
      await this.staging.staging(sha256);
      await this.#file.keep(sha256);
    } catch (cause) {
      await this.discard();
      throw unavailable("write", cause);
    }
    this.#file = undefined;
    const body: StagedBody = { sha256, size: this.#size };
    this.staging.staged(body, this);
    return body;
  }

  async discard(): Promise<void> {
    this.#over = true;
    this.#chunks = [];
    const file = this.#file;
    const sha256 = this.#protects;
    this.#file = undefined;
    this.#protects = undefined;
    await file?.discard();
    if (sha256 === undefined) return;
    this.staging.unstaged(sha256);
    await this.staging.abandoned(sha256);
  }

  taken(): void {
    if (this.#protects !== undefined) this.staging.unstaged(this.#protects);
    this.#protects = undefined;
  }
}

function join(chunks: readonly Uint8Array[], size: number): Uint8Array {
  const whole = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}

async function* slices(octets: Uint8Array): AsyncIterable<Uint8Array> {
  for (let at = 0; at < octets.length; at += CHUNK) yield octets.subarray(at, at + CHUNK);
}

function unavailable(verb: string, cause: unknown): StoreUnavailable {
  return new StoreUnavailable(
    `a message body could not be ${verb === "write" ? "written" : "read"}: ${messageOf(cause)}`,
    { cause },
  );
}

async function unavailableAs<T>(verb: string, act: () => T | Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (cause) {
    throw unavailable(verb, cause);
  }
}

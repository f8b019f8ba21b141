/**
 * Files of large bodies: <dir>/<first two digits>/<sha256>, written as <dir>/tmp-<unique> first.
 * A name appears only when the octets are on disk, and `keep` resolves only when the name is too.
 */
import { syncDirectory } from "./data_folder.ts";
import type { BodyFile, BodyFiles, OpenBodyFile } from "./engine.ts";

const NAME = /^[0-9a-f]{64}$/;

export class DirectoryBodyFiles implements BodyFiles {
  /** The directory must be there. */
  constructor(private readonly dir: string) {}

  async create(): Promise<BodyFile> {
    const path = `${this.dir}/tmp-${crypto.randomUUID()}`;
    const file = await Deno.open(path, { write: true, createNew: true, mode: 0o600 });
    return new TemporaryFile(this.dir, path, file);
  }

  async open(sha256: string): Promise<OpenBodyFile | undefined> {
    try {
      const file = await Deno.open(pathOf(this.dir, sha256));
      const { size } = await file.stat();
      return { size, read: (into) => file.read(into), close: () => file.close() };
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  }

  remove(sha256: string): Promise<void> {
    return removeIfThere(pathOf(this.dir, sha256));
  }

  async *sweep(): AsyncIterable<string> {
    for (const entry of await list(this.dir)) {
      if (entry.isFile && entry.name.startsWith("tmp-")) {
        await removeIfThere(`${this.dir}/${entry.name}`);
      } else if (entry.isDirectory && /^[0-9a-f]{2}$/.test(entry.name)) {
        for (const { name } of await list(`${this.dir}/${entry.name}`)) {
          if (NAME.test(name) && name.startsWith(entry.name)) yield name;
        }
      }
    }
  }
}

class TemporaryFile implements BodyFile {
  #open = true;

  constructor(
    private readonly dir: string,
    private readonly path: string,
    private readonly file: Deno.FsFile,
  ) {}

  async write(chunk: Uint8Array): Promise<void> {
    for (let done = 0; done < chunk.length;) done += await this.file.write(chunk.subarray(done));
  }

  async keep(sha256: string): Promise<void> {
    await this.file.sync();
    this.#close();
    const parent = `${this.dir}/${sha256.slice(0, 2)}`;
    await Deno.mkdir(parent, { recursive: true, mode: 0o700 });
    await Deno.rename(this.path, pathOf(this.dir, sha256));
    await syncDirectory(parent);
    await syncDirectory(this.dir);
  }

  async discard(): Promise<void> {
    this.#close();
    // What cannot be removed now is swept at the next start.
    await removeIfThere(this.path).catch(() => {});
  }

  #close(): void {
    if (this.#open) this.file.close();
    this.#open = false;
  }
}

const pathOf = (dir: string, sha256: string): string => `${dir}/${sha256.slice(0, 2)}/${sha256}`;

async function removeIfThere(path: string): Promise<void> {
  try {
    await Deno.remove(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

async function list(path: string): Promise<Deno.DirEntry[]> {
  try {
    return await Array.fromAsync(Deno.readDir(path));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

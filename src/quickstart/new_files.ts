/**
 * NewFiles: makes files and folders that are not there yet, leaves alone those that are, and takes
 * back all that it made when something later fails. A file is written under another name, is on
 * disk, and only then gets its own.
 */
import { dirname } from "node:path";
import { syncDirectory } from "../../events/data_folder.ts";

export class NewFiles {
  readonly #made: string[] = [];
  readonly #trees = new Set<string>();

  /** A folder for the eyes of its owner alone, with those above it. @returns whether it was made */
  async folder(path: string): Promise<boolean> {
    if (await exists(path)) return false;
    const above = dirname(path);
    if (above !== path) await this.folder(above);
    await Deno.mkdir(path, { mode: 0o700 });
    this.#made.push(path);
    return true;
  }

  /** A folder that others fill: where it was made here, it is taken back with all that is in it. */
  async tree(path: string): Promise<void> {
    if (await this.folder(path)) this.#trees.add(path);
  }

  /**
   * A file with mode 0600.
   * @param check looks at what was written, under the name that it is given; throws to refuse it
   * @returns false when there was one already, which stays as it is
   */
  async file(
    path: string,
    text: string,
    check: (temporary: string) => void = () => {},
  ): Promise<boolean> {
    if (await exists(path)) return false;
    const temporary = `${path}.new`;
    await Deno.remove(temporary).catch(() => {});
    try {
      {
        using file = await Deno.open(temporary, { write: true, createNew: true, mode: 0o600 });
        const octets = new TextEncoder().encode(text);
        for (let at = 0; at < octets.length;) at += await file.write(octets.subarray(at));
        await file.sync();
      }
      check(temporary);
      // A link and not a rename: it puts nothing in the place of a file that came meanwhile.
      await Deno.link(temporary, path);
      this.#made.push(path);
    } finally {
      await Deno.remove(temporary).catch(() => {});
    }
    await syncDirectory(dirname(path));
    return true;
  }

  /** Files that something else may make here; they are taken back too, where they are new. */
  async expect(...paths: readonly string[]): Promise<void> {
    for (const path of paths) {
      if (!await exists(path)) this.#made.push(path);
    }
  }

  /** Removes what was made, the last first. */
  async takeBack(): Promise<void> {
    for (const path of this.#made.splice(0).reverse()) {
      const recursive = this.#trees.has(path);
      await Deno.remove(path, { recursive }).catch(() => {});
    }
  }
}

export async function exists(path: string): Promise<boolean> {
  try {
    await Deno.lstat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

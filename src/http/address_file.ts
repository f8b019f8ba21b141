/**
 * The file `api-address` in the data folder: where the API of a running queue is, for the commands
 * that talk to it. It is there while an HTTP listener is open, and a crash may leave it behind.
 */
import { join } from "node:path";
import type { Log } from "../../actors/ports.ts";
import type { SocketAddress } from "../config/types.ts";

export const ADDRESS_FILE = "api-address";

export class AddressFile {
  readonly #file: string;
  readonly #log: Log;
  /** Listeners that are open, the first one opened first. */
  readonly #open = new Map<string, string>();

  constructor(dataDir: string, log: Log) {
    this.#file = join(dataDir, ADDRESS_FILE);
    this.#log = log;
  }

  listening(name: string, { address, port }: SocketAddress): void {
    const host = address.includes(":") ? `[${address}]` : address;
    this.#open.set(name, `http://${host}:${port}`);
    this.#write();
  }

  closed(name: string): void {
    if (this.#open.delete(name)) this.#write();
  }

  /** A file that cannot be written costs the commands, and no mail. */
  #write(): void {
    const [url] = this.#open.values();
    try {
      if (url === undefined) return Deno.removeSync(this.#file);
      const beside = `${this.#file}.new`;
      Deno.writeTextFileSync(beside, `${url}\n`, { mode: 0o600 });
      Deno.renameSync(beside, this.#file);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound && url === undefined) return;
      this.#log.warn("commands will not find this queue", { file: this.#file, why: String(error) });
    }
  }
}

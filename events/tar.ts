/**
 * Writes a tar archive (POSIX.1-2001, pax and ustar interchange formats) to a file, entry by entry.
 * A file of 8 GiB or more has its size in a pax header, because the field of ustar ends there.
 */
const BLOCK = 512;
const MOST_IN_USTAR = 0o77777777777;

export interface TarOwner {
  readonly uid: number;
  readonly gid: number;
  /** Seconds since the epoch. */
  readonly time: number;
}

export class TarWriter {
  /** Octets written so far. */
  octets = 0;

  constructor(private readonly file: Deno.FsFile, private readonly owner: TarOwner) {}

  async folder(name: string, mode: number): Promise<void> {
    await this.#write(this.#header(`${name}/`, mode, 0, "5"));
  }

  /**
   * Adds a file.
   * @param each is given every piece of its content
   * @throws RangeError when it changes its size meanwhile
   */
  async add(
    name: string,
    path: string,
    mode: number,
    each: (piece: Uint8Array) => void = () => {},
  ): Promise<void> {
    using source = await Deno.open(path);
    const { size } = await source.stat();
    if (size > MOST_IN_USTAR) {
      const record = paxRecord("size", String(size));
      await this.#write(this.#header(`pax/${name}`, mode, record.length, "x"));
      await this.#write(record);
      await this.#pad(record.length);
    }
    await this.#write(this.#header(name, mode, Math.min(size, MOST_IN_USTAR), "0"));
    const buffer = new Uint8Array(1 << 16);
    let done = 0;
    for (let n; (n = await source.read(buffer)) !== null;) {
      const piece = buffer.subarray(0, n);
      each(piece);
      await this.#write(piece);
      done += n;
    }
    if (done !== size) throw new RangeError(`${path} changed from ${size} to ${done} octets`);
    await this.#pad(size);
  }

  /** Two blocks of zeros end an archive. */
  async end(): Promise<void> {
    await this.#write(new Uint8Array(2 * BLOCK));
  }

  #header(name: string, mode: number, size: number, type: "0" | "5" | "x"): Uint8Array {
    const { uid, gid, time } = this.owner;
    const header = new Uint8Array(BLOCK);
    const put = (at: number, text: string) => header.set(new TextEncoder().encode(text), at);
    const number = (at: number, length: number, value: number) =>
      put(at, value.toString(8).padStart(length - 1, "0"));
    if (name.length > 100) throw new RangeError(`${name} is too long a name for this archive`);
    put(0, name);
    number(100, 8, mode);
    number(108, 8, Math.min(uid, 0o7777777));
    number(116, 8, Math.min(gid, 0o7777777));
    number(124, 12, size);
    number(136, 12, time);
    put(148, " ".repeat(8)); // the checksum counts itself as blanks
    put(156, type);
    put(257, "ustar\x0000");
    number(148, 7, header.reduce((sum, octet) => sum + octet, 0));
    header[154] = 0;
    return header;
  }

  #pad(size: number): Promise<void> {
    return this.#write(new Uint8Array((BLOCK - size % BLOCK) % BLOCK));
  }

  async #write(octets: Uint8Array): Promise<void> {
    for (let at = 0; at < octets.length;) at += await this.file.write(octets.subarray(at));
    this.octets += octets.length;
  }
}

/** "LENGTH key=value\n", where LENGTH counts its own digits too. */
export function paxRecord(key: string, value: string): Uint8Array {
  const rest = ` ${key}=${value}\n`;
  let length = rest.length;
  while (`${length}${rest}`.length !== length) length = `${length}${rest}`.length;
  return new TextEncoder().encode(`${length}${rest}`);
}

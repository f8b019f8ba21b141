/**
 * Reads SQLite's write-ahead log as a file, before SQLite does (sqlite.org/fileformat2.html, 4).
 *
 * SQLite reads a WAL up to the first frame that does not check out and takes the rest for a
 * transaction that a crash cut short. Usually that is what it is. But a frame that goes bad later
 * takes every transaction behind it along, and nobody is told: mail that was acknowledged is gone.
 * The two can be told apart. A transaction is begun only when the one before it has been fsynced;
 * so where frames of a further transaction follow behind the bad frame, what is bad was on disk.
 */

export interface WalState {
  /** Frames that SQLite will use. */
  readonly frames: number;
  /** Pages that they hold, 1 is the first. */
  readonly pages: ReadonlySet<number>;
  /** Pages of the database as the last transaction leaves it; undefined when there is none. */
  readonly databasePages: number | undefined;
  /** Why transactions that were on disk would be lost; undefined when all is well. */
  readonly damage: string | undefined;
}

const HEADER = 32;
const FRAME_HEADER = 24;
const MAGIC = 0x377f0682;

const EMPTY: WalState = {
  frames: 0,
  pages: new Set(),
  databasePages: undefined,
  damage: undefined,
};

/** Reads the WAL at `path`; one that is missing or empty has no frames. */
export async function inspectWal(path: string): Promise<WalState> {
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return EMPTY;
    throw error;
  }
  try {
    const header = new Uint8Array(HEADER);
    if (!await fill(file, header)) return EMPTY;
    if (header.every((octet) => octet === 0) && await zeros(file)) return EMPTY; // never written
    return await new WalReader(file, header).read();
  } finally {
    file.close();
  }
}

type Sum = readonly [number, number];

class WalReader {
  readonly #view: DataView;
  readonly #littleEndian: boolean;
  readonly #pageSize: number;

  constructor(private readonly file: Deno.FsFile, private readonly header: Uint8Array) {
    this.#view = new DataView(header.buffer);
    // The last bit of the magic number says in which order the checksums read their words.
    this.#littleEndian = (this.#view.getUint32(0) & 1) === 0;
    this.#pageSize = this.#view.getUint32(8);
  }

  async read(): Promise<WalState> {
    let sum = this.#sum([0, 0], this.header.subarray(0, 24));
    if (
      (this.#view.getUint32(0) & ~1) !== MAGIC || !equal(sum, storedSum(this.#view, 24)) ||
      this.#pageSize < 512 || this.#pageSize > 65_536
    ) {
      return { ...EMPTY, damage: "its header is damaged, so that nothing in it can be read" };
    }
    const pages = new Set<number>();
    let pending: number[] = [];
    let frames = 0;
    let databasePages: number | undefined;
    const frame = new Uint8Array(FRAME_HEADER + this.#pageSize);
    const view = new DataView(frame.buffer);
    for (let number = 1; await fill(this.file, frame); number++) {
      sum = this.#frameSum(sum, frame);
      if (!this.#sameCycle(view) || !equal(sum, storedSum(view, 16))) {
        const lost = await this.#transactionsBehind(storedSum(view, 16));
        const damage = lost === 0
          ? undefined
          : `frame ${number} is damaged, and at least ${lost} transactions that were on disk ` +
            `stand behind it`;
        return { frames, pages, databasePages, damage };
      }
      pending.push(view.getUint32(0));
      const size = view.getUint32(4);
      if (size === 0) continue;
      for (const page of pending) pages.add(page);
      pending = [];
      frames = number;
      databasePages = size;
    }
    return { frames, pages, databasePages, damage: undefined };
  }

  /**
   * Transactions from the bad frame on that were followed by a further one: each ends in a commit
   * frame whose checksum the next frame goes on from. Frames that an earlier crash left lying
   * about do not go on from one another like that.
   */
  async #transactionsBehind(badSum: Sum): Promise<number> {
    const frame = new Uint8Array(FRAME_HEADER + this.#pageSize);
    const view = new DataView(frame.buffer);
    let before = badSum;
    let committed = false;
    let lost = 0;
    while (await fill(this.file, frame)) {
      const stored = storedSum(view, 16);
      const follows = this.#sameCycle(view) && equal(this.#frameSum(before, frame), stored);
      if (follows && committed) lost += 1;
      committed = follows && view.getUint32(4) !== 0;
      before = stored;
    }
    return lost;
  }

  /** Whether a frame has the salts of the header: else it is of an earlier cycle of the file. */
  #sameCycle(frame: DataView): boolean {
    return frame.getUint32(8) === this.#view.getUint32(16) &&
      frame.getUint32(12) === this.#view.getUint32(20);
  }

  #frameSum(before: Sum, frame: Uint8Array): Sum {
    return this.#sum(this.#sum(before, frame.subarray(0, 8)), frame.subarray(FRAME_HEADER));
  }

  #sum([s0, s1]: Sum, octets: Uint8Array): Sum {
    const view = new DataView(octets.buffer, octets.byteOffset, octets.byteLength);
    for (let at = 0; at < octets.length; at += 8) {
      s0 = (s0 + view.getUint32(at, this.#littleEndian) + s1) | 0;
      s1 = (s1 + view.getUint32(at + 4, this.#littleEndian) + s0) | 0;
    }
    return [s0 >>> 0, s1 >>> 0];
  }
}

const storedSum = (view: DataView, at: number): Sum => [view.getUint32(at), view.getUint32(at + 4)];
const equal = (a: Sum, b: Sum): boolean => a[0] === b[0] && a[1] === b[1];

/** Whether nothing but zeros follows: room that a crash left before anything was written to it. */
async function zeros(file: Deno.FsFile): Promise<boolean> {
  const buffer = new Uint8Array(65_536);
  for (;;) {
    const n = await file.read(buffer);
    if (n === null) return true;
    if (buffer.subarray(0, n).some((octet) => octet !== 0)) return false;
  }
}

/** Fills the buffer from the file; false when the file ends first. */
async function fill(file: Deno.FsFile, buffer: Uint8Array): Promise<boolean> {
  for (let at = 0; at < buffer.length;) {
    const n = await file.read(buffer.subarray(at));
    if (n === null) return false;
    at += n;
  }
  return true;
}

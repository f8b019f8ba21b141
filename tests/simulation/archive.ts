/**
 * The archive on the virtual disk, and what retention asks of the store, answered by plain scans.
 * Files are kept as they were written, without compression: they have the promises of files that
 * were fsynced. One that was begun and got no name is there until it is swept; whether one has its
 * name after a kill, or a failed fsync, is chance.
 */
import {
  ArchiveDamaged,
  type ArchiveFiles,
  type ArchiveReader,
  SpanningLog,
} from "../../events/archive.ts";
import { ArchiveLookup } from "../../events/archive_lookup.ts";
import { sha256 } from "../../events/chain.ts";
import { dayOf, DESTINATION_DAYS } from "../../events/day_streams.ts";
import type { RawEvent, RawLog } from "../../events/engine.ts";
import type { DaysOf, Row } from "../../events/projection.ts";
import { archiveProjection, type ArchiveRow } from "../../events/projections/archive.ts";
import { PROJECTIONS } from "../../events/projections/all.ts";
import { FINAL_STATES, queueProjection, type QueueRow } from "../../events/projections/queue.ts";
import type { FinishedStream, RetentionView } from "../../events/retention.ts";
import { DAY } from "./clock.ts";
import type { Disk } from "./disk.ts";
import type { Process } from "./process.ts";

/** Characters that are written at a time. */
const PIECE = 65_536;

/** The folder of the archive as one process sees it. */
export class VirtualArchiveFiles implements ArchiveFiles {
  constructor(readonly disk: Disk, readonly process: Process) {}

  async write(
    name: string,
    lines: AsyncIterable<string>,
  ): Promise<{ sha256: string; octets: number }> {
    const { archiveParts, archive } = this.disk;
    if (archive.has(name)) throw new Error(`${name} is there already`);
    await this.#write("begin an archive file", () => archiveParts.set(name, ""));
    let text = "";
    let written = 0;
    const put = () =>
      this.#write("write to an archive file", () => {
        archiveParts.set(name, text);
        written = text.length;
      });
    try {
      for await (const line of lines) {
        text += line;
        if (text.length - written >= PIECE) await put();
      }
      await put();
    } catch (cause) {
      await this.#remove(archiveParts, name);
      throw cause;
    }
    await this.#write("name an archive file", () => {
      archiveParts.delete(name);
      archive.set(name, text);
    });
    return { sha256: sha256(text), octets: new TextEncoder().encode(text).length };
  }

  async *read(name: string, hash: string): AsyncGenerator<Uint8Array> {
    const { disk, process } = this;
    const text = await process.call("read an archive file", disk.readTime(), () => {
      const error = disk.readError();
      if (error) throw new ArchiveDamaged(name, `cannot be read: ${error.message}`);
      return disk.archive.get(name);
    });
    yield* readBack(name, text, hash);
  }

  async sweep(kept: (name: string) => boolean): Promise<void> {
    const { archiveParts, archive } = this.disk;
    const superfluous = await this.process.call(
      "look through the archive",
      this.disk.readTime(),
      () => ({
        parts: [...archiveParts.keys()],
        files: [...archive.keys()].filter((name) => !kept(name)),
      }),
    );
    for (const name of superfluous.parts) await this.#remove(archiveParts, name);
    for (const name of superfluous.files) await this.#remove(archive, name);
  }

  #remove(folder: Map<string, string>, name: string): Promise<void> {
    return this.process.call("remove an archive file", this.disk.readTime(), () => {
      folder.delete(name);
    });
  }

  async #write(what: string, effect: () => void): Promise<void> {
    const { disk, process } = this;
    const killed = () => disk.dice.chance(0.5) && effect();
    process.onDeath(killed);
    await process.call(what, disk.writeTime(), () => {
      process.forget(killed);
      const { applied, error } = disk.fate();
      if (applied) effect();
      if (error) throw error;
    });
  }
}

function* readBack(name: string, text: string | undefined, hash: string): Generator<Uint8Array> {
  if (text === undefined) throw new ArchiveDamaged(name, "is missing");
  yield new TextEncoder().encode(text);
  if (sha256(text) !== hash) throw new ArchiveDamaged(name, "is not the file that was written");
}

/** As events/sqlite_retention_view.ts. */
export class VirtualRetentionView implements RetentionView {
  constructor(readonly disk: Disk, readonly process: Process) {}

  finished(after: string, limit: number): Promise<FinishedStream[]> {
    return this.#ask(() =>
      finishedStreams(this.disk)
        .filter(({ stream }) => stream > after)
        .slice(0, limit)
    );
  }

  positions(stream: string): Promise<number[]> {
    return this.#ask(() => (this.disk.streams.get(stream) ?? []).map(({ position }) => position));
  }

  events(positions: readonly number[]): Promise<RawEvent[]> {
    const { events, pruned } = this.disk;
    return this.#ask(() =>
      positions.map((position) => events[position - 1]!).filter(({ stream }) => !pruned.has(stream))
    );
  }

  lastCheckpointFrom(): Promise<number> {
    return this.#ask(() => this.disk.checkpoints.at(-1)?.from ?? 0);
  }

  #ask<T>(answer: () => T): Promise<T> {
    return this.process.call("asking the retention view", this.disk.readTime(), () => {
      const error = this.disk.readError();
      if (error) throw error;
      return answer();
    });
  }
}

/**
 * What is finished, and what never is, in the order of the names: messages, then streams of days.
 * What TLS reports need is not looked for: nobody makes them here.
 */
export function finishedStreams(disk: Disk): FinishedStream[] {
  const found: FinishedStream[] = [];
  for (const row of disk.tables.get(queueProjection.name)?.rows.values() ?? []) {
    const { stream, state, created, finished, report_due } = row as QueueRow;
    if (!FINAL_STATES.includes(state)) continue;
    found.push({ stream, created, finished: report_due === null ? finished! : Infinity });
  }
  const needed = neededUntil(disk);
  const oldest = oldestMessage(disk);
  for (const [stream, events] of disk.streams) {
    const kind = DAYS.get(stream.split(" ", 1)[0]!);
    if (!kind) continue;
    const created = dayOf(stream);
    const over = created + DAY - 1;
    const kept = kind.answersMessages && oldest <= over;
    const last = Date.parse(events.at(-1)!.time);
    const finished = kept ? Infinity : Math.max(over, last, needed.get(stream) ?? 0);
    found.push({ stream, created, finished });
  }
  return found.sort((a, b) => a.stream < b.stream ? -1 : 1);
}

/** Until when the rows of projections need streams of days. */
function neededUntil(disk: Disk): Map<string, number> {
  const needed = new Map<string, number>();
  for (const { name, days } of PROJECTIONS) {
    for (const row of days && disk.tables.get(name)?.rows.values() || []) {
      const stream = String(row[days!.from]);
      const until = days!.until?.(row) ?? Infinity;
      needed.set(stream, Math.max(needed.get(stream) ?? 0, until));
    }
  }
  return needed;
}

function oldestMessage(disk: Disk): number {
  const rows = [...disk.tables.get(queueProjection.name)?.rows.values() ?? []] as QueueRow[];
  return Math.min(Infinity, ...rows.map(({ created }) => created));
}

/** The kinds of streams of days, by the first word of their names. */
const DAYS = new Map<string, Partial<DaysOf<Row>>>([
  [DESTINATION_DAYS, {}],
  ...PROJECTIONS.flatMap(({ days }) => days ? [[days.kind, days] as const] : []),
]);

/** The files of a disk, whatever runs on it. */
const filesOnDisk = ({ archive }: Disk): ArchiveReader => ({
  async *read(name, hash) {
    yield* readBack(name, archive.get(name), hash);
  },
});

/** Store and archive of a disk together, as somebody reads them who comes later. */
export function spanningLog(disk: Disk, report: (damaged: ArchiveDamaged) => void): RawLog {
  const { events, streams, pruned, checkpoints } = disk;
  const kept = events.filter(({ stream }) => !pruned.has(stream));
  const page = <T>(from: readonly T[], after: number, limit: number, at: (one: T) => number) =>
    Promise.resolve(from.filter((one) => at(one) > after).slice(0, limit));
  return new SpanningLog(
    {
      newest: () =>
        Promise.resolve({ checkpoint: checkpoints.length, position: kept.at(-1)?.position ?? 0 }),
      events: (after, limit) => page(kept, after, limit, ({ position }) => position),
      stream: (stream) => Promise.resolve([...streams.get(stream) ?? []]),
      checkpoints: (after, limit) => page(checkpoints, after, limit, ({ number }) => number),
    },
    filesOnDisk(disk),
    report,
  );
}

/** Looks a stream up that has left, as somebody does who comes later. */
export function archiveLookup(disk: Disk): ArchiveLookup {
  const rows = () =>
    [...disk.tables.get(archiveProjection.name)?.rows.values() ?? []] as ArchiveRow[];
  const filesOf = (stream: string) =>
    rows().filter((row) => row.first_stream <= stream && stream <= row.last_stream)
      .map(({ file, hash: sha256 }) => ({ file, sha256 }));
  return new ArchiveLookup(
    { filesOf: (stream) => Promise.resolve(filesOf(stream)) },
    filesOnDisk(disk),
  );
}

/**
 * The projection of the archive: one row per file, so that the files which can hold a stream are
 * found without reading what the log says of all of them.
 */
import type { StoredEvent } from "../catalogue.ts";
import type { Projection } from "../projection.ts";

export type ArchiveRow = {
  readonly file: string;
  /** SHA-256 over it, hex. */
  readonly hash: string;
  /** The first and the last of its streams, in the order of their names. */
  readonly first_stream: string;
  readonly last_stream: string;
};

export const archiveProjection: Projection<ArchiveRow> = {
  name: "archive",
  version: 1,
  columns: {
    file: "TEXT",
    hash: "TEXT",
    first_stream: "TEXT",
    last_stream: "TEXT",
  },
  indexes: { archive_streams: "(last_stream, first_stream)" },
  key: (event) => event.type === "StreamsArchived" ? event.data.file : undefined,
  apply,
};

function apply(row: ArchiveRow | undefined, event: StoredEvent): ArchiveRow | undefined {
  if (event.type !== "StreamsArchived") return row;
  const { file, sha256: hash, first: first_stream, last: last_stream } = event.data;
  return { file, hash, first_stream, last_stream };
}

/** What reading a file takes. */
export interface KnownFile {
  readonly file: string;
  readonly sha256: string;
}

/** Queries over the rows. */
export interface ArchiveView {
  /** Files whose span of names has a stream, the newest first. @throws when it cannot be read */
  filesOf(stream: string): Promise<readonly KnownFile[]>;
}

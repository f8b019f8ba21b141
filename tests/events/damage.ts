/** Ways in which a data folder comes to harm, for tests: past the store, on the closed database. */
import { DatabaseSync } from "node:sqlite";
import { eventHash } from "../../events/chain.ts";
import type { RawEvent } from "../../events/engine.ts";

/** Runs SQL on the database with the triggers that guard the log out of the way. */
export function tamper(dataDir: string, sql: string): void {
  const db = new DatabaseSync(`${dataDir}/postledger.db`);
  try {
    db.exec(`PRAGMA trusted_schema = OFF;
      DROP TRIGGER events_are_not_changed; DROP TRIGGER events_are_not_dropped;`);
    db.exec(sql);
    db.exec(`CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
    BEGIN SELECT raise(ABORT, 'events are never rewritten'); END;
  CREATE TRIGGER events_are_not_dropped BEFORE DELETE ON events
    WHEN NOT EXISTS (SELECT 1 FROM pruning WHERE stream = OLD.stream)
    BEGIN SELECT raise(ABORT, 'events are never dropped'); END;`);
  } finally {
    db.close();
  }
}

/** Appends an event to a stream as a newer version might: hashed well, and unknown to this one. */
export function appendForeign(
  dataDir: string,
  stream: string,
  event: Pick<RawEvent, "type" | "schema" | "data">,
): void {
  const db = new DatabaseSync(`${dataDir}/postledger.db`);
  try {
    const last = db.prepare(
      "SELECT version, hash, time FROM events WHERE stream = ? ORDER BY version DESC LIMIT 1",
    ).get(stream) as { version: number; hash: string; time: string };
    const { position } = db.prepare("SELECT max(position) + 1 AS position FROM events").get() as {
      position: number;
    };
    const raw = {
      position,
      stream,
      version: last.version + 1,
      ...event,
      time: last.time,
      prev: last.hash,
    };
    db.prepare("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)").run(
      raw.position,
      raw.stream,
      raw.version,
      raw.type,
      raw.schema,
      raw.time,
      raw.data,
      raw.prev,
      eventHash(raw),
    );
  } finally {
    db.close();
  }
}

/** Flips a bit of each octet between two places of a file. */
export async function flip(path: string, from: number, to = from + 1): Promise<void> {
  const octets = await Deno.readFile(path);
  for (let at = from; at < to; at++) octets[at]! ^= 0x10;
  await Deno.writeFile(path, octets);
}

/** The octets of every file of a folder but the lock, to see whether anything was changed. */
export async function contents(dataDir: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const walk = async (dir: string) => {
    for await (const { name, isDirectory } of Deno.readDir(dir)) {
      const path = `${dir}/${name}`;
      if (isDirectory) await walk(path);
      else if (name !== "serve.lock" && !name.endsWith("-shm")) {
        const octets = new Uint8Array(await Deno.readFile(path));
        if (octets.length > 0) found.set(path, octets.toBase64()); // a reader leaves an empty WAL
      }
    }
  };
  await walk(dataDir);
  return new Map([...found].sort());
}

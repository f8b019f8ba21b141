/**
 * `deno task queue`: `list` and `show` read the data folder, of a running queue or not, and change
 * nothing; the acts of operators ask the running queue (queue_acts.ts, queue_rules.ts).
 */
import { FINAL_STATES, QUEUE_SORTS, type QueueRow } from "../../events/projections/queue.ts";
import { ArchiveDamaged } from "../../events/archive.ts";
import type { ArchiveLookup } from "../../events/archive_lookup.ts";
import { type ArchivedMessage, archivedMessage } from "../http/archived.ts";
import { messageDetailJson, messageJson } from "../http/message_json.ts";
import {
  type Command,
  CommandError,
  DATA_OPTIONS,
  JSON_OPTION,
  processTerminal,
  runOneOf,
  UsageError,
  wholeNumber,
} from "./command.ts";
import { filterOf, filterOptions, messageId, noSuchMessage, withReader } from "./data.ts";
import { messageStory } from "./message_story.ts";
import { acts } from "./queue_acts.ts";
import { destinationCommands } from "./queue_destinations.ts";
import { rules } from "./queue_rules.ts";
import { address, type Column, duration, json, octets, table, type Terminal } from "./terminal.ts";

const COLUMNS: readonly Column[] = [
  { title: "ID" },
  { title: "STATE" },
  { title: "TRIES", align: "right" },
  { title: "AGE", align: "right" },
  { title: "SIZE", align: "right" },
  { title: "NEXT", align: "right" },
  { title: "FROM", most: 40 },
  { title: "TO", most: 40 },
  { title: "LAST ERROR", most: 100 },
];

const line = (row: QueueRow, now: number): string[] => [
  row.stream,
  row.state,
  String(row.attempts),
  duration(now - row.created),
  octets(row.size),
  row.due === null ? "" : row.due <= now ? "due" : duration(row.due - now),
  address(row.sender),
  row.recipient,
  row.last_error ?? "",
];

const list: Command = {
  usage: {
    name: "queue list",
    synopsis: "[ID]… [options]",
    about:
      "Lists the messages in the queue, oldest first. Criteria add up: all of them must hold. " +
      'Those that were archived are not listed: "queue show", "replay" and "audit export" find them.',
    maxArguments: 1000,
    options: {
      ...filterOptions,
      sort: { value: "BY", about: `${QUEUE_SORTS.join(", ")} (default: created)` },
      descending: { about: "the other way round" },
      limit: { value: "N", about: "show this many (default: 100)" },
      offset: { value: "N", about: "leave out this many first" },
      ...JSON_OPTION,
      ...DATA_OPTIONS,
    },
  },
  async run(parsed, terminal) {
    const now = terminal.now();
    const filter = filterOf(parsed, now);
    const sort = QUEUE_SORTS.find((name) => name === (parsed.value("sort") ?? "created"));
    if (!sort) throw new UsageError(`--sort: it takes one of ${QUEUE_SORTS.join(", ")}`);
    const limit = wholeNumber(parsed, "limit", { fallback: 100, least: 1, most: 100_000 });
    const offset = wholeNumber(parsed, "offset", { fallback: 0, most: 1_000_000_000 });
    const [rows, total] = await withReader(parsed, async ({ view }) => {
      const page = { sort, descending: parsed.has("descending"), limit, offset };
      return [await view.list(filter, page), await view.count(filter)] as const;
    });
    if (parsed.has("json")) {
      terminal.out(
        json({ total, offset, messages: rows.map(messageJson) }),
      );
    } else {
      if (rows.length > 0) terminal.out(table(COLUMNS, rows.map((row) => line(row, now))));
      terminal.out(summary(rows.length, total, offset, filter.pending ?? false));
    }
    const ids = new Set(filter.ids ?? []);
    if (ids.size <= total) return 0;
    const missing = `${ids.size - total} of the ids are not there`;
    terminal.err(
      `postledger: queue list: ${missing}; "queue show ID" looks into the archive too\n`,
    );
    return 1;
  },
};

function summary(shown: number, total: number, offset: number, pending: boolean): string {
  if (total === 0) {
    return pending ? "The queue is empty; --all shows finished messages too.\n" : "No messages.\n";
  }
  const messages = `${total} message${total === 1 ? "" : "s"}`;
  if (shown === total) return `${messages}\n`;
  return shown === 0
    ? `${messages}, none from ${offset + 1} on\n`
    : `${offset + 1} to ${offset + shown} of ${messages}\n`;
}

const show: Command = {
  usage: {
    name: "queue show",
    synopsis: "ID [options]",
    about: "Shows a message, archived or not: envelope, state, and every attempt with its hosts, " +
      "TLS and replies.",
    maxArguments: 1,
    options: {
      transcript: { about: "show the SMTP dialogues too" },
      ...JSON_OPTION,
      ...DATA_OPTIONS,
    },
  },
  async run(parsed, terminal) {
    const [text] = parsed.positionals;
    if (text === undefined) throw new UsageError("the id of a message is missing");
    const id = messageId(text);
    const transcripts = parsed.has("transcript");
    const detail = await withReader(parsed, async ({ view, readStream, archive }) => {
      const row = await view.get(id);
      if (row) return messageDetailJson(row, await readStream(id), { transcripts, archived: null });
      const found = await archivedIn(archive, id);
      return messageDetailJson(found.row, found.events, { transcripts, archived: found.file });
    });
    if (parsed.has("json")) terminal.out(json(detail));
    else terminal.out(messageStory(detail, terminal.now(), FINAL_STATES.includes(detail.state)));
    return 0;
  },
};

/** @throws CommandError when it is not in the archive, or the file is damaged */
async function archivedIn(
  archive: Pick<ArchiveLookup, "find">,
  id: string,
): Promise<ArchivedMessage> {
  try {
    const found = await archivedMessage(archive, id);
    if (found) return found;
  } catch (error) {
    if (!(error instanceof ArchiveDamaged)) throw error;
    throw new CommandError(`${error.message}; "audit verify" shows more`);
  }
  throw noSuchMessage(id);
}

export const run = (args: readonly string[], terminal: Terminal): Promise<number> =>
  runOneOf("queue", { list, show, ...destinationCommands, ...acts, ...rules }, args, terminal);

if (import.meta.main) Deno.exit(await run(Deno.args, processTerminal));

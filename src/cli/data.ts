/** The data folder that a command looks into, and the messages in it. */
import { openReader, type StoreReader } from "../../events/open.ts";
import type { QueueFilter } from "../../events/projections/queue.ts";
import { loadConfig } from "../config/load.ts";
import type { Config } from "../config/types.ts";
import {
  BadFilter,
  FILTER_OPTIONS,
  type FilterOption,
  readFilter,
} from "../http/message_filter.ts";
import { CommandError, type Option, type Parsed, UsageError } from "./command.ts";

/** Where messages are kept when neither --data nor a config says: what a config defaults to. */
export const DEFAULT_DATA = "./data";

/**
 * The config of --config.
 * @throws ConfigError
 */
export function configOf(parsed: Parsed): Config | undefined {
  const file = parsed.value("config");
  return file === undefined ? undefined : loadConfig({ file, env: Deno.env });
}

/** The data folder of --data or --config. @throws ConfigError */
export const dataFolderOf = (parsed: Parsed): string =>
  parsed.value("data") ?? configOf(parsed)?.dataDir ?? DEFAULT_DATA;

/**
 * Runs `use` with the data folder of --data or --config, open for reading only.
 * @throws CommandError when there is none, ConfigError
 */
export async function withReader<T>(
  parsed: Parsed,
  use: (reader: StoreReader) => Promise<T>,
): Promise<T> {
  const reader = openReader(dataFolderOf(parsed));
  try {
    return await use(reader);
  } finally {
    reader.close();
  }
}

const MESSAGE_ID = /^[0-9A-HJKMNP-TV-Z]{26}$/;

/**
 * The id of a message as it was typed, in either case.
 * @throws UsageError when it cannot be one
 */
export function messageId(text: string): string {
  const id = text.toUpperCase();
  if (!MESSAGE_ID.test(id)) {
    throw new UsageError(`"${text}" is not a message id; "queue list" shows them`);
  }
  return id;
}

export const noSuchMessage = (id: string): CommandError =>
  new CommandError(`there is no message ${id}`);

/** The options that select messages. */
export const filterOptions: Readonly<Record<string, Option>> = {
  ...Object.fromEntries(
    Object.entries(FILTER_OPTIONS).map(([name, [value, about]]) => [name, { value, about }]),
  ),
  all: { about: "messages in every state, finished ones too" },
};

/**
 * The filter that arguments and options make together. Messages that are finished are meant only
 * when they are named: by id, by --state, or with --all.
 * @throws UsageError
 */
export function filterOf(parsed: Parsed, now: number): QueueFilter {
  const criteria: Partial<Record<FilterOption, string>> = {};
  for (const option of Object.keys(FILTER_OPTIONS) as FilterOption[]) {
    const value = parsed.value(option);
    if (value !== undefined) criteria[option] = value;
  }
  try {
    const filter = readFilter(criteria, now);
    const ids = parsed.positionals.map(messageId);
    if (ids.length > 0) return { ...filter, ids };
    return parsed.has("all") || filter.state !== undefined ? filter : { ...filter, pending: true };
  } catch (error) {
    if (error instanceof BadFilter) throw new UsageError(`--${error.option}: it ${error.message}`);
    throw error;
  }
}

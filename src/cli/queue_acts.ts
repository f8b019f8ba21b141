/**
 * `deno task queue hold|release|kick|drop|transport`: acts on messages in the running queue,
 * selected by id or by criteria. A million messages are acted on a page at a time; what could not
 * be done is told with its reason, and makes the exit code 1.
 */
import type { ActReport } from "../http/shapes.ts";
import { FILTER_OPTIONS, type FilterOption } from "../http/message_filter.ts";
import { type Command, type Option, type Parsed, UsageError } from "./command.ts";
import { filterOptions, messageId } from "./data.ts";
import { CLIENT_OPTIONS, clientOf, reasonOf } from "./queue_client.ts";
import { json, type Terminal, visible } from "./terminal.ts";

const ALL: Option = { about: "every message that it can be done to" };
const DRY_RUN: Option = { about: "count the messages, and change nothing" };

/** Ids in one request. */
const IDS_AT_ONCE = 1_000;
/** Refusals that are shown; --json shows all of them. */
const SHOWN = 20;

const OPTIONS = {
  ...filterOptions,
  all: ALL,
  "dry-run": DRY_RUN,
  ...CLIENT_OPTIONS,
};

interface Words {
  readonly about: string;
  /** "held": what was done to a message. */
  readonly done: string;
}

const ACTS: Readonly<Record<string, Words>> = {
  hold: { about: "Holds messages: they are not tried until they are released.", done: "held" },
  release: { about: "Releases held messages: they are due at once.", done: "released" },
  kick: { about: "Makes queued messages due at once.", done: "due now" },
  drop: {
    about: "Drops messages: they are cancelled, without a report to anybody.",
    done: "dropped",
  },
};

export const acts: Readonly<Record<string, Command>> = {
  ...Object.fromEntries(
    Object.entries(ACTS).map(([act, { about, done }]) => [
      act,
      {
        usage: {
          name: `queue ${act}`,
          synopsis: "[ID]… [options]",
          about,
          maxArguments: 100_000,
          options: OPTIONS,
        },
        run: (parsed, terminal) => run({ act }, done, parsed.positionals, parsed, terminal),
      } satisfies Command,
    ]),
  ),
  transport: {
    usage: {
      name: "queue transport",
      synopsis: "NAME|none [ID]… [options]",
      about: "Assigns the transport of the attempts to come; none lets the routes choose again.",
      maxArguments: 100_000,
      options: OPTIONS,
    },
    run(parsed, terminal) {
      const [name, ...ids] = parsed.positionals;
      if (name === undefined) throw new UsageError("the name of a transport is missing, or none");
      const transport = name === "none" ? null : name;
      return run({ act: "transport", transport }, "assigned", ids, parsed, terminal);
    },
  },
};

async function run(
  what: { readonly act: string; readonly transport?: string | null },
  done: string,
  positionals: readonly string[],
  parsed: Parsed,
  terminal: Terminal,
): Promise<number> {
  const ids = [...new Set(positionals.map(messageId))];
  const filter: Partial<Record<FilterOption, string>> = {};
  for (const option of Object.keys(FILTER_OPTIONS) as FilterOption[]) {
    const value = parsed.value(option);
    if (value !== undefined) filter[option] = value;
  }
  const all = parsed.has("all");
  if (ids.length === 0 && Object.keys(filter).length === 0 && !all) {
    throw new UsageError("name messages by id or by criteria, or say --all");
  }
  const dryRun = parsed.has("dry-run");
  const client = await clientOf(parsed);
  const total = { matched: 0, done: 0 };
  const refused: { id: string; why: string }[] = [];
  const parts = ids.length === 0 ? [undefined] : chunks(ids, IDS_AT_ONCE);
  for (const part of parts) {
    let after: string | null = null;
    do {
      const report: ActReport = await client.post<ActReport>("/queue/act", {
        ...what,
        ...reasonOf(parsed),
        all,
        dryRun,
        filter: part ? { ...filter, ids: part } : filter,
        ...(after === null ? {} : { after }),
      });
      total.matched += report.matched;
      total.done += report.done;
      for (const result of report.results) {
        if (!result.done) refused.push({ id: result.id, why: result.why });
      }
      after = report.next;
    } while (after !== null);
  }
  if (parsed.has("json")) terminal.out(json({ dryRun, ...total, refused }));
  else tell({ dryRun, ...total, refused }, done, terminal);
  return refused.length === 0 ? 0 : 1;
}

function tell(
  { dryRun, matched, done, refused }: {
    readonly dryRun: boolean;
    readonly matched: number;
    readonly done: number;
    readonly refused: readonly { readonly id: string; readonly why: string }[];
  },
  word: string,
  { out, err }: Terminal,
): void {
  const messages = (n: number) => `${n} message${n === 1 ? "" : "s"}`;
  if (matched === 0 && refused.length === 0) return out("No message matches; nothing was done.\n");
  if (dryRun) return out(`${messages(matched)} would be ${word}; nothing was done.\n`);
  out(`${messages(done)} ${word}\n`);
  for (const { id, why } of refused.slice(0, SHOWN)) err(`${id}: ${visible(why)}\n`);
  if (refused.length > SHOWN) err(`… and ${refused.length - SHOWN} more\n`);
}

function chunks<T>(items: readonly T[], size: number): T[][] {
  const parts: T[][] = [];
  for (let at = 0; at < items.length; at += size) parts.push(items.slice(at, at + size));
  return parts;
}

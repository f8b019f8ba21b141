/** `deno task queue destinations`: the next hops of the running queue, and which are down. */
import type { DestinationList } from "../http/destinations.ts";
import { type Command, DATA_OPTIONS, JSON_OPTION, wholeNumber } from "./command.ts";
import { clientOf } from "./queue_client.ts";
import { type Column, duration, json, table } from "./terminal.ts";

const COLUMNS: readonly Column[] = [
  { title: "DESTINATION", most: 60 },
  { title: "RUNNING", align: "right" },
  { title: "WINDOW", align: "right" },
  { title: "WAITING", align: "right" },
  { title: "DOWN", align: "right" },
  { title: "PROBE", align: "right" },
  { title: "WHY", most: 80 },
];

const destinations: Command = {
  usage: {
    name: "queue destinations",
    synopsis: "[options]",
    about: "Lists where the running queue delivers to: attempts under way, messages in line, and " +
      "what is down, since when and why.",
    maxArguments: 0,
    options: {
      limit: { value: "N", about: "show this many (default: 100)" },
      ...JSON_OPTION,
      ...DATA_OPTIONS,
    },
  },
  async run(parsed, terminal) {
    const limit = wholeNumber(parsed, "limit", { fallback: 100, least: 1, most: 1_000 });
    const client = await clientOf(parsed);
    const list = await client.get<DestinationList>(`/destinations?limit=${limit}`);
    if (parsed.has("json")) {
      terminal.out(json(list));
      return 0;
    }
    const now = terminal.now();
    const rows = list.destinations.map(({ destination, running, window, waiting, down }) => [
      destination,
      String(running),
      String(window),
      String(waiting),
      down ? duration(Math.max(0, now - Date.parse(down.since))) : "",
      down ? duration(Math.max(0, Date.parse(down.probe) - now)) : "",
      down?.why ?? "",
    ]);
    if (rows.length > 0) terminal.out(table(COLUMNS, rows));
    const { total, down } = list;
    const shown = rows.length < total ? `, ${rows.length} shown` : "";
    terminal.out(
      total === 0
        ? "Nothing is being delivered, and nothing is down.\n"
        : `${total} destination${total === 1 ? "" : "s"}, ${down} down${shown}\n`,
    );
    return 0;
  },
};

export const destinationCommands = { destinations } as const;

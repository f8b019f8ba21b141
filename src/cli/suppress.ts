/**
 * `deno task suppress add|remove|list`: the suppression list of the running queue, which refuses
 * new mail to the addresses on it.
 */
import type { SuppressionEntry } from "../http/suppressions.ts";
import { type Command, type Parsed, processTerminal, runOneOf, UsageError } from "./command.ts";
import { CLIENT_OPTIONS, clientOf, reasonOf } from "./queue_client.ts";
import { json, table, type Terminal, visible } from "./terminal.ts";

const ACCOUNT = { account: { value: "NAME", about: "only mail of this account" } } as const;

function addressOf(parsed: Parsed): string {
  const [address] = parsed.positionals;
  if (address === undefined) throw new UsageError("the address is missing");
  return address;
}

const accountOf = (parsed: Parsed): { readonly account?: string } => {
  const account = parsed.value("account");
  return account === undefined ? {} : { account };
};

const add: Command = {
  usage: {
    name: "suppress add",
    synopsis: "ADDRESS [options]",
    about: "Refuses new mail to an address with 550 5.1.1; mail in the queue stays as it is.",
    maxArguments: 1,
    options: {
      ...ACCOUNT,
      complaint: { about: "its owner complained" },
      for: { value: "DURATION", about: "how long it counts, like 90d (default: until removed)" },
      ...CLIENT_OPTIONS,
    },
  },
  async run(parsed, terminal) {
    const lasts = parsed.value("for");
    const client = await clientOf(parsed);
    const entry = await client.post<SuppressionEntry>("/suppressions", {
      address: addressOf(parsed),
      ...accountOf(parsed),
      ...(parsed.has("complaint") ? { cause: "complaint" } : {}),
      ...(lasts === undefined ? {} : { lasts }),
      ...reasonOf(parsed),
    });
    const until = entry.expires === null ? "" : ` until ${entry.expires}`;
    terminal.out(
      parsed.has("json")
        ? json(entry)
        : `new mail to ${visible(entry.address)}${whose(entry)} is refused${until}\n`,
    );
    return 0;
  },
};

const remove: Command = {
  usage: {
    name: "suppress remove",
    synopsis: "ADDRESS [options]",
    about: "Takes an address off the list: mail to it is taken again.",
    maxArguments: 1,
    options: { ...ACCOUNT, ...CLIENT_OPTIONS },
  },
  async run(parsed, terminal) {
    const client = await clientOf(parsed);
    const lifted = await client.post<{ readonly address: string }>("/suppressions/lift", {
      address: addressOf(parsed),
      ...accountOf(parsed),
      ...reasonOf(parsed),
    });
    terminal.out(
      parsed.has("json") ? json(lifted) : `mail to ${visible(lifted.address)} is taken again\n`,
    );
    return 0;
  },
};

const list: Command = {
  usage: {
    name: "suppress list",
    synopsis: "[options]",
    about: "Shows the addresses that new mail is refused to, and why.",
    maxArguments: 0,
    options: CLIENT_OPTIONS,
  },
  async run(parsed, terminal) {
    const client = await clientOf(parsed);
    const entries: SuppressionEntry[] = [];
    for (let next: string | null = ""; next !== null;) {
      const page: { suppressions: SuppressionEntry[]; next: string | null } = await client.get(
        `/suppressions?limit=1000${next === "" ? "" : `&after=${encodeURIComponent(next)}`}`,
      );
      entries.push(...page.suppressions);
      next = page.next;
    }
    if (parsed.has("json")) terminal.out(json({ suppressions: entries }));
    else show(entries, terminal);
    return 0;
  },
};

function show(entries: readonly SuppressionEntry[], terminal: Terminal): void {
  if (entries.length === 0) return terminal.out("The suppression list is empty.\n");
  const columns = [
    { title: "ADDRESS", most: 60 },
    { title: "ACCOUNT", most: 30 },
    { title: "CAUSE" },
    { title: "SINCE" },
    { title: "UNTIL" },
    { title: "BY", most: 30 },
    { title: "WHY", most: 60 },
  ];
  terminal.out(table(
    columns,
    entries.map(({ address, account, cause, since, expires, who, why }) => [
      address,
      account ?? "all",
      cause,
      since,
      expires ?? "",
      who,
      why,
    ]),
  ));
}

const whose = ({ account }: SuppressionEntry): string =>
  account === null ? "" : ` of account ${visible(account)}`;

export const run = (args: readonly string[], terminal: Terminal): Promise<number> =>
  runOneOf("suppress", { add, remove, list }, args, terminal);

if (import.meta.main) Deno.exit(await run(Deno.args, processTerminal));

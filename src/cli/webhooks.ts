/**
 * `deno task webhooks list|park|resume`: the webhook endpoints of the running queue, how far they
 * have been told, and which are parked because they took nothing.
 */
import type { WebhookEntry } from "../http/webhooks.ts";
import { type Command, type Parsed, processTerminal, runOneOf, UsageError } from "./command.ts";
import { CLIENT_OPTIONS, clientOf, reasonOf } from "./queue_client.ts";
import { json, table, type Terminal, visible } from "./terminal.ts";

interface Answer {
  readonly webhooks: readonly WebhookEntry[];
}

const list: Command = {
  usage: {
    name: "webhooks list",
    synopsis: "[options]",
    about: "Shows the webhook endpoints: what they took, what waits, and which are parked.",
    maxArguments: 0,
    options: CLIENT_OPTIONS,
  },
  async run(parsed, terminal) {
    show(await (await clientOf(parsed)).get<Answer>("/webhooks"), parsed, terminal);
    return 0;
  },
};

const act = (word: "park" | "resume", about: string, options = {}): Command => ({
  usage: {
    name: `webhooks ${word}`,
    synopsis: "NAME [options]",
    about,
    maxArguments: 1,
    options: { ...options, ...CLIENT_OPTIONS },
  },
  async run(parsed, terminal) {
    const [name] = parsed.positionals;
    if (name === undefined) throw new UsageError("the name of the webhook is missing");
    const client = await clientOf(parsed);
    const answer = await client.post<Answer>(`/webhooks/${encodeURIComponent(name)}/${word}`, {
      ...reasonOf(parsed),
      ...(parsed.has("skip") ? { skip: true } : {}),
    });
    show(answer, parsed, terminal);
    return 0;
  },
});

function show({ webhooks }: Answer, parsed: Parsed, terminal: Terminal): void {
  if (parsed.has("json")) return terminal.out(json({ webhooks }));
  if (webhooks.length === 0) return terminal.out("There are no webhooks in the config.\n");
  const columns = [
    { title: "NAME" },
    { title: "URL", most: 60 },
    { title: "STATE", most: 60 },
    { title: "TOLD" },
    { title: "GIVEN UP" },
    { title: "BEHIND" },
  ];
  terminal.out(table(
    columns,
    webhooks.map((one) => [
      one.name,
      one.url,
      stateOf(one),
      String(one.told),
      String(one.givenUp),
      String(one.behind),
    ]),
  ));
}

function stateOf({ parked, failures, lastError }: WebhookEntry): string {
  if (parked) return `parked since ${parked.since}: ${visible(parked.why)}`;
  return failures === 0 ? "well" : `failing (${failures}): ${visible(lastError ?? "")}`;
}

export const run = (args: readonly string[], terminal: Terminal): Promise<number> =>
  runOneOf(
    "webhooks",
    {
      list,
      park: act("park", "Sends nothing more to an endpoint; what happens waits for it."),
      resume: act("resume", "Sends to a parked endpoint again, from where it was parked.", {
        skip: { about: "do not tell what happened until now" },
      }),
    },
    args,
    terminal,
  );

if (import.meta.main) Deno.exit(await run(Deno.args, processTerminal));

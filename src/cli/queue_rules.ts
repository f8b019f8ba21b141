/**
 * `deno task queue hold-new|hold-rules|drain|resume`: what new mail meets at the running queue.
 */
import type { HoldRule } from "../../actors/admission.ts";
import type { IntakeState } from "../http/shapes.ts";
import { parseDuration } from "../config/scalars.ts";
import { type Command, UsageError } from "./command.ts";
import { CLIENT_OPTIONS, clientOf, reasonOf } from "./queue_client.ts";
import { address, duration, json, table, visible } from "./terminal.ts";

/** Milliseconds between two looks at a queue that is drained. */
const LOOK = 250;

const holdNew: Command = {
  usage: {
    name: "queue hold-new",
    synopsis: "[options]",
    about: "Holds all new mail that matches, until the rule is removed. Criteria add up.",
    maxArguments: 0,
    options: {
      from: { value: "ADDRESS", about: "mail of this sender; <> is the null reverse-path" },
      to: { value: "ADDRESS", about: "mail to this recipient" },
      "to-domain": { value: "DOMAIN", about: "mail to recipients at this domain" },
      account: { value: "NAME", about: "mail of this account" },
      ...CLIENT_OPTIONS,
    },
  },
  async run(parsed, terminal) {
    const names = { from: "from", to: "to", "to-domain": "toDomain", account: "account" } as const;
    const filter = Object.fromEntries(
      Object.entries(names).flatMap(([option, name]) => {
        const value = parsed.value(option);
        return value === undefined ? [] : [[name, value]];
      }),
    );
    if (Object.keys(filter).length === 0) {
      throw new UsageError("name a criterion; to take no new mail at all there is queue drain");
    }
    const client = await clientOf(parsed);
    const rule = await client.post<HoldRule>("/hold-rules", { filter, ...reasonOf(parsed) });
    terminal.out(parsed.has("json") ? json(rule) : `rule ${rule.id}: ${describe(rule)} is held\n`);
    return 0;
  },
};

const holdRules: Command = {
  usage: {
    name: "queue hold-rules",
    synopsis: "[remove ID] [options]",
    about: "Lists the hold rules, or removes one; mail that it held stays held.",
    maxArguments: 2,
    options: CLIENT_OPTIONS,
  },
  async run(parsed, terminal) {
    const [word, id] = parsed.positionals;
    if (word !== undefined && word !== "remove") {
      throw new UsageError(`"${word}" is not what it takes: nothing, or remove ID`);
    }
    if (word === "remove" && id === undefined) throw new UsageError("the id of a rule is missing");
    const client = await clientOf(parsed);
    const { reason } = reasonOf(parsed);
    const query = reason === undefined ? "" : `?reason=${encodeURIComponent(reason)}`;
    const { rules } = id === undefined
      ? await client.get<{ rules: HoldRule[] }>("/hold-rules")
      : await client.delete<{ rules: HoldRule[] }>(`/hold-rules/${encodeURIComponent(id)}${query}`);
    if (parsed.has("json")) terminal.out(json({ rules }));
    else if (id !== undefined) {
      terminal.out(`rule ${visible(id)} removed; what it held stays held\n`);
    } else if (rules.length === 0) terminal.out("There are no hold rules.\n");
    else {
      const columns = [
        { title: "ID" },
        { title: "HOLDS", most: 60 },
        { title: "SINCE" },
        { title: "BY", most: 30 },
        { title: "WHY", most: 60 },
      ];
      terminal.out(table(
        columns,
        rules.map((rule) => [
          rule.id,
          describe(rule),
          rule.since,
          rule.who,
          rule.why,
        ]),
      ));
    }
    return 0;
  },
};

function describe({ filter: { from, to, toDomain, account } }: HoldRule): string {
  const parts = [
    ...(from === undefined ? [] : [`from ${address(from)}`]),
    ...(to === undefined ? [] : [`to ${visible(to)}`]),
    ...(toDomain === undefined ? [] : [`to the domain ${visible(toDomain)}`]),
    ...(account === undefined ? [] : [`of the account ${visible(account)}`]),
  ];
  return `new mail ${parts.join(", ")}`;
}

const drain: Command = {
  usage: {
    name: "queue drain",
    synopsis: "[--wait DURATION] [options]",
    about:
      "Takes no new mail, while what is due goes out; `queue resume` ends it, a restart does not.",
    maxArguments: 0,
    options: {
      wait: {
        value: "DURATION",
        about: 'wait until nothing is due and nothing is being tried, at most so long: "5m"',
      },
      ...CLIENT_OPTIONS,
    },
  },
  async run(parsed, terminal) {
    const text = parsed.value("wait");
    const wait = text === undefined ? 0 : parseDuration(text);
    if (wait === undefined) throw new UsageError(`--wait: "${text}" is not a duration like "5m"`);
    const client = await clientOf(parsed);
    const before = await client.get<IntakeState>("/intake");
    let state = before.paused
      ? before
      : await client.post<IntakeState>("/intake/pause", reasonOf(parsed));
    for (let waited = 0; !state.idle && waited < wait; waited += LOOK) {
      await new Promise((resolve) => setTimeout(resolve, Math.min(LOOK, wait - waited)));
      state = await client.get<IntakeState>("/intake");
    }
    if (parsed.has("json")) terminal.out(json(state));
    else terminal.out(drained(state, terminal.now()));
    return text !== undefined && !state.idle ? 1 : 0;
  },
};

function drained(
  { idle, attempting, queued, held, nextAttempt }: IntakeState,
  now: number,
): string {
  const rest = `${attempting} being tried, ${queued} queued, ${held} held`;
  if (!idle) return `no new mail is taken; still to go out: ${rest}\n`;
  const next = nextAttempt === null ? "" : `, next in ${duration(Date.parse(nextAttempt) - now)}`;
  return `no new mail is taken, and nothing is due: ${rest}${next}\n`;
}

const resume: Command = {
  usage: {
    name: "queue resume",
    synopsis: "[options]",
    about: "Takes new mail again after queue drain.",
    maxArguments: 0,
    options: CLIENT_OPTIONS,
  },
  async run(parsed, terminal) {
    const client = await clientOf(parsed);
    const state = await client.post<IntakeState>("/intake/resume", reasonOf(parsed));
    terminal.out(parsed.has("json") ? json(state) : "new mail is taken again\n");
    return 0;
  },
};

export const rules: Readonly<Record<string, Command>> = {
  "hold-new": holdNew,
  "hold-rules": holdRules,
  drain,
  resume,
};

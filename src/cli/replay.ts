/**
 * `deno task replay`: folds the log of a message event by event and shows what each changed; with
 * --config also what the routes of that config would choose for each attempt today.
 *
 * It reads. It asks no network and no clock, and two runs print the same.
 */
import { evolve, ImpossibleEvent, type Message } from "../../actors/message.ts";
import type { RoutingFacts, TransportChoice } from "../../actors/ports.ts";
import type { StoredEvent } from "../../events/catalogue.ts";
import { replay, type ReplayEnd } from "../../events/replay.ts";
import type { Config } from "../config/types.ts";
import { chooseRoute } from "../delivery/routes.ts";
import {
  type Command,
  CommandError,
  DATA_OPTIONS,
  JSON_OPTION,
  type Parsed,
  processTerminal,
  runCommand,
  UsageError,
} from "./command.ts";
import { configOf, messageId, noSuchMessage, withReader } from "./data.ts";
import { eventLine } from "./event_line.ts";
import { because } from "./message_story.ts";
import { json, type Terminal, visible } from "./terminal.ts";
import { moment } from "./times.ts";

interface Step {
  readonly event: StoredEvent;
  readonly state: Message;
  /** What the routes of --config choose for the attempt that starts with this event. */
  readonly today?: TransportChoice;
}

const command: Command = {
  usage: {
    name: "replay",
    synopsis: "MESSAGE [options]",
    about: "Folds the log of a message and shows what each event changed.",
    maxArguments: 1,
    options: {
      until: {
        value: "VERSION|TIME",
        about: "stop after this version, or at this time",
      },
      data: DATA_OPTIONS.data,
      config: {
        value: "FILE",
        about: "show what the routes of this config would choose for each attempt",
      },
      ...JSON_OPTION,
    },
  },
  async run(parsed, terminal) {
    const [text] = parsed.positionals;
    if (text === undefined) throw new UsageError("the id of a message is missing");
    const id = messageId(text);
    const end = endOf(parsed, terminal);
    const config = configOf(parsed);
    const events = await withReader(parsed, ({ readStream }) => readStream(id));
    if (events.length === 0) throw noSuchMessage(id);
    const shown: Step[] = [];
    let before: Facts = new Map();
    try {
      for (const step of steps(events, end, config)) {
        if (parsed.has("json")) shown.push(step);
        else {
          const after = factsOf(step.state);
          terminal.out(stepLines(step, before, after, config));
          before = after;
        }
      }
    } finally {
      if (parsed.has("json")) terminal.out(json({ steps: shown }));
    }
    return 0;
  },
};

function endOf(parsed: Parsed, terminal: Terminal): ReplayEnd {
  const until = parsed.value("until");
  if (until === undefined) return {};
  if (/^\d{1,9}$/.test(until)) return { version: Number(until) };
  return { time: moment("--until", until, terminal.now()) };
}

/** @throws CommandError naming the event that cannot follow */
function* steps(
  events: readonly StoredEvent[],
  end: ReplayEnd,
  config: Config | undefined,
): Generator<Step> {
  const fold = (state: Message | undefined, event: StoredEvent): Message => {
    try {
      return evolve(state, event);
    } catch (error) {
      if (!(error instanceof ImpossibleEvent)) throw error;
      throw new CommandError(`${event.stream}, version ${event.version}: ${error.message}`);
    }
  };
  for (const { event, state } of replay<Message | undefined>(events, undefined, fold, end)) {
    if (!state) continue; // a fold of at least one event is a message
    const today = config && event.type === "AttemptStarted"
      ? chooseRoute(config, routingFacts(state), NOT_ASKED)
      : undefined;
    yield { event, state, ...(today ? { today } : {}) };
  }
}

/** Replay asks nobody: a route that depends on an answer is passed over, and the output says so. */
const NOT_ASKED = {
  mx: { unknown: "replay asks no DNS" },
  header: { unknown: "replay reads no messages" },
} as const;

const routingFacts = ({ enqueued, attempts, override }: Message): RoutingFacts => ({
  account: enqueued.account,
  mailFrom: enqueued.mailFrom,
  rcptTo: enqueued.rcptTo,
  size: enqueued.size,
  attempt: attempts,
  ...(override ? { override } : {}),
});

/** The parts of the state that events change, as text. */
type Facts = ReadonlyMap<string, string>;

function factsOf(state: Message): Facts {
  const { status, attempts, due, attemptStarted, faults, override, tried } = state;
  const { delayReported, reportDue } = state;
  const last = tried.at(-1);
  const failure = state.lastFailure;
  const facts: readonly (readonly [string, string | undefined])[] = [
    ["status", status],
    ["attempts", String(attempts)],
    ["due", new Date(due).toISOString()],
    [
      "attempt since",
      attemptStarted === undefined ? undefined : new Date(attemptStarted).toISOString(),
    ],
    ["faults", String(faults)],
    ["override", override && `${override.transport} by ${override.who}`],
    ["addresses tried", String(tried.length)],
    [
      "last tried",
      last && `${last.host} [${last.address}] ${last.result}, attempt ${last.attempt}`,
    ],
    ["delay reported", delayReported ? "yes" : "no"],
    ["report due", reportDue === undefined ? undefined : new Date(reportDue).toISOString()],
    [
      "last failure",
      failure && `${failure.permanent ? "permanent" : "temporary"}: ${failure.reason}`,
    ],
  ];
  return new Map(facts.flatMap(([name, value]) => value === undefined ? [] : [[name, value]]));
}

function stepLines({ event, today }: Step, before: Facts, after: Facts, config?: Config): string {
  const lines = [`${event.version}  ${event.time}  ${event.type}  ${eventLine(event)}`];
  for (const name of new Set([...before.keys(), ...after.keys()])) {
    const [was, is] = [before.get(name), after.get(name)];
    if (was === is) continue;
    const change = was === undefined ? is : `${was} → ${is ?? "none"}`;
    lines.push(`     ${name.padEnd(16)}${change}`);
  }
  if (today) {
    const gone = config?.transports.has(today.transport) ? "" : ", which is not in the config";
    lines.push(`     ${"routes today".padEnd(16)}${today.transport}${gone}: ${because(today)}`);
  }
  return lines.map((line) => `${visible(line)}\n`).join("");
}

export const run = (args: readonly string[], terminal: Terminal): Promise<number> =>
  runCommand(command, args, terminal);

if (import.meta.main) Deno.exit(await run(Deno.args, processTerminal));

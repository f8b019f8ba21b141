/**
 * What all commands have in common: options and their help, exit codes, one line for an error.
 *
 *   0  it is done
 *   1  it cannot be done, or the answer is no: no such message, a broken chain, an unreadable store
 *   2  it was asked for in the wrong way: unknown option, bad value, bad config
 */
import { parseArgs } from "node:util";
import { ConfigError, didYouMean } from "../config/problems.ts";
import { type Terminal, visible } from "./terminal.ts";

export interface Option {
  /** Placeholder of its value; absent for a switch. */
  readonly value?: string;
  readonly about: string;
}

export interface Usage {
  /** As it is typed: "queue list". */
  readonly name: string;
  /** Its arguments, for help: "[ID]…". */
  readonly synopsis: string;
  /** One sentence. */
  readonly about: string;
  readonly options: Readonly<Record<string, Option>>;
  /** How many arguments beside options it takes at most. */
  readonly maxArguments: number;
}

export interface Parsed {
  readonly positionals: readonly string[];
  /** Value of an option. */
  value(name: string): string | undefined;
  /** Whether a switch was given. */
  has(name: string): boolean;
}

export interface Command {
  readonly usage: Usage;
  run(parsed: Parsed, terminal: Terminal): Promise<number> | number;
}

/** Asked for in the wrong way: exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** It cannot be done: exit code 1. */
export class CommandError extends Error {
  override readonly name = "CommandError";
}

/** Options that are the same everywhere. */
export const JSON_OPTION = { json: { about: "print JSON" } } as const;
export const DATA_OPTIONS = {
  data: { value: "DIR", about: "the data folder (default: that of the config, else ./data)" },
  config: { value: "FILE", about: "the config file" },
} as const;

/** Runs one of several commands that share a first word: `queue list`, `queue show`. */
export async function runOneOf(
  name: string,
  commands: Readonly<Record<string, Command>>,
  args: readonly string[],
  terminal: Terminal,
): Promise<number> {
  const [word, ...rest] = args;
  const command = word !== undefined && Object.hasOwn(commands, word) ? commands[word] : undefined;
  if (command) return await runCommand(command, rest, terminal);
  if (word === "--help" || word === "-h") {
    const lines = Object.values(commands).map(({ usage }) =>
      `  deno task ${usage.name} ${usage.synopsis}\n      ${usage.about}\n`
    );
    terminal.out(`${lines.join("")}\n--help behind a command shows its options.\n`);
    return 0;
  }
  const known = Object.keys(commands);
  const found = word === undefined
    ? "a command is missing"
    : `"${visible(word)}" is not a command${didYouMean(word, known)}`;
  terminal.err(`postledger: ${name}: ${found}; there are ${known.join(", ")}\n`);
  return 2;
}

/** Runs a command with its arguments and gives the exit code. Never throws. */
export async function runCommand(
  command: Command,
  args: readonly string[],
  terminal: Terminal,
): Promise<number> {
  const { usage } = command;
  try {
    if (args.includes("--help") || args.includes("-h")) {
      terminal.out(help(usage));
      return 0;
    }
    return await command.run(parse(usage, args), terminal);
  } catch (error) {
    return report(error, usage, terminal);
  }
}

function parse(usage: Usage, args: readonly string[]): Parsed {
  const { positionals, tokens } = parseArgs({
    args: [...args],
    options: Object.fromEntries(
      Object.entries(usage.options).map((
        [name, { value }],
      ) => [name, { type: value === undefined ? "boolean" as const : "string" as const }]),
    ),
    allowPositionals: true,
    strict: false,
    tokens: true,
  });
  const values = new Map<string, string | undefined>();
  for (const token of tokens) {
    if (token.kind !== "option") continue;
    const { name, rawName, value } = token;
    const option = Object.hasOwn(usage.options, name) ? usage.options[name] : undefined;
    if (!option) {
      const near = didYouMean(name, Object.keys(usage.options)).replace('"', '"--');
      throw new UsageError(`${rawName} is not an option${near}`);
    }
    if (values.has(name)) throw new UsageError(`${rawName} is given twice`);
    if (option.value !== undefined && value === undefined) {
      throw new UsageError(`${rawName} takes a value: ${rawName} ${option.value}`);
    }
    if (option.value === undefined && value !== undefined) {
      throw new UsageError(`${rawName} takes no value`);
    }
    values.set(name, value);
  }
  if (positionals.length > usage.maxArguments) {
    throw new UsageError(`"${positionals[usage.maxArguments]}" is one argument too many`);
  }
  return { positionals, value: (name) => values.get(name), has: (name) => values.has(name) };
}

/** A whole number of an option, or a UsageError that names it. */
export function wholeNumber(
  parsed: Parsed,
  name: string,
  { fallback, least = 0, most }: {
    readonly fallback: number;
    readonly least?: number;
    readonly most: number;
  },
): number {
  const text = parsed.value(name);
  if (text === undefined) return fallback;
  const number = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
  if (number >= least && number <= most) return number;
  throw new UsageError(`--${name}: "${text}" is not a whole number from ${least} to ${most}`);
}

function help({ name, synopsis, about, options }: Usage): string {
  const entries = [
    ...Object.entries(options),
    ["help", { about: "show this" }] as [string, Option],
  ].map(([option, { value, about }]) =>
    [value === undefined ? `--${option}` : `--${option} ${value}`, about] as const
  );
  const width = Math.max(...entries.map(([option]) => option.length));
  const lines = entries.map(([option, words]) => `  ${option.padEnd(width)}  ${words}\n`);
  return `deno task ${name} ${synopsis}\n\n${about}\n\n${lines.join("")}`;
}

function report(error: unknown, usage: Usage, { err }: Terminal): number {
  const line = (text: string) => err(`postledger: ${visible(text)}\n`);
  if (error instanceof ConfigError) {
    error.lines.forEach(line);
    return 2;
  }
  if (error instanceof UsageError) {
    line(`${usage.name}: ${error.message}; --help shows what there is`);
    return 2;
  }
  line(`${usage.name}: ${error instanceof Error ? error.message : String(error)}`);
  return 1;
}

/** The terminal of the process. Writes are complete when they return, so exiting loses nothing. */
export const processTerminal: Terminal = {
  out: (text) => writeAll(Deno.stdout, text),
  err: (text) => writeAll(Deno.stderr, text),
  now: () => Date.now(),
};

function writeAll(stream: typeof Deno.stdout, text: string): void {
  const octets = new TextEncoder().encode(text);
  try {
    for (let at = 0; at < octets.length;) at += stream.writeSync(octets.subarray(at));
  } catch (error) {
    // `queue list | head`: the reader has seen enough.
    if (error instanceof Deno.errors.BrokenPipe) Deno.exit(0);
    throw error;
  }
}

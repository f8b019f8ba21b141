/**
 * `deno task audit export|verify`: the trail of every attempt, and the proof that nothing in it
 * was changed, dropped or reordered. Reads the data folder, of a running server or not.
 */
import type { KeyObject } from "node:crypto";
import { exportCsv } from "../../events/audit/csv.ts";
import { exportJsonLines, parseJsonLines } from "../../events/audit/jsonl.ts";
import { trail, type TrailFilter } from "../../events/audit/trail.ts";
import { type Finding, type Verdict, verifyExport, verifyLog } from "../../events/audit/verify.ts";
import { loadPublicKey } from "../../events/checkpoint_key.ts";
import {
  type Command,
  CommandError,
  DATA_OPTIONS,
  JSON_OPTION,
  type Parsed,
  processTerminal,
  runOneOf,
  UsageError,
} from "./command.ts";
import { messageId, noSuchMessage, withReader } from "./data.ts";
import { json, type Terminal, visible } from "./terminal.ts";
import { moment } from "./times.ts";

/** Characters that are gathered before they are written. */
const CHUNK = 64 * 1024;

const exportCommand: Command = {
  usage: {
    name: "audit export",
    synopsis: "[options]",
    about: "Writes the events, in the order of the log, to standard output.",
    maxArguments: 0,
    options: {
      format: { value: "FORMAT", about: "jsonl (can be verified) or csv (default: jsonl)" },
      since: { value: "TIME", about: "only events at or after this time" },
      until: { value: "TIME", about: "only events before this time" },
      message: { value: "ID", about: "only events of this message" },
      ...DATA_OPTIONS,
    },
  },
  async run(parsed, terminal) {
    const format = parsed.value("format") ?? "jsonl";
    if (format !== "jsonl" && format !== "csv") {
      throw new UsageError(`--format: "${format}" is not jsonl or csv`);
    }
    const filter = filterOf(parsed, terminal);
    await withReader(parsed, async ({ raw }) => {
      const { message } = filter;
      if (message !== undefined && (await raw.stream(message)).length === 0) {
        throw noSuchMessage(message);
      }
      let chunk = "";
      for await (const line of (format === "csv" ? exportCsv : exportJsonLines)(raw, filter)) {
        chunk += line;
        if (chunk.length < CHUNK) continue;
        terminal.out(chunk);
        chunk = "";
      }
      terminal.out(chunk);
    });
    return 0;
  },
};

function filterOf(parsed: Parsed, terminal: Terminal): TrailFilter {
  const [since, until, message] = ["since", "until", "message"].map((name) => parsed.value(name));
  const now = terminal.now();
  return {
    ...(since === undefined ? {} : { since: moment("--since", since, now) }),
    ...(until === undefined ? {} : { until: moment("--until", until, now) }),
    ...(message === undefined ? {} : { message: messageId(message) }),
  };
}

const verify: Command = {
  usage: {
    name: "audit verify",
    synopsis: "[FILE] [options]",
    about: "Checks chain and checkpoints of store and archive, or of an export (- is stdin).",
    maxArguments: 1,
    options: {
      "public-key": {
        value: "FILE",
        about: "public key (PEM) that signed the checkpoints (default: that of the data folder)",
      },
      ...JSON_OPTION,
      ...DATA_OPTIONS,
    },
  },
  async run(parsed, terminal) {
    const [file] = parsed.positionals;
    const verdict = file === undefined
      ? await withReader(
        parsed,
        async ({ raw, publicKey, damaged }) =>
          verifyLog(trail(raw), await givenKey(parsed) ?? await publicKey(), damaged),
      )
      : await verifyExport(parseJsonLines(openExport(file)), await keyForExport(parsed));
    if (parsed.has("json")) terminal.out(json(verdict));
    else terminal.out(verdictLines(verdict));
    return verdict.ok ? 0 : 1;
  },
};

function openExport(file: string): ReadableStream<Uint8Array> {
  if (file === "-") return Deno.stdin.readable;
  try {
    return Deno.openSync(file).readable;
  } catch (error) {
    throw new CommandError(`${file} cannot be read: ${(error as Error).message}`);
  }
}

async function givenKey(parsed: Parsed): Promise<KeyObject | undefined> {
  const file = parsed.value("public-key");
  return file === undefined ? undefined : await loadPublicKey(file);
}

/** An export may be verified where there is no data folder: the signatures are then left out. */
async function keyForExport(parsed: Parsed): Promise<KeyObject | undefined> {
  const given = await givenKey(parsed);
  if (given) return given;
  if (parsed.has("data") || parsed.has("config")) {
    return await withReader(parsed, ({ publicKey }) => publicKey());
  }
  return undefined;
}

function verdictLines({ ok, events, checkpoints, uncovered, findings, found, notes }: Verdict) {
  const lines = findings.map(findingLine);
  if (found > findings.length) lines.push(`and ${found - findings.length} more`);
  lines.push(...notes.map((note) => `note: ${note}`));
  const behind = uncovered === 0 ? "" : `, ${uncovered} events behind the last checkpoint`;
  const counted = `${events} events, ${checkpoints} checkpoints${behind}`;
  lines.push(ok ? `ok: ${counted}` : `broken: ${found} findings in ${counted}`);
  return lines.map((line) => `${visible(line)}\n`).join("");
}

function findingLine({ position, stream, version, checkpoint, line, what }: Finding): string {
  const where = [
    line === undefined ? undefined : `line ${line}`,
    checkpoint === undefined ? undefined : `checkpoint ${checkpoint}`,
    position === undefined ? undefined : `position ${position}`,
    stream === undefined ? undefined : `message ${stream}`,
    version === undefined ? undefined : `version ${version}`,
  ].filter((part) => part !== undefined).join(", ");
  return where === "" ? what : `${where}: ${what}`;
}

export const run = (args: readonly string[], terminal: Terminal): Promise<number> =>
  runOneOf("audit", { export: exportCommand, verify }, args, terminal);

if (import.meta.main) Deno.exit(await run(Deno.args, processTerminal));

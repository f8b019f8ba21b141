/**
 * `deno task doctor`: examines a data folder that no server runs on, and repairs what follows from
 * the log when asked.
 *
 *   0  nothing is wrong    1  something is (still, after --repair)    2  bad option or config
 */
import { ADMISSION_STREAM, type AdmissionState, evolveAdmission } from "../../actors/admission.ts";
import { evolve, type Message } from "../../actors/message.ts";
import { isMessageEvent, type StoredEvent } from "../../events/catalogue.ts";
import { examine, type Examined, repair } from "../../events/doctor.ts";
import type { DoctorFinding } from "../../events/doctor/finding.ts";
import type { BeginFold } from "../../events/doctor/streams.ts";
import { type Command, DATA_OPTIONS, JSON_OPTION, processTerminal, runCommand } from "./command.ts";
import { RUN_FILES, SECRET_FILES } from "../data_files.ts";
import { dataFolderOf } from "./data.ts";
import { json, type Terminal, visible } from "./terminal.ts";

/** Findings that are shown, or kept for --json; the others are counted. */
const MOST_SHOWN = 1_000;

const command: Command = {
  usage: {
    name: "doctor",
    synopsis: "[--repair] [options]",
    about: "Examines a data folder that no server runs on; repairs what follows from the log.",
    maxArguments: 0,
    options: {
      repair: { about: "write what the log says, remove what nothing needs; make a backup first" },
      ...JSON_OPTION,
      ...DATA_OPTIONS,
    },
  },
  async run(parsed, terminal) {
    const asJson = parsed.has("json");
    const kept: DoctorFinding[] = [];
    let found = 0;
    let notes = 0;
    const report = (finding: DoctorFinding) => {
      if (finding.note) notes += 1;
      else found += 1;
      if (found + notes > MOST_SHOWN) return;
      if (asJson) kept.push(finding);
      else terminal.out(findingLines(finding));
    };
    const act = parsed.has("repair") ? repair : examine;
    const examined = await act(dataFolderOf(parsed), {
      beginFold,
      others: { secret: SECRET_FILES, open: RUN_FILES },
      report,
    });
    if (asJson) terminal.out(json({ ok: found === 0, found, notes, examined, findings: kept }));
    else terminal.out(summary(found, notes, examined));
    return found === 0 ? 0 : 1;
  },
};

/** Folds messages, and operators' acts on new mail; the facts on other streams need no fold. */
const beginFold: BeginFold = (stream) => {
  if (stream === ADMISSION_STREAM) {
    let state: AdmissionState = { version: 0, rules: [] };
    return (event: StoredEvent) => void (state = evolveAdmission(state, event));
  }
  let message: Message | undefined;
  return (event: StoredEvent) => {
    if (message || isMessageEvent(event)) message = evolve(message, event);
  };
};

function findingLines({ kind, where, what, means, repair, remedy, note }: DoctorFinding): string {
  const lines = [`${note ? "note: " : ""}${kind}: ${where}: ${what}`, `    means   ${means}`];
  if (repair !== undefined) lines.push(`    repair  --repair can: ${repair}`);
  else if (remedy !== undefined) lines.push(`    repair  by hand: ${remedy}`);
  return lines.map((line) => `${visible(line)}\n`).join("");
}

function summary(found: number, notes: number, examined: Examined): string {
  const more = found + notes - MOST_SHOWN;
  const looked = examined
    ? `${examined.events} events of ${examined.streams} streams, ${examined.checkpoints} checkpoints`
    : "the database could not be looked through";
  return (more > 0 ? `and ${more} more\n` : "") +
    (found === 0 ? `ok: ${looked}\n` : `${found} findings: ${looked}\n`);
}

export const run = (args: readonly string[], terminal: Terminal): Promise<number> =>
  runCommand(command, args, terminal);

if (import.meta.main) Deno.exit(await run(Deno.args, processTerminal));

/**
 * `deno task backup FILE`: copies a data folder into one tar file, while a server runs on it or
 * not. Unpacked into an empty folder it is a data folder again.
 */
import { backUp } from "../../events/backup.ts";
import { SECRET_FILES } from "../data_files.ts";
import { type Command, DATA_OPTIONS, processTerminal, runCommand, UsageError } from "./command.ts";
import { dataFolderOf } from "./data.ts";
import { octets, type Terminal, visible } from "./terminal.ts";

const command: Command = {
  usage: {
    name: "backup",
    synopsis: "FILE [options]",
    about: "Copies a data folder, keys included, into a tar file; a server may run on it.",
    maxArguments: 1,
    options: {
      force: { about: "replace FILE if it is there" },
      ...DATA_OPTIONS,
    },
  },
  async run(parsed, terminal) {
    const [file] = parsed.positionals;
    if (file === undefined) throw new UsageError("the name of the backup file is missing");
    const done = await backUp(dataFolderOf(parsed), file, {
      force: parsed.has("force"),
      also: SECRET_FILES,
    });
    terminal.out(
      `${visible(file)}: ${
        octets(done.octets)
      }, ${done.events} events, ${done.files} large bodies\n` +
        `It holds the signing key: keep it where only you can read it.\n` +
        `To restore: mkdir -m 700 DIR && tar -xpf ${visible(file)} -C DIR && ` +
        `deno task doctor --data DIR\n`,
    );
    return 0;
  },
};

export const run = (args: readonly string[], terminal: Terminal): Promise<number> =>
  runCommand(command, args, terminal);

if (import.meta.main) Deno.exit(await run(Deno.args, processTerminal));

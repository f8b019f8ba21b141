/** Reads a password: typed twice at a terminal that does not show it, or from standard input. */
import { CommandError } from "./command.ts";

/** Where a password comes from. */
export interface PasswordInput {
  readonly isTerminal: boolean;
  /** Asks at the terminal; nothing that is typed is shown. */
  ask(question: string): Promise<string>;
  /** The first line of standard input. */
  firstLine(): Promise<string>;
}

const LONGEST = 4_096;

/** @throws CommandError when it is not typed twice alike, or empty */
export async function readPassword(input: PasswordInput, fromStdin: boolean): Promise<string> {
  if (!fromStdin) {
    const password = await input.ask("Password: ");
    if (password !== await input.ask("Again: ")) {
      throw new CommandError("the two were not the same; nothing is changed");
    }
    return password;
  }
  return await input.firstLine();
}

/** Standard input of the process. */
export const processPasswordInput: PasswordInput = {
  get isTerminal() {
    return Deno.stdin.isTerminal();
  },
  async ask(question) {
    await Deno.stderr.write(new TextEncoder().encode(question));
    Deno.stdin.setRaw(true);
    try {
      return await typed();
    } finally {
      Deno.stdin.setRaw(false);
      await Deno.stderr.write(new TextEncoder().encode("\n"));
    }
  },
  async firstLine() {
    const octets: number[] = [];
    const buffer = new Uint8Array(1);
    while (await Deno.stdin.read(buffer) !== null && buffer[0] !== 10) {
      octets.push(buffer[0]!);
      if (octets.length > LONGEST) throw new CommandError("the password is too long");
    }
    return decoded(octets).replace(/\r$/, "");
  },
};

/** A line from a terminal in raw mode, which hands over each key as it is. */
async function typed(): Promise<string> {
  const octets: number[] = [];
  const buffer = new Uint8Array(64);
  for (;;) {
    const count = await Deno.stdin.read(buffer);
    if (count === null) return decoded(octets);
    for (const octet of buffer.subarray(0, count)) {
      switch (octet) {
        case 3: // Ctrl-C
          throw new CommandError("given up; nothing is changed");
        case 4: // Ctrl-D
        case 10:
        case 13:
          return decoded(octets);
        case 8:
        case 127: // a character in UTF-8 is a lead and what continues it
          while ((octets.at(-1) ?? 0) >> 6 === 2) octets.pop();
          octets.pop();
          break;
        case 21: // Ctrl-U
          octets.length = 0;
          break;
        default:
          octets.push(octet);
      }
      if (octets.length > LONGEST) throw new CommandError("the password is too long");
    }
  }
}

function decoded(octets: readonly number[]): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(octets));
  } catch {
    throw new CommandError("the password is not UTF-8");
  }
}

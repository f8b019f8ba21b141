/**
 * dead.letter: where a message goes that could not be handed over. Messages are put behind each other
 * as in an mbox (RFC 4155), readable by their owner alone, with what is needed to send them again.
 */
import { Buffer } from "node:buffer";
import { join } from "node:path";

export interface DeadLetter {
  readonly mailFrom: string;
  readonly recipients: readonly string[];
  readonly why: string;
  /** Epoch milliseconds. */
  readonly now: number;
  /** Whole lines, CRLF at each end. */
  readonly message: Buffer;
  /** What follows, in whole lines too, where it is too much to be held. */
  readonly more?: AsyncIterable<Buffer>;
}

/** Where dead letters may go, in this order. */
export interface DeadLetterPlaces {
  readonly home: string | undefined;
  readonly cwd: string | undefined;
  /** A folder that everybody may write to. */
  readonly shared: string;
}

/**
 * @returns the file that has it now
 * @throws Error with a line per place that did not take it
 */
export async function saveDeadLetter(
  letter: DeadLetter,
  { home, cwd, shared }: DeadLetterPlaces,
): Promise<string> {
  const failures: string[] = [];
  for (const folder of [home, cwd]) {
    if (folder === undefined || folder === "") continue;
    const file = join(folder, "dead.letter");
    try {
      await append(file, letter);
      return file;
    } catch (error) {
      if (error instanceof Interrupted) throw error;
      failures.push(`${file}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  const file = join(shared, `dead.letter.${crypto.randomUUID()}`);
  try {
    using created = await Deno.open(file, { write: true, createNew: true, mode: 0o600 });
    await write(created, letter);
    return file;
  } catch (error) {
    failures.push(`${file}: ${error instanceof Error ? error.message : String(error)}`);
  }
  throw new Error(failures.join("\n"));
}

/** Puts it behind what is there. */
async function append(path: string, letter: DeadLetter): Promise<void> {
  // Whoever else may write to the folder could have put a link there, to a file of ours.
  const there = await Deno.lstat(path).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  });
  if (there && !there.isFile) throw new Error("is not a file");
  using file = await Deno.open(path, {
    append: true,
    ...(there ? {} : { createNew: true, mode: 0o600 }),
  });
  await file.lock(true);
  const { size } = await file.stat();
  try {
    await write(file, letter);
  } catch (error) {
    if (!(error instanceof Interrupted)) await file.truncate(size);
    throw error;
  }
}

/** It has begun to be saved, and its beginning cannot be had again for another place. */
class Interrupted extends Error {
  override readonly name = "Interrupted";
}

async function write(file: Deno.FsFile, letter: DeadLetter): Promise<void> {
  await put(file, headOf(letter));
  await put(file, mboxLines(letter.message));
  if (letter.more) {
    try {
      for await (const lines of letter.more) await put(file, mboxLines(lines));
    } catch (error) {
      throw new Interrupted(`it is cut short: ${error instanceof Error ? error.message : error}`);
    }
  }
  await put(file, Buffer.from("\n"));
  await file.sync();
}

async function put(file: Deno.FsFile, text: Buffer): Promise<void> {
  for (let at = 0; at < text.length;) at += await file.write(text.subarray(at));
}

function headOf({ mailFrom, recipients, why, now }: DeadLetter): Buffer {
  const date = new Date(now).toUTCString()
    .replace(/^(\w+), (\d+) (\w+) (\d+) ([\d:]+) GMT$/, "$1 $3 $2 $5 $4");
  return Buffer.from([
    `From ${line(mailFrom).replaceAll(" ", "_") || "MAILER-DAEMON"} ${date}`,
    `X-Dead-Letter-Why: ${line(why)}`,
    `X-Envelope-From: <${line(mailFrom)}>`,
    ...recipients.map((rcptTo) => `X-Envelope-To: <${line(rcptTo)}>`),
    "",
  ].join("\n"));
}

const FROM = Buffer.from("From ");
const [LF, CR, QUOTE] = [10, 13, 62];

/**
 * With LF at each end of a line; one that reads like the beginning of a message must not be taken
 * for it, and gets a `>`.
 * @param lines whole ones, CRLF at each end
 */
function mboxLines(lines: Buffer): Buffer {
  // A quote adds an octet to a line that loses one with its CR.
  const out = Buffer.allocUnsafe(lines.length);
  let used = 0;
  for (let at = 0; at < lines.length;) {
    let word = at;
    while (lines[word] === QUOTE) word++;
    if (FROM.every((octet, n) => lines[word + n] === octet)) out[used++] = QUOTE;
    for (let octet = 0; octet !== LF && at < lines.length;) {
      octet = lines[at++]!;
      if (octet !== CR || lines[at] !== LF) out[used++] = octet;
    }
  }
  return out.subarray(0, used);
}

/** In one line. */
// deno-lint-ignore no-control-regex -- controls are what it takes out
const line = (text: string): string => text.replace(/[\x00-\x1f\x7f]+/g, " ");

/**
 * Text for terminals: safe, aligned, and readable.
 *
 * Addresses, replies and error texts come from strangers. What a terminal would obey or what
 * would make a line read other than it is (controls, escape sequences, bidirectional overrides,
 * invisible characters) is shown as an escape and never sent.
 */
import stringWidth from "string-width";

/** Where a command writes. Lines come with their LF. */
export interface Terminal {
  out(text: string): void;
  err(text: string): void;
  /** Epoch milliseconds. */
  now(): number;
}

/** Controls (C0, DEL, C1), separators, bidirectional and zero-width characters, lone surrogates. */
const UNSAFE =
  // deno-lint-ignore no-control-regex
  /[\x00-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\p{Cs}\u{e0000}-\u{e0fff}]/gu;

/** The text in one line, with whatever is not plain to see made visible. */
export function visible(text: string): string {
  return text.replace(UNSAFE, (character) => {
    if (character === "\n") return "\\n";
    if (character === "\r") return "\\r";
    if (character === "\t") return "\\t";
    const code = character.codePointAt(0)!;
    return code <= 0xff ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`;
  });
}

/** JSON, with what a terminal could obey escaped in the way of JSON. */
export function json(value: unknown): string {
  const text = JSON.stringify(value, null, 2).replace(
    UNSAFE,
    (character) =>
      character === "\n"
        ? character
        : character.split("").map((unit) =>
          `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`
        ).join(""),
  );
  return `${text}\n`;
}

/** Cut to a number of columns, with … where something is missing. */
export function fit(text: string, columns: number): string {
  if (stringWidth(text) <= columns) return text;
  let kept = "";
  let width = 0;
  for (const { segment } of new Intl.Segmenter().segment(text)) {
    width += stringWidth(segment);
    if (width > columns - 1) break;
    kept += segment;
  }
  return `${kept}…`;
}

export interface Column {
  readonly title: string;
  readonly align?: "left" | "right";
  /** Columns that it takes at most. */
  readonly most?: number;
}

/** A table with aligned columns; cells are made safe. The last column is not padded. */
export function table(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const cells = rows.map((row) =>
    columns.map(({ most }, n) => {
      const text = visible(row[n] ?? "");
      return most === undefined ? text : fit(text, most);
    })
  );
  const lines = [columns.map(({ title }) => title), ...cells];
  const widths = columns.map((_, n) => Math.max(...lines.map((line) => stringWidth(line[n]!))));
  return lines.map((line) =>
    line.map((cell, n) => {
      const space = " ".repeat(widths[n]! - stringWidth(cell));
      if (columns[n]!.align === "right") return space + cell;
      return n === columns.length - 1 ? cell : cell + space;
    }).join("  ").trimEnd() + "\n"
  ).join("");
}

const UNITS = [["d", 86_400_000], ["h", 3_600_000], ["m", 60_000], ["s", 1_000]] as const;

/** A duration in its two largest units: "3d4h", "7m30s", "12s", "0.4s". */
export function duration(milliseconds: number): string {
  const ms = Math.max(0, milliseconds);
  if (ms < 1_000) return ms === 0 ? "0s" : `${(Math.ceil(ms / 100) / 10).toFixed(1)}s`;
  const first = UNITS.findIndex(([, size]) => ms >= size);
  const [unit, size] = UNITS[first]!;
  const next = UNITS[first + 1];
  const rest = next ? Math.floor((ms % size) / next[1]) : 0;
  return `${Math.floor(ms / size)}${unit}${rest > 0 ? `${rest}${next![0]}` : ""}`;
}

/** Octets with a binary prefix: "512B", "4.0KiB", "50MiB". */
export function octets(count: number): string {
  let value = count;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024 || unit === "GiB") {
      return `${unit === "B" || value >= 10 ? Math.round(value) : value.toFixed(1)}${unit}`;
    }
    value /= 1024;
  }
  return `${count}B`;
}

/** An address as SMTP writes it: the null reverse-path is <>. */
export const address = (mailbox: string): string => mailbox === "" ? "<>" : mailbox;

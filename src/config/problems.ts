/**
 * What is wrong with a config, in lines for people: where it is, what was found there, what to do.
 *
 * The value that a line shows is the text of the file: `${NAME}` stays as it was written, so that
 * nothing that comes from the environment is ever shown, and neither are secrets in the clear.
 */
import { distance } from "fastest-levenshtein";
import { z } from "zod";

/** The config is not usable; `lines` has a line for every problem. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  constructor(readonly lines: readonly string[]) {
    super(lines.join("\n"));
  }
}

export type Path = readonly PropertyKey[];

export interface Problem {
  readonly path: Path;
  /** Stands behind the path, or behind the value that was found there where `showValue`. */
  readonly message: string;
  readonly showValue?: boolean;
}

const SECRET_KEYS = /pass|secret|token|key$/i;
const SHOWN = 60;

/** `routes[2].transport`, `domains."example.com"`. */
export function formatPath(path: Path): string {
  let text = "";
  for (const step of path) {
    if (typeof step === "number") text += `[${step}]`;
    else {
      const key = String(step);
      text += (text === "" ? "" : ".") + (/^[A-Za-z0-9_-]{1,64}$/.test(key) ? key : quote(key));
    }
  }
  return text;
}

/** In quotes, cut where it is long, with controls and what turns text around made visible. */
function quote(text: string): string {
  const shown = text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
  return JSON.stringify(shown).replace(
    /[\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function showFound(value: unknown): string {
  if (typeof value === "string") return quote(value);
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : "a list";
  if (value instanceof Date) return "a date";
  if (typeof value === "object" && value !== null) return "a section";
  return String(value);
}

function valueAt(tree: unknown, path: Path): unknown {
  let value = tree;
  for (const step of path) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, step)) {
      return undefined;
    }
    value = (value as Record<PropertyKey, unknown>)[step];
  }
  return value;
}

/** The line for a problem; `source` is the file as it was parsed, before `${NAME}` was filled in. */
export function formatProblem({ path, message, showValue }: Problem, source: unknown): string {
  const where = formatPath(path);
  const value = showValue ? valueAt(source, path) : undefined;
  if (value === undefined) {
    return where === "" ? `config: ${message}` : `config: ${where}: ${message}`;
  }
  const secret = path.some((step) => typeof step === "string" && SECRET_KEYS.test(step));
  return `config: ${where}: ${secret ? "the value (not shown)" : showFound(value)} ${message}`;
}

/** ` (did you mean "x"?)`, or nothing when no candidate is close. */
export function didYouMean(found: string, candidates: Iterable<string>): string {
  if (found.length > SHOWN) return "";
  let best: { readonly candidate: string; readonly far: number } | undefined;
  for (const candidate of candidates) {
    const far = distance(found.toLowerCase(), candidate.toLowerCase());
    if (far < (best?.far ?? Infinity)) best = { candidate, far };
  }
  // Close in letters, and not merely because both are short.
  const near = best !== undefined &&
    best.far <= Math.max(2, Math.floor(best.candidate.length / 3)) &&
    best.far * 2 <= Math.max(found.length, best.candidate.length);
  return near ? ` (did you mean ${quote(best!.candidate)}?)` : "";
}

const KINDS: Readonly<Record<string, string>> = {
  string: "text in quotes",
  int: "a whole number",
  number: "a whole number",
  boolean: "true or false",
  array: "a list, in [ ]",
  object: "a section",
  record: "a section",
};

/** Words for a value that is none of the few that are known. */
export function notOneOf(found: unknown, known: readonly string[]): string {
  const choices = known.map((value) => JSON.stringify(value)).join(", ");
  return found === undefined
    ? `is missing; it takes one of ${choices}`
    : `is not one of ${choices}${didYouMean(String(found), known)}`;
}

/**
 * Words for the issues of zod that a schema gives no words for. For unknown keys, which zod lumps
 * together, the message has a line for each key: what it may have been meant to be.
 */
export const describeIssue: z.core.$ZodErrorMap = (issue) => {
  switch (issue.code) {
    case "unrecognized_keys": {
      const known = issue.inst instanceof z.ZodObject ? Object.keys(issue.inst.shape) : [];
      return issue.keys.map((key) => `is not a setting${didYouMean(key, known)}`).join("\n");
    }
    case "invalid_type":
      return issue.input === undefined
        ? `is missing; it takes ${KINDS[issue.expected] ?? issue.expected}`
        : `is not ${KINDS[issue.expected] ?? issue.expected}`;
    case "invalid_value":
      return notOneOf(issue.input, issue.values.map(String));
    case "too_small":
      return issue.origin === "string" || issue.origin === "array"
        ? "must not be empty"
        : `is too small; the least is ${issue.minimum}`;
    case "too_big":
      return issue.origin === "array"
        ? `has too many entries; the most is ${issue.maximum}`
        : `is too large; the most is ${issue.maximum}`;
    default:
      return undefined;
  }
};

/** The problems that a failed parse found. */
export function problemsOf(error: z.ZodError): Problem[] {
  return error.issues.flatMap((issue): Problem[] => {
    if (issue.code === "unrecognized_keys") {
      const messages = issue.message.split("\n");
      return issue.keys.map((key, n) => ({
        path: [...issue.path, key],
        message: messages[n] ?? "is not a setting",
      }));
    }
    return [{ path: issue.path, message: issue.message, showValue: true }];
  });
}

/** What the system says of a file, in words. */
export const reasonOf = (error: unknown): string =>
  error instanceof Deno.errors.NotFound
    ? "there is no such file"
    : error instanceof Deno.errors.PermissionDenied
    ? "permission denied"
    : error instanceof Error
    ? error.message
    : String(error);

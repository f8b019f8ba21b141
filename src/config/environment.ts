/**
 * `${NAME}` in the strings of a config: taken from the environment of the process, then from the
 * file `.env` beside the config. `$${` stands for `${` itself. What is filled in is not looked at
 * again, and is never shown.
 */
import type { Path, Problem } from "./problems.ts";

/** Where variables come from; `Deno.env` is one, a Map another. */
export interface Environment {
  get(name: string): string | undefined;
}

const REFERENCE = /\$(\$?)\{([^}]*)(\}?)/g;
const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** The tree with every reference filled in, and a problem for each that cannot be. */
export function fillIn(
  tree: unknown,
  environment: Environment,
): { readonly tree: unknown; readonly problems: readonly Problem[] } {
  const problems: Problem[] = [];

  const fillString = (text: string, path: Path): string =>
    text.replace(REFERENCE, (reference: string, escaped: string, name: string, end: string) => {
      if (escaped) return reference.slice(1);
      if (end === "" || !NAME.test(name)) {
        problems.push({
          path,
          message: "has a ${ that no name and } follow; write $${ for the characters themselves",
          showValue: true,
        });
        return reference;
      }
      const value = environment.get(name);
      if (value !== undefined) return value;
      problems.push({
        path,
        message: `\${${name}} is not set; set it in the environment or in .env beside the config`,
      });
      return reference;
    });

  const fill = (value: unknown, path: Path): unknown => {
    if (typeof value === "string") return fillString(value, path);
    if (Array.isArray(value)) return value.map((entry, n) => fill(entry, [...path, n]));
    if (typeof value !== "object" || value === null || value instanceof Date) return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, entry]) => [key, fill(entry, [...path, key])]),
    );
  };

  return { tree: fill(tree, []), problems };
}

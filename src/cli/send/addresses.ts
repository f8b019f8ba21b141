/**
 * Lists of addresses (RFC 5322, section 3.4) as people and programs write them, on a command line or
 * in a field: names without a domain are local ones, and get one.
 */

/** The text is not a list of addresses. */
export class BadList extends Error {
  override readonly name = "BadList";
}

/** An address in a list. */
export interface Listed {
  /** Without name, comments and blanks; perhaps without a domain. */
  readonly spec: string;
  /** Index in the list behind its last character. */
  readonly end: number;
}

/** Quoted strings, literals, the characters that divide a list, and runs of others. */
const TOKEN = /"(?:[^"\\]|\\.)*"|\[[^[\]\\]*\]|[<>:;,]|[^"()<>:;,[\]\s]+|\s+/gy;

/** @throws BadList */
export function addressesIn(list: string): Listed[] {
  const found: Listed[] = [];
  let words: string[] = [];
  let end = 0;
  let angle: Listed | undefined;
  let open = false;
  let group = false;
  const take = () => {
    const bare = words.join("");
    if (angle) { if (angle.spec !== "") found.push(angle); }
    else if (bare !== "") found.push({ spec: bare, end });
    words = [];
    angle = undefined;
  };
  for (let at = 0; at < list.length;) {
    if (list[at] === "(") {
      at = afterComment(list, at);
      continue;
    }
    TOKEN.lastIndex = at;
    const token = TOKEN.exec(list)?.[0];
    if (token === undefined) throw new BadList("a quote or bracket is not closed");
    at += token.length;
    if (/^\s/.test(token)) {
      // Words with blanks between them are a name, unless an address stands around a dot or an @.
      if (!open && words.length > 0) words.push(" ");
    } else if (token === ",") {
      if (open) throw new BadList("an angle bracket is not closed");
      trim(words);
      take();
    } else if (token === "<") {
      if (open || angle) throw new BadList("there is an angle bracket too many");
      open = true;
      words = [];
    } else if (token === ">") {
      if (!open) throw new BadList("there is an angle bracket too many");
      open = false;
      angle = { spec: words.join(""), end };
      words = [];
    } else if (token === ":" && !open) {
      if (group) throw new BadList("there is a colon too many");
      group = true;
      words = [];
    } else if (token === ";" && !open) {
      trim(words);
      take();
      group = false;
    } else {
      if (angle) throw new BadList("something follows an address");
      words.push(token);
      end = at;
    }
  }
  if (open) throw new BadList("an angle bracket is not closed");
  trim(words);
  take();
  return found;
}

function trim(words: string[]): void {
  while (words.at(-1) === " ") words.pop();
}

/** The list with `@domain` behind each name that has no domain. @throws BadList */
export function qualifyList(list: string, domain: string): string {
  let out = list;
  for (const { spec, end } of addressesIn(list).reverse()) {
    if (!needsDomain(spec)) continue;
    out = `${out.slice(0, end)}@${domain}${out.slice(end)}`;
  }
  return out;
}

/** The address, with a domain where it has none. */
export const qualify = (spec: string, domain: string): string =>
  needsDomain(spec) ? `${spec}@${domain}` : spec;

/** What has blanks is not a name that a domain would make an address of. */
const needsDomain = (spec: string): boolean =>
  /^"(?:[^"\\]|\\.)*"$/.test(spec) || /^[^@\s"]+$/.test(spec);

/** Comments nest (RFC 5322, section 3.2.2). */
function afterComment(text: string, start: number): number {
  let depth = 0;
  for (let at = start; at < text.length; at++) {
    if (text[at] === "\\") at++;
    else if (text[at] === "(") depth++;
    else if (text[at] === ")" && --depth === 0) return at + 1;
  }
  throw new BadList("a comment is not closed");
}

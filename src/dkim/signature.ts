/**
 * The DKIM-Signature field (RFC 6376, section 3.5): which fields of a message it covers, what is
 * signed, and how it is written down.
 *
 * A field that readers go by is oversigned (section 5.4.2): `h=` names it once more often than it
 * is there, so that nobody can add another without breaking the signature.
 */
import type { HeaderField } from "./canonical.ts";

/** Covered whether they are there or not; From comes first (section 5.4: it must be signed). */
const OVERSIGNED = [
  "From",
  "Reply-To",
  "Subject",
  "Date",
  "To",
  "Cc",
  "Message-ID",
  "In-Reply-To",
  "References",
  "MIME-Version",
  "Content-Type",
  "Content-Transfer-Encoding",
];

/** Covered where they are there: a mailing list may add its own. RFC 8058 wants the Unsubscribes. */
const COVERED = [
  "Sender",
  "Content-ID",
  "Content-Description",
  "Content-Disposition",
  "Auto-Submitted",
  "List-Id",
  "List-Help",
  "List-Unsubscribe",
  "List-Unsubscribe-Post",
  "List-Subscribe",
  "List-Post",
  "List-Owner",
  "List-Archive",
  "Feedback-ID",
];

/** No field of a sound message stands more often; `h=` does not grow with one that is not. */
const MOST = 8;

/** What a signature covers, in the order in which it is signed. */
export interface Coverage {
  /** The tag `h`. */
  readonly names: readonly string[];
  /** The fields: of each name the last one first (section 5.4.2). */
  readonly fields: readonly HeaderField[];
}

export function coverageOf(fields: readonly HeaderField[]): Coverage {
  const byName = new Map<string, HeaderField[]>();
  for (const field of fields) {
    const same = byName.get(field.name);
    if (same) same.unshift(field);
    else byName.set(field.name, [field]);
  }
  const names: string[] = [];
  const covered: HeaderField[] = [];
  const cover = (name: string, more: number) => {
    const found = (byName.get(name.toLowerCase()) ?? []).slice(0, MOST);
    covered.push(...found);
    for (let n = 0; n < found.length + more; n++) names.push(name);
  };
  for (const name of OVERSIGNED) cover(name, 1);
  for (const name of COVERED) cover(name, 0);
  return { names, fields: covered };
}

export interface SignatureTags {
  readonly algorithm: "rsa-sha256" | "ed25519-sha256";
  /** A-labels. */
  readonly domain: string;
  readonly selector: string;
  /** Seconds since the epoch. */
  readonly time: number;
  readonly names: readonly string[];
  readonly bodyHash: string;
}

/** Characters of a line (RFC 5322, section 2.1.1: should not be more than 78). */
const LINE = 76;

/** The field without its CRLF and with an empty `b=`, as it is signed. */
export function unsignedField(tags: SignatureTags): string {
  const { algorithm, domain, selector, time, names, bodyHash } = tags;
  const facts = [
    "DKIM-Signature: v=1;",
    `a=${algorithm};`,
    "c=relaxed/relaxed;",
    `d=${domain};`,
    `s=${selector};`,
    `t=${time};`,
    `bh=${bodyHash};`,
  ];
  const list = names.map((name, n) => `${n === 0 ? "h=" : ":"}${name}`);
  list[list.length - 1] += ";";
  return `${fold(facts, " ")}\r\n\t${fold(list, "")}\r\n\tb=`;
}

/** The whole field, CRLF included. */
export function signedField(unsigned: string, signature: string): string {
  return `${unsigned}${signature.match(/.{1,72}/g)!.join("\r\n\t")}\r\n`;
}

/** Joins the pieces, and begins a new line where one would get too long. */
function fold(pieces: readonly string[], between: string): string {
  let text = "";
  let length = 8; // what may stand before, a tab among it
  for (const [n, piece] of pieces.entries()) {
    if (n > 0 && length + between.length + piece.length > LINE) {
      text += `\r\n\t${piece}`;
      length = 8 + piece.length;
    } else {
      text += (n > 0 ? between : "") + piece;
      length += (n > 0 ? between.length : 0) + piece.length;
    }
  }
  return text;
}

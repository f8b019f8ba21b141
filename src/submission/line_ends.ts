/**
 * LineEnds: gives content from files the line ends of mail. Whether lines end with CRLF or with LF
 * alone is seen at the first end of a line; the other kind is then no end of a line, and passes as
 * it is, for the line check to refuse (lines.ts). So a message never gets lines that its author
 * did not see.
 */
const CR = 13;
const LF = 10;

export class LineEnds {
  #kind: "unknown" | "CRLF" | "LF" = "unknown";
  #last = 0;

  /** The octets with CRLF for each LF, where LF is what ends lines; else as they are. */
  convert(octets: Uint8Array): Uint8Array {
    if (this.#kind === "unknown") {
      const at = octets.indexOf(LF);
      const before = at > 0 ? octets[at - 1] : this.#last;
      if (at >= 0) this.#kind = before === CR ? "CRLF" : "LF";
    }
    this.#last = octets.at(-1) ?? this.#last;
    return this.#kind === "LF" ? withCrlf(octets) : octets;
  }
}

function withCrlf(octets: Uint8Array): Uint8Array {
  let ends = 0;
  for (const octet of octets) if (octet === LF) ends++;
  if (ends === 0) return octets;
  const out = new Uint8Array(octets.length + ends);
  let to = 0;
  for (const octet of octets) {
    if (octet === LF) out[to++] = CR;
    out[to++] = octet;
  }
  return out;
}

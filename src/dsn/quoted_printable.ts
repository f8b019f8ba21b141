/**
 * Quoted-printable (RFC 2045, section 6.7), so that text of any octets and line lengths passes
 * every server. CRLF stands for itself; CR and LF alone are encoded.
 */

const MAX_LINE = 76;
const CR = 0x0d;
const LF = 0x0a;

export function quotedPrintable(octets: Uint8Array): string {
  const lines: string[] = [];
  let line = "";
  for (let at = 0; at < octets.length; at++) {
    const octet = octets[at] ?? 0;
    const atEnd = at + 1 === octets.length || isBreak(octets, at + 1);
    if (isBreak(octets, at)) {
      lines.push(line);
      line = "";
      at++;
      continue;
    }
    const word = plain(octet, atEnd) ? String.fromCharCode(octet) : hex(octet);
    if (line.length + word.length > (atEnd ? MAX_LINE : MAX_LINE - 1)) {
      lines.push(`${line}=`);
      line = "";
    }
    line += word;
  }
  lines.push(line);
  return lines.join("\r\n");
}

const isBreak = (octets: Uint8Array, at: number): boolean =>
  octets[at] === CR && octets[at + 1] === LF;

/** White space at the end of a line would be lost on the way. */
function plain(octet: number, atEnd: boolean): boolean {
  if (octet === 0x20 || octet === 0x09) return !atEnd;
  return octet > 0x20 && octet < 0x7f && octet !== 0x3d;
}

const hex = (octet: number): string => `=${octet.toString(16).toUpperCase().padStart(2, "0")}`;

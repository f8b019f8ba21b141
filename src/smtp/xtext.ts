/**
 * xtext: how RFC 3461, section 4, carries text in ESMTP parameters. Printable ASCII stands for
 * itself except "+" and "="; any other octet is "+" and two upper-case hexadecimal digits.
 */

/** The text is not xtext, or what it stands for is not printable ASCII. */
export class BadXtext extends Error {
  override readonly name = "BadXtext";
}

/**
 * Decodes to printable ASCII, space included. Controls are refused though they can be written:
 * what they could do in a header or a report is nothing good (RFC 3461, section 4.4, asks that
 * ENVID be printable).
 * @throws BadXtext
 */
export function decodeXtext(text: string): string {
  if (!/^(?:[!-*,-<>-~]|\+[0-9A-F]{2})*$/.test(text)) {
    throw new BadXtext("it is not xtext (RFC 3461, section 4)");
  }
  const decoded = text.replace(
    /\+([0-9A-F]{2})/g,
    (_, hex) => String.fromCharCode(parseInt(hex, 16)),
  );
  if (!/^[ -~]*$/.test(decoded)) {
    throw new BadXtext("it stands for characters that are not printable");
  }
  return decoded;
}

/**
 * Encodes printable ASCII.
 * @throws BadXtext for any other text
 */
export function encodeXtext(text: string): string {
  if (!/^[ -~]*$/.test(text)) throw new BadXtext("only printable ASCII can be written as xtext");
  return text.replace(
    /[ +=]/g,
    (c) => `+${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`,
  );
}

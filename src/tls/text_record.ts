/** TXT records as text (RFC 1035, section 3.3.14; RFC 7208, section 3.3 for joining). */

/** The strings of a record, joined; undefined where that is not UTF-8. */
export function utf8(strings: readonly Uint8Array[]): string | undefined {
  try {
    const decoder = new TextDecoder("utf-8", { fatal: true });
    return strings.map((octets) => decoder.decode(octets, { stream: true })).join("") +
      decoder.decode();
  } catch {
    return undefined;
  }
}

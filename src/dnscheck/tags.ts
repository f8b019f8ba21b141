/**
 * Tag lists, `name=value; name=value`, as DKIM keys (RFC 6376, section 3.2), DMARC policies
 * (RFC 7489, section 6.3) and TLSRPT records (RFC 8460, section 3) have them.
 */
export interface Tag {
  readonly name: string;
  readonly value: string;
}

/** The tags in their order; a string says what is wrong. */
export function parseTags(text: string): readonly Tag[] | string {
  const parts = text.split(";").map((part) => part.trim());
  if (parts.at(-1) === "") parts.pop();
  const tags: Tag[] = [];
  for (const part of parts) {
    const [, name, value] = /^([A-Za-z][A-Za-z0-9_]*)\s*=\s*(.*)$/s.exec(part) ?? [];
    if (name === undefined || value === undefined) {
      return `"${part.slice(0, 40)}" is not name=value`;
    }
    if (tags.some((tag) => tag.name === name)) return `the tag ${name} is there twice`;
    tags.push({ name, value });
  }
  return tags;
}

export const tagOf = (tags: readonly Tag[], name: string): string | undefined =>
  tags.find((tag) => tag.name === name)?.value;

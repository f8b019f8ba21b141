/** What happened in a world, line by line: the last lines for people, a hash over all of them. */

const KEPT = 400;

export class Trace {
  readonly #kept: { readonly at: number; readonly incarnation: number; readonly text: string }[] =
    [];
  #next = 0;
  #a = 0x811c9dc5;
  #b = 0x9e3779b9;

  /** @param at monotonic milliseconds */
  add(at: number, incarnation: number, text: string): void {
    this.#kept[this.#next++ % KEPT] = { at, incarnation, text };
    this.#mix(Math.floor(at * 1_000));
    this.#mix(incarnation);
    for (let i = 0; i < text.length; i++) this.#mix(text.charCodeAt(i));
  }

  lines(): string[] {
    const from = Math.max(0, this.#next - KEPT);
    return Array.from({ length: this.#next - from }, (_, i) => {
      const { at, incarnation, text } = this.#kept[(from + i) % KEPT]!;
      return `${clock(at)} #${incarnation} ${text}`;
    });
  }

  /** Not cryptographic: tells two runs apart. */
  hash(): string {
    const hex = (n: number) => (n >>> 0).toString(16).padStart(8, "0");
    return hex(this.#a) + hex(this.#b);
  }

  #mix(value: number): void {
    this.#a = Math.imul(this.#a ^ value, 0x01000193);
    this.#b = Math.imul((this.#b << 5 | this.#b >>> 27) ^ value, 0x85ebca6b);
  }
}

/** `2d 03:04:05.678` */
function clock(ms: number): string {
  const two = (n: number) => String(Math.floor(n)).padStart(2, "0");
  const seconds = (ms / 1_000) % 60;
  return `${Math.floor(ms / 86_400_000)}d ${two(ms / 3_600_000 % 24)}:${two(ms / 60_000 % 60)}:` +
    `${two(seconds)}.${String(Math.floor(ms % 1_000)).padStart(3, "0")}`;
}

/**
 * A secret of the config: whoever prints, logs or serialises the config does not show it.
 */
export class Secret {
  readonly #value: string;
  constructor(value: string) {
    this.#value = value;
  }

  /** The secret itself, for the one place that needs it. */
  reveal(): string {
    return this.#value;
  }

  toJSON(): string {
    return "(not shown)";
  }

  toString(): string {
    return "(not shown)";
  }
}

/**
 * Reads message content off a connection into an intake: DATA (RFC 5321, section 4.1.1.4) and the
 * chunks of BDAT (RFC 3030). Content is always read to its end, also when the message is refused
 * already: what is left of it must never be taken for commands.
 */
import type { Clock } from "../../../actors/ports.ts";
import type { Intake } from "../../submission/intake.ts";
import type { Refusal } from "../../submission/refusal.ts";
import type { Awaited, Connection } from "./connection.ts";
import { DotDecoder } from "./dots.ts";
import type { SmtpLimits } from "./limits.ts";

/** Below this, content waits for more: a small message is one write. */
const WRITE_SIZE = 32 * 1024;

export class ContentReader {
  readonly #connection: Connection;
  readonly #clock: Clock;
  readonly #limits: SmtpLimits;
  readonly #refusalFor: (error: unknown) => Refusal;

  constructor(
    connection: Connection,
    clock: Clock,
    limits: SmtpLimits,
    refusalFor: (error: unknown) => Refusal,
  ) {
    this.#connection = connection;
    this.#clock = clock;
    this.#limits = limits;
    this.#refusalFor = refusalFor;
  }

  /** @returns "ready" when the end of the content was seen, or why it was not */
  async data(intake: Intake): Promise<Awaited> {
    const { input } = this.#connection;
    const decoder = new DotDecoder();
    const emit = (piece: Uint8Array) => intake.write(piece);
    const until = this.#clock.monotonic() + this.#limits.content;
    for (;;) {
      const chunk = input.take();
      if (!chunk) {
        const why = await this.#more(until);
        if (why !== "ready") return why;
        continue;
      }
      const end = decoder.decode(chunk, emit);
      if (end >= 0) {
        input.unread(chunk.subarray(end));
        return "ready";
      }
      await this.#pour(intake);
    }
  }

  /**
   * @param intake where the octets go; undefined: nowhere
   * @returns "ready" when all octets of the chunk were read, or why they were not
   */
  async chunk(octets: number, intake: Intake | undefined): Promise<Awaited> {
    const until = this.#clock.monotonic() + this.#limits.content;
    for (let left = octets; left > 0;) {
      const taken = this.#connection.input.take(left);
      if (!taken) {
        const why = await this.#more(until);
        if (why !== "ready") return why;
        continue;
      }
      left -= taken.length;
      if (!intake) continue;
      intake.write(taken);
      await this.#pour(intake);
    }
    return "ready";
  }

  #more(until: number): Promise<Awaited> {
    const left = Math.max(0, until - this.#clock.monotonic());
    return this.#connection.more(Math.min(left, this.#limits.idle));
  }

  /** The socket is not read while the body store writes: that is the back-pressure. */
  async #pour(intake: Intake): Promise<void> {
    if (intake.pending < WRITE_SIZE) return;
    try {
      await intake.flush();
    } catch (error) {
      intake.refuse(this.#refusalFor(error));
    }
  }
}

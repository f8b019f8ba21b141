/**
 * The content of a message as it is sent: its DKIM-Signature fields, which came to be when the
 * message was whole, and behind them the message as it is stored.
 */
import { Buffer } from "node:buffer";
import type { BodyReader, BodyStore } from "../../actors/ports.ts";
import type { EventData } from "../../events/catalogue.ts";

type Stored = Pick<EventData<"Enqueued">, "body" | "size" | "signatures">;

const fieldsOf = ({ signatures }: Stored): Buffer => Buffer.from((signatures ?? []).join(""));

/** Octets that are sent. */
export const contentSize = (message: Stored): number => message.size + fieldsOf(message).length;

/** @throws what opening the body throws */
export async function openContent(bodies: BodyStore, message: Stored): Promise<BodyReader> {
  const body = await bodies.open(message.body);
  const fields = fieldsOf(message);
  if (fields.length === 0) return body;
  return {
    size: fields.length + body.size,
    async *chunks() {
      yield fields;
      yield* body.chunks();
    },
  };
}

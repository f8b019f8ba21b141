/**
 * A report of ours that needs what a host does not offer goes to it as its twin in 7 bits (see
 * src/dsn/downgrade.ts): there is nobody to whom its failure could be told.
 */
import { Buffer } from "node:buffer";
import type { BodyReader, BodyStore } from "../../actors/ports.ts";
import type { EventData } from "../../events/catalogue.ts";
import { downgrade, isDowngradable } from "../dsn/downgrade.ts";
import type { Extensions } from "../smtp/envelope.ts";

type Enqueued = EventData<"Enqueued">;

export interface Twin {
  readonly message: Enqueued;
  readonly body: BodyReader;
}

/** Octets of a report that is read whole; those that compose.ts makes are smaller. */
const MAX_SIZE = 8 * 1024 * 1024;

/**
 * The twin where the host needs it, or undefined: the message goes as it is, or not at all.
 * @throws what opening the body throws
 */
export async function reportTwin(
  bodies: BodyStore,
  message: Enqueued,
  extensions: Extensions,
): Promise<Twin | undefined> {
  const { source, smtputf8, has8bit, rcptTo, size } = message;
  const lacks = smtputf8 && !extensions.has("SMTPUTF8") ||
    has8bit && !extensions.has("8BITMIME");
  if (source.kind !== "dsn" || !lacks || !isDowngradable(rcptTo) || size > MAX_SIZE) {
    return undefined;
  }
  const reader = await bodies.open(message.body);
  const chunks: Uint8Array[] = [];
  for await (const chunk of reader.chunks()) chunks.push(chunk.slice());
  const content = downgrade(Buffer.concat(chunks));
  // The signatures are over the content as it was; there are none for this one.
  const { signatures: _, ...rest } = message;
  return {
    message: { ...rest, size: content.length, has8bit: false, smtputf8: false },
    body: {
      size: content.length,
      async *chunks() {
        yield await Promise.resolve(content);
      },
    },
  };
}
